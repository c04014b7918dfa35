"""A step of reinforcement learning once more, from the checkpoint before it: are its numbers the recorded ones, bit for bit?

    rljax replay --workdir runs/shop --step 175
    rljax replay runs/shop --step 175

It trains in memory from the newest checkpoint before the step, and writes nothing but the attempts of that step, in
replay/rl_step_000175.jsonl of the workdir. Status 1 where a number differs: then versions, flags or devices are not those of the run
(sessions.jsonl has them), or something in it is not exact.
"""

from pathlib import Path

import jax

from rljax.errors import UserError
from rljax.json_lines import format_json_lines
from rljax.structs import ConfigTree
from rljax.training import command_line, initial_state, journal, provenance
from rljax.training.command_line import Flag
from rljax.training.replay import Replayed, replay_step
from rljax.training.rl_steps import compile_train_step, empty_rollout, make_steps
from rljax.training.run import resolve

from .rl import make_train_step


def run(config: ConfigTree, workdir: Path, step: int) -> None:
    if step < 1:
        raise UserError("--step K: say which train step of rl, from 1")
    if jax.process_count() > 1:
        raise UserError("replay: start it as one process")
    run = resolve(config, "rl")
    params = initial_state.start_params(run, run.rl.start, workdir)
    state = initial_state.new_state(run, run.rl, params, initial_state.teacher_params(run))
    state = state.replace(ahead=empty_rollout(run)) if run.mesh.actors else state
    replayed = replay_step(run, workdir, state, compile_train_step(make_train_step, run), make_steps(run), step)
    file = workdir / "replay" / f"rl_step_{step:06d}.jsonl"
    journal.replace_text(file, format_json_lines(replayed.samples))
    print(describe(replayed, file))
    if different := replayed.differing():
        sessions = journal.read_records(workdir / provenance.FILE)
        changed = provenance.describe_changes(sessions[-1], provenance.describe_session(config)) if sessions else ""
        why = f"the run had {changed}" if changed else "versions, flags and devices are those of its last session"
        name = different[0]
        raise UserError(
            f"step {step} is not repeated bit for bit: {len(different)} numbers differ, {name} is "
            f"{replayed.metrics.get(name)!r} and was {replayed.recorded.get(name)!r}; {why}"
        )


def describe(replayed: Replayed, file: Path) -> str:
    """What came out, in a few lines."""
    norm = "train/grad_norm"
    start = f"checkpoint {replayed.start}" if replayed.start else "the start of rl"
    same = len(replayed.metrics) - len(replayed.differing())
    return "\n".join(
        [
            f"rl step {replayed.step}, {replayed.step - replayed.start} steps from {start}",
            f"gradient norm {replayed.metrics.get(norm)!r}, in metrics.jsonl {replayed.recorded.get(norm)!r}",
            f"{len(replayed.samples)} attempts, in {file}",
            f"{same} of {len(replayed.metrics)} numbers are those of metrics.jsonl, bit for bit",
        ]
    )


def main() -> None:
    command_line.name_arguments("workdir")
    command_line.main(run, use="read", step=Flag(0, "the train step of rl that is repeated, from 1"))


if __name__ == "__main__":
    main()
