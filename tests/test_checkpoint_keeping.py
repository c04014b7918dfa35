"""Checkpoints: which stay, what they say that they are, and what happens to damaged, foreign and unreadable ones."""

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import toy_stage
from toy_stage import checkpoints, train

from rljax.errors import UserError
from rljax.structs import TrainState
from rljax.training import checkpoint, checkpoint_manifest, checkpoint_retention, checkpoint_saver
from rljax.training.checkpoint_errors import SaveError, describe_error, is_full
from rljax.training.checkpoint_manifest import Manifest, Owner, list_steps, read_manifest
from rljax.training.checkpoint_retention import choose_kept
from rljax.training.stage_checkpoints import choose_step, load_params
from tests import exhaustive


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished stage that keeps the steps 4 (the best), 10 and 12."""
    folder = tmp_path_factory.mktemp("finished")
    train(folder)
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def folder_of(run, step, stage="rl"):
    return run / "checkpoints" / stage / str(step)


def bytes_of(run):
    return {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file()}


def rewrite_manifest(folder, **changes):
    values = json.loads((folder / "manifest" / "metadata").read_text())
    del values["sha256"]
    values |= changes
    values["sha256"] = checkpoint_manifest.digest(values)
    (folder / "manifest" / "metadata").write_text(json.dumps(values))


def as_of_an_older_version(folder):
    """The checkpoint without a manifest."""
    shutil.rmtree(folder / "manifest")
    listing = folder / "_CHECKPOINT_METADATA"
    listing.write_text(listing.read_text().replace('"manifest"', '"gone"'))


def damage(folder):
    """Flip one bit in each file that holds arrays of a checkpoint."""
    for path in (folder / "params").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


# Which checkpoints stay


def test_the_latest_and_the_best_checkpoints_stay(finished):
    assert checkpoints(finished) == ["10", "12", "4"]
    assert [read_manifest(folder_of(finished, s)).score for s in (4, 10, 12)] == pytest.approx([-0.4, -5.6, -7.6])


@pytest.mark.parametrize(
    "stops", exhaustive.cases([(3,), (3, 5, 7, 9), (4, 5, 6, 11), (1, 2, 3, 12)], lambda stops: 5 not in stops)
)
def test_a_run_that_was_interrupted_keeps_the_checkpoints_of_an_undisturbed_one(finished, tmp_path, stops):
    for stop in stops:
        assert train(tmp_path, stop_at=(stop,))[2]
        assert str(stop) in checkpoints(tmp_path)
    state, _, interrupted = train(tmp_path)
    assert not interrupted and checkpoints(tmp_path) == checkpoints(finished)
    for name in ("metrics.jsonl", "checkpoints/rl/12/sums/metadata", "checkpoints/rl/4/manifest/metadata"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


def test_a_checkpoint_that_an_interrupt_asked_for_stays_while_it_is_the_newest():
    found = {s: Manifest(s, scheduled=s % 4 == 0, score=-abs(s - 9.0) if s % 4 == 0 else None) for s in range(1, 16)}
    assert choose_kept(found, 2, 1) == {8, 12, 15}
    assert choose_kept(found | {16: Manifest(16)}, 2, 1) == {8, 12, 16}
    assert choose_kept({3: Manifest(3, scheduled=False)}, 2, 0) == {3} and choose_kept({}, 1, 1) == set()


def test_of_equal_scores_the_later_checkpoint_is_the_best_whenever_they_are_compared():
    found = {s: Manifest(s, score=1.0) for s in (2, 4, 6, 8)}
    once = choose_kept(found, 1, 2)
    kept = {}
    for step in found:
        kept = {s: found[s] for s in choose_kept(kept | {step: found[step]}, 1, 2)}
    assert once == set(kept) == {6, 8}


def test_scores_of_checkpoints_of_an_older_version_come_from_the_records(finished, tmp_path):
    train(tmp_path, steps=6)
    for step in list_steps(tmp_path / "checkpoints" / "rl"):
        as_of_an_older_version(folder_of(tmp_path, step))
    train(tmp_path)
    assert checkpoints(tmp_path) == checkpoints(finished)


def test_what_a_killed_run_left_half_written_or_half_deleted_is_cleared(run):
    for name in (".deleted-8", "14.orbax-checkpoint-tmp", "14.orbax-checkpoint-tmp-123"):
        shutil.copytree(folder_of(run, 10) / "sums", run / "checkpoints" / "rl" / name)
    train(run)
    assert checkpoints(run) == ["10", "12", "4"]


def test_a_kill_while_a_checkpoint_is_deleted_leaves_none_that_is_half_there(run, monkeypatch):
    def killed(path, **ignore):
        if not ignore:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint_retention.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint_retention.prune(run / "checkpoints" / "rl", 1, 0, {})
    assert checkpoints(run) == [".deleted-4", "10", "12"]


@pytest.mark.parametrize("key, value", [("keep_latest", 0), ("keep_latest", -1), ("keep_best", -1), ("every", -1)])
def test_a_run_that_would_keep_no_checkpoint_is_refused_before_it_begins(key, value):
    from configs import shop
    from rljax.training.run import resolve

    config = shop.get_config("short")
    config.checkpoint[key] = value
    with pytest.raises(UserError, match=f"checkpoint.{key}={value}: must be at least"):
        resolve(config)


# When they are written


def test_checkpoints_are_written_every_so_many_steps_beside_those_of_evaluations(finished, tmp_path):
    train(tmp_path, every=3, keep_latest=20)
    assert sorted(map(int, checkpoints(tmp_path))) == [2, 3, 4, 6, 8, 9, 10, 12]
    assert read_manifest(folder_of(tmp_path, 9)).scheduled and read_manifest(folder_of(tmp_path, 9)).score is None
    assert (tmp_path / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_checkpoints_by_the_clock_are_written_between_evaluations_and_stay_while_they_are_the_newest(
    tmp_path, monkeypatch
):
    now = [0.0]
    original, saved = checkpoint.save, []
    clocked = lambda *a, **k: checkpoint_saver.Saver(*a, **k, clock=lambda: now[0])
    monkeypatch.setattr(toy_stage.loop, "Saver", clocked)
    monkeypatch.setattr(
        checkpoint, "save", lambda manager, step, *a, **k: (saved.append(step), original(manager, step, *a, **k))
    )

    def twenty_seconds_a_step(step):
        now[0] += 20.0

    train(tmp_path, eval_every=12, in_step=twenty_seconds_a_step, minutes=1.0, every=5)
    assert saved == [3, 5, 8, 10, 12]  # a minute after the last one, and every five steps
    assert checkpoints(tmp_path) == ["10", "12"]


# What a checkpoint says that it is


@pytest.mark.parametrize("older", [False, True])
def test_a_checkpoint_that_was_copied_over_another_step_is_refused(run, older):
    shutil.rmtree(folder_of(run, 12))
    shutil.copytree(folder_of(run, 10), folder_of(run, 12))
    if older:
        as_of_an_older_version(folder_of(run, 12))
    before = bytes_of(run)
    with pytest.raises(UserError, match="checkpoint 12 in .*it was copied or renamed.: move this folder away") as error:
        train(run)
    assert "\n" not in str(error.value) and bytes_of(run) == before
    with pytest.raises(UserError, match="it was copied or renamed"):
        load(run, "12")
    shutil.move(folder_of(run, 12), run / "moved")
    train(run)
    assert checkpoints(run) == ["10", "12", "4"]


@pytest.mark.parametrize("field", ["stage", "run"])
def test_a_checkpoint_of_another_stage_or_run_is_refused(run, field):
    rewrite_manifest(folder_of(run, 12), **{field: "other"})
    manager = checkpoint.open_manager(run / "checkpoints" / "rl")
    with pytest.raises(UserError, match=f"its manifest says that it is of {field} other, not mine"):
        checkpoint.restore(manager, toy_stage.new_state(), Owner(**{field: "mine"}))
    manager.close()
    assert checkpoints(run) == ["10", "12", "4"]


def test_a_checkpoint_of_a_newer_version_is_refused(run):
    rewrite_manifest(folder_of(run, 12), schema=99)
    with pytest.raises(UserError, match="was written by a newer version of rljax"):
        train(run)


def load(run, step, like=None):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shape = lambda *size, dtype=jnp.float32: jax.ShapeDtypeStruct(size, dtype, sharding=one)
    return load_params(run, "rl", 12, like(shape) if like else {"w": shape(3), "n": shape()}, step)


@pytest.mark.parametrize(
    "like, said",
    [
        (lambda shape: {"w": shape(4), "n": shape()}, r"params\['w'\] as float32\[3\], not float32\[4\]"),
        (lambda shape: {"w": shape(3, dtype=jnp.bfloat16), "n": shape()}, r"as float32\[3\], not bfloat16\[3\]"),
        (lambda shape: {"w": shape(3)}, r"it also holds params\['n'\]"),
    ],
)
def test_arrays_of_another_shape_or_dtype_are_refused_and_nothing_is_called_damaged(run, like, said):
    before = bytes_of(run)
    with pytest.raises(UserError, match=said):
        load(run, "12", like)
    with pytest.raises(UserError, match=r"params\['w'\] as float32\[3\], not float32\[5\]: other settings"):
        train(run, size=5)
    assert bytes_of(run) == before


def test_a_checkpoint_of_an_older_version_with_other_arrays_is_refused_in_the_same_words(run):
    as_of_an_older_version(folder_of(run, 12))
    before = bytes_of(run)
    for size in (5, 2):
        with pytest.raises(UserError, match=rf"an array as \(3,\), not \({size},\): other settings"):
            load(run, "12", lambda shape, size=size: {"w": shape(size), "n": shape()})
    assert bytes_of(run) == before


def test_the_best_checkpoint_is_the_one_whose_own_score_is_best(run):
    (run / "metrics.jsonl").unlink()
    assert choose_step(run, "rl", [4, 10, 12], "best") == 4


def test_a_run_that_goes_on_with_other_devices_says_in_one_line_what_can_differ(run, finished, caplog):
    train(run)
    assert caplog.text == "", "the same devices"
    rewrite_manifest(folder_of(run, 12), devices="8 x TPU v5, fsdp=8")
    train(run, steps=14)
    (said,) = [r.getMessage() for r in caplog.records]
    assert "checkpoint 12 was written on 8 x TPU v5, fsdp=8, this is 1 x cpu" in said and "\n" not in said
    assert "numbers may differ in their last digits" in said


# Damage, and errors that prove none


def test_a_damaged_checkpoint_is_set_aside_under_another_name_and_written_again(run, finished, caplog):
    damage(folder_of(run, 12))
    held = bytes_of(folder_of(run, 12))
    state, evaluated, _ = train(run)
    assert evaluated == [12] and checkpoints(run) == [".damaged-12", "10", "12", "4"]
    assert bytes_of(run / "checkpoints" / "rl" / ".damaged-12") == held
    sums = "checkpoints/rl/12/sums/metadata"
    assert (run / sums).read_bytes() == (finished / sums).read_bytes()
    assert "set aside as" in caplog.text and "Traceback" not in caplog.text
    damage(folder_of(run, 12))
    train(run)
    assert checkpoints(run)[:2] == [".damaged-12", ".damaged-12-2"], "the second does not replace the first"


def test_where_every_checkpoint_is_damaged_the_run_stops_and_touches_nothing(run):
    for step in (4, 10, 12):
        damage(folder_of(run, step))
    before = bytes_of(run)
    with pytest.raises(UserError, match="3 tried, none is whole: move the folder away") as error:
        train(run)
    assert "\n" not in str(error.value) and bytes_of(run) == before


SYSTEM = [errno.EIO, errno.EPERM, errno.EACCES, errno.ETIMEDOUT, errno.ESTALE, errno.EMFILE, errno.ENOMEM]


@pytest.mark.parametrize("number", SYSTEM)
@pytest.mark.parametrize("where", ["manifest", "arrays", "storage library", "hidden by the library"])
def test_an_error_that_proves_no_damage_stops_the_run_and_touches_nothing(run, monkeypatch, number, where):
    read, restore, opened = Path.read_bytes, ocp.CheckpointManager.restore, Path.open

    def fail(path):
        raise OSError(number, os.strerror(number), str(path))

    def restore_badly(manager, step, **args):
        if step == 12 and where == "arrays":
            fail("/data/params/d/1")
        if step == 12 and where == "storage library":
            raise ValueError(f'DATA_LOSS: Error reading "w/0" in OCDBT: "/data/d/1": [os_error_code=\'{number}\']')
        if step == 12 and where == "hidden by the library":
            raise KeyError("params")
        return restore(manager, step, **args)

    of_the_newest = lambda path: "/rl/12/" in str(path)
    if where == "manifest":
        monkeypatch.setattr(
            Path, "read_bytes", lambda p: fail(p) if of_the_newest(p) and "manifest" in str(p) else read(p)
        )
    if where == "hidden by the library":
        monkeypatch.setattr(
            Path, "open", lambda p, *a, **k: fail(p) if of_the_newest(p) and "/d/" in str(p) else opened(p, *a, **k)
        )
    monkeypatch.setattr(ocp.CheckpointManager, "restore", restore_badly)
    with pytest.raises(
        UserError, match="checkpoint 12 in .* cannot be used now .*nothing says that it is damaged"
    ) as error:
        train(run)
    assert "\n" not in str(error.value)
    assert checkpoints(run) == ["10", "12", "4"]
    if where != "hidden by the library":
        assert os.strerror(number) in str(error.value)


def test_too_little_memory_for_a_checkpoint_is_no_damage(run, monkeypatch):
    def restore(manager, step, **args):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3 bytes")

    monkeypatch.setattr(ocp.CheckpointManager, "restore", restore)
    with pytest.raises(UserError, match="RESOURCE_EXHAUSTED"):
        train(run)
    assert checkpoints(run) == ["10", "12", "4"]


# Saves that fail


@pytest.mark.parametrize("stands", ["checkpoints", "checkpoints/rl", "checkpoints/rl/4"])
def test_a_file_where_a_folder_should_be_is_one_line(tmp_path, stands):
    def put_file(step):
        if step == 3:
            for _ in range(3000):  # the save of step 2 makes its folders in the background
                if (tmp_path / "checkpoints" / "rl" / "2").exists():
                    break
                time.sleep(0.01)
            if (tmp_path / stands).exists():
                shutil.move(tmp_path / stands, tmp_path / "away")
            (tmp_path / stands).write_text("mine")

    with pytest.raises(UserError) as error:
        train(tmp_path, in_step=put_file)
    assert str(tmp_path / stands) in str(error.value) and "\n" not in str(error.value)
    assert (tmp_path / stands).read_text() == "mine"


@pytest.mark.parametrize("number", [errno.EPERM, errno.EIO, errno.ENOSPC, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("when", ["at once", "in the background", "never arrives"])
def test_a_save_that_fails_for_any_reason_surfaces_at_once_and_names_the_newest_whole_checkpoint(
    tmp_path, monkeypatch, number, when
):
    manager_class, steps = ocp.CheckpointManager, []
    save, check = manager_class.save, manager_class.check_for_errors

    def fail():
        raise OSError(number, os.strerror(number), "/disk/checkpoint")

    def save_badly(manager, step, **args):
        if step == 4 and when == "at once":
            fail()
        saved = save(manager, step, **args)
        if step == 4 and when == "never arrives":
            manager.wait_until_finished()
            shutil.rmtree(folder_of(tmp_path, 4))
        return saved

    def check_badly(manager):
        if when == "in the background" and folder_of(tmp_path, 4).exists():
            fail()
        return check(manager)

    monkeypatch.setattr(manager_class, "save", save_badly)
    monkeypatch.setattr(manager_class, "check_for_errors", check_badly)
    with pytest.raises(SaveError) as error:
        train(tmp_path, steps=400, in_step=steps.append)
    said = str(error.value)
    assert "checkpoint 4 was not written to" in said and "the newest whole one is step 2" in said and "\n" not in said
    if when != "never arrives":
        assert f"/disk/checkpoint: {os.strerror(number)}" in said
        assert said.startswith("the disk is full") == (number in (errno.ENOSPC, errno.EDQUOT))
    assert steps[-1] <= 6, "before the next checkpoint"


PROCESS = """
import sys; sys.path.insert(0, "tests")
import resource
from pathlib import Path
import toy_stage
from rljax.training import command_line, quiet
workdir, what = Path(sys.argv[1]), sys.argv[2]

