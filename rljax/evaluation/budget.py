"""Budget forcing: how long an attempt thinks is decided from outside, in evaluation (s1, Muennighoff et al., 2501.19393).

An attempt that ends before a minimum of thinking tokens is made to go on: its end is taken away, and a text such as "Wait" is
appended. An attempt that has thought up to the limit is made to answer: a text such as "Final answer:" is appended, and a
short continuation is sampled.

It is made of calls of the sampler: sample, append tokens to the prompt, sample again. Every attempt has random numbers of its
own in every call, so that it does not depend on the attempts beside it. Tokens that were appended belong to the response;
their log-probability is 0.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rljax import transformer
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.options import option
from rljax.sampler import LengthLimit, Sampling, check_window, make_sampler
from rljax.structs import KeyTag, Problems, Rollout
from rljax.tasks import Task
from rljax.text import StopStrings, find_stop_strings, pad_batch

WIDTH = 64  # prompts are padded to a multiple of this: each width is one more compiled sampler
MEASURES = ("thinking_tokens", "waits", "forced")  # of each attempt, for the log


@dataclasses.dataclass(frozen=True)
class BudgetOptions:
    """How long an attempt thinks: the section ``eval.budget`` of a config. Without a limit and a minimum as it likes."""

    limit: int = option(0, "thinking tokens after which the answer is forced; 0: never", low=0)
    minimum: int = option(0, "an attempt that ends before so many thinking tokens is made to go on; 0: none is", low=0)
    waits: int = option(2, "how often at most an attempt is made to go on", low=0, high=64)
    wait: str = option("Wait", "the text that is appended where it goes on")
    end: str = option("", "the text that ends the thinking, such as </think>; '': all of an attempt is thinking")
    answer: str = option("\nFinal answer:", "the text that is appended at the limit")
    answer_tokens: int = option(32, "most tokens behind the text that ends the thinking", low=1)

    @property
    def is_on(self) -> bool:
        return self.limit > 0 or self.minimum > 0


class Budget(NamedTuple):
    """A budget in tokens, for a task."""

    thinking: int  # most thinking tokens
    minimum: int
    waits: int
    wait: list[int]  # ids
    answer: list[int]  # ids; none where the answer is never forced
    answer_tokens: int
    end: str
    stop_ids: tuple[int, ...]
    thinking_stops: StopStrings | None  # the task's stop strings, and ``end``
    answer_stops: StopStrings | None  # the task's
    encode: Callable[[str], list[int]]

    @property
    def slots(self) -> int:
        """Tokens of the longest response."""
        return self.thinking + len(self.answer) + (self.answer_tokens if self.answer or self.end else 0)


class Draft(NamedTuple):
    """An attempt in the making."""

    prompt: list[int]
    row: int  # its number, which decides its random numbers
    said: list[int] = []  # the response so far, with what was appended
    logprobs: list[float] = []  # of each of these
    doing: str = "thinking"  # then perhaps "answering", then "done"
    finished: bool = False
    thinking_tokens: int = 0
    waits: int = 0
    forced: bool = False


def make_budget(options: BudgetOptions, task: Task, model: transformer.Config, max_new_tokens: int) -> Budget:
    """The options for this task. Raises UserError where they do not fit together, the vocabulary, or the model's window."""
    said = f"eval.budget.minimum={options.minimum}"
    if options.limit and options.minimum > options.limit:
        raise UserError(f"{said} is more than eval.budget.limit={options.limit}")
    for name, needed in (("wait", options.minimum and options.waits), ("answer", options.limit)):
        if needed and not getattr(options, name):
            raise UserError(f"eval.budget.{name} is empty: it must be a text where the budget has a minimum or a limit")
    encode = lambda text: task.tokenizer.encode(text, specials=True)

    def ids_of(name: str, needed: int) -> list[int]:
        try:
            return encode(getattr(options, name)) if needed else []
        except UserError as e:
            raise UserError(f"eval.budget.{name}={getattr(options, name)!r}: {e}") from None

    strings = (*task.stop_strings, *filter(None, [options.end]))
    try:
        stops = find_stop_strings(task.tokenizer, strings)
    except UserError as e:
        raise UserError(f"eval.budget.end={options.end!r}: {e}") from None
    budget = Budget(
        thinking=options.limit or max_new_tokens,
        minimum=options.minimum,
        waits=options.waits,
        wait=ids_of("wait", options.minimum and options.waits),
        answer=ids_of("answer", options.limit),
        answer_tokens=options.answer_tokens,
        end=options.end,
        stop_ids=tuple(task.tokenizer.stop_ids),
        thinking_stops=stops,
        answer_stops=task.stops,
        encode=encode,
    )
    try:
        check_window(model, task.prompt_slots, budget.slots)
    except UserError as e:
        key = "limit" if options.limit else "minimum"
        said = f"eval.budget.{key}={getattr(options, key)}, eval.budget.answer_tokens={options.answer_tokens}"
        raise UserError(f"{said}: {e}") from None
    return budget


