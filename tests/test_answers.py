"""The verifier of mathematical answers: in which places of a response an answer is found, and in which it is not."""

import pytest

from rljax.verifiers.answers import extract_answer, grade_many, verify

# Places of the answer: (response, right answer)

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
    # claims in the last line, if nothing is marked
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


# Boxes as TeX reads them, and the last lines of chat models: (response, right answer)

BOXES = [
    (r"\boxed{7} \dots so $\boxed 5$", "5"),
    (r"$\boxed 5$", "5"),
    (r"$\boxed5$.", "5"),
    (r"$\boxed\pi$", r"\pi"),
    (r"$\boxed x$", "x"),
    (r"\boxed {5}", "5"),
    ("\\boxed\n  {5}", "5"),
    ("\\boxed% the answer\n{5}", "5"),
    (r"\boxed{ {5} }", "5"),
    ("so \\\\boxed{5}", "5"),  # escaped twice
    (r"\fbox{5}", "5"),
    (r"\fbox{$\frac{1}{2}$}", "0.5"),
    (r"\framebox{5}", "5"),
    (r"\framebox[3cm][c]{5}", "5"),
    (r"\Aboxed{x &= 5}", "5"),
    (r"\bbox[5px, border: 2px solid]{5}", "5"),
    (r"\fcolorbox{red}{white}{$5$}", "5"),
    (r"\shadowbox{5}", "5"),
    (r"\boxed{1} \fbox{2}", "2"),
    (r"\boxed{3}, \boxed{5}, \boxed{7}", "3, 5, 7"),
    (r"$\boxed{3}$, $\boxed{5}$, and $\boxed{7}$.", "3, 5, 7"),
    (r"\boxed{3} and \boxed{5}", "3, 5"),
    (r"\boxed{3}, \text{ and } \boxed{5}", r"\{3, 5\}"),
    (r"x = \boxed{2} \text{ or } \boxed{-2}", r"\pm 2"),
    (r"\boxed{5}, \boxed{5}", "5"),
    (r"\boxed{3}. Therefore, \boxed{5}", "5"),
    (r"\boxed{3}, no, \boxed{5}", "5"),
    (r"\boxed{3} \boxed{5}", "5"),
    (r"as asked, in a \boxed format: \boxed{5}", "5"),
    (r"\boxed{5} is in the \boxed command", "5"),
]


DRESSED = [
    ("\u2705 Final Answer: **58**", "58"),
    ("- **Final Answer:** 58", "58"),
    ("> **Answer:** 58", "58"),
    ("> **Answer:**\n> **58**", "58"),
    ("* Answer: 58", "58"),
    ("1. **Answer:** 58", "58"),
    ("\u27a1\ufe0f **Answer**: 58", "58"),
    ("Final Answer: **58** \u2705", "58"),
    ("\U0001f449 The answer is **58**. \U0001f389", "58"),
    ("### \u2705 Final Answer: **58**", "58"),
    ("#### \u2705 Final Answer: **58**", "58"),
    ("#### \u2705 Final Answer\n\n**58**", "58"),
    ("**Final Answer**\n\n58", "58"),
    ("**Final Answer:**\n\n**58**", "58"),
    ("**\u2705 Final Answer:**\n58", "58"),
    ("Final answer:\n\n-58", "-58"),
    ("**Final Answer**\n\n$$\n58\n$$", "58"),
    ("Final Answer:\n\\[\n58\n\\]", "58"),
    ("__Answer:__ 58", "58"),
    ("**The answer:** 58", "58"),
]


