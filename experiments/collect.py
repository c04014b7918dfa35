"""Rejection sampling: a policy's attempts at training problems, of which the good ones are kept in a file for SFT.

    rljax collect --workdir runs/shop --stage rl --to good.jsonl
    rljax collect ... --problems 1024 --attempts 8 --temperature 0.7 --language 1 --per_problem 2
    rljax sft --config shop --workdir runs/again --config.sft.file=good.jsonl

An attempt is kept if it ended by itself, is right, has at least the share ``--language`` of its words in ``--target``, has
``--at_least`` to ``--at_most`` tokens (0: any number), repeats no other, and is among the first ``--per_problem`` (0: all) such
attempts at its problem. The file has the text of each attempt and the ids that were sampled; SFT learns the ids. It is written
whole or not at all. A .json beside it says how it was made, and the same command again changes nothing.

``--prompts 0`` leaves the prompts out: SFT then puts the same problems as its own config does, for example without worked
examples. `rljax cold-start` does so.
"""

import json
from pathlib import Path
from typing import Any

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.json_lines import format_json_lines
from rljax.structs import ConfigTree
from rljax.tasks import rejection_sampling
from rljax.training import command_line, initial_state, journal
from rljax.training.command_line import Flag
from rljax.training.run import resolve
from rljax.verifiers.text_rewards import LANGUAGE_SCRIPTS


def run(
    config: ConfigTree,
    workdir: Path,
    stage: str = "rl",
    to: str = "",
    problems: int = 512,
    attempts: int = 4,
    temperature: float = 1.0,
    top_p: float = 1.0,
    language: float = 0.0,
    target: str = "en",
    at_least: int = 0,
    at_most: int = 0,
    per_problem: int = 0,
    step: str = "",
    prompts: int = 1,
) -> None:
    path = Path(to) if to else workdir / f"collected_{stage}.jsonl"
    if path.suffix != ".jsonl":
        raise UserError(f"--to={to}: the file must end in .jsonl, because a .json beside it says how it was made")
    check_flags(problems, attempts, target, at_least, at_most, per_problem)
    asked = dict(split="train", problems=problems, attempts=attempts, temperature=temperature, top_k=0, top_p=top_p)
    keep = rejection_sampling.AttemptFilter(language, target, at_least, at_most, per_problem)
    config = config.copy_and_resolve_references()
    config.eval.update(asked | {"greedy": False})
    config.eval.budget.update(dict(limit=0, minimum=0))  # what is learned is the policy's own
    about = journal.to_plain(
        {
            "workdir": str(workdir),
            "stage": initial_state.at_step(stage, step),
            "seed": config.seed,
            "task": config.task.to_dict(),
        }
        | {"max_new_tokens": config.rl.max_new_tokens, "sampled": asked}
        | {"kept": keep._asdict() | ({} if prompts else {"prompts": 0})}
    )
    if made(path, about):
        return
    with command_line.name_flags({f"eval.{name}": name for name in ("problems", "attempts", "temperature", "top_p")}):
        run = resolve(config)
    _, said = run.evaluator(full_problems=problems)(
        initial_state.start_params(run, initial_state.at_step(stage, step), workdir)
    )
    if processes.is_primary():
        lines, dropped = rejection_sampling.filter_attempts(said, keep, run.task.tokenizer.size)
        counts = {"attempts": len(said), "lines": len(lines), "dropped": dropped}
        print(f"kept {len(lines)} of {len(said)} attempts by {workdir}:{stage}; {reasons(dropped)}", flush=True)
        if not lines:
            raise UserError(
                f"{path}: no attempt was good enough to keep: ask more problems, or ask less of the attempts that are kept"
            )
        if not prompts:
            lines = [{name: x for name, x in line.items() if name != "prompt"} for line in lines]
        journal.replace_text(path, format_json_lines(lines))
        journal.replace_text(path.with_suffix(".json"), json.dumps(about | {"counts": counts}, indent=1) + "\n")
    processes.barrier("collected")


def check_flags(problems: int, attempts: int, target: str, at_least: int, at_most: int, per_problem: int) -> None:
    """Raise UserError for a flag that cannot be, or would leave no attempt to keep."""
    for name, value, low in (
        ("problems", problems, 1),
        ("attempts", attempts, 1),
        ("at_least", at_least, 0),
        ("at_most", at_most, 0),
        ("per_problem", per_problem, 0),
    ):
        if value < low:
            raise UserError(f"--{name}={value}: must be at least {low}")
    if target not in LANGUAGE_SCRIPTS:
        raise UserError(f"--target={target}: choose from {', '.join(LANGUAGE_SCRIPTS)}")
    if 0 < at_most < at_least:
        raise UserError(f"--at_least={at_least} is more than --at_most={at_most}: no attempt would be kept")


def made(path: Path, about: dict[str, Any]) -> bool:
    """Whether the file is there and was made like this. Raises UserError where it was made otherwise."""
    if not path.exists() or not path.with_suffix(".json").exists():
        return False
    before = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    different = [key for key in about if before.get(key) != about[key]]
    if different:
        key = different[0]
        raise UserError(
            f"{path} was collected with {key}={before.get(key)}, not {about[key]}: write to another file, or use another --workdir"
        )
    return True


def reasons(dropped: dict[str, int]) -> str:
    return "dropped: " + (", ".join(f"{count} {why}" for why, count in dropped.items() if count) or "none")


def main() -> None:
    command_line.main(
        run,
        use="read",
        stage=Flag("rl", "the stage whose policy attempts the problems"),
        to=Flag("", "the .jsonl file to write; without it WORKDIR/collected_STAGE.jsonl"),
        problems=Flag(512, "training problems to ask", low=1),
        attempts=Flag(4, "attempts at each", low=1),
        temperature=Flag(1.0, "of sampling"),
        top_p=Flag(1.0, "of sampling", high=1.0),
        language=Flag(0.0, "least share of words in the target language", high=1.0),
        target=Flag("en", "the target language"),
        at_least=Flag(0, "fewest tokens of an attempt that is kept"),
        at_most=Flag(0, "most tokens of an attempt that is kept; 0: any number"),
        per_problem=Flag(0, "most attempts kept at one problem; 0: all"),
        step=Flag("", "the checkpoint: a step, best or last; without it the last, of a finished stage"),
        prompts=Flag(
            1, "whether a line has the prompt of its attempt; 0: SFT puts the problem as its own config does", high=1
        ),
    )


if __name__ == "__main__":
    main()
