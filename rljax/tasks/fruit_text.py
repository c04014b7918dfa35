"""The lecture's question and its family in natural language, for any tokenizer: arithmetic word problems in six levels.

    Q: Emily buys 3 apples and 2 oranges. Each orange costs $2. The total is $13. What is the cost of an apple?
    A: The answer is 3.                                                             at once
    A: 2 * 2 = 4. 13 - 4 = 9. 9 / 3 = 3. The answer is 3.                           in steps

A response is one line: a newline ends it. A pretrained model learns from the prompt how to answer: a few worked examples of the same level stand before the question. If
some of them answer at once and some in steps, so do the first attempts, and RL can choose. Without examples the prompt is
the question alone, for a model that knows the form; ``template="own"`` asks in the chat template of the model.

The numbers of a problem decide its split, whatever its words are. Problem number ``index`` depends on the seed, the levels and the
sizes alone: the same seed asks the same questions with and without examples, in every template.
"""

import dataclasses
import functools
import math
import re
from typing import Any

import numpy as np

from rljax.errors import UserError
from rljax.metrics import behaviours
from rljax.options import format_value
from rljax.structs import Array, Problems
from rljax.tasks import few_shot, prompting, responses, shuffle, word_problems, wordings
from rljax.tasks.few_shot import FewShot
from rljax.tasks.option_checks import check_shares
from rljax.tasks.task import Attempt, Record, Task, split_number
from rljax.text import ByteTokenizer, Tokenizer, check_stop_strings, pad_batch, templates
from rljax.verifiers import answers
from rljax.verifiers.failures import score_of_verdict

QUESTION = 0  # the random numbers of questions; rljax.tasks.few_shot has those of examples


@dataclasses.dataclass(frozen=True)
class Options:
    """Which problems, and how they are asked."""

    level: str | int = "5"  # a level from 1 to 6, several as "1-3", or with weights as "1-3 + 0.5*5"
    max_number: int = 12  # the largest number in a problem of levels 1 to 3
    max_count: int = 6  # things bought of one kind, levels 4 to 6
    max_price: int = 6  # of one thing, levels 4 to 6
    examples: int = 3  # worked examples in the prompt; 0: the question alone
    in_steps: float = 1.0  # share of the examples that answer in steps; the others answer at once
    fixed_examples: bool = False  # all problems of a level have the same examples; otherwise each problem its own
    template: str = "qa"  # a name of rljax.text.templates, a text with {question} in it, or "own": the chat template
    instruction: str = templates.STEP_BY_STEP  # for "own": text after the question
    system: str = ""  # for "own": the system message; "": the default of the template
    thinking: bool = True  # for "own", where the template has the choice: think before the answer
    stop_strings: tuple[str, ...] = ("\n",)  # texts that end a response where they are completed
    prompt_slots: int = 0  # tokens of a prompt, the first included; 0: as many as the longest prompt needs
    jump: float = 0.0  # share of the demonstrations that answer at once

    def __post_init__(self):
        check_shares("fruit_text", self)
        bounds = dict(
            max_number=(4, 999), max_count=(4, 99), max_price=(4, 99), examples=(0, 16), prompt_slots=(0, 1 << 20)
        )
        for name, (low, high) in bounds.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(f"task fruit_text: {name}={getattr(self, name)} must be {low} to {high:,}")
        check_stop_strings(self.stop_strings)
        parse_levels(self.level)

    def few_shot(self, tokenizer: Tokenizer) -> FewShot:
        """How the problems are put, read by this tokenizer."""
        how = self.instruction, self.system, self.thinking
        prompt_format = prompting.make_prompt_format(self.template, tokenizer, *how)
        return FewShot(prompt_format, self.sizes, self.examples, self.in_steps, self.fixed_examples)

    @property
    def sizes(self) -> word_problems.Sizes:
        return word_problems.Sizes(self.max_number, self.max_count, self.max_price)


