"""Draw what runs left behind: figures/*.png and report.html, from metrics.jsonl and the samples.

python -m experiments.plot --config configs/shop.py --workdir runs/shop
"""

import json
from pathlib import Path
from typing import Any

from rljax import figures, journal, launch, report
from rljax.errors import UserError
from rljax.structs import ConfigTree

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
    "behaviours": "Words that tell a strategy: share of responses with the word, and occurrences per 1,000 tokens.",
    "skills": "The skills that a search stands on: calculations right, verdicts right by number of the try, false yes.",
}


def run(config: ConfigTree, workdir: Path) -> None:
    """Draw one run's figures and write its report."""
    records = journal.read(workdir / "metrics.jsonl")
    rl = [r for r in records if r["stage"] == "rl" and "eval/pass@1" in r]
    if len(rl) < 2:
        raise UserError(
            f"{workdir}: there is no RL run to draw yet: run `python -m experiments.rl` with this config first"
        )
    folder, drawn = workdir / "figures", []
    for name, caption in CURVES.items():
        try:
            getattr(figures, name)([records], folder / f"{name}.png")
            drawn.append((folder / f"{name}.png", caption))
        except UserError:  # a task without such words, verdicts or sums has nothing to draw there
            continue
    pairs = attempts(workdir, rl[0]["step"], rl[-1]["step"])
    if pairs:
        figures.attempts(*pairs[0], folder / "attempts.png")
        drawn.append((folder / "attempts.png", "One held-out problem, attempts before and after RL: right ones green."))
    rules = selection(workdir, records)
    if rules:
        figures.selection(rules, folder / "selection.png")
        drawn.append((folder / "selection.png", SELECTION))
    about = json.loads((workdir / "config.json").read_text())
    title = f"rljax: learning to reason by reinforcement learning, task “{config.task.name}”"
    report.write(workdir / "report.html", title, tiles(rl, workdir), drawn, pairs, tables(records), about)


SELECTION = (
    "From the same start: which of one's own attempts to learn from? Imitating the shortest correct one teaches guessing; "
    "imitating all correct ones, or the policy gradient, teaches thinking."
)


def attempts(workdir: Path, first: int, last: int) -> list[tuple[list[Any], list[Any]]]:
    """(attempts before, attempts after) of each sampled problem, the most improved first."""
    before, after = (by_problem(workdir / "samples" / f"rl_step_{step:06d}.jsonl") for step in (first, last))
    right = lambda rows: sum(r["reward"] for r in rows)
    shared = sorted(before.keys() & after.keys(), key=lambda q: right(before[q]) - right(after[q]))
    return [(before[q], after[q]) for q in shared[:4]]


def by_problem(path: Path) -> dict[int, list[Any]]:
    out: dict[int, list[Any]] = {}
    for sample in journal.read(path):
        out.setdefault(sample["problem"], []).append(sample)
    return out


def selection(workdir: Path, records: list[Any]) -> dict[str, list[list[Any]]]:
    """Runs by selection rule: those under selection/, and this one's beginning for the policy gradient."""
    found = {p.parent.name: journal.read(p) for p in sorted(workdir.glob("selection/*/metrics.jsonl"))}
    if not found:
        return {}
    end = max(r["step"] for rows in found.values() for r in rows)
    found["policy_gradient"] = [r for r in records if r["stage"] == "rl" and r["step"] <= end]
    return {label: [found[rule]] for rule, label in RULES.items() if rule in found}


def tiles(rl: list[Any], workdir: Path) -> list[tuple[str, Any, str]]:
    """The headline numbers: label, value, note."""
    first, last = rl[0], rl[-1]
    cons = max(
        (k for k in last if k.startswith("eval/cons@") and not k.endswith("/se")), key=lambda k: int(k.split("@")[1])
    )
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
    return list({r["stage"]: r for r in journal.read(workdir / "timings.jsonl")}.values())


def tables(records: list[Any]) -> list[tuple[str, list[str], list[list[Any]]]]:
    """Measures by stage: a column for the end of SFT and for each quarter of RL."""
    rl = [r for r in records if r["stage"] == "rl" and "eval/pass@1" in r]
    chosen = [rl[round(i * (len(rl) - 1) / 4)] for i in range(5)]
    skip = ("/se", "per_1k")
    names = [k for k in rl[-1] if k.startswith("eval/") and not k.endswith(skip)]
    header = ["measure", *(f"RL step {r['step']}" for r in chosen)]
    rows = [[name[5:], *(r.get(name) for r in chosen)] for name in names]
    return [("Held-out measures (RL step 0 is the SFT model)", header, rows)]


if __name__ == "__main__":
    launch.main(run, writes=False)
