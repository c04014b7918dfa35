"""The checkpoints of a stage: which one a run continues from, and which one another stage or script reads."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rljax.distributed import processes
from rljax.errors import UserError
from rljax.structs import TrainState
from rljax.training import checkpoint, journal
from rljax.training.checkpoint_errors import DamagedError, describe_error
from rljax.training.checkpoint_manifest import Owner, list_steps, read_manifest
from rljax.training.checkpoint_saver import describe_devices


def restore_newest(
    manager: checkpoint.Manager, state: TrainState, name: str, owner: Owner = checkpoint.ANYONE
) -> tuple[TrainState, int] | None:
    """(state, step) of the newest checkpoint, in place of ``state``, whose arrays are given up before it is read.

    What checkpoints do not hold is kept: the base of adapters, and a reference that never moves. Raises UserError where these
    are not those that the run began with.
    """
    began = None if state.fingerprint is None else np.asarray(state.fingerprint)
    found = checkpoint.restore(manager, give_up_arrays(state), owner)
    if found:
        check_same_start(found[0], began, name)
    return found


def restore_step(manager: checkpoint.Manager, state: TrainState, name: str, owner: Owner, step: int) -> TrainState:
    """The state of one checkpoint, as ``restore_newest`` reads the newest. Nothing is set aside."""
    began = None if state.fingerprint is None else np.asarray(state.fingerprint)
    try:
        found = checkpoint.read_state(manager, step, give_up_arrays(state), owner)
    except Exception as e:  # Orbax raises exceptions of many types
        raise checkpoint.unusable(Path(manager.directory), step, e) from e
    check_same_start(found, began, name)
    return found


def give_up_arrays(state: TrainState) -> TrainState:
    """The shapes of a state, with what checkpoints do not hold. All other arrays are deleted: there may be room for one state."""
    kept = {"frozen": state.frozen} | ({"reference": state.reference} if state.reference_is_fixed else {})
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    for x in jax.tree.leaves(state.replace(**dict.fromkeys(kept))):
        x.delete()
    return like.replace(**kept)


def check_same_start(found: TrainState, began: np.ndarray | None, name: str) -> None:
    """Raise UserError where a stage began with other weights than those with the fingerprint ``began``."""
    if began is not None and not np.allclose(found.fingerprint, began, rtol=1e-3, atol=1e-5):
        what = "adapters were learned on" if found.frozen is not None else "policy and its KL reference began with"
        raise UserError(
            f"{name}: its {what} other weights than those that it starts from now: bring these back, or use another "
            "--workdir"
        )


def note_resumed(folder: Path, state: TrainState, name: str, runs: Sequence[Path]) -> None:
    """Compare a checkpoint that a stage continues from with the records and with the devices that are here now.

    Warns of other devices, and where there are no records any longer. Raises UserError for records that were changed.
    """
    manifest = read_manifest(folder)
    if manifest is None or not processes.is_primary():
        return
    log, now = logging.getLogger(__name__), describe_devices(state)
    if manifest.devices != now:
        log.warning(
            f"{name}: checkpoint {folder.name} was written on {manifest.devices}, this is {now}: the run goes on from the same "
            "state; sums are rounded in another order, so that numbers may differ in their last digits, and then sampled "
            "tokens too"
        )
    for run, stored in zip(runs, manifest.records, strict=len(runs) == len(manifest.records)):
        found = journal.digest_records(run, name, manifest.step)
        path = Path(run) / "metrics.jsonl"
        if stored is not None and found is None:
            log.warning(f"{path} is missing: the run goes on without its records up to {name} step {manifest.step}")
        elif stored is not None and found != stored:
            raise UserError(
                f"{path} was changed or damaged: its lines of {name} up to step {manifest.step} are not those that were there "
                "when this checkpoint was saved. Bring back the file, or move it away to go on without them"
            )


def describe_newest(directory: Path) -> str:
    """The path of the newest checkpoint, in words where there is none or where the folder cannot be read."""
    try:
        steps = list_steps(directory)
    except UserError:
        return "the newest checkpoint"
    return str(directory / str(steps[-1])) if steps else "its beginning"


def recorded_scores(workdir: Path, stage: str) -> dict[int, float]:
    """{step: score} of the evaluations in metrics.jsonl, for checkpoints that hold no score."""
    rows = [r for r in journal.read_records(workdir / "metrics.jsonl") if r["stage"] == stage]
    return {r["step"]: score for r in rows if (score := score_of(r)) > -np.inf}


def finished(workdir: str | Path, stage: str, steps: int) -> bool:
    """Whether a stage has its checkpoint of this step."""
    return (Path(workdir) / "checkpoints" / stage / str(steps)).is_dir()


def load_params(workdir: str | Path, stage: str, steps: int | None, like: Any, step: str = "") -> Any:
    """The parameters of a stage of a workdir, laid out as ``like``.

    ``step`` is a number, "best" (by pass@1, else by held-out loss, of the checkpoints that are there), "last" or "" (the last
    one, which must have reached ``steps`` unless that is None). Raises UserError where there is no such checkpoint: another
    step is never taken in its place.
    """
    directory = Path(workdir) / "checkpoints" / stage
    if not directory.is_dir():
        raise UserError(f"{workdir}: stage {stage!r} has not run: run `rljax {stage}` with this config first")
    manager = checkpoint.open_manager(directory)
    owner = Owner(stage, journal.read_run_id(workdir))
    try:
        kept = list_steps(directory)
        if not step and (not kept or (steps and kept[-1] < steps)):
            raise UserError(
                f"{workdir}: stage {stage!r} stopped at step {kept[-1] if kept else 0} of {steps or 'its run'}: "
                f"run `rljax {stage}` with this config again, it continues; or take this one: --step last"
            )
        chosen = choose_step(Path(workdir), stage, kept, step)
        return checkpoint.restore_params(manager, like, chosen, owner)
    finally:
        manager.close()


def choose_step(workdir: Path, stage: str, kept: list[int], step: str) -> int:
    """The checkpoint that ``step`` names, of those that are kept. Raises UserError where there is none."""
    if not kept:
        raise UserError(f"{workdir}: stage {stage!r} has no checkpoint yet")
    if step in ("", "last"):
        return kept[-1]
    if step == "best":
        scores = recorded_scores(workdir, stage) | stored_scores(workdir / "checkpoints" / stage, kept)
        return max(kept, key=lambda number: (scores.get(number, -np.inf), number))
    if int(step) not in kept:
        raise UserError(
            f"{workdir}: stage {stage!r} keeps no checkpoint of step {step}, only of {', '.join(map(str, kept))}"
        )
    return int(step)


def stored_scores(directory: Path, kept: Sequence[int]) -> dict[int, float]:
    """{step: score} of the checkpoints that hold one."""
    try:
        manifests = {step: read_manifest(directory / str(step)) for step in kept}
    except (DamagedError, OSError) as e:
        raise UserError(f"a checkpoint in {directory} cannot be used ({describe_error(e)}): name another step") from e
    return {step: m.score for step, m in manifests.items() if m is not None and m.score is not None}


def score_of(record: dict[str, Any]) -> float:
    """How good an evaluation is: its pass@1, else minus its held-out loss."""
    loss = record.get("eval/loss")
    return record.get("eval/pass@1", -np.inf if loss is None else -loss)
