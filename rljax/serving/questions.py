"""What is asked: a problem of a task, or a text, as ids; with what the verifier needs to know of it."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from rljax import text
from rljax.errors import UserError
from rljax.serving.fields import FieldError, Fields, read_text, read_whole
from rljax.serving.policies import Source
from rljax.tasks import Record, Task
from rljax.tasks.batches import problem_fn

SPLIT = "test"
LAST_PROBLEM = (1 << 31) - 1


class Question(NamedTuple):
    """A prompt, and what is right."""

    ids: tuple[int, ...]
    record: Record | None  # None: the verifier cannot read the question
    answer: str = ""  # what a person says is right, where there is no record


def read_question(source: Source, fields: Fields) -> Question:
    """The question of a request: ``problem``, a number; or ``prompt``, a text; or both, where the text was changed by hand.

    ``form`` says what the text is: "text" (the whole prompt, in which control tokens are read) or "question" (to be put in the
    task's words). Raises FieldError. For the thread of the device, which may draw the problem.
    """
    task, form = source.run.task, read_text(fields, "form", "text", 20)
    if form not in ("text", "question"):
        raise FieldError("form", "choose from text and question")
    said, answer = read_text(fields, "prompt"), read_text(fields, "answer", longest=200).strip()
    problem = None
    if fields.get("problem") is not None:
        problem = draw_problem(source, read_whole(fields, "problem", 0, 0, LAST_PROBLEM))
        if not said:
            return problem
    if not said.strip():
        raise FieldError("prompt", "write a prompt, or choose a problem")
    try:
        ids = encode_question(task, said) if form == "question" else encode_prompt(task, said)
    except UserError as e:
        raise FieldError("prompt", str(e)) from None
    if not ids:
        raise FieldError("prompt", "has no token")
    if answer:
        return Question(tuple(ids), None, answer)
    record = task.read_prompt(said) if task.read_prompt else None
    return Question(tuple(ids), record if record is not None or problem is None else problem.record)


def draw_problem(source: Source, number: int) -> Question:
    """Problem number ``number`` of those that the policy was never trained on."""
    task = source.run.task
    count = task.num_questions(SPLIT)
    if count is not None and number >= count:
        raise FieldError("problem", f"{number} must be less than {count}, the number of questions")
    asked = problem_fn(task)(source.run.seed, jnp.asarray([number]), SPLIT)
    prompt, mask = np.asarray(asked.prompt)[0], np.asarray(asked.prompt_mask)[0]
    return Question(tuple(prompt[mask].tolist()), task.records(asked.facts)[0])


def encode_question(task: Task, question: str) -> list[int]:
    """A person's question in the words of the task's prompts. Its text never becomes a control token."""
    if task.prompt_ids:
        return list(task.prompt_ids(question))
    return text.prompt_ids(task.tokenizer, [(task.format_question(question), False)])


def encode_prompt(task: Task, prompt: str) -> list[int]:
    """A whole prompt, in which the names of control tokens are read as such."""
    begin, ids = list(task.tokenizer.begin_ids), task.tokenizer.encode(prompt, specials=True)
    return ids if ids[: len(begin)] == begin else begin + ids
