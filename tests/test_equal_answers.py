"""The verifier of mathematical answers: which are equal in another notation, which are not, and which cannot be read."""

import pytest

from rljax.errors import UserError
from rljax.verifiers import answers
from rljax.verifiers.answers import equivalent, extract_answer, verify

# Equal answers in another notation: (said, right answer)

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
    # powers of ten, Unicode, programs
    ("10^6", "1000000"),
    ("1000000", "10^6"),
    ("10^{6}", "1,000,000"),
    ("-10^6", "-1000000"),
    ("10^{-3}", "0.001"),
    ("10\u2076", "1000000"),
    ("10\u2076", "10^6"),
    ("10\u207b\u00b3", "0.001"),
    ("2\u207b\u00b3", "2^{-3}"),
    ("x\u2074", "x^4"),
    ("x\u00b9\u2070", "x^{10}"),
    ("\u00bd", "1/2"),
    ("-\u00bd", "-0.5"),
    ("3\u00bd", "3.5"),
    ("3 \u00bd", "7/2"),
    ("\u2154", r"\frac{2}{3}"),
    ("\u00b9\u2044\u2082", "0.5"),
    ("\u00b3/\u2084", "0.75"),
    ("1\u20442", "0.5"),
    ("3.2 x 10^5", "320000"),
    ("3.2 X 10^{5}", "320000"),
    ("3.2 \u00d7 10\u2075", "320000"),
    ("3.2x10^5", "3.2e5"),
    ("320000", r"3.2 \times 10^5"),
    ("10**6", "1000000"),
    ("x**2 + 1", "x^2+1"),
    ("1000^2", "10^6"),
    ("1001\u2082", "1001_2"),
    ("2\u03b8", r"2\theta"),
    ("5 cm\u00b2", "5"),
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
    # with and without names
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
    # inequalities and intervals
    (r"2 \le x \le 3", "[2,3]"),
    (r"x \in [2,3]", r"2 \leq x \leq 3"),
    (r"-1 \leq x < 4", "[-1,4)"),
    (r"x < -2 \text{ or } x > 3", r"(-\infty,-2)\cup(3,\infty)"),
    (r"(2, +\infty)", "x > 2"),
    (r"3 \ge x", r"x \le 3"),
    (r"\mathbb{R}", r"(-\infty,\infty)"),
    # the same value twice
    (r"\frac{9}{2} \text{ or } 4.5", "4.5"),
    (r"\frac{5}{9} \approx 0.556", r"\frac{5}{9}"),
    (r"\frac{5}{9} \approx 0.556", "0.556"),
    (r"2\sqrt{3} \approx 3.46", r"\sqrt{12}"),
    (r"\approx 8.24", "8.24"),
    (r"\text{The answer is } 7", "7"),
    (r"\textbf{(C)}\ 12", r"\text{(C)}"),
    ("(C) 12", "12"),
    # bases, times, periods, ordinals
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
    # the notation of programs
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
    ("10**6", "106"),
    ("10^6", "1000001"),
    ("10^6", "106"),
    ("10^7", "10^6"),
    ("1000001", "10^6"),
    ("10^6.5", "1000000"),
    ("10^{6", "1000000"),
    ("10^6x", "1000000"),
    ("3\u00bd", "1.5"),
    ("2\u2074", "24"),
    ("2\u2074", "16"),  # as 2^4: not a number, but a formula
    ("3 x 10", "30"),
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
    # hedges and remarks
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
    # bases, times, separated digits
    ("1001_3", "1001_2"),
    ("9", "1001_2"),
    ("101_2", "5"),
    ("3:45 a.m.", r"3\!:\!45\text{ p.m.}"),
    ("9 a.m.", "9 p.m."),
    ("3:46", r"3\!:\!45\text{ p.m.}"),
    ("1 0", "10"),
    (r"1\ 0", "10"),
    (r"7\text{ }2", "72"),
    # approximations
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
    # branches, and undefined values
    (r"\sqrt{x^2}", "x"),
    ("(x^2)^{1/2}", "x"),
    (r"\log(x^2)", r"2\log x"),
    ("|x-1|", "x-1"),
    (r"\frac{0}{0}", "x"),
    (r"\infty - \infty", "x"),
    (r"-\infty", r"\infty"),
    (r"\sqrt[3]{-8}", "2x"),
]


@pytest.mark.parametrize(("said", "answer"), EQUAL)
def test_an_equal_answer_is_correct_in_every_place(said, answer):
    for response in (f"#### {said}", f"thus $\\boxed{{{said}}}$.", f"<answer>{said}</answer>"):
        assert verify(response, answer), response


@pytest.mark.parametrize(("said", "answer"), DIFFERENT)
def test_a_near_miss_is_wrong_in_every_place(said, answer):
    for response in (f"#### {said}", f"\\boxed{{{said}}}", f"<answer>{said}</answer>"):
        assert not verify(response, answer), response


@pytest.mark.parametrize("said", [
    "x = 3, y = 5", "x = 5, y = 3", r"x = 3,\ y = 5", "x = 3; y = 5", "x = 3 and y = 5", r"x = 3 \\ y = 5", "x_1 = 3, x_2 = 5",
    "x = 5, y = 5", "3, x = 5", "x = 2, y = 3, x + y = 5", r"\text{Alice} = 3, \text{Bob} = 5", r"x = 3, y = \frac{10}{2}",
])  # fmt: skip
def test_an_answer_that_assigns_several_values_equals_none_of_them(said):
    assert not answers.verify(f"so it is \\boxed{{{said}}}", "5")
    assert not answers.equivalent("5", answers.canonicalize(said))


