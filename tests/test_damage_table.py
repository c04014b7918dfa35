"""Any file of a workdir, damaged in any way: never a wrong state, never a deletion of what can be read, always one line."""

import errno
import hashlib
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import toy_stage
from toy_stage import train

from configs import shop
from rljax.errors import UserError
from rljax.training import checkpoint, journal
from rljax.training.checkpoint_manifest import Owner, list_steps
from rljax.training.checkpoint_retention import SET_ASIDE
from rljax.training.stage_checkpoints import load_params
from rljax.training.workdir import hold_workdir
from tests import exhaustive

STAGES = ("sft", "rl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A workdir with two finished stages, each with the checkpoints 4 (the best), 6 and 8."""
    folder = tmp_path_factory.mktemp("finished")
    with hold_workdir(folder, shop.get_config("short")):
        for stage in STAGES:
            train(folder, steps=8, name=stage)
    for stage in STAGES:
        assert toy_stage.checkpoints(folder, stage) == ["4", "6", "8"]
    return folder


@pytest.fixture(scope="module")
def truth(finished):
    """{step: the checksums of its state}, the same for both stages."""
    found = {}
    for step in (4, 6, 8):
        manager = checkpoint.open_manager(finished / "checkpoints" / "rl")
        found[step] = sums_of(checkpoint.read_state(manager, step, toy_stage.new_state()))
        manager.close()
    assert len({str(sums) for sums in found.values()}) == 3
    return found


def sums_of(state):
    return checkpoint.checksums({"params": state.params, "rest": checkpoint.state_without_params(state)})


def copy_of(finished, folder, without="", function=os.link):
    """A copy of the workdir that shares its files' blocks: whoever damages one must replace it."""
    shutil.copytree(finished, folder, copy_function=function, ignore=shutil.ignore_patterns(without))
    return folder


def put_back(finished, folder, file, aside=None):
    """Undo the damage of one file, and that its checkpoint was set aside for it: faster than another copy of all."""
    if aside and aside.exists():
        aside.rename(aside.with_name(aside.name.removeprefix(SET_ASIDE)))
    (folder / file).unlink(missing_ok=True)
    os.link(finished / file, folder / file)


def contents(folder):
    """The contents of all files, wherever they lie."""
    return sorted(hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file())


def flip(position):
    def damage(content):
        changed = bytearray(content)
        if changed:
            changed[min(int(position * len(changed)), len(changed) - 1)] ^= 1 << (len(changed) % 7)
        return bytes(changed)

    return damage


DAMAGE = {
    "deleted": lambda content: None,
    "empty": lambda content: b"",
    "cut to a half": lambda content: content[: len(content) // 2],
    "cut by a byte": lambda content: content[:-1],
    "zeroed": lambda content: bytes(len(content)),
    "other text": lambda content: b"[5, null]",
    **{f"a bit flipped at {at}": flip(at) for at in (0.0, 0.13, 0.31, 0.5, 0.69, 0.87, 1.0)},
}
MORE = {"empty", "cut by a byte", "other text"} | {
    f"a bit flipped at {at}" for at in (0.0, 0.13, 0.31, 0.69, 0.87, 1.0)
}  # of a kind that stays
EACH_DAMAGE = exhaustive.cases(DAMAGE, lambda name: name in MORE)


def replace(path, content):
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def restore(folder, stage):
    """(state, step) of the newest checkpoint, as a stage that goes on reads it; the line of the error where it stops."""
    try:
        manager = checkpoint.open_manager(folder / "checkpoints" / stage)
        try:
            return checkpoint.restore(manager, toy_stage.new_state(), Owner(stage, journal.read_run_id(folder)))
        finally:
            manager.close()
    except UserError as e:
        assert "\n" not in str(e) and len(str(e)) < 700
        return str(e)


def restored_right(found, truth):
    """Whether a state was restored, and is that of its step."""
    assert isinstance(found, str) or sums_of(found[0]) == truth[found[1]], f"a wrong state of step {found[1]}"
    return not isinstance(found, str)


@pytest.mark.parametrize("damage", EACH_DAMAGE)
def test_a_damaged_file_of_the_newest_checkpoint_gives_its_state_or_the_one_before(finished, truth, tmp_path, damage):
    steps, folder = [], copy_of(finished, tmp_path / "run", without="sft")
    whole, aside = contents(folder), folder / "checkpoints" / "rl" / f"{SET_ASIDE}8"
    files = sorted(p.relative_to(finished) for p in (finished / "checkpoints" / "rl" / "8").rglob("*") if p.is_file())
    assert len(files) >= 20
    for file in files:
        replace(folder / file, DAMAGE[damage]((finished / file).read_bytes()))
        before = contents(folder)
        found = restore(folder, "rl")
        assert restored_right(found, truth), (str(file), found)
        assert contents(folder) == before, f"{file}: data are gone"
        names = toy_stage.checkpoints(folder)
        assert names == (["4", "6", "8"] if found[1] == 8 else [f"{SET_ASIDE}8", "4", "6"]), (str(file), names)
        steps.append(found[1])
        put_back(finished, folder, file, aside)
    assert contents(folder) == whole
    assert set(steps) <= {6, 8} and 6 in steps


@pytest.mark.parametrize(
    "damage", ["deleted", "empty", "cut to a half", "zeroed", "a bit flipped at 0.5", "a bit flipped at 1.0"]
)
def test_a_damaged_file_of_the_stage_that_is_started_from_gives_its_parameters_or_one_line(finished, tmp_path, damage):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    like = {name: jax.ShapeDtypeStruct(size, np.float32, sharding=one) for name, size in (("w", (3,)), ("n", ()))}
    expected = load_params(finished, "sft", 8, like)
    refused, folder = 0, copy_of(finished, tmp_path / "run", without="rl")
    whole = contents(folder)
    files = sorted(p.relative_to(finished) for p in (finished / "checkpoints" / "sft" / "8").rglob("*") if p.is_file())
    for file in files:
        replace(folder / file, DAMAGE[damage]((finished / file).read_bytes()))
        before = contents(folder)
        try:
            jax.tree.map(np.testing.assert_array_equal, load_params(folder, "sft", 8, like), expected)
        except UserError as e:
            assert "checkpoint 8 in" in str(e) and "\n" not in str(e), str(file)
            refused += 1
        assert contents(folder) == before
        put_back(finished, folder, file)
    assert refused >= 2 and contents(folder) == whole


FILES = (
    "config.json",
    "metrics.jsonl",
    "timings.jsonl",
    "sessions.jsonl",
    "samples/rl_step_000008.jsonl",
    "checkpoints/config.json",
)


@pytest.mark.parametrize("damage", EACH_DAMAGE)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_beside_the_checkpoints_stops_the_run_with_one_line_or_does_not_matter(
    finished, truth, tmp_path, file, damage
):
    folder = copy_of(finished, tmp_path / "run", without="sft", function=shutil.copy2)
    before = (folder / file).read_bytes()
    content = DAMAGE[damage](before)
    replace(folder / file, content)
    try:
        with hold_workdir(folder, shop.get_config("short")):
            journal.read_samples(folder, "rl", 8)
            train(folder, steps=10)
        stopped = False
    except UserError as e:
        assert "\n" not in str(e) and Path(file).name in str(e)
        stopped = True
    after = (folder / file).read_bytes() if (folder / file).exists() else None
    if stopped:
        assert after == content, "a file that is complained about is not changed"
    else:
        kept = content[: content.rfind(b"\n") + 1] if content and file.endswith(".jsonl") else b""
        assert (after or b"").startswith(kept), "no line that could be read is gone"
        found = restore(folder, "rl")
        assert restored_right((found[0], 8), {8: sums_of(found[0])}) and found[1] == 10


FOLDERS = [(stage, step) for stage in STAGES for step in (4, 6, 8)]


@pytest.mark.parametrize("source", FOLDERS)
def test_a_checkpoint_in_the_place_of_another_is_never_believed(finished, truth, tmp_path, source):
    there, folder = "/".join(map(str, source)), copy_of(finished, tmp_path / "run")
    whole = contents(folder)
    for stage, step in FOLDERS:
        if (stage, step) == source:
            continue
        place = folder / "checkpoints" / stage / str(step)
        place.rename(tmp_path / "its own")
        shutil.copytree(finished / "checkpoints" / there, place, copy_function=os.link)
        before = contents(folder)
        found = restore(folder, stage)
        if step == 8:
            assert isinstance(found, str) and "it was copied" in found, (there, stage, step)
        else:
            assert restored_right(found, truth) and found[1] == 8
        assert contents(folder) == before
        shutil.rmtree(place)
        (tmp_path / "its own").rename(place)
    assert contents(folder) == whole


@pytest.mark.parametrize("part", ["params", "rest", "sums", "manifest"])
@pytest.mark.parametrize("step", [4, 6])
def test_a_part_of_another_checkpoint_is_never_believed(finished, truth, tmp_path, part, step):
    folder = copy_of(finished, tmp_path / "run", without="sft")
    place = folder / "checkpoints" / "rl" / "8" / part
    shutil.rmtree(place)
    shutil.copytree(finished / "checkpoints" / "rl" / str(step) / part, place)
    before = contents(folder)
    found = restore(folder, "rl")
    assert (part == "manifest" and "it was copied" in found) or (restored_right(found, truth) and found[1] == 6)
    assert contents(folder) == before


@pytest.mark.parametrize("number", [errno.EIO, errno.EPERM, errno.ETIMEDOUT])
def test_a_file_that_cannot_be_read_stops_the_run_and_nothing_is_renamed(
    finished, truth, tmp_path, monkeypatch, number
):
    """Of every file that Python reads; those that the storage library reads are in ``test_checkpoint_keeping``."""
    folder = copy_of(finished, tmp_path / "run", without="sft")
    read, bad, stops = Path.read_bytes, [], 0

    def read_bytes(path):
        if path == bad[0]:
            raise OSError(number, os.strerror(number), str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    files = sorted(p for p in (folder / "checkpoints" / "rl" / "8").rglob("*") if p.is_file())
    for path in files:
        bad[:] = [path]
        found = restore(folder, "rl")
        assert toy_stage.checkpoints(folder) == ["4", "6", "8"]
        if isinstance(found, str):
            assert os.strerror(number) in found and str(path) in found and "nothing says that it is damaged" in found
            stops += 1
        else:
            assert restored_right(found, truth) and found[1] == 8
    assert stops == 2, "the manifest and the checksums"
    assert list_steps(folder / "checkpoints" / "rl") == [4, 6, 8]
