"""Captions and headline numbers of a run's report, derived from its config and its records.

``config`` is the run's resolved config as a plain dict.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rljax import metrics
from rljax.report.measures import find_measure
from rljax.report.records import Record, Run, all_keys, read_series

LENGTH_TERMS = {"overlong", "length"}  # terms of rl.reward that read the length of a response
TERMS_WITHOUT_LENGTH = {"correct", "format", "language", "repetition"}
STRATEGY_LABELS = {
    "jump": "jump to an answer",
    "steps": "take steps",
    "check": "check an answer",
    "retry": "retry after a failed check",
}
SELECTION_LABELS = {
    "shortest_correct": "imitate the shortest correct attempt",
    "rejection_sampling": "imitate all correct attempts",
}
BEHAVIOURS_CAPTION = (
    "Counted behaviours: share of responses, times per response, and times per 1,000 tokens. The first two grow with the "
    "length of responses, the third does not."
)


def name_start_model(config: Mapping[str, Any]) -> str:
    """The name of the model that RL started from, as in "SFT model"."""
    start = str(config.get("rl", {}).get("start", ""))
    names = {"sft": "SFT model", "pretrain": "pretrained model", "rl": "RL model", "": "random weights"}
    if start == "weights":
        return str(config.get("weights") or "model before RL").rstrip("/").rpartition("/")[2]
    return names.get(start.rpartition(":")[2].partition("@")[0], "model before RL")


def describe_length_reward(config: Mapping[str, Any], records: Run) -> str:
    """Sentences that say whether the reward or the algorithm depends on the length of responses; "" without a reward."""
    rl = config.get("rl", {})
    reward = str(rl.get("reward") or "")
    without_options = re.sub(r"\([^()]*\)", "", reward)
    terms = {t for t in re.split(r"[\s+*-]+", without_options) if t and not re.fullmatch(r"[\d.]+(e\d*)?", t)}
    algorithm = " ".join(text_values({k: v for k, v in rl.items() if k not in ("reward", "start")}))
    sentences = []
    if terms & LENGTH_TERMS:
        sentences.append(f"The reward reads the length: rl.reward is “{reward}”.")
    if "train/overlong" in all_keys([records]):
        sentences.append("Responses near the length limit lose reward (soft overlong punishment).")
    if match := re.search(r"shortest|longest", algorithm):
        sentences.append(f"The algorithm learns from the {match[0]} correct attempts.")
    if not sentences and terms and terms <= TERMS_WITHOUT_LENGTH:
        sentences.append(f"No term of the reward reads the length: rl.reward is “{reward}”.")
    elif not sentences and reward:
        sentences.append(f"rl.reward is “{reward}”.")
    return " ".join(sentences)


def text_values(tree: Any) -> Iterable[str]:
    """Every str value of a nested dict."""
    if isinstance(tree, Mapping):
        for value in tree.values():
            yield from text_values(value)
    elif isinstance(tree, str):
        yield tree


def describe_clipping(records: Run) -> str:
    """A sentence for a run in which every ratio was 1, else ""."""
    largest = read_series(records, "train/ratio/max").values()
    if largest and max(abs(v - 1) for v in largest) < 1e-3:
        return " All ratios are 1: every update was on-policy, and nothing was clipped."
    return ""


def describe_training(records: Run) -> str:
    """The caption of the training figure."""
    return (
        "The training batches, as logged at each step. Thin lines are steps; thick lines, and the numbers at their ends, are "
        f"moving means over a twentieth of the run.{describe_clipping(records)}"
    )


def describe_accuracy(config: Mapping[str, Any]) -> str:
    """The caption of the accuracy figure."""
    return (
        "Accuracy on held-out problems over RL steps, as in DeepSeek-R1's Figure 2. Dashed: pass@1 before RL "
        f"({name_start_model(config)}). Bands: 95 % intervals over the questions."
    )


def describe_response_length(config: Mapping[str, Any], records: Run) -> str:
    """The caption of the figure of response lengths."""
    return (
        "Length of held-out responses over RL steps, as in DeepSeek-R1's Figure 3: mean; shade: median to 95th percentile. "
        f"{describe_length_reward(config, records)}"
    )


def describe_strategies(names: Sequence[str]) -> str:
    """The caption of the figure of strategies. ``names`` are those that occurred."""
    return f"What the attempts do: {', '.join(STRATEGY_LABELS.get(n, n) for n in names)}."


def describe_selection(runs: Mapping[str, Run]) -> str:
    """The caption of the figure of selection rules: first and last value of each."""
    sentences = []
    for rule, records in runs.items():
        changes = []
        for name in ("pass@1", "length"):
            m = find_measure(name)
            if values := [*read_series(records, m.key).values()]:
                changes.append(f"{name} {m.format(values[0])} → {m.format(values[-1])}")
        sentences.append(f"{rule[0].upper()}{rule[1:]}: {', '.join(changes)}")
    return f"From the same start, learning from different attempts. {'. '.join(sentences)}."


def describe_question(before: float, after: float) -> str:
    """How the question in the report was chosen, given its pass rates before and after RL."""
    text = "The same question before and after RL. Among the questions with recorded attempts, "
    if after == before:
        return text + "the share of right attempts rose on none, and on this one it did not change."
    return (
        text + f"its share of right attempts {'rose most' if after > before else 'fell least; it rose on no question'}."
    )


def describe_rare_behaviours(records: Run, rare: float) -> str:
    """What to say of counted behaviours that no evaluation found in the share ``rare`` of the responses; "" without any."""
    prefix, shares = "eval/behaviour/", {}
    for record in rl_evaluations(records):
        for key, value in record.items():
            if key.startswith(prefix) and "/" not in key.removeprefix(prefix) and value is not None:
                shares.setdefault(key.removeprefix(prefix), []).append(value)
    largest = {name: max(values) for name, values in shares.items()}
    seldom = [name for name, share in largest.items() if share < rare]
    if not seldom:
        return ""
    names = ", ".join(name.removesuffix("_proxy").replace("_", " ") for name in seldom)
    which = (
        "None of the counted behaviours" if len(seldom) == len(largest) else "Of the counted behaviours none of these"
    )
    return f"{which} was in {rare:.0%} of the responses at any evaluation, before RL or after it: {names}."


def rl_evaluations(records: Run) -> list[Record]:
    """The evaluations of the RL stage that have a pass@1."""
    return [r for r in records if r.get("stage") == "rl" and r.get("eval/pass@1") is not None]


def headline_numbers(records: Run, timings: Sequence[Record], questions: int | None) -> list[tuple[str, Any, str]]:
    """The headline numbers of a run, as far as it measured them: (label, value, note) each."""
    first, last = (rl_evaluations(records)[i] for i in (0, -1))
    out: list[tuple[str, Any, str]] = []
    for name in ("pass@1", metrics.find_cons_key(last).removeprefix("eval/"), "length", "jumps"):
        m = find_measure(name)
        values = read_series(records, m.key)
        if not name or len(values) < 2 or m.key not in last or m.key not in first:
            continue
        if name != "pass@1" and not any(values.values()):
            continue  # a task that counts no jumps; an accuracy of 0 is a result
        note = f"{m.format(first[m.key])} before RL"
        error = last.get(f"{m.key}/se")
        if name == "pass@1" and error is not None:
            note += f", now ± {m.format(metrics.half_width(error, questions))} (95 %)"
        if name == "length" and first[m.key]:
            note += f" (tokens), {last[m.key] / first[m.key]:.1f}×"
        out.append((m.label, m.format(last[m.key]), note))
    if timings:
        last_by_stage = {r["stage"]: r for r in timings}  # "seconds" of a resumed stage count from where it was resumed
        minutes = sum(r["seconds"] for r in last_by_stage.values()) / 60
        out.append(("Minutes", f"{minutes:.1f}", f"{last['step']} RL steps; stages: {', '.join(last_by_stage)}"))
    return out
