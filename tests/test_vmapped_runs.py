"""Many RL runs as one vmapped program: each has the same result as if it ran by itself."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from simulated import on_devices
from vmapped_configs import RUN_CHANGES, make_config, score_first_number

from experiments import rl
from rljax.ablation import vmap_groups, vmapped
from rljax.errors import UserError
from rljax.tasks import shop
from rljax.training import initial_state, journal, loop
from rljax.training.run import resolve
from rljax.training.signals import Interrupted
from rljax.training.stage_checkpoints import finished
from rljax.training.workdir import hold_workdir


@pytest.fixture(autouse=True, scope="module")
def fast_compilation_and_frequent_rewards():
    """XLA compiles quickly, each program once for all tests, and the task often gives a reward."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shop, "score", score_first_number)
        patch.setattr(vmapped, "vmap_train_step", once_for_equal_runs(vmapped.vmap_train_step))
        patch.setattr(vmapped, "make_vmapped_evaluator", once_for_equal_groups(vmapped.make_vmapped_evaluator))
        patch.setattr(rl, "compile_train_step", once_for_equal_programs(rl.compile_train_step))
        yield
    jax.config.update("jax_disable_most_optimizations", False)


def settings_of(run):
    settings = {k: x for k, x in run.record.items() if k != "rl"} | {"rl": run.record["rl"] | {"max_skipped": None}}
    return json.dumps(settings)


def once_for_equal_groups(make_vmapped_evaluator):
    """The compiled evaluation of a group that has the settings and seeds of an earlier one is the earlier one's."""
    made = {}

    def make_once(run, seeds, mesh):
        key = settings_of(run), tuple(seeds), mesh.size
        if key not in made:
            made[key] = make_vmapped_evaluator(run, seeds, mesh)
        return made[key]

    return make_once


def once_for_equal_runs(vmap_train_step):
    """The compiled train step of a group that has the settings of an earlier one is the earlier one's."""
    made = {}

    def vmap_once(make_train_step, run, numbers, mesh):
        key = settings_of(run), str(numbers), mesh.size, run.model.layout.run_axis
        if key not in made:
            made[key] = vmap_train_step(make_train_step, run, numbers, mesh)
        return made[key]

    return vmap_once


def once_for_equal_programs(compile_train_step):
    """Runs that differ in numbers alone are one program (``test_train_step``), which takes the numbers of each."""
    made = {}

    def compile_once(make_train_step, run):
        of_rl = {k: x for k, x in run.record["rl"].items() if k not in ("temperature", "optimizer", "row")}
        key = json.dumps({k: x for k, x in run.record.items() if k != "seed"} | {"rl": of_rl}), *run.numbers()
        made.setdefault(key, compile_train_step(make_train_step, run).func)
        return functools.partial(made[key], run.numbers())

    return compile_once


def three_configs():
    return [make_config(**changes) for changes in RUN_CHANGES]


def workdirs_in(root):
    return [root / f"seed_{c.seed}" for c in three_configs()]


@pytest.fixture(scope="module")
def vmapped_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("together")
    vmapped.train_vmapped_runs(rl.make_train_step, three_configs(), workdirs_in(root), root / "group")
    return root


@pytest.fixture(scope="module")
def single_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("single")
    for config, folder in zip(three_configs(), workdirs_in(root), strict=True):
        with hold_workdir(folder, config):
            rl.run(config, folder)
    return root


def sampled_tokens(folder, step):
    return [s["tokens"] for s in journal.read_records(folder / "samples" / f"rl_step_{step:06d}.jsonl")]


def test_a_vmapped_run_has_the_same_result_as_the_run_by_itself(vmapped_root, single_root):
    for vmapped_run, other_run in zip(workdirs_in(vmapped_root), workdirs_in(single_root), strict=True):
        a, b = (journal.read_records(folder / "metrics.jsonl") for folder in (vmapped_run, other_run))
        assert [(x["stage"], x["step"], *x) for x in a] == [(x["stage"], x["step"], *x) for x in b]
        for x, y in zip(a, b, strict=True):
            for key in x.keys() - {"stage"}:  # float32: only the order of sums differs
                assert x[key] == pytest.approx(y[key], rel=1e-4, abs=1e-5), (vmapped_run.name, x["step"], key)
        for step in (0, 2, 3):
            assert sampled_tokens(vmapped_run, step) == sampled_tokens(other_run, step)
        assert journal.read_config(vmapped_run) == journal.read_config(other_run)
    rewards = [r["train/reward"] for r in journal.read_records(vmapped_run / "metrics.jsonl") if "train/reward" in r]
    assert any(0 < r < 1 for r in rewards), "some attempts are right and some are wrong"


