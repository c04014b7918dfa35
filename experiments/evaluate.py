"""Look at a stage's policy on held-out problems: a table on the terminal, evaluation_<stage>.json in the workdir.

    python -m experiments.evaluate --config configs/shop.py --workdir runs/shop --stage rl --attempts 64

Takes the run's config; ``--split``, ``--problems``, ``--attempts`` ask for something else than config.eval does.
"""

import json
from pathlib import Path

from rljax import journal, launch, settings
from rljax.structs import ConfigTree


def run(config: ConfigTree, workdir: Path, stage: str, split: str, problems: int, attempts: int) -> None:
    asked = {"split": split, "problems": problems, "attempts": attempts}
    config = config.copy_and_resolve_references()
    config.eval.update({name: value for name, value in asked.items() if value})
    s = settings.resolve(config)
    metrics, samples = settings.evaluator(s)(settings.start_params(s, stage, workdir))
    e = config.eval
    print(f"{stage} on {e.problems} {e.split} problems, {e.attempts} attempts each at temperature {e.temperature}")
    for name, value in metrics.items():
        print(f"  {name.removeprefix('eval/'):<32} {value:8.4f}")
    result = {"stage": stage, "eval": e.to_dict(), "metrics": metrics, "samples": samples}
    path = workdir / f"evaluation_{stage}.json"
    journal.replace_text(path, json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    launch.main(run, writes=False, stage="rl", split="", problems=0, attempts=0)