def disturb(step):
    if step == 4 and what == "file":
        # away in one move: a save may still be writing in it
        (workdir / "checkpoints" / "rl").rename(workdir / "moved")
        (workdir / "checkpoints" / "rl").write_text("")
    if step == 4 and what == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

with command_line.one_line_errors():
    quiet.quiet_third_parties()
    toy_stage.train(workdir, in_step=disturb, size=20_000)
"""


@pytest.mark.parametrize("what", [pytest.param("file", marks=pytest.mark.exhaustive), "full"])
def test_a_process_whose_save_fails_ends_with_one_line_and_does_not_hang(tmp_path, what):
    done = subprocess.run([sys.executable, "-c", PROCESS, tmp_path, what], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: the disk is full: checkpoint " if what == "full" else "error: ")
    assert ("array " in done.stderr and "File too large" in done.stderr) or what == "file"


def test_the_cause_of_an_error_is_named_with_its_array_and_its_file():
    e = ValueError(
        'OUT_OF_RANGE: Error writing "w.q/0" in OCDBT database at "/a/": Failed writing: "/a/d/1": x [os_error_code=\'27\']'
    )
    assert describe_error(e) == "array w.q, /a/d/1: File too large" and is_full(e)
    outer = RuntimeError("a save failed")
    outer.__cause__ = OSError(errno.EIO, "Input/output error", "/b/c")
    assert describe_error(outer) == "/b/c: Input/output error" and not is_full(outer)
    lost = ValueError('DATA_LOSS: Error opening "zarr" driver: Error reading "w/.zarray" in OCDBT database at "/a/8/"')
    assert describe_error(lost) == "array w, /a/8/: DATA_LOSS"
    assert describe_error(KeyError()) == "KeyError"


def test_restoring_gives_the_state_that_was_saved(tmp_path):
    state = toy_stage.new_state()
    manager = checkpoint.open_manager(tmp_path)
    saved = jax.tree.map(np.asarray, state.params)
    checkpoint.save(manager, 5, state.replace(step=jnp.int32(5)), owner=Owner("rl", "a"))
    manager.wait_until_finished()
    found, step = checkpoint.restore(manager, toy_stage.new_state(), Owner("rl", "a"))
    assert step == 5 and isinstance(found, TrainState)
    jax.tree.map(np.testing.assert_array_equal, found.params, saved)
    manager.close()
