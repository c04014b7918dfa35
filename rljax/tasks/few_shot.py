"""Prompts with worked examples: the problems before the question show a pretrained model how to answer.

    Q: One pear costs $4. How much do 3 pears cost?
    A: 3 * 4 = 12. The answer is 12.

    Q: Ben buys 5 pens at $2 each. How much does Ben pay?
    A: The answer is 10.

    Q: Each plum costs $6. Ada buys 2 plums. What is the total cost?
    A:

Examples are training problems of the level of the question, no two the same, and never the problem that is asked.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from rljax.errors import UserError
from rljax.tasks import word_problems, wordings
from rljax.tasks.prompting import PromptFormat
from rljax.tasks.task import Record
from rljax.text import find_control_tokens

EXAMPLES, FIXED_EXAMPLES, OTHER_WORDS = 1, 2, 3  # each draws from its own random numbers; 0 are those of questions
Place = tuple[int, int, int]  # seed, number of the split, index: the problem that is asked
PROMPT_DRAWS = 100  # of a prompt that fits the slots
SIZE_DRAWS = 32  # of examples, to learn how long they are and what is in them
SLOT_MULTIPLE = 16


@dataclasses.dataclass(frozen=True)
class FewShot:
    """How the problems are put."""

    format: PromptFormat
    sizes: word_problems.Sizes
    count: int  # worked examples in a prompt
    in_steps: float  # share of them that answer in steps; the others answer at once
    fixed: bool  # all problems of a level have the same examples; otherwise each problem its own

    def check(self, stop_strings: Sequence[str], records: Sequence[Record]) -> None:
        """Raise UserError where examples cannot stand before the question, or an answer like theirs would be cut.

        In a chat the examples would need turns of their own. ``records`` are problems whose worked answers are looked at.
        """
        template = self.format.template
        prompt, response, _ = template
        if self.count and (self.format.chat or find_control_tokens(self.format.tokenizer, [prompt])):
            raise UserError(
                f"task fruit_text: examples={self.count}, but the template writes control tokens: use examples=0, or template=qa"
            )
        if inside := [text for text in stop_strings if text in response]:
            raise UserError(
                f"task fruit_text: stop_strings has {inside[0]!r}, which is inside the template's own response {response!r}: use "
                "stop_strings=(), or template=qa"
            )
        for record in records:
            answer = template.format_response(record["solution"], record["answer"])
            if inside := [text for text in stop_strings if text in answer]:
                raise UserError(
                    f"task fruit_text: stop_strings has {inside[0]!r}, which is inside the worked answer {answer!r}: use "
                    "another, or stop_strings=()"
                )


def write_examples(how: FewShot, level: int, asked: str, place: Place = (0, 0, 0), trial: int = 0) -> str:
    """The worked examples before a problem with the content ``asked``. ``trial`` chooses others. "" where there are none."""
    rng = np.random.default_rng((FIXED_EXAMPLES, level, trial) if how.fixed else (EXAMPLES, *place, trial))
    kinds, template = word_problems.LEVELS[level], how.format.template
    first, count = rng.integers(len(kinds)), int(how.count * how.in_steps + rng.random())
    in_steps = rng.permutation(np.arange(how.count) < count)
    out, seen = [], {asked}
    for n in range(how.count):
        record = word_problems.draw_record(kinds[(first + n) % len(kinds)], "train", how.sizes, rng, without=seen)
        seen.add(word_problems.record_content(record))
        answer = template.format_response(record["solution"] if in_steps[n] else "", record["answer"])
        out.append(template.format_prompt(record["question"]) + answer + "\n\n")
    return "".join(out)


def draw_prompt(how: FewShot, slots: int, record: Record, place: Place) -> tuple[Record, list[int]]:
    """(record, ids of its prompt). Where a prompt has no room, other examples are drawn; where that does not help, other words.

    The numbers of the problem stay. Raises UserError where nothing fits.
    """
    content = word_problems.record_content(record)
    for trial in range(PROMPT_DRAWS):
        ids = how.format.prompt_ids(record["question"], write_examples(how, record["level"], content, place, trial))
        if len(ids) <= slots:
            return record, ids
        if trial >= PROMPT_DRAWS // 2 or not how.count:
            rng = np.random.default_rng((OTHER_WORDS, *place, trial))
            record = record | {"question": wordings.word_problem(record["problem"], record["numbers"], rng)}
    raise UserError(f"task fruit_text: {len(ids)} tokens of a prompt have no room in {slots} slots: raise prompt_slots")


def question_ids(how: FewShot, level: int, question: str) -> list[int]:
    """Ids of the prompt of a user's question, with examples of the level that its wording has, or of ``level``."""
    found = wordings.read_wording(question)
    content = word_problems.content(*found) if found else ""
    return how.format.prompt_ids(
        question, write_examples(how, word_problems.KINDS[found[0]].level if found else level, content)
    )


def count_prompt_slots(how: FewShot, levels: list[int]) -> int:
    """Slots that the prompts of these levels need, a multiple of SLOT_MULTIPLE: the longest question after long examples."""
    rng, longest = np.random.default_rng(0), 0
    for level in levels:
        kinds = word_problems.LEVELS[level]
        asked = [word_problems.draw_record(kind, "train", how.sizes, rng) for kind in kinds]
        before = [
            write_examples(how, level, word_problems.record_content(record), (0, 0, n))
            for n in range(SIZE_DRAWS)
            for record in asked
        ]
        examples = max(before, key=lambda text: len(how.format.tokenizer.encode(text)))
        questions = [question for kind in kinds for question in longest_questions(how, kind)]
        longest = max(longest, *(len(how.format.prompt_ids(question, examples)) for question in questions))
    return -(-longest // SLOT_MULTIPLE) * SLOT_MULTIPLE


def longest_questions(how: FewShot, kind: str) -> list[str]:
    """Each wording of a kind with the longest names, things and numbers."""
    longest = lambda words: max(words, key=lambda word: len(how.format.tokenizer.encode(f" {word}")))
    name, one, many = longest(wordings.NAMES), longest(wordings.THINGS), longest(wordings.THINGS.values())
    article = longest(map(wordings.add_article, wordings.THINGS))
    words = dict(n=name, m=name, o=one, o2=one, s=many, s2=many, ao=article, ao2=article)
    size = how.sizes
    number = size.number if word_problems.KINDS[kind].level <= 3 else max(size.count, size.price)
    longest_number = lambda largest: longest(map(str, range(2, largest + 1)))
    numbers = dict.fromkeys("abcd", longest_number(number)) | dict.fromkeys(
        "tu", longest_number(2 * size.count * size.price)
    )
    return [wording.format(**words, **numbers) for wording in wordings.WORDINGS[kind]]


def longest_solution(how: FewShot, kind: str) -> str:
    """A text that is as long as the longest worked solution of a kind: as many calculations, of the largest numbers."""
    size, rng = how.sizes, np.random.default_rng(0)
    draws = [word_problems.draw_numbers(kind, rng, size) for _ in range(SIZE_DRAWS)]
    steps = max(len(word_problems.calculate(kind, numbers) or ()) for numbers in draws)
    easy = word_problems.KINDS[kind].level <= 3
    largest = size.number**2 if easy else 2 * size.count * size.price * size.count
    return " ".join([f"{largest} * {largest} = {largest}."] * steps)
