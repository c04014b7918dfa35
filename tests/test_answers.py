"""The checker of mathematical answers: what is equal, what is no answer, and that nothing makes it slow or wrong."""

import multiprocessing
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rljax.errors import UserError
from rljax.verifiers import answers, expressions, number_forms, symbolic
from rljax.verifiers.answers import equivalent, extract_answer, judge_many, verify

# Where the answer stands

PLACES = [
    ("#### 72", "72"),
    ("so it is 72.\n#### 72.", "72"),
    ("#### 72<eos>", "72"),
    ("#### 72<|im_end|>", "72"),
    ("#### 72\n", "72"),
    ("####72", "72"),
    (r"\boxed{72}", "72"),
    (r"the answer is $\boxed{72}$.", "72"),
    (r"\boxed{1} no, \boxed{2}", "2"),
    (r"\boxed{\boxed{7}}", "7"),
    (r"\boxed{\{1,2\}}", r"\{1,2\}"),
    (r"\fbox{1} \boxed{2}", "2"),
    ("<answer>72</answer>", "72"),
    ("<answer> 72 </answer><eos>", "72"),
    (r"<answer>\boxed{72}</answer>", "72"),
    ("<answer>#### 72</answer>", "72"),
    (r"#### \boxed{72}", "72"),
    ("#### 1\nwait\n#### 2", "2"),
    ("<think>#### 1</think>#### 2", "2"),
    ("thought </think> <answer>2</answer>", "2"),
    ("He pays 70 + 2 = 72 dollars.\nA: 72", "72"),
    ("Answer: 72", "72"),
    ("**Final answer:** 72", "72"),
    ("Adding up.\n\n# Answer\n\n72", "72"),
    (r"so \boxed{72} ##### and a heading", "72"),
    # claims of a last line, where nothing is marked
    ("The answer is 72.", "72"),
    ("70 + 2 = 72.\nSo the answer is $72$.", "72"),
    ("Since 70+2=72, the answer is **72**.", "72"),
    ("Final Answer: The final answer is $72$. I hope it is correct.", "72"),
    ("Thus, the final answer is: 72 dollars", "72"),
    ("The answer is 71. The answer is 72.", "72"),
    ("### Answer: 72", "72"),
    ("**Final Answer: 72**", "72"),
    ("#### Step 1: add\n70+2\n#### Final Answer\n72", "72"),
    ("#### Step 1: add\nThe answer is 72 clips.", "72"),
    # in a marked region
    ("#### The answer is: 72", "72"),
    ("#### 70+2=72", "72"),
    ("#### 72 pieces of candy", "72"),
    ("#### $72 a day", "72"),
    ("#### 72 clips altogether in April and May", "72"),
]

# The same number, or thing, in another dress: (said, right answer)