# An attempt after each call of the sampler


def think(draft: Draft, ids: list[int], logprobs: list[float], budget: Budget) -> Draft:
    """The attempt after these ids were sampled for it: it goes on thinking, answers, or is done."""
    room = budget.thinking - len(draft.said)
    said, logprobs = draft.said + ids[:room], draft.logprobs + logprobs[:room]
    draft = draft._replace(said=said, logprobs=logprobs, thinking_tokens=len(said))
    by_token = said[-1] in budget.stop_ids
    place = (len(said) - 1, "") if by_token else budget.thinking_stops and budget.thinking_stops.count_before(said)
    if place is None:  # the limit
        draft = draft._replace(doing="answering" if budget.answer else "done", forced=bool(budget.answer))
        return append(draft, budget.answer)
    count, rest = place
    kept = said[:count] + (budget.encode(rest) if rest else [])
    draft = draft._replace(thinking_tokens=len(kept))
    room_left = len(kept) + len(budget.wait) < budget.thinking
    if len(kept) < budget.minimum and draft.waits < budget.waits and room_left:
        before = draft._replace(said=said[:count], logprobs=logprobs[:count], waits=draft.waits + 1)
        return append(before, kept[count:] + budget.wait)
    if not by_token and ends_thinking(said, budget):
        return draft._replace(doing="answering")
    return draft._replace(doing="done", finished=True)


def ends_thinking(said: list[int], budget: Budget) -> bool:
    """Whether a response ends with ``eval.budget.end``, and not with a stop string of the task."""
    found = budget.thinking_stops and budget.thinking_stops.locate(budget.thinking_stops.spell(said))
    return bool(found and budget.thinking_stops and budget.thinking_stops.strings[found[0]] == budget.end)


def append(draft: Draft, ids: list[int]) -> Draft:
    return draft._replace(said=draft.said + ids, logprobs=draft.logprobs + [0.0] * len(ids))


def answer(draft: Draft, ids: list[int], logprobs: list[float], finished: bool) -> Draft:
    """The attempt with its answer."""
    return draft._replace(said=draft.said + ids, logprobs=draft.logprobs + logprobs, doing="done", finished=finished)


# All attempts


