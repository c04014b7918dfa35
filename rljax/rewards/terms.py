"""What a reward is made of: a weighted sum of terms, written as one.

    "correct + 0.5*format(tags=think) + overlong(share=0.2) - 0.1*length(per=100)"
    "correct + 0.2*my_rewards.py:brevity"

The default is ``correct`` and nothing else: no term sees the length. A term of your own is a function (text, **options) ->
number in a file, named as FILE.py:FUNCTION, or an entry that a plug-in adds to ``TEXT_TERMS``. Where its ``batched``
attribute is true, it takes a list of texts and returns a list of numbers.
"""

import ast
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rljax.errors import UserError
from rljax.options import Declared, check, format_value, load_function
from rljax.policy_gradient import choices
from rljax.structs import Array, Rewards, Rollout
from rljax.tasks import Task
from rljax.text import SymbolTokenizer, Tokenizer
from rljax.verifiers import tag_format, text_rewards

FROM_FILE = re.compile(r"([\w./~-]+\.py):(\w+)")  # FILE.py:FUNCTION


def by_group(x: Array, group_size: int) -> Array:
    """[N, ...] -> [B, G, ...]."""
    return x.reshape(-1, group_size, *x.shape[1:])


def mixed(reward: Array) -> Array:
    """[B] bool: the attempts at this prompt did not all earn the same, so that there is something to compare.

    Attempts that could not be scored (NaN) are left out.
    """
    return jnp.nanmax(reward, -1) > jnp.nanmin(reward, -1)


def mixed_groups(rewards: Rewards) -> Array:
    """[B] bool: some attempts are correct and some are not, of those at this prompt whose reward is known."""
    return mixed(jnp.where(jnp.isnan(rewards.terms.sum(-1)), jnp.nan, rewards.correct))


def correct() -> None:
    """1 for a response that ended by itself with the right final answer, else 0. The verifier decides."""


def overlong(lengths: Array, max_length: int, *, share: float = 0.2) -> Array:
    """The soft overlong punishment over the last ``share`` of the maximum response length."""
    return soft_overlong(lengths, max_length, share * max_length)


def soft_overlong(lengths: Array, max_length: int, margin: Array | float) -> Array:
    """What a response near the limit loses (DAPO, arXiv 2503.14476, eq. 13), float32 like ``lengths``.

    0 up to ``max_length - margin`` tokens, then along a straight line to -1 at ``max_length``, -1 beyond.
    """
    return jnp.clip((max_length - margin - lengths) / jnp.maximum(margin, 1e-9), -1.0, 0.0)


def length(lengths: Array, max_length: int, *, per: float = 100.0) -> Array:
    """Tokens of the response, divided by ``per``."""
    return lengths / per


LENGTH_TERMS: dict[str, Callable[..., Array]] = {"overlong": overlong, "length": length}  # (lengths, T, **options)
TEXT_TERMS: dict[str, Callable[..., Any]] = {  # (text, **options) -> number
    "format": tag_format.format_reward,
    "language": text_rewards.language_consistency,
    "repetition": text_rewards.repetition_penalty,
}
WORDS = {
    ("format", "tags"): tuple(tag_format.TAG_SEQUENCES),
    ("language", "target"): tuple(text_rewards.LANGUAGE_SCRIPTS),
}

RANGES = {
    ("repetition", "n"): Declared("words in a run", int, low=1),
    ("length", "per"): Declared("tokens", float, above=0.0),
    ("overlong", "share"): Declared("of the longest response", float, low=0.0, high=1.0),
}


class Term(NamedTuple):
    """A part of the reward."""

    weight: float
    choice: choices.Choice
    function: Callable[..., Any] = correct

    @property
    def name(self) -> str:
        return self.choice.name

    @property
    def reads_text(self) -> bool:
        return self.name != "correct" and self.name not in LENGTH_TERMS


CORRECT = (Term(1.0, choices.Choice("correct", {})),)