EQUAL = [
    ("7.0", "7"),
    ("1,234", "1234"),
    ("1234", "1,234"),
    (r"1{,}234", "1234"),
    (r"10,\!000", "10000"),
    ("$1,234.50", "1234.5"),
    ("-3", "-3"),
    ("\u22123", "-3"),
    ("+3", "3"),
    ("-$3", "-3"),
    ("$-3", "-3"),
    (".5", "0.5"),
    ("1/2", "0.5"),
    ("2 / 4", "1/2"),
    ("007", "7"),
    ("1e3", "1000"),
    (r"1.5 \times 10^{3}", "1500"),
    (r"6.02\cdot 10^3", "6020"),
    (r"\frac{1}{2}", "0.5"),
    (r"\frac12", "0.5"),
    (r"-\dfrac{1}{2}", "-1/2"),
    (r"\frac{-1}{2}", "-1/2"),
    (r"\tfrac{3}{6}", "1/2"),
    (r"3\frac{1}{2}", "3.5"),
    (r"3 \frac12", "7/2"),
    ("3 1/2", "3.5"),
    (r"\$5", "5"),
    ("$5.00", "5"),
    (r"50\%", "50"),
    ("50%", "0.5"),
    ("50 percent", r"50\%"),
    ("0.5", r"50\%"),
    ("72 clips", "72"),
    ("72 dollars", "72"),
    (r"72\text{ cm}", "72"),
    (r"72 \text{ square inches}", "72"),
    (r"72\ \mathrm{cm}^2", "72"),
    ("72 cm^3", "72"),
    ("72km", "72"),
    (r"90^\circ", "90"),
    (r"90^{\circ}", "90"),
    ("60 miles per hour", "60"),
    ("x = 5", "5"),
    ("f(x) = 5", "5"),
    (r"$\frac{3}{4}$", "0.75"),
    (r"\(\frac{3}{4}\)", "3/4"),
    ("**72**", "72"),
    (r"\text{72}", "72"),
    # words
    ("East", "east"),
    (r"\text{east}", "east"),
    ("B", r"\text{(B)}"),
    ("(B)", "B"),
    (r"\textbf{(B)}", "B"),
    ("Evelyn.", r"\text{Evelyn}"),
    # formulas
    ("1 + x^2", "x^2+1"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"\frac{1}{\sqrt{3}}", r"\frac{\sqrt{3}}{3}"),
    (r"\dfrac{\sqrt 3}3", r"\frac{\sqrt{3}}{3}"),
    (r"7\pi", r"\pi \cdot 7"),
    (r"12\pi \text{ cm}^2", r"12\pi"),
    ("4i+3", "3+4i"),
    ("y = 2x+1", "y=1+2x"),
    ("2x+1", "y=2x+1"),
    (r"2^{-1}x", "x/2"),
    (r"\log_2 8 + x", "3+x"),
    (r"\sin^2 x + \cos^2 x + y", "1+y"),
    # several things
    ("( 1 , 2 )", "(1,2)"),
    (r"\left( 1, \frac24 \right)", "(1,0.5)"),
    ("2, 1", "1,2"),
    (r"\{2, 1\}", r"\{1,2\}"),
    ("1,2", r"\{1,2\}"),
    (r"(-\infty, 2]", r"(-\infty,2]"),
    (r"\pm 2", "2,-2"),
    (r"1 \text{ or } 2", "1, 2"),
    (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"[3,5) \cup (-\infty,2)", r"(-\infty,2)\cup[3,5)"),
    (r"(0, 36) \setminus \{9\}", r"(0,9) \cup (9,36)"),
    (r"\begin{bmatrix} 1 & \frac12 \\ 3 & 4 \end{bmatrix}", r"\begin{pmatrix} 1 & 1/2 \\ 3 & 4 \end{pmatrix}"),
    (r"(1, 2)", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"),
    (r"2+\sqrt3, 2-\sqrt3", r"2 \pm \sqrt{3}"),
    (r"\{-2, 1 \pm \sqrt 5\}", r"\{1\pm\sqrt{5},-2\}"),
    (r"1, 3, \text{ and } 5", "1,3,5"),
    # named, or not
    ("x=2 \\text{ or } x=-2", "-2, 2"),
    ("x = 3, y = 4", "(3,4)"),
    ("(x, y) = (3, 4)", "(3,4)"),
    (r"x = \pm 2", "2, -2"),
    ("y = 2x", "2x"),
    (r"f^{-1}(x) = \frac{x+2}{7}", r"\frac{x}{7}+\frac{2}{7}"),
    (r"\theta = \frac{\pi}{4}", r"\pi/4"),
    (r"m\angle A = 30^\circ", "30"),
    (r"\text{Area} = 12", "12"),
    ("a + b = 7", "7"),
    ("70 + 2 = 72", "72"),
    ("x = 70 + 2 = 72", "72"),
    (r"\frac{10}{5} = 2", "2"),
    ("2x - y + 3 = 0", "y = 2x+3"),
    ("2x - y = -3", "2x-y+3=0"),
    ("xy = 1", "y=1/x"),
    # inequalities are intervals
    (r"2 \le x \le 3", "[2,3]"),
    (r"x \in [2,3]", r"2 \leq x \leq 3"),
    (r"-1 \leq x < 4", "[-1,4)"),
    (r"x < -2 \text{ or } x > 3", r"(-\infty,-2)\cup(3,\infty)"),
    (r"(2, +\infty)", "x > 2"),
    (r"3 \ge x", r"x \le 3"),
    (r"\mathbb{R}", r"(-\infty,\infty)"),
    # the same again
    (r"\frac{9}{2} \text{ or } 4.5", "4.5"),
    (r"\frac{5}{9} \approx 0.556", r"\frac{5}{9}"),
    (r"\frac{5}{9} \approx 0.556", "0.556"),
    (r"2\sqrt{3} \approx 3.46", r"\sqrt{12}"),
    (r"\approx 8.24", "8.24"),
    (r"\text{The answer is } 7", "7"),
    (r"\textbf{(C)}\ 12", r"\text{(C)}"),
    ("(C) 12", "12"),
    # digits in another sense
    (r"1001_{2}", "1001_2"),
    (r"1001_{\text{two}}", "1001_2"),
    ("1001", "1001_2"),
    ("1001_2", "1001"),
    (r"3:45 \text{ PM}", r"3\!:\!45\text{ p.m.}"),
    ("3:45", r"3\!:\!45\text{ p.m.}"),
    (r"0.\overline{3}", "1/3"),
    (r"\frac{41}{333}", r"0.\overline{123}"),
    ("12^{th} grade", "12"),
    ("3rd", "3"),
    # as programs write
    ("3*sqrt(13)", r"3\sqrt{13}"),
    ("(3, pi/2)", r"\left( 3, \frac{\pi}{2} \right)"),
    ("288pi", r"288\pi"),
    ("5.4cents", r"5.4 \text{ cents}"),
    ("\u221a2\u00b7\u03c0", r"\pi\sqrt2"),
    (r"|5-x|+1", r"1+\left|x-5\right|"),
    ("ba", "ab"),
    ("a + b + c", "c+b+a"),
    (r"\frac \pi4 + 2", r"2 + \frac{\pi}{4}"),
    (r"\sin^2 t", r"(\sin t)^2"),
    (r"\sqrt{x^2}", "|x|"),
]

# Nothing of this is worth a reward: (response, right answer)

NO_REGION = [
    ("", "72"),
    ("72", "72"),
    ("I think 72, or was it 73?", "72"),
    ("# 72", "72"),
    ("##### 72", "72"),
    (r"\boxed{72", "72"),
    (r"\boxed 72", "72"),
    ("<answer>72", "72"),
    ("72</answer>", "72"),
    ("</answer>72<answer>", "72"),
    ("<think>#### 72", "72"),  # never stopped thinking
    ("<think>#### 72</think> I am not sure", "72"),
    ("Answer: 72\nand then he went home", "72"),
    ("#### \n72", "72"),
    ("#### 72\n#### ", "72"),
    (r"\boxed{72} \boxed{73}", "72"),
    (r"\boxed{72} \boxed{}", "72"),
    ("<answer>72</answer> #### 73", "72"),
    ("<answer>72</answer><answer>73</answer>", "72"),
    ("I doubt that the answer is 72.", "72"),
    ("Is the answer 72?", "72"),
    ("The answer is 72?", "72"),
    ("The answer is not 72.", "72"),
    ("The answer is about 72.", "72"),
    ("The answer is 72 or 73.", "72"),
    ("The answer is 72. But maybe 73.", "72"),
    ("The answer is 72. The answer is 73.", "72"),
    ("The answer is 72.\nThen he went home.", "72"),
    ("The answer could be 72.", "72"),
    (r"\boxed{73} So the answer is 72.", "72"),  # what is marked counts
    ("#### 73\nAnswer: 72", "72"),
    ("He has 72", "72"),
]
DIFFERENT = [  # (said, right answer)
    ("73", "72"),
    ("720", "72"),
    ("7.2", "72"),
    ("-72", "72"),
    ("72 or 73", "72"),
    ("72 73", "72"),
    ("72, 73", "72"),
    ("7$2", "72"),
    ("7,2", "72"),
    ("72,", "72"),
    ("1,23", "123"),
    ("72..", "72"),
    ("--72", "72"),
    ("7_2", "72"),
    ("\u0667\u0662", "72"),  # Arabic digits
    ("1/0", "0"),
    (".", "0"),
    ("$", "0"),
    ("nan", "0"),
    ("0.33333333", "1/3"),
    ("0.1000000001", "0.1"),
    ("70+2", "72"),
    ("36 * 2", "72"),
    ("2^{3}", "8"),
    (r"\sqrt{49}", "7"),
    (r"\frac{1}{0}", "0"),
    ("0" * 300 + "72", "72"),
    ("72 thousand", "72"),
    ("72 or more", "72"),
    ("72 minus 1", "72"),
    ("not 72", "72"),
    ("72 is wrong", "72"),
    ("72x", "72"),
    ("x = 72 = 73", "72"),
    ("72 = 73", "72"),
    (r"72 \neq 73", "72"),
    ("x > 72", "72"),
    (r"\{72, 73\}", "72"),
    ("(72)(73)", "72"),
    (r"72 \text{ or } 73", "72"),
    ("anything", "72"),
    ("72!", "72"),
    ("500%", "50"),
    ("0.05", r"50\%"),
    (r"3\frac{1}{2}", "1.5"),
    ("west", "east"),
    ("east or west", "east"),
    ("east, west", "east"),
    ("7", "east"),
    ("A", "B"),
    ("A or B", "B"),
    ("(A)(B)", "B"),
    ("ABCDE", "B"),
    ("x^2+2", "x^2+1"),
    ("x^2+1, x^2+2", "x^2+1"),
    (r"\sqrt2, \sqrt3", r"\sqrt{2}"),
    (r"1 = \sqrt2", r"\sqrt{2}"),
    ("1.41421356237309", r"\sqrt{2}"),
    ("2^{100}", "2^{100}-1"),
    ("(1,2]", "(1,2)"),
    ("[1,2]", "(1,2)"),
    ("(2,1)", "(1,2)"),
    ("(1,2,3)", "(1,2)"),
    ("1,2,3", "1,2"),
    ("1", "1,2"),
    ("1,1", "1,2"),
    ("x=2, y=1", "x=1, y=2"),
    ("2", r"\pm 2"),
    (r"\ln 2", r"\log 2"),
    (r"(-\infty, 3)", r"(-\infty, 2)"),
    (r"\begin{pmatrix} 2 \\ 1 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    (r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    (r"\begin{vmatrix} 1 & 2 \\ 3 & 4 \end{vmatrix}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    ("1,2,1", "1,2,2"),
    # chains, names, equations
    ("73 = 72", "72"),
    ("70 + 3 = 72", "72"),
    ("72 = x = 73", "73"),
    ("x = 3", "y = 3"),
    ("x==3", "y=2x+3"),
    ("x=3, y=4", "(4,3)"),
    ("x=1, x=2", "2"),
    ("x+y=7", "x-y=7"),
    ("0=0", "y=2x+3"),
    ("y=2x-3", "y=2x+3"),
    ("(y-2x-3)(y-x)=0", "y=2x+3"),
    # intervals and inequalities
    (r"2 < x \le 3", "[2,3]"),
    ("3 < x < 2", "(2,3)"),
    ("x < 2", r"(2,\infty)"),
    ("y > 2", "x > 2"),
    (r"x \neq 2", "2"),
    (r"\mathbb{Z}", r"\mathbb{R}"),
    (r"\emptyset", "0"),
    (r"\{0\}", r"\emptyset"),
    # hedges and asides
    (r"7 \text{ (not 8)}", "7"),
    (r"7 \text{ is too big}", "7"),
    (r"\text{at least } 7", "7"),
    ("7 at most", "7"),
    ("72 and a half", "72"),
    ("72 and seventy three", "72"),
    ("5 or 9/2", "9/2"),
    (r"71 \approx 72", "72"),
    (r"72 \approx 72.3", "72.3"),
    (r"x \approx 72", "72"),
    ("(A) 12 (B) 13", "A"),
    (r"\text{not even}", r"\text{even}"),
    (r"\text{4even}", r"\text{even}"),
    (r"\text{neither even nor odd}", r"\text{even}"),
    # bases, times, digits apart
    ("1001_3", "1001_2"),
    ("9", "1001_2"),
    ("101_2", "5"),
    ("3:45 a.m.", r"3\!:\!45\text{ p.m.}"),
    ("9 a.m.", "9 p.m."),
    ("3:46", r"3\!:\!45\text{ p.m.}"),
    ("1 0", "10"),
    (r"1\ 0", "10"),
    (r"7\text{ }2", "72"),
    # nearly
    ("0.3333", r"0.\overline{3}"),
    ("3.14", r"\pi"),
    ("3.14159265358979", r"\pi"),
    (r"\frac{22}{7}", r"\pi"),
    (r"\frac{312689}{99532}", r"\pi"),
    (r"\frac{314159265358979}{100000000000000}", r"\pi"),
    ("(3.14159265358979323846, 1)", r"(\pi, 1)"),
    (r"[0,3.14159265358979323846)\cup(5,6)", r"[0,\pi)\cup(5,6)"),
    ("x + 10^{-11}", "x"),
    (r"\cos(10^{-6}) x", "x"),
    ("x(1-10^{-20})", "x"),
    (r"\tanh(50)\pi", r"\pi"),
    (r"\sqrt{2} + e^{-40}", r"\sqrt{2}"),
    (r"\sqrt{10^{20}+1}", "10^{10}"),
    (r"\frac{1}{204!}", r"\frac{1}{2004!}"),
    ("10^{-60}", "10^{-50}"),
    # branches and the undefined
    (r"\sqrt{x^2}", "x"),
    ("(x^2)^{1/2}", "x"),
    (r"\log(x^2)", r"2\log x"),
    ("|x-1|", "x-1"),
    (r"\frac{0}{0}", "x"),
    (r"\infty - \infty", "x"),
    (r"-\infty", r"\infty"),
    (r"\sqrt[3]{-8}", "2x"),
]


@pytest.mark.parametrize(("response", "answer"), PLACES)
def test_an_answer_is_found_in_its_place(response, answer):
    assert verify(response, answer)
    assert extract_answer(response) is not None


@pytest.mark.parametrize(("said", "answer"), EQUAL)
def test_an_equal_answer_is_right_in_every_place(said, answer):
    for response in (f"#### {said}", f"thus $\\boxed{{{said}}}$.", f"<answer>{said}</answer>"):
        assert verify(response, answer), response


@pytest.mark.parametrize(("response", "answer"), NO_REGION)
def test_pitfall_11_a_number_in_passing_is_no_answer(response, answer):
    assert not verify(response, answer)


@pytest.mark.parametrize(("said", "answer"), DIFFERENT)
def test_pitfall_11_a_near_miss_is_wrong_in_every_place(said, answer):
    for response in (f"#### {said}", f"\\boxed{{{said}}}", f"<answer>{said}</answer>"):
        assert not verify(response, answer), response


def test_the_lists_are_as_long_as_promised():
    assert len(set(EQUAL)) >= 60 and len(set(DIFFERENT)) + len(set(NO_REGION)) >= 60


@pytest.mark.parametrize(
    ("response", "canonical"),
    [
        ("#### 1,080", "1080"),
        ("#### 7.0", "7"),
        (r"\boxed{0.5}", "1/2"),
        (r"\boxed{\frac12}", "1/2"),
        ("#### -0", "0"),
        (r"\boxed{x^2 + 1}", "x^2+1"),
        (r"\boxed{\text{(B)}}", "B"),
        ("<answer>East </answer>", "east"),
        ("12", None),
        ("#### ", None),
    ],
)
def test_equal_answers_have_one_canonical_form(response, canonical):
    assert extract_answer(response) == canonical


def test_votes_are_merged_by_algebra_where_writing_differs():
    assert equivalent("x^2+1", "1+x^2") and equivalent("72", "72") and not equivalent("72", "73")
    assert not equivalent("east", "x^2+1") and not equivalent("nan", "72") and not equivalent("72", "nan")


@pytest.mark.parametrize("answer", ["", " ", "nan", "None", "N/A", "?", "#### 72", r"\boxed{7}", "1" * 400])
def test_pitfall_11_a_right_answer_that_cannot_be_read_is_an_error_and_never_a_reward(answer):
    assert not answers.readable(answer)
    with pytest.raises(UserError, match="cannot be read.*drop"):
        verify(f"#### {answer}", answer)


@pytest.mark.parametrize("answer", [r"\frac{a}", r"\sqrt{", "1/0", "((", r"\foo{3}{"])
def test_a_right_answer_that_is_broken_mathematics_is_recognised(answer):
    assert not answers.readable(answer)


@pytest.mark.parametrize("answer", [said for _, said in EQUAL])
def test_the_right_answers_of_the_lists_can_be_read(answer):
    assert answers.readable(answer)


def test_what_became_of_a_response_is_told():
    one, two = judge_many([(r"\boxed{3} no \boxed{7}", "7"), ("<think>\\boxed{1}</think>7", "7")])
    assert one == (True, "7", 2) and two == (False, None, 0)


# Time

HOSTILE = [
    "#### 1e999999999",
    "#### 9" + "9" * 200_000,
    "#### 1/" + "9" * 200_000,
    "#### " + "1,111" * 30_000,
    "#### " * 30_000,
    "#" * 200_000,
    "#### 72 " + "a" * 280,
    "#### 72" + " ab" * 90,
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
    "A:" * 100_000,
    "\n" * 100_000 + "Answer:",
    "# Answer\n" * 20_000,
]
MONSTERS = [
    r"9^{9^{9^9}}",
    "10000000!",
    r"\sum_{i=1}^{1000000000} i^i",
    "(" * 140 + "x" + ")" * 140,
    r"\sqrt{" * 40 + "2" + "}" * 40,
    r"(x+y+z)^{99}",
    r"\log(\log(\log(9999999^{99999})))",
    r"\sin(\cos(\tan(\sin(\cos(\tan(10^{50}))))))",
    r"99999^{99999}",
    r"\binom{99999}{49999}",
    "x!!!!!",
    r"\begin{pmatrix}" + r"1 & x^{99} \\" * 20 + r"\end{pmatrix}",
    r"\int_0^{\infty} e^{-x^x} dx",
    r"(x+1)^{(x+1)^{(x+1)}} \cup (1,2)",
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
@pytest.mark.parametrize("answer", ["7", "x^2+1"])
def test_pitfall_11_a_hostile_response_costs_little_time(number, answer):
    start = time.perf_counter()
    assert not verify(HOSTILE[number], answer)
    extract_answer(HOSTILE[number])
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("answer", ["7", "x^2+1", r"(-\infty,2)\cup[3,5)"])
def test_monstrous_mathematics_is_wrong_and_the_servers_stay_well(answer):
    assert not any(j.right for j in judge_many([(f"\\boxed{{{m}}}", answer) for m in MONSTERS]))
    assert symbolic.equal(r"(-\infty,2)\cup[3,5)", r"[3,5) \cup (-\infty,2)")


def test_a_check_that_takes_too_long_is_ended_by_the_kernel_and_the_next_goes_on():
    slow = r"x^{98}+y^{97}+x^{96}z^{95}+1 = 0"
    symbolic.CACHE.clear()
    start = time.perf_counter()
    verdicts = symbolic.check_many([("y=2x+3", slow), ("x+1", "1+x"), ("x+1", "x+2")])
    assert symbolic.tame(slow) and verdicts == [False, True, False] and time.perf_counter() - start < 30


CALLER = """
import os, sys, time
from rljax.verifiers import symbolic
assert symbolic.equal("x+1", "1+x")
if os.fork() == 0:  # a copy that keeps the pipes open, as a data loader might
    time.sleep(20)
    os._exit(0)
print(*[s.process.pid for s in symbolic.servers(os.getpid()) if s.process], file=sys.stderr, flush=True)
time.sleep(60)
"""


def test_servers_end_when_their_caller_is_killed_and_print_nothing_to_its_stdout(tmp_path):
    with (tmp_path / "stdout").open("w") as stdout:
        caller = subprocess.Popen([sys.executable, "-c", CALLER], stdout=stdout, stderr=subprocess.PIPE)
    assert caller.stderr
    pids = [int(pid) for pid in caller.stderr.readline().split()]
    caller.kill()
    caller.wait()
    caller.stderr.close()
    until = time.perf_counter() + 15
    while any(running(pid) for pid in pids) and time.perf_counter() < until:
        time.sleep(0.1)
    assert pids and not any(running(pid) for pid in pids)
    assert not (tmp_path / "stdout").read_text()


def running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and ") Z " not in stat.read_text()


def test_a_worker_of_multiprocessing_has_its_own_servers():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(symbolic.equal, ("x+1", "1+x"))


def test_a_server_that_was_killed_is_replaced():
    assert symbolic.equal("x+1", "1+x")
    symbolic.CACHE.clear()
    for server in symbolic.servers(symbolic.os.getpid()):
        if server.process:
            server.process.kill()
            server.process.wait()
    assert symbolic.equal("x+1", "1+x")


def test_answers_can_be_checked_from_many_threads_at_once():
    symbolic.CACHE.clear()
    pairs = [
        (rf"(-\infty,{n})\cup[{n + 1},{n + 3})", rf"[{n + 1},{n + 3}) \cup (-\infty,{n + n % 2})") for n in range(24)
    ]
    found: dict[int, bool] = {}
    check = lambda n: found.update({n: verify(f"\\boxed{{{pairs[n][1]}}}", pairs[n][0])})
    threads = [threading.Thread(target=check, args=(n,)) for n in range(24)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == {n: n % 2 == 0 for n in range(24)}


# Fuzz: no exception, and no reward without the answer


WORLD = ["72", "-3", "1/2", r"\frac{1}{2}", "x^2+1", r"\sqrt{2}", "(1,2)", "east", "B", r"50\%", "3,250", "7\\pi"]
PIECES = [
    *"0123456789+-*/^(){}[],.$%=<>|!_ \n",
    "####",
    "\\boxed{",
    "}",
    "<answer>",
    "</answer>",
    "<think>",
    "</think>",
]
PIECES += [
    "\\frac{",
    "\\sqrt{",
    "\\pi",
    "\\text{",
    "\\left(",
    "\\right)",
    "\\pm",
    "\\infty",
    "or",
    "and",
    "x",
    "Answer:",
    "e9",
]
PIECES += ["\u0667", "\u00bd", "\u00b2", "\x00", "\ud7ff", "\U0001f600", "\u2212", "nan", "inf", "True", "None"]


def test_random_responses_raise_nothing_and_earn_nothing():
    """A hundred thousand strings from pieces of answers, against right answers that do not occur in them."""
    rng = random.Random(0)
    pairs = []
    for _ in range(100_000):
        text = "".join(rng.choices(PIECES, k=rng.randint(0, 12)))
        wrap = rng.choice(["%s", "#### %s", "\\boxed{%s}", "<answer>%s</answer>"])
        pairs.append((wrap % text, rng.choice(["918273645", "-91827/7", "zebra", r"918273645\pi"])))
    assert not any(j.right for j in judge_many(pairs))


def test_a_right_response_that_is_mutated_earns_only_what_still_says_the_answer():
    rng = random.Random(1)
    pairs = []
    for _ in range(5_000):
        gold = rng.choice(["9182736", "x^2+9182736", "(1,9182736)"])
        text = list(f"so it is\n#### {gold}")
        for _ in range(rng.randint(1, 4)):
            text[rng.randrange(len(text))] = rng.choice(["", *PIECES])
        pairs.append(("".join(text), gold))
    for (response, gold), judged in zip(pairs, judge_many(pairs), strict=True):
        digits = lambda s: "".join(c for c in s if c.isdigit())
        assert not judged.right or "9182736" in digits(response), (response, gold)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200), st.sampled_from(WORLD))
def test_any_text_can_be_judged(text, gold):
    judge_many([(text, gold), (f"#### {text}", gold), (f"\\boxed{{{text}}}", gold)])
    extract_answer(text)


@settings(max_examples=200, deadline=None)
@given(st.integers(-(10**12), 10**12), st.integers(1, 10**6))
def test_every_fraction_is_itself_and_not_its_neighbour(a, b):
    assert verify(rf"\boxed{{\frac{{{a}}}{{{b}}}}}", f"{a}/{b}")
    assert not verify(rf"\boxed{{\frac{{{a + 1}}}{{{b}}}}}", f"{a}/{b}")


# The floors below


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        ("x^2+1", "1+x^2", True),
        ("x^2+1", "1+x", False),
        (r"2\sin x\cos x", r"\sin 2x", True),
        (r"e^{i\pi}", "-1", True),
        ("5!", "120", True),
        (r"\sqrt[3]{27}", "3", True),
        ("-x^2", "-(x^2)", True),
        (r"\sqrt{x^2}", "x", False),
        ("|x-1|+|y|", "|y|+|1-x|", True),
        (r"\frac{\sqrt{3}}2", r"\frac{\sqrt 3}{2}", True),
        ("x + 10^{-11}", "x", None),  # floats could not tell
        (r"\frac{312689}{99532}", r"\pi", None),  # eleven digits are the same
        (r"\sqrt 23", r"\sqrt{23}", None),  # or three times the root of two?
        (r"9^{9999999}", "x", False),
        (r"3\frac{1}{2}", "3.5", None),  # three and a half, or three halves?
        ("10^{20}+1", "10^{20}", None),  # floats cannot tell
        ("x_1", "x", None),
        ("x<2", "x", None),
    ],
)
def test_formulas_are_compared_at_random_points_or_left_to_algebra(one, other, verdict):
    assert expressions.equal(one, other) is verdict


def test_a_literal_is_exact():
    assert number_forms.parse("0.1") == (number_forms.Fraction(1, 10), False)
    assert number_forms.parse("12.5%") == (number_forms.Fraction(25, 2), True)
    assert number_forms.parse("4t") is None and number_forms.parse("4 t") is None and number_forms.parse("2ab") is None


def test_checking_numbers_loads_neither_jax_nor_sympy():
    code = (
        "import sys; from rljax.verifiers import answers; assert answers.verify('#### 1/2', '0.5');"
        "sys.exit(any(m in sys.modules for m in ('jax', 'numpy', 'sympy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