def parse_levels(text: str | int) -> dict[int, float]:
    """``"1-3 + 0.5*5"`` -> {level: weight}, from easy to hard. Raises UserError for text that is no such sum."""
    out: dict[int, float] = {}
    for term in str(text).split("+"):
        found = re.fullmatch(r"(?:([0-9]+|[0-9]*\.[0-9]+) *\* *)?([1-6])(?: *- *([1-6]))?", term.strip())
        levels = range(int(found[2]), int(found[3] or found[2]) + 1) if found else ()
        weight = float(found[1] or 1) if found else 0.0
        if not levels or not 0 < weight < math.inf or set(levels) & set(out):
            raise UserError(
                f"task fruit_text: level={format_value(text)}: write levels from 1 to 6, each once, such as 5, or 1-3, or 1-3 + 0.5*5"
            )
        out |= dict.fromkeys(levels, weight)
    return dict(sorted(out.items()))


def make(options: Options, tokenizer: Tokenizer | None = None) -> Task:
    """The task of these options. Raises UserError where a split has no problem, or a prompt has no room."""
    how, weights = options.few_shot(tokenizer or ByteTokenizer()), parse_levels(options.level)
    kinds, rng = [kind for level in weights for kind in word_problems.LEVELS[level]], np.random.default_rng(0)
    splits = [*word_problems.SPLIT_TENTHS, *["train"] * few_shot.SIZE_DRAWS]
    drawn = [word_problems.draw_record(kind, split, how.sizes, rng) for kind in kinds for split in splits]
    how.check(options.stop_strings, drawn)
    needed = few_shot.count_prompt_slots(how, list(weights))
    if 0 < options.prompt_slots < needed:
        raise UserError(
            f"task fruit_text: prompt_slots={options.prompt_slots}: these prompts need {needed}, which 0 stands for"
        )
    slots = options.prompt_slots or needed
    return Task(
        name="fruit_text",
        tokenizer=how.format.tokenizer,
        prompt_slots=slots,
        demonstration_slots=count_demonstration_slots(how, list(weights)),
        problems=functools.partial(problems, how, slots, weights),
        records=list,
        verify=verify,
        verify_batch=verify_batch,
        verifier_metrics=("answers/none", "answers/several"),
        demonstration=lambda record, rng: demonstration(how, options.jump, record, rng),
        response_ids=lambda record, text: response_ids(how, text),
        page=lambda rng, length: page(how, options.jump, list(weights), rng, length),
        describe=describe,
        strategies=("jump", "steps", "retry"),
        answer_start=responses.answer_start,
        behaviours=(*behaviours.REFLECTION, *behaviours.SENTENCE_BEHAVIOURS),
        aha_behaviour="wait",
        content=word_problems.record_content,
        read_prompt=functools.partial(read_prompt, how),
        format_question=how.format.template.format_prompt,
        prompt_ids=lambda question: few_shot.question_ids(how, min(weights), question),
        same_answer=responses.same_answer,
        prefill=how.format.template.prefill,
        stop_strings=tuple(options.stop_strings),
        levels=(min(weights), max(weights)) if len(weights) > 1 else None,
    )


# Problems


def problems(
    how: FewShot,
    slots: int,
    weights: dict[int, float],
    seed: int,
    index: Array,
    split: str,
    levels: tuple[Array | int, Array | int] | None = None,
) -> Problems:
    """Problems number ``index`` [B] of a split; ``levels`` are the (lowest, highest) of those that are asked."""
    asked = weights if levels is None else open_levels(weights, int(levels[0]), int(levels[1]))
    places = [(int(seed), split_number(split), i) for i in np.asarray(index).tolist()]
    drawn = [few_shot.draw_prompt(how, slots, draw_record(how, asked, place, split), place) for place in places]
    records, rows = [record for record, _ in drawn], [ids for _, ids in drawn]
    prompt: Any  # numpy arrays: they go to the device with the rest of the batch
    mask: Any
    prompt, mask = pad_batch(rows, slots, how.format.tokenizer.pad, left=True)
    return Problems(prompt=prompt, prompt_mask=mask, facts=records)