def parse_reward(text: str) -> tuple[Term, ...]:
    """``"correct + 0.5*format - 0.1*language(target=zh)"`` -> terms. Raises UserError for anything else."""
    functions = {"correct": correct} | LENGTH_TERMS | TEXT_TERMS

    def name_function(found: re.Match) -> str:
        functions[found[2]] = load_function(found[1], found[2], f"rl.reward={text!r}")
        return found[2]

    try:
        tree = ast.parse(FROM_FILE.sub(name_function, text).strip(), mode="eval")
        terms = tuple(parse_terms(tree.body, 1.0, functions))
    except (SyntaxError, ValueError, TypeError, OverflowError, MemoryError, RecursionError):
        raise UserError(
            f"rl.reward={format_value(text)}: write a sum such as correct + 0.5*format(tags=think)"
        ) from None
    names = [t.name for t in terms]
    if twice := [n for n in names if names.count(n) > 1]:
        raise UserError(f"rl.reward={text!r} names {twice[0]!r} twice")
    for term in terms:
        check_signature(term)
        if problem := Declared("", float).problem(term.weight) or ("must not be 0" if not term.weight else ""):
            raise UserError(f"rl.reward={format_value(text)}: the weight of {term.name} {problem}")
        for option, value in term.choice.options.items():
            known = WORDS.get((term.name, option))
            if known and value not in known:
                raise UserError(f"rl.reward={text!r}: {option}={value!r}, choose from {known}")
            if (term.name, option) in RANGES:
                check(RANGES[term.name, option], value, f"rl.reward: {term.name}: {option}")
    return terms


def check_signature(term: Term) -> None:
    """Raise UserError where a term's function cannot be called as terms are."""
    data = {"correct": (), **dict.fromkeys(LENGTH_TERMS, ("lengths", "max_length"))}.get(term.name, ("text",))
    signature = inspect.signature(term.function)
    try:
        signature.bind(*data, **term.choice.options)
    except TypeError:
        raise UserError(
            f"rl.reward: the term {term.name!r} is called as {term.name}({', '.join(data)}) with its options by name, but its "
            f"function takes {signature}: write it as {term.name}({', '.join(data)}, *, option=...)"
        ) from None


def parse_terms(node: ast.expr, sign: float, functions: Mapping[str, Callable]) -> Iterator[Term]:
    """The terms of a sum. Raises ValueError for what is not one."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Sub)):
        yield from parse_terms(node.left, sign, functions)
        yield from parse_terms(node.right, sign if isinstance(node.op, ast.Add) else -sign, functions)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        yield from parse_terms(node.operand, -sign, functions)
    else:
        weight = 1.0
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            weight, node = float(ast.literal_eval(node.left)), node.right
        choice = choices.parse(ast.unparse(node), functions, "rl.reward")
        yield Term(sign * weight, choice, functions[choice.name])


def text_terms(terms: Sequence[Term]) -> tuple[Term, ...]:
    """The terms that read the response's text."""
    return tuple(t for t in terms if t.reads_text)


def on_symbols(task: Task, term: Term) -> bool:
    """Whether a term that reads text can be counted on token ids.

    Language can, where each word is one symbol and all of a response is thought.
    """
    alone = isinstance(task.tokenizer, SymbolTokenizer) and not {"<think>", "</think>"} & {*task.tokenizer.table}
    return term.name == "language" and alone and not task.prefill


def language_on_symbols(tokenizer: Tokenizer, response: Array, mask: Array, **options: Any) -> Array:
    """``text_rewards.language_consistency`` of responses [B, G, T] of symbols, in jnp: [B, G] float32."""
    words = [text_rewards.count_language_words(tokenizer.decode([i]), **options) for i in range(tokenizer.size)]
    counts = np.asarray(words, np.float32)
    counts[list(tokenizer.stop_ids)] = 0  # the name of a stop token is not a word of the response
    good, words = jnp.moveaxis(jnp.sum(jnp.asarray(counts)[response] * mask[..., None], -2), -1, 0)
    return good / jnp.maximum(words, 1)


def reward_values(
    terms: Sequence[Term], correct: Array, info: Mapping[str, Array], rollout: Rollout, max_length: int
) -> Array:
    """Each term times its weight, [B, G, R]: their sum is what is learned from.

    ``info`` holds, as ``reward/NAME``, the values [B, G] of terms that read text.
    """
    lengths = by_group(rollout.lengths, correct.shape[-1])

    def value(term: Term) -> Array:
        if term.name == "correct":
            return correct
        if term.name in LENGTH_TERMS:
            return term.function(lengths, max_length, **term.choice.options)
        return info[f"reward/{term.name}"]

    return jnp.stack([t.weight * value(t) for t in terms], -1)
