"""What RL cannot work with from the start: measures of the policy that it starts from, thresholds, and what to try.

They are taken from the evaluation of step 0 of a run. ``rljax check`` measures more (``rljax.training.diagnosis``), and writes it
under names of the same kind, so that the same rules read it.
"""

import re
from collections.abc import Callable

from rljax.metrics.alarm_rules import CERTAIN, LEARNED, MENDS, Past, Record, Rule, Value

FEW_SOLVED = 0.95  # share of unsolved problems from which on too few give a gradient
ALL_RIGHT = 0.98  # share of right attempts from which on there is little to learn
FEW_MIXED = 0.95  # share of groups of one outcome from which on too few give a gradient


def at_start(key: str) -> Callable[[Past, Record], Value]:
    """A value of the evaluation of step 0 of RL."""
    return lambda past, record: first_value(record, key)


def first_value(record: Record, key: str) -> Value:
    """A value of a record of RL's step 0; None in other records, and where it is not known."""
    is_first = record.get("stage") == "rl" and record.get("step") == 0
    return float(record[key]) if is_first and record.get(key) is not None else None


def unsolved(past: Past, record: Record) -> Value:
    """The share of the problems at which no attempt is right, of as many attempts as were made."""
    counts = [int(found[1]) for key in record if (found := re.fullmatch(r"eval/pass@(\d+)", key))]
    rate = first_value(record, f"eval/pass@{max(counts, default=1)}")
    return None if rate is None or (rate and max(counts) == 1) else 1 - rate  # one attempt says little of a group


def unmixed(past: Past, record: Record) -> Value:
    """The share of groups of one outcome, where the problems are neither too hard nor too easy; 0 where they are."""
    mixed = first_value(record, "eval/groups/mixed")
    if mixed is None:
        return None
    too_hard = (unsolved(past, record) or 0.0) >= FEW_SOLVED
    too_easy = (first_value(record, "eval/pass@1") or 0.0) >= ALL_RIGHT
    return 0.0 if too_hard or too_easy else 1 - mixed


def equal_rewards(past: Past, record: Record) -> Value:
    """The share of groups whose attempts all earn the same although outcomes are mixed; 0 where they are not."""
    equal, mixed = (first_value(record, f"eval/groups/{name}") for name in ("equal_reward", "mixed"))
    return equal if equal is None or (mixed or 0.0) > 1 - FEW_MIXED else 0.0


def certainty_at_start(past: Past, record: Record) -> Value:
    """Minus the entropy of a policy that has not learned the task yet."""
    entropy, right = first_value(record, "eval/entropy"), first_value(record, "eval/pass@1")
    return None if entropy is None or (right or 0.0) > LEARNED else -entropy


FIRST_RULES = (  # in the order in which they are best mended
    Rule("most cut off", at_start("eval/truncated"), 0.5, 0.5, 1,
         "{value:.0%} of the responses are cut off: " + MENDS["cut off"]),
    Rule("few answers readable", at_start("eval/answers/none"), 0.9, 0.9, 1,
         "{value:.0%} of the responses have no answer that can be read: " + MENDS["unreadable"]),
    Rule("entropy near zero", certainty_at_start, -CERTAIN, -CERTAIN, 1,
         "entropy is {now:.2g} nats a token, so the attempts at a problem hardly differ: " + MENDS["certain"], "eval/entropy"),
    Rule("all groups fail", unsolved, FEW_SOLVED, FEW_SOLVED, 1,
         "no attempt is right at {value:.0%} of the problems, so nothing is learned from them: " + MENDS["fail"]),
    Rule("all groups succeed", at_start("eval/pass@1"), ALL_RIGHT, ALL_RIGHT, 1,
         "{value:.1%} of the attempts are right, so little is left to learn: " + MENDS["succeed"]),
    Rule("few groups mixed", unmixed, FEW_MIXED, FEW_MIXED, 1,
         "the attempts have one outcome at {value:.0%} of the problems, so nothing is learned from them: " + MENDS["alike"]),
    Rule("constant reward", equal_rewards, FEW_MIXED, FEW_MIXED, 1,
         "right and wrong attempts earn the same reward at {value:.0%} of the problems, so nothing is learned from them: "
         + MENDS["reward"]),
)  # fmt: skip
