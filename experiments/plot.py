"""Draw what runs left behind: figures/*.png and report.html, from metrics.jsonl and the samples.

python -m experiments.plot --config configs/shop.py --workdir runs/shop
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from rljax import metrics, report
from rljax.errors import UserError
from rljax.metrics import behaviours
from rljax.report import figures
from rljax.structs import ConfigTree
from rljax.training import journal, launch

RULES = {
    "shortest_correct": "imitate the shortest correct attempt",
    "rejection_sampling": "imitate all correct attempts",
    "policy_gradient": "policy gradient",
}
CURVES = {
    "accuracy": "Accuracy on held-out problems over RL steps, in the manner of DeepSeek-R1's Figure 2. The dashed line is "
    "the model before RL.",
    "response_length": "Length of held-out responses over RL steps (mean; shade: median to 95th percentile), in the manner "
    "of DeepSeek-R1's Figure 3. No reward sees the length.",
    "overlay": "The same two curves beside R1-Zero's own, digitised from arXiv 2501.12948v1: share of training on x, lengths "
    "relative to the first. Ours are held-out responses, R1-Zero's its training set.",
    "strategies": "What the attempts do: jump to an answer, take steps, check, or retry after a failed try.",
    "behaviours": "Words that tell a strategy: share of responses that say them, times per response, and times in 1,000 "
    "tokens. The first two grow by themselves when responses grow, the third does not.",
    "skills": "The skills that a search stands on: calculations right, verdicts right by number of the try, false yes.",
}


def run(config: ConfigTree, workdir: Path) -> None:
    """Draw one run's figures and write its report."""
    records = journal.read_records(workdir / "metrics.jsonl")
    rl = [r for r in records if r["stage"] == "rl" and "eval/pass@1" in r]
    if len(rl) < 2:
        raise UserError(
            f"{workdir}: there is no RL run to draw yet: run `python -m experiments.rl` with this config first"
        )
    folder, drawn, aha = workdir / "figures", [], first_aha(config, records)
    for name, caption in CURVES.items():
        marked = {"aha": aha.step} if name == "behaviours" and aha else {}
        try:
            getattr(figures, name)([records], folder / f"{name}.png", **marked)
            drawn.append((folder / f"{name}.png", caption))
        except UserError:  # a task without such words, verdicts or sums has nothing to draw there
            continue
    pairs = attempts(workdir, rl[0]["step"], rl[-1]["step"])
    more = []
    if pairs:
        figures.attempts(*pairs[0], folder / "attempts.png")
        drawn.append((folder / "attempts.png", "One held-out problem, attempts before and after RL: right ones green."))
        names = (STARTS.get(config.rl.start, "model before RL"), f"RL model, step {rl[-1]['step']}")
        compared = report.side_by_side(list(zip(names, pairs[0], strict=True)), CHOSEN)
        more.append(("Thinking against imitation", compared))
    if aha:
        more.append(("First aha", report.example(*aha_example(aha, workdir))))
    rules = selection(workdir, records)
    if rules:
        figures.selection(rules, folder / "selection.png")
        drawn.append((folder / "selection.png", SELECTION))
    about = json.loads((workdir / "config.json").read_text())
    title = f"rljax: learning to reason by reinforcement learning, task “{config.task.name}”"
    numbers = tiles(rl, workdir) + ([aha_tile(aha)] if aha else [])
    report.write(workdir / "report.html", title, numbers, drawn, pairs, tables(records), about, more)


STARTS = {"sft": "SFT model", "pretrain": "pretrained model", "": "random weights"}
CHOSEN = (
    "The same question put to the model before RL and after it. It is, of the questions whose attempts were written down, "
    "the one on which the share of right attempts rose most."
)
SELECTION = (
    "From the same start: which of one's own attempts to learn from? Imitating the shortest correct one teaches guessing; "
    "imitating all correct ones, or the policy gradient, teaches thinking."
)


class Aha(NamedTuple):
    """When a behaviour came to stay, as ``behaviours.first_aha`` says."""

    behaviour: str
    share: float  # that it had to reach
    step: int | None  # None: it never did
    before: float | None  # its share at the evaluation before that step
    then: float | None  # and at that step


def first_aha(config: ConfigTree, records: list[Any]) -> Aha | None:
    """The first aha of the run; None where its behaviour was not counted."""
    wanted = config.report.aha
    found = figures.series(records, f"eval/behaviour/{wanted.behaviour}")
    if not found:
        return None
    step = behaviours.first_aha(found, wanted.share)
    before = None if step is None else behaviours.share_before(found, step)
    return Aha(wanted.behaviour, wanted.share, step, before, None if step is None else found[step])


def aha_tile(aha: Aha) -> tuple[str, Any, str]:
    if aha.step is None:
        return "first aha", "none", f"“{aha.behaviour}” never stayed in {aha.share:.0%} of responses"
    before = "there before RL" if aha.before is None else f"{aha.before:.0%} at the evaluation before"
    return "first aha", f"step {aha.step}", f"“{aha.behaviour}” in {aha.then:.0%} of responses, {before}"