def draw_record(how: FewShot, weights: dict[int, float], place: few_shot.Place, split: str) -> Record:
    """The record of the problem at this place: of a level by the weights, of any of its kinds."""
    which, _ = shuffle.mixture_place(*place, tuple(weights.values()))
    rng = np.random.default_rng((QUESTION, *place))
    kinds = word_problems.LEVELS[list(weights)[which]]
    record = word_problems.draw_record(kinds[rng.integers(len(kinds))], split, how.sizes, rng)
    return record | {"prefill": how.format.template.prefill}


def open_levels(weights: dict[int, float], low: int, high: int) -> dict[int, float]:
    """The levels from ``low`` to ``high``; where the task has none of them, the one that is nearest to ``high``."""
    found = {level: weight for level, weight in weights.items() if low <= level <= high}
    return found or {min(weights, key=lambda level: abs(level - high)): 1.0}


def read_prompt(how: FewShot, prompt: str) -> Record | None:
    """The record of the last problem in a prompt; None where no wording fits, or there is no whole positive answer."""
    found = wordings.read_wording(prompt)
    if found is None or word_problems.calculate(*found) is None:
        return None
    return word_problems.make_record(*found) | {"prefill": how.format.template.prefill}


# Verifying

CLAIM = re.compile(r"\banswer is\b", re.IGNORECASE)


def verify(response: str, record: Record) -> bool:
    """Whether a response is right and finished: its final answer, as that of any question, is the record's number."""
    return verify_batch([(response, record)])[0]["correct"] > 0


def verify_batch(pairs: list[tuple[str, Record]]) -> list[dict[str, float]]:
    """The verdicts for a batch, and whether a response has no answer or several."""
    said = [record["prefill"] + response.removesuffix("<eos>") for response, record in pairs]
    found = answers.grade_many([(text, record["answer"]) for text, (_, record) in zip(said, pairs, strict=True)])
    return [
        {
            "correct": score_of_verdict(grade.correct, response.endswith("<eos>")),
            "answers/none": float(grade.answer is None),
            "answers/several": float(max(grade.num_answers, len(CLAIM.findall(text))) > 1),
        }
        for grade, text, (response, _) in zip(found, said, pairs, strict=True)
    ]


def describe(response: str, record: Record) -> Attempt:
    """The attempt; its strategy is "jump" (only an answer), "retry" (it goes back) or "steps" (anything else)."""
    reasoning = re.sub(r"</?think>|<answer>", " ", response[: responses.answer_start(response, record)])
    strategy = "retry" if responses.GOES_BACK.search(reasoning) else "steps" if re.search(r"\w", reasoning) else "jump"
    answer = answers.extract_answer(record["prefill"] + response.removesuffix("<eos>"))
    return Attempt(strategy, answer, tuple(responses.check_calculations(reasoning)))


# Text to learn from


def demonstration(how: FewShot, jump: float, record: Record, rng: np.random.Generator) -> str:
    """A right answer, worked out in steps; a share ``jump`` of them only answer."""
    return how.format.template.format_response("" if rng.random() < jump else record["solution"], record["answer"])


def response_ids(how: FewShot, text: str) -> list[int]:
    """The ids of a demonstration with its stop token. Its text is our own, so that it may have control tokens."""
    return how.format.response_ids([(text, True)])


def count_demonstration_slots(how: FewShot, levels: list[int]) -> int:
    """Tokens of the longest demonstration."""
    longest = [few_shot.longest_solution(how, kind) for level in levels for kind in word_problems.LEVELS[level]]
    largest = str(max(how.sizes.number**2, 2 * how.sizes.count * how.sizes.price))
    return max(len(response_ids(how, how.format.template.format_response(text, largest))) for text in longest)


def page(how: FewShot, jump: float, levels: list[int], rng: np.random.Generator, length: int) -> list[int]:
    """Training problems with their demonstrations, one after the other."""
    out: list[int] = []
    while len(out) < length:
        kinds = word_problems.LEVELS[levels[rng.integers(len(levels))]]
        record = word_problems.draw_record(kinds[rng.integers(len(kinds))], "train", how.sizes, rng)
        out += [*how.format.prompt_ids(record["question"]), *response_ids(how, demonstration(how, jump, record, rng))]
    return out[:length]