@pytest.mark.parametrize(("said", "answer"), [
    ("x = 3, y = 5", "(3, 5)"), ("y = 5, x = 3", "x = 3, y = 5"), ("x, y = 3, 5", "3, 5"), ("x = 2 + 3 = 5", "5"),
    (r"\gcd(15, 10) = 5", "5"), ("f(2, 3) = 2 + 3 = 5", "5"), ("1,000 + 5 = 1,005", "1005"),
    (r"u = v = \begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
])  # fmt: skip
def test_assignments_equal_the_tuple_of_their_values_and_a_chain_equals_its_one_value(said, answer):
    assert answers.verify(f"so it is \\boxed{{{said}}}", answer)


MILLIONS = [
    "1'000'000", "1\u2019000\u2019000", "1 000 000", "1\u00a0000\u00a0000", "1\u2007000\u2007000", "1\u2009000\u2009000",
    "1\u202f000\u202f000", "1{,}000{,}000", r"1\,000\,000", r"1{\,}000{\,}000", r"1\:000\:000", r"1\;000\;000", r"1\ 000\ 000",
    r"1\thinspace 000\thinspace000", "1~000~000", "1_000_000", r"1\_000\_000", "1,000,000", r"1\!,\!000\!,\!000", "10^6",
]  # fmt: skip


@pytest.mark.parametrize("spelled", MILLIONS)
def test_a_number_in_groups_of_three_digits_equals_the_plain_one_whichever_of_the_two_is_the_gold(spelled):
    for pattern in ("{}", "-{}", "{}.5", "${}$", "{} km", "x = {}", r"\frac{{{}}}{{7}}", r"{}\pi", "({}, 2)"):
        said, plain, other = (pattern.format(number) for number in (spelled, "1000000", "1000001"))
        if (
            spelled == "10^6"
            and pattern != "{}"
            or ",000" in spelled.replace(r"\!", "").replace(r"\,", "")
            and pattern == "({}, 2)"
        ):
            continue  # a power is no number in "10^6.5", and "(1,000,000, 2)" may be four numbers
        assert verify(f"\\boxed{{{said}}}", plain) and verify(f"\\boxed{{{plain}}}", said), said
        assert not verify(f"\\boxed{{{other}}}", said) and not verify(f"\\boxed{{{said}}}", other), said
        assert answers.is_readable(said) and equivalent(str(extract_answer(f"#### {said}")), plain)
    for one in MILLIONS:
        assert verify(f"\\boxed{{{one}}}", spelled)


@pytest.mark.parametrize(("said", "plain"), [
    ("100 200 300", "100200300"), ("1 234", "1234"), ("72 000 1", "720001"), ("5 1 000", "51000"), ("1 000 00", "100000"),
    ("0 123", "123"), ("0'123", "123"), ("12'00'000", "1200000"), ("1'0000", "10000"), ("1'000_000", "1000000"), ("1_00", "100"),
    ("1.000.000", "1000000"), ("1, 000, 000", "1000000"), ("1, 234", "1,234"), ("12,34,567", "1234567"), (r"x^2\,000", "x^{2000}"),
    ("7~2", "72"), ("1_000", "1_0"), ("1000'000", "1000000"), (r"\sqrt2\,000", r"\sqrt{2000}"),
])  # fmt: skip
def test_what_may_be_several_numbers_or_has_other_groups_is_not_one_number(said, plain):
    assert not verify(f"\\boxed{{{said}}}", plain)
    assert extract_answer(f"#### {said}") != extract_answer(f"#### {plain}")


@pytest.mark.parametrize("several", ["100 200 300", "1 234", "1, 234", "1 0", "7~2", "1.000.000"])
def test_several_numbers_as_the_right_answer_do_not_equal_one(several):
    one = several.replace(" ", "").replace(",", "").replace("~", "").replace(".", "")
    assert not verify(f"\\boxed{{{one}}}", several) and verify(f"\\boxed{{{several}}}", several)


def test_the_lists_have_at_least_sixty_equal_and_sixty_wrong_answers():
    assert len(set(EQUAL)) >= 60 and len(set(DIFFERENT)) >= 60


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


def test_equal_answers_in_different_notation_vote_together():
    assert equivalent("x^2+1", "1+x^2") and equivalent("72", "72") and not equivalent("72", "73")
    assert not equivalent("east", "x^2+1") and not equivalent("nan", "72") and not equivalent("72", "nan")


@pytest.mark.parametrize("answer", ["", " ", "nan", "None", "N/A", "?", "#### 72", r"\boxed{7}", "1" * 400])
def test_a_right_answer_that_cannot_be_parsed_is_an_error_and_never_a_reward(answer):
    assert not answers.is_readable(answer)
    with pytest.raises(UserError, match="cannot be parsed.*drop"):
        verify(f"#### {answer}", answer)


@pytest.mark.parametrize("answer", [r"\frac{a}", r"\sqrt{", "1/0", "((", r"\foo{3}{"])
def test_a_right_answer_that_is_broken_mathematics_is_not_readable(answer):
    assert not answers.is_readable(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "1/0",
        r"\frac{a}",
        "((",
        "( (",
        r"\sqrt{",
        "???",
        "x^{",
        "()",
        "[]",
        r"\{",
        "...",
        "0/0",
        r"\frac{1}{0}",
        "+",
        "=",
        "1,,",
        "%",
    ],
)
def test_a_response_that_repeats_a_broken_right_answer_earns_nothing(answer):
    for response in (f"#### {answer}", f"\\boxed{{{answer}}}", f"<answer> {answer} </answer>"):
        try:
            assert not verify(response, answer), response
        except UserError as e:
            assert "cannot be parsed" in str(e)


@pytest.mark.parametrize("answer", [said for _, said in EQUAL])
def test_right_answers_in_every_notation_are_readable(answer):
    assert answers.is_readable(answer)