def aha_example(aha: Aha, workdir: Path) -> tuple[Any, ...]:
    """The arguments of ``report.example``: what is said of the first aha, and an attempt that shows it."""
    rule = f"“{aha.behaviour}” in {aha.share:.0%} of the responses or more, at one evaluation and still at the next"
    if aha.step is None:
        return (f"There was no first aha: at no step was {rule}.",)
    said = f"The first aha is the first step with {rule}: step {aha.step}, with {aha.then:.0%}"
    said += ". It was there before RL." if aha.before is None else f" after {aha.before:.0%} at the evaluation before."
    counted = behaviours.patterns([aha.behaviour])[aha.behaviour]
    samples = journal.read_records(workdir / "samples" / f"rl_step_{aha.step:06d}.jsonl")
    shown = behaviours.example(samples, counted)
    if shown is None:
        return (f"{said} None of the attempts that were written down shows it.",)
    which = "first right attempt of that evaluation that shows it before its answer"
    if shown["reward"] <= 0.5:
        which = "first attempt of that evaluation that shows it; no right one does before its answer"
    return f"{said} Below, the {which}.", shown, counted, f"step {aha.step}"


def attempts(workdir: Path, first: int, last: int) -> list[tuple[list[Any], list[Any]]]:
    """(attempts before, attempts after) of each sampled problem, the most improved first."""
    before, after = (by_problem(workdir / "samples" / f"rl_step_{step:06d}.jsonl") for step in (first, last))
    return [(before[q], after[q]) for q in report.improved(before, after)[:4]]


def by_problem(path: Path) -> dict[int, list[Any]]:
    out: dict[int, list[Any]] = {}
    for sample in journal.read_records(path):
        out.setdefault(sample["problem"], []).append(sample)
    return out


def selection(workdir: Path, records: list[Any]) -> dict[str, list[list[Any]]]:
    """Runs by selection rule: those under selection/, and this one's beginning for the policy gradient."""
    found = {p.parent.name: journal.read_records(p) for p in sorted(workdir.glob("selection/*/metrics.jsonl"))}
    if not found:
        return {}
    end = max(r["step"] for rows in found.values() for r in rows)
    found["policy_gradient"] = [r for r in records if r["stage"] == "rl" and r["step"] <= end]
    return {label: [found[rule]] for rule, label in RULES.items() if rule in found}


def tiles(rl: list[Any], workdir: Path) -> list[tuple[str, Any, str]]:
    """The headline numbers: label, value, note."""
    first, last = rl[0], rl[-1]
    cons = metrics.vote_key(last)
    length = "eval/response_length/mean"
    minutes = sum(r["seconds"] for r in last_of_each_stage(workdir)) / 60
    return [
        (
            "pass@1",
            f"{last['eval/pass@1']:.1%}",
            f"{first['eval/pass@1']:.1%} before RL, ± {1.96 * last['eval/pass@1/se']:.1%}",
        ),
        (cons[5:], f"{last[cons]:.1%}", f"{first[cons]:.1%} before RL"),
        (
            "response length",
            f"{last[length]:.1f}",
            f"{first[length]:.1f} tokens before RL, {last[length] / first[length]:.1f}×",
        ),
        ("jumps", f"{last['eval/strategy/jump']:.1%}", f"{first['eval/strategy/jump']:.1%} before RL"),
        ("minutes", f"{minutes:.1f}", f"{last['step']} RL steps; all stages"),
    ]


def last_of_each_stage(workdir: Path) -> list[Any]:
    """The last timing of each stage; a stage that was continued counts from where it was continued."""
    return list({r["stage"]: r for r in journal.read_records(workdir / "timings.jsonl")}.values())


def tables(records: list[Any]) -> list[tuple[str, list[str], list[list[Any]]]]:
    """Measures by stage: a column for the end of SFT and for each quarter of RL; and behaviours, counted in three ways."""
    rl = [r for r in records if r["stage"] == "rl" and "eval/pass@1" in r]
    chosen = [rl[round(i * (len(rl) - 1) / 4)] for i in range(5)]
    names = [k for k in rl[-1] if k.startswith("eval/") and not k.endswith("/se")]
    counted = [k for k in names if k.startswith("eval/behaviour/")]
    header = ["measure", *(f"RL step {r['step']}" for r in chosen)]
    rows = [[name[5:], *(r.get(name) for r in chosen)] for name in names if name not in counted]
    out = [("Held-out measures (RL step 0 is the SFT model)", header, rows)]
    return out + ([behaviour_table(rl[0], rl[-1], counted)] if counted else [])


def behaviour_table(first: Any, last: Any, keys: list[str]) -> tuple[str, list[str], list[list[Any]]]:
    """A row a behaviour: share, times per response and per 1,000 tokens, each before and after RL."""
    kinds = {"": "share", "/per_response": "per response", "/per_1k": "per 1,000 tokens"}
    names = [k for k in keys if k.count("/") == 2]
    header = ["behaviour", *(f"{kind}, {when}" for kind in kinds.values() for when in ("before", "after"))]
    rows = [[k.split("/")[2], *(r.get(k + end) for end in kinds for r in (first, last))] for k in names]
    return BEHAVIOURS, header, rows


BEHAVIOURS = (
    "Behaviours before and after RL: share of responses, times per response, times in 1,000 tokens. What ends in _proxy is "
    "found by an expression that stands in for a judge (docs/behaviours.md)"
)


if __name__ == "__main__":
    launch.main(run, writes=False)