def make_budget_sampler(
    budget: Budget, sampling: Sampling, model: transformer.Config, *, greedy: bool = False
) -> Callable[..., tuple[Rollout, dict[str, jax.Array]]]:
    """``draw(params, problems, key, step, row_numbers) -> (rollout, {measure: [N]})``, as ``make_sampler``'s with this budget.

    It cannot stand inside a jit: which attempts go on is decided on the host.
    """
    base = dataclasses.replace(sampling, max_new_tokens=budget.thinking, stop_strings=budget.thinking_stops)
    first = make_sampler(base, model, greedy=greedy)

    def continue_drafts(
        params: Any, drafts: Sequence[Draft], key: jax.Array
    ) -> list[tuple[list[int], list[float], bool]]:
        """(ids, log-probabilities, is it finished?) that follow the drafts, which all do the same."""
        thinking = drafts[0].doing == "thinking"
        longest = max(budget.thinking - len(d.said) for d in drafts) if thinking else budget.answer_tokens
        width = -(-max(len(d.prompt + d.said) for d in drafts) // WIDTH) * WIDTH
        rows = round_up(len(drafts), model.layout.num_shards("rows"))
        more = dataclasses.replace(
            base,
            group_size=1,
            max_new_tokens=budget.thinking if thinking else budget.answer_tokens,
            limit=LengthLimit(longest, 1),
            stop_strings=budget.thinking_stops if thinking else budget.answer_stops,
        )
        # a wider window, because of the padding: no attempt is longer than the window, as make_budget has checked
        roomy = dataclasses.replace(model, max_length=width + more.max_new_tokens)
        repeated = [*drafts, *[drafts[-1]] * (rows - len(drafts))]
        prompt, mask = pad_batch([d.prompt + d.said for d in repeated], width, 0, left=True)
        asked = sharding.shard_rows(Problems(jnp.asarray(prompt), jnp.asarray(mask), ()), model.layout)
        numbers = jnp.asarray([d.row for d in repeated], jnp.int32)
        draw = make_sampler(more, roomy, greedy=greedy)
        return read_rows(sharding.gather_to_host(draw(params, asked, key, 0, numbers)))[: len(drafts)]

    def draw(
        params: Any, problems: Problems, key: jax.Array, step: int, row_numbers: jax.Array
    ) -> tuple[Rollout, dict[str, jax.Array]]:
        rollout = sharding.gather_to_host(first(params, problems, key, step, row_numbers))
        drafts = [
            think(Draft(ids[live].tolist(), int(row)), *said[:2], budget)
            for ids, live, row, said in zip(
                rollout.prompt, rollout.prompt_mask, np.asarray(row_numbers), read_rows(rollout), strict=True
            )
        ]
        number = 0
        while chosen := choose(drafts):
            segment_key = jax.random.fold_in(key, KeyTag.CONTINUATION + number)
            said = continue_drafts(params, [drafts[n] for n in chosen], segment_key)
            for n, (ids, logprobs, finished) in zip(chosen, said, strict=True):
                thinking = drafts[n].doing == "thinking"
                drafts[n] = (
                    think(drafts[n], ids, logprobs, budget) if thinking else answer(drafts[n], ids, logprobs, finished)
                )
            number += 1
        forced = to_rollout(rollout, drafts, budget.slots)
        layout = model.layout
        return sharding.shard_rows(forced, layout) if layout.is_sharded else jax.tree.map(jnp.asarray, forced), measure(
            drafts
        )

    return draw


def choose(drafts: Sequence[Draft]) -> list[int]:
    """The numbers of the attempts that are sampled next: all that think; when none does, all that answer."""
    doing = next((what for what in ("thinking", "answering") if any(d.doing == what for d in drafts)), "")
    return [n for n, d in enumerate(drafts) if d.doing == doing]


def round_up(rows: int, shards: int) -> int:
    """A number of rows of which there are few: the shards of rows times a power of two."""
    return shards * 2 ** max(0, (-(-rows // shards) - 1).bit_length())


def read_rows(rollout: Any) -> list[tuple[list[int], list[float], bool]]:
    """(ids, log-probabilities, is it finished?) of each response."""
    rows = zip(rollout.response, rollout.logprobs, rollout.mask, rollout.finished, strict=True)
    return [(ids[live].tolist(), logprobs[live].tolist(), bool(ended)) for ids, logprobs, live, ended in rows]


def to_rollout(first: Any, drafts: Sequence[Draft], slots: int) -> Rollout:
    """The attempts as one rollout with the prompts of ``first``: numpy arrays with ``slots`` response columns."""
    response, mask = pad_batch([d.said for d in drafts], slots, 0)
    logprobs = np.zeros(mask.shape, np.float32)
    logprobs[mask] = [x for d in drafts for x in d.logprobs]
    finished = np.asarray([d.finished for d in drafts])
    return first.replace(response=response, mask=mask, logprobs=logprobs, finished=finished)


def measure(drafts: Sequence[Draft]) -> dict[str, jax.Array]:
    """{"budget/NAME": [N] float32} of each of ``MEASURES``."""
    return {f"budget/{name}": jnp.asarray([getattr(d, name) for d in drafts], jnp.float32) for name in MEASURES}
