"""What counts as going wrong while RL trains: measures of a record, thresholds, and what to try."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Record = Mapping[str, Any]
Value = float | None  # None: this record says nothing about it
BASELINE = 5  # records from whose mean "at the start" is taken, and over which a reward is averaged
RECENT = 10  # records that are kept


class Past(NamedTuple):
    """What is kept of the records before one: of a fixed size, however long the run."""

    first: Mapping[str, tuple[float, ...]] = {}  # {key: its first finite values}, of the keys in ``STARTS``
    recent: tuple[Record, ...] = ()  # training records
    best: Record | None = None  # the evaluation with the best accuracy
    best_reward: Value = None  # mean training reward up to then

    def at_start(self, key: str) -> Value:
        """The mean of a key over the first records that have it; None before there are enough."""
        found = self.first.get(key, ())
        return sum(found) / BASELINE if len(found) == BASELINE else None

    def reward(self) -> Value:
        """The mean training reward of the last records."""
        found = [r["train/reward"] for r in self.recent if r.get("train/reward") is not None][-BASELINE:]
        return sum(found) / len(found) if found else None

    def with_record(self, record: Record) -> "Past":
        """The same after one more record."""
        first, best, best_reward = dict(self.first), self.best, self.best_reward
        for key in STARTS:
            value = number(record, key)
            if value is not None and math.isfinite(value) and len(first.get(key, ())) < BASELINE:
                first[key] = (*first.get(key, ()), value)
        accuracy = record.get("eval/pass@1")
        if accuracy is not None and (best is None or accuracy > best["eval/pass@1"]):
            best, best_reward = record, self.reward()
        trained = "train/reward" in record or "train/loss" in record
        recent = (*self.recent, record)[-RECENT:] if trained else self.recent
        return Past(first, recent, best, best_reward)


STARTS = ("train/entropy", "train/response_length/mean")


class Rule(NamedTuple):
    """When an alarm begins and ends. ``measure(past, record)`` is compared; ``past`` is what the records before it said."""

    name: str
    measure: Callable[[Past, Record], Value]
    begins: float  # at this value and above
    ends: float  # below this value
    patience: int  # records in a row
    text: str | Callable[[Record], str]
    # {value}, {first} (the measure's key at the start) and {now} are filled in; a function chooses the text by the record
    key: str = ""  # whose values {first} and {now} are


LEARNED = 0.8  # share of right attempts above which a policy may be certain
COLLAPSIBLE = 0.1  # nats a token: entropy that began below cannot collapse
CERTAIN = 0.01  # nats a token: the attempts at a problem hardly differ


def number(record: Record, key: str) -> Value:
    """A value of a record. A value that was not finite is null in the file, and infinite here."""
    if key not in record:
        return None
    return math.inf if record[key] is None else float(record[key])


def measure_of(*keys: str) -> Callable[[Past, Record], Value]:
    """The sum of these values of a record."""

    def measure(past: Past, record: Record) -> Value:
        found = [number(record, key) for key in keys]
        return None if None in found else sum(x for x in found if x is not None)

    return measure


def entropy_lost(past: Past, record: Record) -> Value:
    """Starting entropy over entropy. Only what began above a tenth of a nat can collapse.

    0 where most attempts are right: a policy that has learned a task is certain.
    """
    first, now, right = past.at_start("train/entropy"), number(record, "train/entropy"), share_right(record)
    if first is None or now is None or right is None or first < COLLAPSIBLE:
        return None
    return 0.0 if right > LEARNED else first / max(now, 1e-9)


def certainty(past: Past, record: Record) -> Value:
    """Minus the entropy, of a policy whose entropy was too low at the start to collapse."""
    first, now, right = past.at_start("train/entropy"), number(record, "train/entropy"), share_right(record)
    if first is None or now is None or right is None or first >= COLLAPSIBLE:
        return None
    return -math.inf if right > LEARNED else -now


def share_right(record: Record) -> Value:
    """The share of right attempts in a training record; None in one of pretraining or SFT, which lower entropy as they should."""
    return number(record, "train/reward/correct" if "train/reward/correct" in record else "train/reward")


def length_growth(past: Past, record: Record) -> Value:
    """Mean length over that at the start, where a third of the responses are cut off too: else length is thought."""
    first, now = past.at_start("train/response_length/mean"), number(record, "train/response_length/mean")
    if not first or now is None:
        return None
    return now / first if (number(record, "train/truncated") or 0.0) >= 1 / 3 else 0.0


def zero_gradient(past: Past, record: Record) -> Value:
    """1 where the gradient is exactly zero although some groups are mixed."""
    norm, mixed = number(record, "train/grad_norm"), number(record, "train/groups/mixed")
    return None if norm is None else float(norm == 0 and mixed != 0)


def skipped_share(past: Past, record: Record) -> Value:
    """The share of the steps since ten records ago that were skipped, as their gradient was not finite."""
    key = "train/skipped_steps"
    before = [r for r in past.recent if key in r]
    if key not in record or not before or record["step"] <= before[0]["step"]:
        return None
    return (record[key] - before[0][key]) / (record["step"] - before[0]["step"])


def accuracy_lost(past: Past, record: Record) -> Value:
    """By how many standard errors held-out accuracy is below its best, while the reward has risen since; 0 where it has not.

    A difference below .05 counts as none.
    """
    now, best, reward = record.get("eval/pass@1"), past.best, past.reward()
    if now is None or best is None:
        return None
    lost = best["eval/pass@1"] - now
    if lost < 0.05 or past.best_reward is None or reward is None or reward <= past.best_reward + 0.02:
        return 0.0
    error = math.hypot(record.get("eval/pass@1/se") or 0.0, best.get("eval/pass@1/se") or 0.0)
    return lost / max(error, 0.01)


# What to try, before training and during it

MENDS = {
    "cut off": "raise rl.max_new_tokens, end responses at a stop string (task.options.stop_strings, where the task has them), or "
    "look whether the stop token is sampled at all (template, tokenizer)",
    "unreadable": "begin with a cold start or a longer one (fine-tuning, then rl.start=sft), show the form of the answer in the prompt "
    "(task.options.template, where the task has one), or reward it (rl.reward=correct+0.2*format)",
    "certain": "raise rl.temperature, add an entropy bonus (rl.row.entropy), or start from an earlier checkpoint "
    "(rl.start=sft@STEP)",
    "fail": "ask easier problems (task.options, rl.levels), make more attempts (rl.group_size), or ask with another template or "
    "worked examples (task.options.template, where the task has one)",
    "succeed": "ask harder problems (task.options, rl.levels)",
    "alike": "ask problems that are neither too easy nor too hard (task.options, rl.levels), make more attempts (rl.group_size), "
    "or ask more problems a step (rl.prompts)",
    "reward": "add a term that differs between them (rl.reward)",
}


def describe_equal_groups(record: Record) -> str:
    """What to try where every group has one outcome, by the outcome that they have."""
    wrong, right = (number(record, f"train/groups/{name}") or 0.0 for name in ("all_wrong", "all_right"))
    kind = "fail" if wrong > 0.9 else "succeed" if right > 0.9 else "alike"
    return f"every group has the same reward for all its attempts, so nothing is learned: {MENDS[kind]}"


RULES = (
    Rule("all cut off", measure_of("train/truncated"), 0.98, 0.9, 3,
         "{value:.0%} of the responses are cut off: " + MENDS["cut off"]),
    Rule("nothing readable", measure_of("train/answers/none"), 0.98, 0.9, 3,
         "{value:.0%} of the responses have no answer that can be read: " + MENDS["unreadable"]),
    Rule("all groups equal", measure_of("train/groups/all_wrong", "train/groups/all_right"), 0.999, 0.95, 5,
         describe_equal_groups),
    Rule("no entropy", certainty, -CERTAIN, -2 * CERTAIN, 3,
         "entropy is {now:.2g} nats a token, so the attempts at a problem hardly differ: " + MENDS["certain"], "train/entropy"),
    Rule("entropy collapse", entropy_lost, 10.0, 5.0, 3,
         "entropy fell from {first:.2g} to {now:.2g} nats: lower the learning rate, raise the upper clip (rl.algorithm=dapo), or "
         "add an entropy bonus", "train/entropy"),
    Rule("length explosion", length_growth, 2.0, 1.5, 3,
         "responses grew from {first:.0f} to {now:.0f} tokens and a third or more are cut off: look for repetition in samples/, "
         "use rl.row.truncated=soft, or raise rl.max_new_tokens", "train/response_length/mean"),
    Rule("ratio out of range", measure_of("train/ratio/max"), 100.0, 10.0, 3,
         "the importance ratio reaches {value:.3g}: lower the learning rate, or use fewer rl.updates or rl.epochs on a rollout"),
    Rule("KL blow-up", measure_of("train/kl"), 5.0, 2.0, 3,
         "the KL to the reference is {value:.3g} nats a token: lower the learning rate, raise the KL coefficient, or refresh the "
         "reference (rl.refresh_reference)"),
    Rule("sampler-trainer gap", measure_of("train/sampler_gap"), 0.2, 0.1, 3,
         "sampler and learner differ by {value:.3g} nats a token: sample in the learner's dtype, use "
         "rl.row.correction=token_truncate, or look for stale weights"),
    Rule("verifier errors", measure_of("train/verifier_error"), 0.05, 0.01, 2,
         "the verifier raised on {value:.0%} of the responses, which count as wrong: read the exception printed at the start"),
    Rule("verifier failures", measure_of("train/verifier_unscored"), 0.02, 0.005, 2,
         "{value:.0%} of the responses could not be scored: look at the verifier and at the memory of this machine"),
    Rule("accuracy falls while reward rises", accuracy_lost, 2.0, 1.0, 1,
         "held-out accuracy fell to {now:.3f} while the reward rose: read samples/ for responses that please the verifier alone",
         "eval/pass@1"),
    Rule("zero gradient", zero_gradient, 1.0, 1.0, 3,
         "the gradient is exactly zero although groups are mixed: is anything left to learn from (rl.row.truncated, "
         "rl.row.tokens), or are the weights frozen?"),
    Rule("skipped updates", skipped_share, 0.3, 0.1, 1,
         "{value:.0%} of the last updates were skipped, as their gradient was not finite: lower the learning rate, or use "
         "bfloat16 in place of float16"),
)  # fmt: skip
