"""Checkpoints of a workdir: list them, verify every checksum, compare two steps, export one as safetensors.

    rljax checkpoints runs/shop                                     a line for each
    rljax checkpoints runs/shop --verify=true                       reads all arrays; status 1 if one is damaged
    rljax checkpoints runs/shop --stage rl --compare 100,110        what differs between two steps
    rljax checkpoints runs/shop --stage rl --export 110 --to rl.safetensors

Every array is read as it is stored: no config is needed. A policy as a Hugging Face folder is what `rljax export` writes.
"""

from pathlib import Path

from rljax.errors import UserError
from rljax.training import checkpoint_report as report
from rljax.training import command_line, journal
from rljax.training.checkpoint_manifest import Owner
from rljax.training.command_line import Flag


def run(workdir: str, stage: str, verify: str, compare: str, export: int, to: str) -> None:
    if not workdir:
        raise UserError("usage: rljax checkpoints WORKDIR [--verify=true] [--compare A,B] [--export STEP --to FILE]")
    folder = Path(workdir)
    if compare or export >= 0:
        if not stage:
            raise UserError("--stage: say whose checkpoints, pretrain, sft or rl")
        steps = compare.split(",") if compare else [str(export)]
        if not all(step.strip().isdigit() for step in steps) or len(steps) != (2 if compare else 1):
            raise UserError(f"--compare {compare}: write two steps, as in --compare 100,110")
        found = [report.find_checkpoint(folder, stage, int(step)) for step in steps]
        for path in found:
            stop_if_damaged(path, stage, folder)
        if compare:
            print("\n".join(report.compare_checkpoints(*found)))
        else:
            if not to:
                raise UserError("--to FILE: say which safetensors file to write")
            count = report.export_checkpoint(found[0], Path(to))
            print(f"{count} arrays of {found[0]} written to {to}")
        return
    listed = report.find_checkpoints(folder, stage)
    print("\n".join(report.describe_checkpoints(listed)))
    if verify.lower() in ("true", "1", "yes"):
        owner = lambda c: Owner(c.stage, journal.read_run_id(folder))
        problems = [(c, said) for c in listed if (said := report.verify_checkpoint(c.folder, owner(c)))]
        for c, said in problems:
            print(f"{c.folder} is damaged: {said}")
        if problems:
            raise UserError(
                f"{len(problems)} of {len(listed)} checkpoints are not whole, the first is {problems[0][0].folder}"
            )
        print(f"all {len(listed)} checkpoints are whole: every array has its checksum")


def stop_if_damaged(path: Path, stage: str, workdir: Path) -> None:
    """Raise UserError for a checkpoint that is not whole: nothing true could be said about its arrays."""
    if problem := report.verify_checkpoint(path, Owner(stage, journal.read_run_id(workdir))):
        raise UserError(f"{path} is not whole: {problem}")


def main() -> None:
    command_line.name_arguments("workdir")
    command_line.main_without_config(
        run,
        workdir=Flag("", "the folder of a run; also as the first argument, without a name"),
        stage=Flag("", "pretrain, sft or rl; without it all"),
        verify=Flag("", "true: read every array and compare its checksum"),
        compare=Flag("", "two steps, as in 100,110"),
        export=Flag(-1, "the step whose arrays are written to --to"),
        to=Flag("", "the safetensors file that --export writes"),
    )


if __name__ == "__main__":
    main()