def test_a_vmapped_run_can_be_a_start_and_can_be_continued_by_itself(vmapped_root, single_root, tmp_path):
    for vmapped_run, other_run, config in zip(
        workdirs_in(vmapped_root), workdirs_in(single_root), three_configs(), strict=True
    ):
        run = resolve(config, "rl")
        a, b = (initial_state.start_params(run, f"{folder}:rl", tmp_path) for folder in (vmapped_run, other_run))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5)
        before = (vmapped_run / "metrics.jsonl").read_bytes()
        with hold_workdir(vmapped_run, config):
            rl.run(config, vmapped_run)  # the run is finished, so this does nothing
        assert (vmapped_run / "metrics.jsonl").read_bytes() == before and finished(vmapped_run, "rl", 3)


def test_a_group_that_is_stopped_and_continued_leaves_the_same_bytes(vmapped_root, tmp_path, monkeypatch):
    vmap_train_step = vmapped.vmap_train_step

    def stop_in_step_three(*args):
        train_step, steps = vmap_train_step(*args), iter((1, 2))

        def step(state):
            next(steps)
            return train_step(state)

        return step

    monkeypatch.setattr(vmapped, "vmap_train_step", stop_in_step_three)
    with pytest.raises(StopIteration):
        vmapped.train_vmapped_runs(rl.make_train_step, three_configs(), workdirs_in(tmp_path), tmp_path / "group")
    assert not any(finished(folder, "rl", 3) for folder in workdirs_in(tmp_path))
    monkeypatch.setattr(vmapped, "vmap_train_step", vmap_train_step)
    vmapped.train_vmapped_runs(rl.make_train_step, three_configs(), workdirs_in(tmp_path), tmp_path / "group")
    for vmapped_run, other_run in zip(workdirs_in(tmp_path), workdirs_in(vmapped_root), strict=True):
        for name in ("metrics.jsonl", *(f"samples/rl_step_{n:06d}.jsonl" for n in (0, 2, 3))):
            assert (vmapped_run / name).read_bytes() == (other_run / name).read_bytes()
        sums = "checkpoints/rl/3/sums/metadata"
        assert json.loads((vmapped_run / sums).read_text()) == json.loads((other_run / sums).read_text())
    with pytest.raises(UserError, match=r"has the checkpoints of .*seed_3.*use another folder"):
        vmapped.train_vmapped_runs(
            rl.make_train_step, three_configs()[:2], [tmp_path / "a", tmp_path / "seed_4"], tmp_path / "group"
        )


@pytest.mark.exhaustive
def test_a_run_without_finite_gradients_is_named_and_the_others_finish(tmp_path, monkeypatch):
    vmap_train_step = vmapped.vmap_train_step

    def second_run_fails(*args):
        train_step = vmap_train_step(*args)

        def step(state):
            state, metrics = train_step(state)
            skipped = np.asarray([0, 9, 0], np.int32)
            return state.replace(skipped=jnp.asarray(skipped)), metrics | {"skipped_in_a_row": skipped}

        return step

    monkeypatch.setattr(vmapped, "vmap_train_step", second_run_fails)
    configs = [make_config(**changes, **{"rl.max_skipped": 9}) for changes in RUN_CHANGES]
    with pytest.raises(
        UserError, match=r"seed_4: the gradient was not finite 9 steps in a row. This happened in 1 of 3 runs"
    ):
        vmapped.train_vmapped_runs(rl.make_train_step, configs, workdirs_in(tmp_path), tmp_path / "group")
    assert [finished(folder, "rl", 3) for folder in workdirs_in(tmp_path)] == [True, False, True]


