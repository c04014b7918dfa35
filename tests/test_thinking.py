"""Where thinking ends and the final answer begins, in every task, and what is written down of it."""

import numpy as np
import pytest

from rljax import evaluation, tasks
from rljax.structs import Problems
from rljax.tasks import responses
from rljax.text import ByteTokenizer


def parts(response: str, kind: str = "math", prefill: str = "") -> tuple[str, str]:
    at = responses.answer_start(response, {"kind": kind, "prefill": prefill})
    return response[:at], response[at:]


SMALL = [
    ("shop", "try 6 + 3 = 9 vs 14 less wait 3 + 11 = 14 vs 14 same ", "answer 3 11 <eos>"),
    ("fruit", "2 * 2 = 4, 13 - 4 = 9, 9 / 3 = 3, ", "answer 3 <eos>"),
    ("countdown", "try 3 + 4 = 7 , 2 * 7 = 14 vs 14 same ", "answer 3 + 4 = 7 , 2 * 7 = 14 <eos>"),
    ("programs", "try a * b : 5 * 2 = 10 vs 6 no ", "answer def f ( a , b ) : return b * 3 <eos>"),
]


def world(name: str) -> tasks.Task:
    return tasks.make_task(name, **({"allow_unsafe": True} if name == "programs" else {}))


@pytest.mark.parametrize("name, think, final", SMALL)
def test_a_small_worlds_answer_begins_at_its_word(name, think, final):
    task = world(name)
    assert task.answer_start(think + final, {}) == len(think)
    assert task.answer_start(final, {}) == 0, "a jump thinks nothing"
    assert task.answer_start(think, {}) == len(think), "one that was cut off has no answer"
    assert task.answer_start(f"{final} wait {final}", {}) == len(f"{final} wait "), "the last one counts"


@pytest.mark.parametrize(
    "think, final",
    [
        ("Natalia sold 24.\n", "#### 72<eos>"),
        ("So it is ", r"\boxed{72}. I am sure.<eos>"),
        ("<think> 48 + 24 = 72 </think>", " <answer> 72 </answer><eos>"),
        ("<think> #### 7, no </think>", " I said 7, but it is 8.<eos>"),
        ("48 + 24 = 72 ", "<answer>72</answer><eos>"),
        ("48 + 24 = 72.\n", "Answer: 72<eos>"),
        ("48 + 24 = 72.\n", "# Answer\n72<eos>"),
        ("48 + 24 = 72. ", "So the answer is 72.<eos>"),
        ("x " * 2000 + "and so on.\n", "The final answer is 72<eos>"),
        ("", "#### 72<eos>"),
        ("I cannot say", "<eos>"),
        ("<think> it is #### 72", "<eos>"),
    ],
)
def test_the_answer_to_a_question_begins_after_the_reasoning_or_at_its_mark(think, final):
    assert parts(think + final) == (think, final)


def test_a_program_begins_at_its_fence_or_its_tag():
    assert parts("Twice.\n```python\nx = 1\n```<eos>", "code") == ("Twice.\n", "```python\nx = 1\n```<eos>")
    assert parts("Twice. <answer>x = 1</answer>", "code")[0] == "Twice. "
    assert parts("#### none here", "code") == ("#### none here", "")


def test_the_prefill_of_the_prompt_is_not_counted():
    assert parts(" 3 + 4 </think> <answer> 7 </answer>", prefill="<think>") == (
        " 3 + 4 </think>",
        " <answer> 7 </answer>",
    )
    assert parts("7", prefill="<think></think>") == ("", "7")


@pytest.mark.parametrize("text, count", [("", 0), ("a", 1), ("ab ", 3), ("ab c", 5), ("ab c d", 6), ("ab c déf", 11)])
def test_the_tokens_of_a_prefix_are_counted_with_the_space_after_it(text, count):
    tokens = list(ByteTokenizer().encode("ab c déf\n\n#### 7"))
    assert evaluation.count_prefix_tokens(ByteTokenizer(), tokens, text) == count


def test_a_sample_says_where_its_answer_begins_and_how_many_tokens_it_thought():
    task = tasks.make_task("shop")
    texts = ["try 1 + 2 = 3 vs 9 less wait answer 4 5 <eos>", "answer 4 5 <eos>", "try 1 + 2"]
    ids = [task.tokenizer.encode(t, specials=True) for t in texts]
    response, mask = np.zeros((1, 3, 20), int), np.zeros((1, 3, 20), bool)
    for n, row in enumerate(ids):
        response[0, n, : len(row)], mask[0, n, : len(row)] = row, True
    rows = {"response": response, "mask": mask, "logprobs": np.zeros((1, 3, 20)), "finished": np.ones((1, 3), bool)}
    record = {"prices": [4, 5, 1], "total": 9}
    asked = Problems(prompt=np.ones((1, 1), int), prompt_mask=np.ones((1, 1), bool), facts=None)
    read = [[task.describe(t, record) for t in texts]]
    out = evaluation.make_samples(task, asked, [record], np.zeros((1, 3)), rows, [texts], read, 1)
    assert [s["response"][s["final"] :] for s in out] == ["answer 4 5 <eos>", "answer 4 5 <eos>", ""]
    assert [s["think_tokens"] for s in out] == [10, 0, 4]
    assert [s["length"] - s["think_tokens"] for s in out] == [4, 4, 0]
