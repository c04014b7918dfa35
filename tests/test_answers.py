"""The checker of final numbers: what is equal, what is no answer, and that nothing makes it slow."""

import subprocess
import sys
import time

import pytest

from rljax.errors import UserError
from rljax.verifiers.answers import extract_answer, verify

EQUAL = [
    ("#### 72", "72"),
    ("so it is 72.\n#### 72.", "72"),
    ("#### 72<eos>", "72"),
    ("#### 72\n", "72"),
    ("####72", "72"),
    ("#### 7.0", "7"),
    ("#### 1,234", "1234"),
    ("#### 1234", "1,234"),
    ("#### $1,234.50", "1234.5"),
    ("#### -3", "-3"),
    ("#### \u22123", "-3"),
    ("#### +3", "3"),
    ("#### -$3", "-3"),
    ("#### $-3", "-3"),
    ("#### .5", "0.5"),
    ("#### 1/2", "0.5"),
    ("#### 2 / 4", "1/2"),
    ("#### 007", "7"),
    (r"\boxed{72}", "72"),
    (r"the answer is $\boxed{72}$.", "72"),
    (r"$$\boxed{\frac{1}{2}}$$", "0.5"),
    (r"\boxed{-\dfrac{1}{2}}", "-1/2"),
    (r"\boxed{\$5}", "5"),
    (r"\boxed{1} no, \boxed{2}", "2"),
    (r"\boxed{\boxed{7}}", "7"),
    ("<answer>72</answer>", "72"),
    ("<answer> 72 </answer><eos>", "72"),
    (r"<answer>\boxed{72}</answer>", "72"),
    ("<answer>#### 72</answer>", "72"),
    (r"#### \boxed{72}", "72"),
    ("#### 1\nwait\n#### 2", "2"),
    ("<think>#### 1</think>#### 2", "2"),
    ("thought </think> <answer>2</answer>", "2"),
]


@pytest.mark.parametrize(("response", "answer"), EQUAL)
def test_an_equal_answer_is_right(response, answer):
    assert verify(response, answer)
    assert extract_answer(response) is not None


DIFFERENT = [
    ("", "72"),
    ("72", "72"),
    ("The answer is 72.", "72"),
    ("#### 73", "72"),
    ("#### 720", "72"),
    ("#### 7.2", "72"),
    ("#### -72", "72"),
    ("#### 72 or 73", "72"),
    ("#### 72 73", "72"),
    ("#### 7$2", "72"),
    ("#### 7,2", "72"),
    ("#### 72,", "72"),
    ("#### 1,23", "123"),
    ("#### 72..", "72"),
    ("#### --72", "72"),
    ("#### \n72", "72"),
    ("#### 72\n#### ", "72"),
    ("#### 72e0", "72"),
    ("#### 7_2", "72"),
    ("#### \u0667\u0662", "72"),  # Arabic digits
    ("#### 72%", "72"),
    ("#### 1/0", "0"),
    ("#### .", "0"),
    ("#### $", "0"),
    ("#### nan", "0"),
    ("#### 0.33333333", "1/3"),
    ("# 72", "72"),
    (r"\boxed{72", "72"),
    (r"\boxed 72", "72"),
    (r"\boxed{72} \boxed{73}", "72"),
    (r"\boxed{70+2}", "72"),
    (r"\boxed{\frac{1}{0}}", "0"),
    ("<answer>72", "72"),
    ("72</answer>", "72"),
    ("</answer>72<answer>", "72"),
    ("<answer>72</answer> #### 73", "72"),
    ("<think>#### 72", "72"),  # never stopped thinking
    ("<think>#### 72</think> I am not sure", "72"),
    ("#### " + "0" * 300 + "72", "72"),
]


@pytest.mark.parametrize(("response", "answer"), DIFFERENT)
def test_pitfall_11_a_near_miss_is_wrong(response, answer):
    assert not verify(response, answer)


@pytest.mark.parametrize(
    ("response", "canonical"),
    [("#### 1,080", "1080"), ("#### 7.0", "7"), (r"\boxed{0.5}", "1/2"), ("#### -0", "0"), ("12", None)],
)
def test_equal_answers_have_one_canonical_form(response, canonical):
    assert extract_answer(response) == canonical


@pytest.mark.parametrize("answer", ["", "seven", "1/0", "#### 72", "nan", "1e5"])
def test_pitfall_11_a_right_answer_that_is_no_number_is_an_error_and_never_a_reward(answer):
    with pytest.raises(UserError, match="not a number"):
        verify(f"#### {answer}", answer)


HOSTILE = [
    "#### 1e999999999",
    "#### 9" + "9" * 200_000,
    "#### 1/" + "9" * 200_000,
    "#### " + "1,111" * 30_000,
    "#### " * 30_000,
    "#" * 200_000,
    "\\boxed{" * 30_000,
    "\\boxed{" * 30_000 + "}" * 30_000,
    "{" * 200_000,
    "\\boxed{" + "{" * 200_000,
    "\\boxed{" + "}{" * 30_000,
    "<answer>" * 30_000 + "</answer>",
    "</answer>" * 30_000,
    "<think>" * 30_000 + "</think>",
    "\\boxed{" + "\\frac{" * 30_000 + "}" * 30_000 + "}",
    "#### " + " " * 200_000 + "1",
    "#### -$" + "$" * 200_000,
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_pitfall_11_a_hostile_response_costs_little_time(number):
    start = time.perf_counter()
    verify(HOSTILE[number], "7")
    extract_answer(HOSTILE[number])
    assert time.perf_counter() - start < 2


def test_checking_answers_never_loads_jax():
    code = "import sys, rljax.verifiers.answers; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
