"""Form, language, repetition, programs in a response, and Countdown's arithmetic: what is worth what."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rljax.verifiers import arithmetic, code_blocks, tag_format, text_rewards

GOOD = "<think> 3 and 4 is 7 </think> <answer> 7 </answer>"


@pytest.mark.parametrize(
    "text", [GOOD, GOOD + "\n", "\n" + GOOD, GOOD.replace(" ", ""), GOOD.replace("</think> ", "</think>\n\n")]
)
def test_pitfall_12_a_response_in_form_earns_its_form(text):
    assert tag_format.in_form(text) == 1


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
def test_pitfall_12_what_begins_before_ends_after_nests_or_says_nothing_is_not_in_form(text):
    assert tag_format.in_form(text) == 0


def test_pitfall_12_thinking_alone_leaves_the_answers_form_open_but_not_empty():
    assert tag_format.in_form("<think> a </think> #### 7", tags="think") == 1
    assert tag_format.in_form("<think> a </think>", tags="think") == 0
    assert tag_format.in_form(GOOD, tags="think") == 1


def test_language_is_the_share_of_words_of_the_thought():
    assert text_rewards.language("<think> the sum is 7 </think> <answer> семь </answer>") == 1
    assert text_rewards.language("<think> the sum так </think>") == pytest.approx(2 / 3)
    assert text_rewards.language("the 和 sum 是") == 0.5 and text_rewards.language("和是七", target="zh") == 1
    assert text_rewards.language("<think> 3 + 4 = 7 </think> so there") == 0, "no word, no reward"
    assert text_rewards.language("thе sum") == 0.5, "a Cyrillic letter within a Latin word"


def test_repetition_costs_what_is_said_again():
    assert text_rewards.repetition("one two three four five six") == 0
    assert text_rewards.repetition("a b " * 50) < -0.9
    assert text_rewards.repetition("") == text_rewards.repetition("a b c") == 0


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="<>/thinkanswer \n7", max_size=200))
def test_shaping_is_bounded_on_any_text(text):
    assert (
        tag_format.in_form(text) in (0, 1)
        and 0 <= text_rewards.language(text) <= 1
        and -1 <= text_rewards.repetition(text) <= 0
    )


@pytest.mark.parametrize(
    "text", ["<think>" * 50_000, "</think>" * 50_000, "a " * 100_000, "```" * 60_000, "```\n" * 50_000]
)
def test_shaping_takes_linear_time_on_hostile_text(text):
    start = time.perf_counter()
    for check in (
        tag_format.in_form,
        text_rewards.language,
        text_rewards.repetition,
        code_blocks.program,
        code_blocks.count,
    ):
        check(text)
    assert time.perf_counter() - start < 3


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
    ],
)
def test_a_program_is_the_last_one_after_the_thoughts(response, program):
    assert code_blocks.program(response) == program


def test_a_body_alone_is_put_below_its_head():
    head = 'def f(x):\n    """Twice x."""\n'
    assert code_blocks.complete("    return 2 * x", head) == head.rstrip() + "\n    return 2 * x"
    assert code_blocks.complete("def f(x): return 2 * x", head).endswith("def f(x): return 2 * x")
    assert code_blocks.complete("x = 1", "") == "x = 1"
    assert code_blocks.complete("x = pi", "from math import pi\n") == "from math import pi\n\nx = pi"
    for before in (head, "def f(x):\n", "import math", ""):
        compile(code_blocks.complete("def f(x): return 2 * x", before), "program", "exec")


@pytest.mark.parametrize(
    "expression", ["(3 + 4) * 2", "2*(4+3)", "2 × (3 + 4)", "[3+4]*2", "(3+4)*2 = 14", "$2*(3+4)$", "2*3+4*2-0"]
)
def test_countdown_accepts_exactly_what_reaches_the_target(expression):
    assert arithmetic.reaches(expression, [2, 3, 4] if "0" not in expression else [2, 3, 4, 2, 0], 14)


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
    ],
)
def test_pitfall_11_countdown_rejects_what_other_graders_let_through(expression, numbers, target):
    assert not arithmetic.reaches(expression, numbers, target)


def test_countdown_divides_exactly():
    assert arithmetic.reaches("8/(3-8/3)", [8, 3, 8, 3], 24)
    assert not arithmetic.reaches("10/3*3", [10, 3], 10) and arithmetic.reaches("10/3*3", [10, 3, 3], 10)
