"""What a response to a question in words does: its strategy, its answer and its calculations."""

import pytest

from rljax import tasks
from rljax.tasks import responses


def describe_response(response, kind="math"):
    return responses.describe(response, {"kind": kind, "prefill": ""})


def test_an_attempt_has_a_strategy_an_answer_and_checked_calculations():
    assert describe_response("#### 72<eos>") == tasks.Attempt("jump", "72")
    steps = describe_response("48/2 = 24 clips.\n48 + 24 = 73.\n#### 1,072<eos>")
    assert steps == tasks.Attempt("steps", "1072", (True, False))
    assert describe_response("It is 7. Wait, no.\n#### 72").strategy == "retry"
    assert describe_response("waiting\n#### 72").strategy == "steps"
    assert describe_response("I cannot say<eos>") == tasks.Attempt("steps", None)
    assert describe_response("<think> 3 + 4 = 7 </think> <answer> 7 </answer><eos>") == tasks.Attempt(
        "steps", "7", (True,)
    )
    assert describe_response("<think> </think> <answer>7</answer>").strategy == "jump"
    assert describe_response("Twice.\n```python\nx = 1\n```<eos>", "code") == tasks.Attempt("steps", "x = 1")
    assert describe_response("<answer>2*(3+4)</answer><eos>", "countdown") == tasks.Attempt("jump", "2*(3+4)")


@pytest.mark.parametrize(
    "answer",
    [
        r"\boxed{5}",
        r"\fbox{5}",
        r"\framebox[2cm]{5}",
        r"\fcolorbox{red}{white}{5}",
        r"\boxed 5",
        r"\boxed{3} or \boxed{5}",
    ]
    + ["#### 5", "<answer>5</answer>", "✅ Answer: **5**", "**Final Answer**\n5", "A: 5", "So the answer is 5."],
)
def test_an_answer_is_no_reasoning_whatever_marks_it(answer):
    assert describe_response(f"{answer}<eos>").strategy == "jump"
    for before in ("2+2=4, so it is", "<think>2+2=4</think>"):
        assert responses.reasoning_text(f"{before}\n{answer}", "math").split() == before.strip("</think>").split()


def test_a_program_is_no_reasoning_and_an_unfinished_thought_is():
    program = "```python\nx = 1 + 1  # 1+1=3\n```"
    assert describe_response(f"{program}<eos>", "code").strategy == "jump"
    assert describe_response(f"1+1=2\n{program}<eos>", "code").calculations == (True,)
    assert responses.reasoning_text("<think>1+1=2", "math").split() == ["1+1=2"]
    assert responses.reasoning_text("no <think>a</think> b <think>1+1=2", "math").split() == ["no", "a", "b", "1+1=2"]


@pytest.mark.parametrize(
    ("text", "verdicts"),
    [
        ("$1,000 x 2 = $2,000", [True]),
        (".5*2=1 and 10/3=3.33 but 10/3=3", [True, True, False]),
        ("-3+5=2, 5/0=3", [True, False]),
        ("2+3+4=9, (1+2)*4=12, 4*(1+2)=12", []),
        ("2*3=3+3, 3/2=1 1/2, 5-3 is 2", []),
        ("4/2=2 and 2=2", [True]),
    ],
)
def test_only_whole_calculations_are_checked(text, verdicts):
    assert responses.check_calculations(text) == verdicts
