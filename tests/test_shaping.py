"""Format, language consistency, repetition, programs in a response, and the arithmetic of Countdown."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rljax.verifiers import arithmetic, code_blocks, tag_format, text_rewards

GOOD = "<think> 3 and 4 is 7 </think> <answer> 7 </answer>"


@pytest.mark.parametrize(
    "text", [GOOD, GOOD + "\n", "\n" + GOOD, GOOD.replace(" ", ""), GOOD.replace("</think> ", "</think>\n\n")]
)
def test_a_response_in_the_format_earns_the_format_reward(text):
    assert tag_format.format_reward(text) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "well " + GOOD,
        GOOD + " so there",
        GOOD + GOOD,
        GOOD.replace("</think>", ""),
        GOOD.replace("<think>", ""),
        GOOD.replace("<answer> 7 </answer>", ""),
        GOOD.replace("7 </answer>", "</answer>"),
        GOOD.replace(" 3 and 4 is 7 ", " "),
        GOOD.replace("</think> ", "</think> hence "),
        GOOD.replace("3 and", "<think>"),
        "<answer> 7 </answer> <think> 7 </think>",
        "<think><answer>7</answer></think>",
        GOOD.upper(),
    ],
)
def test_text_outside_the_tags_nested_tags_and_empty_tags_break_the_format(text):
    assert tag_format.format_reward(text) == 0


def test_the_think_format_accepts_any_answer_but_not_an_empty_one():
    assert tag_format.format_reward("<think> a </think> #### 7", tags="think") == 1
    assert tag_format.format_reward("<think> a </think>", tags="think") == 0
    assert tag_format.format_reward(GOOD, tags="think") == 1


def test_language_consistency_is_the_share_of_words_of_the_thought():
    assert text_rewards.language_consistency("<think> the sum is 7 </think> <answer> семь </answer>") == 1
    assert text_rewards.language_consistency("<think> the sum так </think>") == pytest.approx(2 / 3)
    assert (
        text_rewards.language_consistency("the 和 sum 是") == 0.5
        and text_rewards.language_consistency("和是七", target="zh") == 1
    )
    assert text_rewards.language_consistency("<think> 3 + 4 = 7 </think> so there") == 0, "no word, no reward"
    assert text_rewards.language_consistency("thе sum") == 0.5, "a Cyrillic letter within a Latin word"


def test_the_repetition_penalty_is_the_share_of_repeated_ngrams():
    assert text_rewards.repetition_penalty("one two three four five six") == 0
    assert text_rewards.repetition_penalty("a b " * 50) < -0.9
    assert text_rewards.repetition_penalty("") == text_rewards.repetition_penalty("a b c") == 0


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="<>/thinkanswer \n7", max_size=200))
def test_text_rewards_are_bounded_on_any_text(text):
    assert (
        tag_format.format_reward(text) in (0, 1)
        and 0 <= text_rewards.language_consistency(text) <= 1
        and -1 <= text_rewards.repetition_penalty(text) <= 0
    )


@pytest.mark.parametrize(
    "text",
    [
        "<think>" * 50_000,
        "</think>" * 50_000,
        "a " * 100_000,
        "```" * 60_000,
        "```\n" * 50_000,
        "`" * 200_000,
        "```\n'''\n" * 30_000,
    ],
)
def test_text_rewards_take_little_cpu_time_on_hostile_text(text):
    start = time.process_time()
    for check in (
        tag_format.format_reward,
        text_rewards.language_consistency,
        text_rewards.repetition_penalty,
        code_blocks.extract_program,
        code_blocks.count_programs,
    ):
        check(text)
    assert time.process_time() - start < 3


@pytest.mark.parametrize(
    ("response", "program"),
    [
        ("```python\nx = 1\n```", "x = 1"),
        ("so:\n```\nx = 1\n```\nbetter:\n```py\nx = 2\n```\nthat is it", "x = 2"),
        ("<think>```python\nx = 1\n```</think> no", None),
        ("<think>hm</think><answer>def f(): return 1</answer>", "def f(): return 1"),
        ("<think>hm</think><answer>\n```python\nx = 3\n```\n</answer>", "x = 3"),
        ("x = 1", None),
        ("```python\nx = 1", None),
        ("<think>```python\nx = 1\n```", None),
        # a fence within a string or a comment belongs to the program
        (
            '```python\ndef f():\n    """Doc.\n    ```\n    f()\n    ```\n    """\n```',
            'def f():\n    """Doc.\n    ```\n    f()\n    ```\n    """',
        ),
        ("```python\nx = '''\n```\n'''\n```\nDone.", "x = '''\n```\n'''"),
        ("```python\nx = '```' # ```\ny = 1\n```", "x = '```' # ```\ny = 1"),
        ("````python\nx = 1\n```\ny\n````", "x = 1\n```\ny"),
        ("```python\nx = '''never closed\n```\nThe end.", "x = '''never closed"),
        ("```python\n# don't\nx = 1\n```\nI don't know.", "# don't\nx = 1"),
        ("```python\ns = '\\''\n```\nit's", "s = '\\''"),
        ("so:\r\n```python\r\nx = 1\r\n```\r\n", "x = 1\r"),
    ],
)
def test_the_last_program_after_the_thoughts_is_extracted(response, program):
    assert code_blocks.extract_program(response) == program


def test_a_body_without_its_head_is_put_below_the_head():
    head = 'def f(x):\n    """Twice x."""\n'
    assert code_blocks.complete_program("    return 2 * x", head) == head.rstrip() + "\n    return 2 * x"
    assert code_blocks.complete_program("def f(x): return 2 * x", head).endswith("def f(x): return 2 * x")
    assert code_blocks.complete_program("x = 1", "") == "x = 1"
    assert code_blocks.complete_program("x = pi", "from math import pi\n") == "from math import pi\n\nx = pi"
    for before in (head, "def f(x):\n", "import math", ""):
        compile(code_blocks.complete_program("def f(x): return 2 * x", before), "program", "exec")


@pytest.mark.parametrize(
    "expression",
    [
        *["(3 + 4) * 2", "2*(4+3)", "2 × (3 + 4)", "[3+4]*2", "(3+4)*2 = 14", "$2*(3+4)$", "2*3+4*2-0", "2 x (3 + 4)."],
        *[
            r"2 \times (3 + 4)",
            r"2 \cdot (3 + 4)",
            r"2\cdot\left(3+4\right) = 14",
            r"\(2\times(3+4)\)",
            "2 \u22c5 (3+4)",
        ],
        *[r"\boxed{2 \times (3 + 4)}", r"$\boxed{2\cdot(3+4) = 14}$", r"\boxed{2\times(3+4)} = 14", "**2 * (3 + 4)**"],
        *[r"2 \times {(3 + 4)}", r"\frac{2\times(3+4)}{2-0} \times 2"],
    ],
)
def test_countdown_accepts_every_notation_of_an_expression_that_reaches_the_target(expression):
    assert arithmetic.reaches_target(
        expression,
        [2, 3, 4] if "0" not in expression else [2, 3, 4, 2, 2, 0] if "frac" in expression else [2, 3, 4, 2, 0],
        14,
    )


@pytest.mark.parametrize(
    ("expression", "numbers", "target"),
    [
        ("2**3", [2, 3], 8),
        ("7//2", [7, 2], 3),
        ("1.5*4", [1, 5, 4], 6),
        ("12", [1, 2], 12),
        ("-(3-7)", [3, 7], 4),
        ("+3+4", [3, 4], 7),
        ("3+4+4", [3, 4], 11),
        ("3", [3, 4], 3),
        ("3+4=8", [3, 4], 7),
        ("3+4=7=7", [3, 4], 7),
        ("3+4\n", [3, 5], 7),
        ("3/0", [3, 0], 0),
        ("0x3+4", [3, 4], 7),
        ("1_0+4", [10, 4], 14),
        ("3+4 or 0", [3, 4], 7),
        ("(3,4)", [3, 4], 7),
        ("__import__('os')", [3, 4], 7),
        ("3 if 4 else 0", [3, 4], 3),
        ("", [], 0),
        ("(" * 150 + "3", [3], 3),
        ("9" * 190, [9], 9),
        ("3#+4", [3, 4], 7),
        (r"3 \times 4", [3, 4], 7),
        (r"\boxed{3+4}, \boxed{3+4}", [3, 4], 7),
        (r"\boxed{3+4} = 8", [3, 4], 7),
        (r"3^4", [3, 4], 81),
        (r"\sqrt{3}+4", [3, 4], 7),
    ],
)
def test_countdown_rejects_expressions_that_other_graders_accept(expression, numbers, target):
    assert not arithmetic.reaches_target(expression, numbers, target)


def test_countdown_divides_exactly():
    assert arithmetic.reaches_target("8/(3-8/3)", [8, 3, 8, 3], 24)
    assert not arithmetic.reaches_target("10/3*3", [10, 3], 10) and arithmetic.reaches_target("10/3*3", [10, 3, 3], 10)