FENCED = [
    ("The answer is:\n```\n42\n```", "42"),
    ("Final answer: `42`", "42"),
    ("The answer is `42`.", "42"),
    ("`Final answer: 42`", "42"),
    ("Answer: ```42```", "42"),
    ("#### `42`", "42"),
    ("So the answer is:\n\n```text\n\n42\n```\n", "42"),
    ("**The answer is:**\n~~~\n42\n~~~", "42"),
    ("**Final Answer**\n```latex\n\\frac{84}{2}\n```", "42"),
    ("- Final answer:\n  ````\n  42\n  ````", "42"),
    ("> Answer:\n> ```\n> 42\n> ```", "42"),
    ("The answer is:\n```\n42\n```<|im_end|>", "42"),
    ("Answer:\r\n```\r\n42\r\n```", "42"),
    ("```\n41\n```\nThe answer is:\n```\n42\n```", "42"),
    ("```\nThe answer is 42.\n```", "42"),
    ("```\nAnswer: 42\n```", "42"),
    ("```\nFinal answer:\n42\n```", "42"),
    ("```\n\\boxed{42}\n```", "42"),
    ("The answer is:\n42", "42"),
    ("The answer is:\n$$\n42\n$$", "42"),
]


NO_BOX = [
    (r"\fboxed{5}", "5"),
    (r"\unboxed{5}", "5"),
    ("boxed{5}", "5"),
    (r"\boxed 72", "7"),  # TeX boxes the 7 alone
    (r"\boxed 5,000", "5"),
    (r"\boxed 5^2", "5"),
    (r"\boxed -5", "5"),
    (r"\boxed\frac12", "1/2"),
    (r"\boxed{7} then $\boxed 5$", "7"),
    (r"\boxed{3}, \boxed{5}, \boxed{7}", "7"),
    (r"\boxed{3} or \boxed{5}", "5"),
    (r"\boxed{3}, \boxed{5}", "3, 5, 7"),
    (r"\boxed{5}, \boxed{}", "5"),
    ("\u274c Answer: 58", "58"),
    ("Answer: 58 \u274c", "58"),
    ("Answer: 58 \u2753", "58"),
    ("**Note**\n58", "58"),
    ("My answer\n58", "58"),
    ("The answer:\n60\n58", "58"),
    ("No answer: 58", "58"),
    ("```\n42\n```", "42"),
    ("It prints\n```\n42\n```", "42"),
    ("The answer is 41.\n```\n42\n```", "42"),
    ("The answer is not:\n```\n42\n```", "42"),
    ("I doubt that the answer is:\n```\n42\n```", "42"),
    ("Answer:\n```\nprint(42)\n```", "42"),
    ("Answer:\n```\n41\n42\n```", "42"),
    ("The answer is:\n```\n42\n```\nBut I doubt it.", "42"),
    ("The answer is\n42", "42"),
]


# Responses without the right answer: (response, right answer)

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
    ("<think>#### 72", "72"),  # the thought never ends
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
    (r"\boxed{73} So the answer is 72.", "72"),  # the marked answer counts
    ("#### 73\nAnswer: 72", "72"),
    ("He has 72", "72"),
]


@pytest.mark.parametrize(("response", "answer"), PLACES)
def test_an_answer_is_found_in_every_place_where_it_may_stand(response, answer):
    assert verify(response, answer)
    assert extract_answer(response) is not None


@pytest.mark.parametrize(("response", "answer"), BOXES)
def test_a_box_is_read_as_tex_reads_it_and_boxes_in_one_list_are_one_answer(response, answer):
    assert verify(response, answer)


@pytest.mark.parametrize(("response", "answer"), DRESSED)
def test_a_last_line_is_an_answer_in_bold_in_a_list_in_a_quote_and_after_an_emoji(response, answer):
    assert verify(response, answer)


@pytest.mark.parametrize(("response", "answer"), FENCED)
def test_code_marks_around_an_answer_or_its_claim_do_not_matter(response, answer):
    assert verify(response, answer)


@pytest.mark.parametrize(("response", "answer"), NO_BOX)
def test_what_tex_does_not_box_and_what_no_line_claims_is_not_an_answer(response, answer):
    assert not verify(response, answer)


@pytest.mark.parametrize(("response", "answer"), NO_REGION)
def test_a_number_that_is_only_mentioned_is_not_an_answer(response, answer):
    assert not verify(response, answer)


def test_a_grade_has_the_final_answer_and_the_number_of_marked_answers():
    one, two = grade_many([(r"\boxed{3} no \boxed{7}", "7"), ("<think>\\boxed{1}</think>7", "7")])
    assert one == (True, "7", 2) and two == (False, None, 0)