def equations(jaxpr):
    """All equations of a jaxpr, including those of its loops, branches and calls."""
    for e in jaxpr.eqns:
        yield e
        for inner in jax.tree.leaves(tuple(e.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def loops_and_branches(run, configs):
    """(condition shapes of the loops that multiply matrices, branch counts of the conditionals that do)."""
    run_state = initial_state.new_state(run, run.rl, None)
    state = jax.tree.map(lambda x: jnp.stack([x, x]), run_state)
    mesh = vmapped.make_run_mesh(2, jax.devices()[:1])
    program = jax.make_jaxpr(
        vmapped.vmap_train_step(rl.make_train_step, run, vmap_groups.stack_numbers(configs)[1], mesh)
    )(state).jaxpr
    multiplies = lambda body: any(e.primitive.name == "dot_general" for e in equations(body))
    loops = [e.params for e in equations(program) if e.primitive.name == "while"]
    conditionals = [e.params["branches"] for e in equations(program) if e.primitive.name == "cond"]
    conditions = {p["cond_jaxpr"].out_avals[0].shape for p in loops if multiplies(p["body_jaxpr"].jaxpr)}
    return conditions, {len(b) for b in conditionals if any(multiplies(x.jaxpr) for x in b)}


@pytest.mark.parametrize(
    "changes",
    [pytest.param({}, marks=pytest.mark.exhaustive), {"rl.limit.tokens": 6, "rl.limit.until": 2}],
    ids=["plain", "limit"],
)
def test_a_loop_has_one_condition_for_all_runs_and_a_branch_is_still_a_branch(changes):
    unpacked = {"rl.packing": 0, **changes}  # rows that are cut to one of two widths
    configs = [make_config(**of_run, **unpacked) for of_run in RUN_CHANGES[:2]]
    run = vmapped.resolve_on_one_device(configs[0])
    assert loops_and_branches(vmapped.with_run_axis(run), configs) == ({()}, {2})
    assert loops_and_branches(run, configs) == ({(2,)}, set()), (
        "vmap without a run axis: a condition for each run, and no branches"
    )


@pytest.mark.exhaustive
def test_runs_sharded_over_devices_are_the_same_and_no_device_communicates():
    result = on_devices(4, "vmapped_run.py")
    assert result["num_devices"] == 3 and result["num_collectives"] == 0
    assert result["max_difference"] < 1e-4
    assert len(set(result["lengths"][0])) > 3, "the runs differ"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"rl.reward": "correct + 0.5*format"}, "is verified by reading text"),
        ({"rl.lora.rank": 2}, "rl.lora.rank=2"),
        ({"mesh.fsdp": 2}, "mesh.fsdp=2: with --form together a run has one device"),
        ({"rl.group_size": 1}, "rl.group_size=1"),
    ],
)
def test_runs_that_cannot_be_vmapped_are_refused_in_one_line(changes, message, tmp_path):
    configs = [make_config(seed=n, **changes) for n in range(2)]
    with pytest.raises(UserError) as e:
        vmapped.train_vmapped_runs(rl.make_train_step, configs, [tmp_path / "a", tmp_path / "b"], tmp_path / "group")
    assert message in str(e.value) and "\n" not in str(e.value)
    assert not (tmp_path / "group").exists()


def test_workdirs_must_differ_and_have_no_checkpoints_of_a_run_by_itself(tmp_path):
    configs = [make_config(seed=n) for n in range(2)]
    with pytest.raises(UserError, match="2 different workdirs and another folder for the group"):
        vmapped.train_vmapped_runs(rl.make_train_step, configs, [tmp_path / "a", tmp_path / "a"], tmp_path / "group")
    (tmp_path / "b" / "checkpoints" / "rl" / "2").mkdir(parents=True)
    (tmp_path / "b" / "config.json").write_text(json.dumps({"config": journal.to_plain(configs[1].to_dict())}))
    with pytest.raises(UserError, match="has RL checkpoints of a run by itself"):
        vmapped.train_vmapped_runs(rl.make_train_step, configs, [tmp_path / "c", tmp_path / "b"], tmp_path / "other")


def test_an_interrupt_saves_a_checkpoint_of_the_group(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.processes, "make_stop_vote", lambda: lambda asked: True)
    with pytest.raises(Interrupted, match="stopped at step 1 of 3"):
        vmapped.train_vmapped_runs(rl.make_train_step, three_configs(), workdirs_in(tmp_path), tmp_path / "group")
    assert (tmp_path / "group" / "checkpoints" / "rl" / "1").is_dir()
