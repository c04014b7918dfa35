"""Draw what a run left behind: figures/*.png and report.html, from metrics.jsonl and the samples.

rljax plot --workdir runs/shop
"""

import json
from pathlib import Path

from rljax import report
from rljax.structs import ConfigTree
from rljax.training import command_line, journal


def run(config: ConfigTree, workdir: Path) -> None:
    """Draw one run's figures and write its report."""
    report.write_report(
        journal.read_records(workdir / "metrics.jsonl"),
        lambda step: journal.read_samples(workdir, "rl", step),
        config.to_dict(),
        workdir,
        config_json=json.loads((workdir / "config.json").read_text()),
        timings=journal.read_records(workdir / "timings.jsonl"),
        selection={p.parent.name: journal.read_records(p) for p in sorted(workdir.glob("selection/*/metrics.jsonl"))},
    )


def main() -> None:
    command_line.main(run, use="read")


if __name__ == "__main__":
    main()
