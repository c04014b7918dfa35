"""The measures of a run: the table of names, units and labels that figures, the report's tables and ablations use.

A new metric needs one row here. A key "eval/..." belongs in EVALUATION, by the name that ablations use in ``measures`` and
in claims. A key "train/..." belongs in TRAINING. A key without a row is shown by its own name, as a plain number.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

UNITS = {  # {unit: format of a value in figures and tables}
    "share": "{:.1%}",
    "tokens": "{:.1f}",
    "nats": "{:.3g}",
    "": "{:.3g}",
}


class Measure(NamedTuple):
    """One metric of metrics.jsonl, and how figures and tables show it."""

    key: str  # in metrics.jsonl
    label: str  # in tables and titles
    unit: str = ""  # a key of ``UNITS``
    better: str = ""  # "higher" | "lower" | "": neither
    panel: str = ""  # title of a small panel that several measures share; "": a panel of its own
    short_label: str = ""  # label within such a panel
    show_constant: bool = True  # False: drawn only where it changes during a run

    @property
    def is_share(self) -> bool:
        """Whether it is between 0 and 1 and written as a percentage."""
        return self.unit == "share"

    @property
    def header(self) -> str:
        """The label with its unit, and an arrow towards better, as in "pass@1 ↑"."""
        unit = "" if self.unit in ("", "share") else f" ({self.unit})"
        return self.label + unit + {"higher": " ↑", "lower": " ↓", "": ""}[self.better]

    def format(self, value: float) -> str:
        """The value as text, as in "93.4%" or "57.2"."""
        return UNITS[self.unit].format(value)

    def format_short(self, value: float) -> str:
        """The value with fewer digits, as in "93%" or "57"."""
        return {"share": f"{value:.0%}", "tokens": f"{value:.0f}"}.get(self.unit) or self.format(value)


LENGTHS_PANEL = "Lengths, right and wrong"
EVALUATION: dict[str, Measure] = {  # {name: measure}
    "pass@1": Measure("eval/pass@1", "pass@1", "share", "higher"),
    "greedy": Measure("eval/greedy", "Greedy accuracy", "share", "higher"),
    "length": Measure("eval/response_length/mean", "Response length, mean", "tokens"),
    "median length": Measure("eval/response_length/median", "Response length, median", "tokens"),
    "p95 length": Measure("eval/response_length/p95", "Response length, p95", "tokens"),
    "max length": Measure("eval/response_length/max", "Response length, max", "tokens"),
    "length of right": Measure(
        "eval/response_length/correct", "Length of right responses", "tokens", panel=LENGTHS_PANEL, short_label="right"
    ),
    "length of wrong": Measure(
        "eval/response_length/wrong", "Length of wrong responses", "tokens", panel=LENGTHS_PANEL, short_label="wrong"
    ),
    "truncated": Measure("eval/truncated", "Truncated responses", "share", "lower"),
    "jumps": Measure("eval/strategy/jump", "Jumps to an answer", "share"),
    "retries": Measure("eval/strategy/retry", "Retries", "share"),
    "three kinds": Measure("eval/strategy/three_kinds", "Pays with three kinds", "share"),
    "tries": Measure("eval/tries", "Tries an attempt"),
    "repeated": Measure("eval/repeated", "Tries that repeat one", "share", "lower"),
    "wasted": Measure("eval/wasted", "Tokens behind the first right try", "tokens", "lower"),
    "facts right": Measure("eval/facts_right", "Calculations right", "share", "higher"),
    "verdicts right": Measure("eval/verdicts_right", "Verdicts right", "share", "higher"),
    "false yes": Measure("eval/false_yes", "Wrong “yes” verdicts", "share", "lower"),
    "no answer": Measure("eval/answers/none", "No answer", "share", "lower", show_constant=False),
    "several answers": Measure("eval/answers/several", "Several answers", "share", "lower", show_constant=False),
    "verifier failed": Measure("eval/verifier_error", "Verifier failed", "share", "lower", show_constant=False),
    "not scored": Measure("eval/verifier_unscored", "Not scored", "share", "lower", show_constant=False),
    "no program": Measure("eval/code/none", "No program", "share", "lower", show_constant=False),
    "program fails": Measure("eval/code/fails", "Program fails", "share", "lower", show_constant=False),
}


def make_panel_measures(
    panel: str, unit: str, members: dict[str, str], better: str = "", show_constant: bool = True
) -> list[Measure]:
    """Training measures in one panel. ``members`` is {key without "train/": short label}."""
    return [
        Measure(f"train/{key}", f"{panel}, {label}", unit, better, panel, label, show_constant)
        for key, label in members.items()
    ]


TRAINING: tuple[Measure, ...] = (
    Measure("train/reward", "Reward, mean", better="higher"),
    Measure("train/entropy", "Entropy", "nats"),
    *make_panel_measures("KL to the reference policy", "nats", {"kl": "k3", "kl/k1": "k1"}),
    Measure("train/clip_fraction", "Clip fraction", "share"),
    Measure("train/grad_norm", "Gradient norm"),
    *make_panel_measures(
        "Groups of attempts",
        "share",
        {"groups/all_wrong": "all wrong", "groups/mixed": "mixed", "groups/all_right": "all right"},
    ),
    *make_panel_measures(
        "Response length", "tokens", {f"response_length/{name}": name for name in ("max", "p95", "mean", "median")}
    ),
    Measure("train/truncated", "Truncated responses", "share", "lower"),
    *make_panel_measures(
        "Gap between sampler and learner", "nats", {"sampler_gap/max": "max", "sampler_gap": "mean"}, "lower"
    ),
    Measure("train/learning_rate", "Learning rate"),
    *make_panel_measures("Ratio π / π_old", "", {"ratio/max": "max", "ratio/mean": "mean"}, show_constant=False),
    *make_panel_measures(
        "Effective sample size",
        "share",
        {"ratio/ess": "ratios", "sampler/ess": "sampler"},
        "higher",
        show_constant=False,
    ),
    Measure("train/sampler/mean", "Ratio π_old / sampler, mean", show_constant=False),
    Measure("train/counted", "Tokens in the loss", "share", show_constant=False),
    Measure("train/skipped_steps", "Skipped updates", "", "lower", show_constant=False),
    Measure("train/loss_scale", "Loss scale of float16", show_constant=False),
    Measure("train/value/explained_variance", "Critic: explained variance", "", "higher"),
    Measure("train/loss", "Loss"),
    Measure("train/answers/none", "No answer", "share", "lower", show_constant=False),
    Measure("train/answers/several", "Several answers", "share", "lower", show_constant=False),
)
# Evaluation keys without a small panel: they have a figure of their own, or belong to an estimate
NO_PANEL = re.compile(
    r"eval/(pass@\d+|cons@\d+|behaviour/.+|strategy/.+|level/.+|dataset/.+|response_length/(mean|median|p95|max)"
    r"|facts_right|false_yes|verdicts_right(/.+)?|.+/(se|questions))"
)


def find_measure(name: str) -> Measure:
    """The measure with a name ("length", "pass@8", "level 3") or a key ("eval/greedy", "train/kl"), with or without a row."""
    if name in EVALUATION:
        return EVALUATION[name]
    key = f"eval/level/{name[6:]}/pass@1" if name.startswith("level ") else name if "/" in name else f"eval/{name}"
    known = next((m for m in (*EVALUATION.values(), *TRAINING) if m.key == key), None)
    better = "higher" if re.search(r"(pass|cons)@\d+$", key) else ""
    return known or Measure(key, label_key(name), guess_unit(key), better)


def label_key(name: str) -> str:
    """What a key without a row is called: "strategy/steps" -> "Strategy: steps"."""
    name = name.removeprefix("eval/").removeprefix("train/")
    if name.startswith("strategy/"):
        return f"Strategy: {name.removeprefix('strategy/')}"
    if found := re.fullmatch(r"verdicts_right/try_(\d+)", name):
        return f"Verdicts right, try {found[1]}"
    return name


def guess_unit(key: str) -> str:
    """The unit of a key without a row: "share" for pass rates, votes and strategies, "tokens" for lengths."""
    if "response_length/" in key:
        return "tokens"
    is_share = re.search(
        r"(pass|cons)@\d+$|^eval/(strategy|verdicts_right)/|^eval/behaviour/[^/]+$|^train/groups/", key
    )
    return "share" if is_share else ""


def training_panels(keys: Iterable[str]) -> dict[str, list[Measure]]:
    """{title of a panel: its measures} for the keys "train/..." among ``keys``. Keys without a row come last."""
    keys = [k for k in dict.fromkeys(keys) if k.startswith("train/")]
    known = [m for m in TRAINING if m.key in keys]
    other = [k for k in keys if k not in {m.key for m in known}]
    terms = [
        Measure(
            k, k.removeprefix("train/"), panel="Reward terms, unweighted", short_label=k.removeprefix("train/reward/")
        )
        for k in other
        if k.startswith("train/reward/")
    ]
    rest = [find_measure(k)._replace(show_constant=False) for k in other if not k.startswith("train/reward/")]
    return group_by_panel([*known, *terms, *rest])


def evaluation_panels(keys: Iterable[str]) -> dict[str, list[Measure]]:
    """{title of a panel: its measures} for the keys "eval/..." among ``keys`` that no other figure draws."""
    keys = [k for k in dict.fromkeys(keys) if k.startswith("eval/") and not NO_PANEL.fullmatch(k)]
    known = [m for m in EVALUATION.values() if m.key in keys]
    return group_by_panel([*known, *(find_measure(k) for k in keys if k not in {m.key for m in known})])


def group_by_panel(measures: Iterable[Measure]) -> dict[str, list[Measure]]:
    """{title of a panel: its measures}, in order of appearance."""
    panels: dict[str, list[Measure]] = {}
    for m in measures:
        panels.setdefault(m.panel or m.label, []).append(m)
    return panels
