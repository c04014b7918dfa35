"""Draw what a run left behind: figures/*.png and report.html, from metrics.jsonl and the samples.

    rljax plot --workdir runs/shop
    rljax plot --workdir runs/s0 --beside runs/s1 --beside runs/s2 --to curves.png --title "SmolLM2-135M, products"

The second form draws several runs of one config, other seeds, in one small picture: pass@1 on held-out problems and response
length over the steps of RL, their mean and its 95 % interval over the runs. With ``--to`` and one run alone the interval is over questions.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from rljax import report
from rljax.errors import UserError
from rljax.report.figures import draw_learning
from rljax.structs import ConfigTree
from rljax.training import command_line, journal, shown_question
from rljax.training.command_line import Flag


def run(config: ConfigTree, workdir: Path, beside: Sequence[str] = (), to: str = "", title: str = "") -> None:
    """Draw one run's figures and write its report, or draw several runs together."""
    if beside or to:
        draw_together(config, [workdir, *map(Path, beside)], to, title)
        return
    asked = [journal.read_samples(workdir, shown_question.NAME, step) for step in (0, config.rl.steps)]
    report.write_report(
        journal.read_records(workdir / "metrics.jsonl"),
        lambda step: journal.read_samples(workdir, "rl", step),
        config.to_dict(),
        workdir,
        config_json=json.loads((workdir / "config.json").read_text()),
        timings=journal.read_records(workdir / "timings.jsonl"),
        asked=(asked[0], asked[1]) if all(asked) else None,
        selection={p.parent.name: journal.read_records(p) for p in sorted(workdir.glob("selection/*/metrics.jsonl"))},
    )


def draw_together(config: ConfigTree, workdirs: list[Path], to: str, title: str) -> None:
    """Draw the learning curves of several runs of one config into the PNG file ``to``."""
    if Path(to).suffix != ".png":
        raise UserError(f"--to={to}: name the .png file that several runs are drawn into")
    for folder in workdirs:
        if not (folder / "metrics.jsonl").is_file():
            raise UserError(f"there is no run in {folder} (no metrics.jsonl)")
    runs = [journal.read_records(folder / "metrics.jsonl") for folder in workdirs]
    draw_learning({"": runs}, to, title, questions=config.eval.problems)
    print(Path(to).absolute())


def main() -> None:
    command_line.main(
        run,
        use="read",
        beside=Flag([], "DIR, another run to draw beside it, of another seed"),
        to=Flag("", "the .png file to draw the runs into; without it the figures and the report of one run"),
        title=Flag("", "of that picture"),
    )


if __name__ == "__main__":
    main()
