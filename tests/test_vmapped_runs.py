"""Runs that are computed together: each is the run that it would be by itself."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from simulated import on_devices
from vmapped_configs import APART, config_of, generous

from experiments import rl
from rljax import policy_gradient as pg
from rljax.ablation import vmap_groups, vmapped
from rljax.errors import UserError
from rljax.tasks import shop
from rljax.training import initial_state, journal, loop
from rljax.training.run import resolve
from rljax.training.signals import Interrupted
from rljax.training.stage_checkpoints import finished
from rljax.training.workdir import hold_workdir


@pytest.fixture(autouse=True, scope="module")
def easy():
    """Programs that are quick to compile, and a task that rewards."""
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shop, "score", generous)
        yield
    jax.config.update("jax_disable_most_optimizations", False)


def three():
    return [config_of(**changes) for changes in APART]


def folders(root):
    return [root / f"seed_{c.seed}" for c in three()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    root = tmp_path_factory.mktemp("together")
    vmapped.train_together(rl.make_train_step, three(), folders(root), root / "group")
    return root


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    root = tmp_path_factory.mktemp("alone")
    for config, folder in zip(three(), folders(root), strict=True):
        with hold_workdir(folder, config):
            rl.run(config, folder)
    return root


def said(folder, step):
    return [s["tokens"] for s in journal.read_records(folder / "samples" / f"rl_step_{step:06d}.jsonl")]


def test_each_run_is_the_one_it_would_be_by_itself(undisturbed, alone):
    for mine, theirs in zip(folders(undisturbed), folders(alone), strict=True):
        a, b = (journal.read_records(folder / "metrics.jsonl") for folder in (mine, theirs))
        assert [(x["stage"], x["step"], *x) for x in a] == [(x["stage"], x["step"], *x) for x in b]
        for x, y in zip(a, b, strict=True):
            for key in x.keys() - {"stage"}:  # float32: sums are rounded in another order, and nothing else differs
                assert x[key] == pytest.approx(y[key], rel=1e-4, abs=1e-5), (mine.name, x["step"], key)
        for step in (0, 2, 3):
            assert said(mine, step) == said(theirs, step)
        assert journal.read_config(mine) == journal.read_config(theirs)
    rewards = [r["train/reward"] for r in journal.read_records(mine / "metrics.jsonl") if "train/reward" in r]
    assert any(0 < r < 1 for r in rewards), "there was something to learn from"


def test_a_run_that_was_computed_with_others_can_be_started_from_and_continued(undisturbed, alone, tmp_path):
    for mine, theirs, config in zip(folders(undisturbed), folders(alone), three(), strict=True):
        s = resolve(config, "rl")
        a, b = (initial_state.start_params(s, f"{folder}:rl", tmp_path) for folder in (mine, theirs))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5)
        before = (mine / "metrics.jsonl").read_bytes()
        with hold_workdir(mine, config):
            rl.run(config, mine)  # it is finished: nothing is done again
        assert (mine / "metrics.jsonl").read_bytes() == before and finished(mine, "rl", 3)


def test_stopped_in_the_middle_and_continued_they_leave_the_same_bytes(undisturbed, tmp_path, monkeypatch):
    made = vmapped.vmap_train_step

    def stops_at_three(*how):
        train_step, steps = made(*how), iter((1, 2))

        def step(state):
            next(steps)
            return train_step(state)

        return step

    monkeypatch.setattr(vmapped, "vmap_train_step", stops_at_three)
    with pytest.raises(StopIteration):
        vmapped.train_together(rl.make_train_step, three(), folders(tmp_path), tmp_path / "group")
    assert not any(finished(folder, "rl", 3) for folder in folders(tmp_path))
    monkeypatch.setattr(vmapped, "vmap_train_step", made)
    vmapped.train_together(rl.make_train_step, three(), folders(tmp_path), tmp_path / "group")
    for mine, theirs in zip(folders(tmp_path), folders(undisturbed), strict=True):
        for name in ("metrics.jsonl", *(f"samples/rl_step_{n:06d}.jsonl" for n in (0, 2, 3))):
            assert (mine / name).read_bytes() == (theirs / name).read_bytes()
        sums = "checkpoints/rl/3/sums/metadata"
        assert json.loads((mine / sums).read_text()) == json.loads((theirs / sums).read_text())
    with pytest.raises(UserError, match=r"holds .*seed_3.*use another folder"):
        vmapped.train_together(
            rl.make_train_step, three()[:2], [tmp_path / "a", tmp_path / "seed_4"], tmp_path / "group"
        )


def test_a_run_that_stands_still_is_named_and_the_others_finish(tmp_path, monkeypatch):
    made = vmapped.vmap_train_step

    def second_fails(*how):
        train_step = made(*how)

        def step(state):
            state, metrics = train_step(state)
            skipped = np.asarray([0, 9, 0], np.int32)
            return state.replace(skipped=jnp.asarray(skipped)), metrics | {"skipped_in_a_row": skipped}

        return step

    monkeypatch.setattr(vmapped, "vmap_train_step", second_fails)
    configs = [config_of(**changes, **{"rl.max_skipped": 9}) for changes in APART]
    with pytest.raises(UserError, match=r"seed_4: the gradient was not finite 9 steps in a row, as in 1 of 3 runs"):
        vmapped.train_together(rl.make_train_step, configs, folders(tmp_path), tmp_path / "group")
    assert [finished(folder, "rl", 3) for folder in folders(tmp_path)] == [True, False, True]


def equations(jaxpr):
    """Every equation of a program, those of its loops, branches and calls too."""
    for e in jaxpr.eqns:
        yield e
        for inner in jax.tree.leaves(tuple(e.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from equations(inner)


def forms(s, configs):
    """(shapes of the conditions of loops that multiply matrices, branches of each branching that does)."""
    one = initial_state.new_state(s, s.rl, None)
    state = jax.tree.map(lambda x: jnp.stack([x, x]), one)
    mesh = vmapped.mesh_for(2, jax.devices()[:1])
    program = jax.make_jaxpr(
        vmapped.vmap_train_step(rl.make_train_step, s, vmap_groups.stack_numbers(configs)[1], mesh)
    )(state).jaxpr
    multiplies = lambda body: any(e.primitive.name == "dot_general" for e in equations(body))
    loops = [e.params for e in equations(program) if e.primitive.name == "while"]
    branchings = [e.params["branches"] for e in equations(program) if e.primitive.name == "cond"]
    conditions = {p["cond_jaxpr"].out_avals[0].shape for p in loops if multiplies(p["body_jaxpr"].jaxpr)}
    return conditions, {len(b) for b in branchings if any(multiplies(x.jaxpr) for x in b)}


@pytest.mark.parametrize("changes", [{}, {"rl.limit.tokens": 6, "rl.limit.until": 2}], ids=["plain", "limit"])
def test_a_loop_has_one_condition_for_all_runs_and_a_branch_is_still_a_branch(changes):
    configs = [config_of(**apart, **changes) for apart in APART[:2]]
    s = vmapped.resolve_one(configs[0])
    assert forms(vmapped.beside_others(s), configs) == ({()}, {2})
    assert forms(s, configs) == ({(2,)}, set()), "what vmap makes of them where each run decides for itself"


def test_shared_out_over_devices_they_are_the_same_runs_and_no_device_hears_of_another():
    found = on_devices(4, "vmapped_run.py", "--xla_backend_optimization_level=0")
    assert found["used"] == 3 and found["talk"] == 0
    assert found["apart"] < 1e-4
    assert len(set(found["lengths"][0])) > 3, "the runs differ"


def test_every_option_that_may_differ_can_be_traced():
    rows, group, tokens = 4, 2, 6
    log, mask = jnp.zeros((rows, tokens)), jnp.ones((rows, tokens), bool)
    attempts = pg.Attempts(
        rewards=jnp.ones((rows // group, group)),
        mask=jnp.ones((rows // group, group, tokens), bool),
        logprobs=jnp.zeros((rows // group, group, tokens)),
        key=jax.random.key(0),
        reward_terms=jnp.ones((rows // group, group, 2)),
        values=jnp.zeros((rows // group, group, tokens)),
        distinct=jnp.ones((rows // group, group), bool),
        greedy=jnp.ones(rows // group),
    )
    data = dict(logp=log, old_logprobs=log, advantage=jnp.ones(rows), mask=mask.astype(float), chosen=mask)
    data |= dict(behaviour_logprobs=log)
    data |= dict(entropy=log)
    needed = {"pkpo": "k=2", "passk_training": "k=2", "dro": "beta=1.0"}
    traced = set()
    for field, of in (("advantage", attempts._asdict()), ("surrogate", data), ("correction", data), ("tokens", data)):
        for name in pg.TABLES[field]:
            kept = {"advantage": "raw", "surrogate": "reinforce", "aggregation": "token_mean"}
            kept |= {"aggregation": "seq_mean_token_mean"} if name in ("gspo", "luspo", "gmpo") else {}
            algorithm = pg.Algorithm(**kept | {field: f"{name}({needed.get(name, '')})"})
            free = {option: 1.0 for part, option in algorithm.number_options() if part == field}

            def act(values, field=field, of=of, algorithm=algorithm):
                choice = algorithm.choice(field)
                now = choice._replace(options=choice.options | values)
                return pg.choices.call(now, pg.TABLES[field], of)

            jax.eval_shape(act, free)
            traced |= {(name, option) for option in free}
    assert {("ppo_clip", "low"), ("gae", "lam"), ("cispo", "w_max"), ("token_truncate", "hi")} <= traced
    assert not {("ppo_clip", "dual_clip"), ("pkpo", "k"), ("grpo", "ddof"), ("rf_pp", "gamma")} & traced


@pytest.mark.parametrize(
    "row",
    [
        {"row.entropy": "bonus(coef=0.01)", "row.truncated": "soft(share=0.5)", "row.kl": "k1(coef=0.1, where=reward)"},
        {
            "row.entropy": "adaptive(target=1.0)",
            "row.tokens": "top_entropy(share=0.5)",
            "row.groups": "refill(rounds=2)",
        },
        {
            "row.surrogate": "clip_cov(share=0.1)",
            "row.correction": "token_mask(hi=3.0)",
            "row.advantage": "rloo(normalize=True)",
        },
        *({"algorithm": name} for name in pg.ALGORITHMS),
        {"levels.low": 4, "levels.rise": 2, "limit.tokens": 6, "limit.until": 2},
    ],
)
def test_a_whole_train_step_can_be_traced_in_every_number(row):
    config = config_of(**{f"rl.{name}": choice for name, choice in row.items()}, **{"task.options.fewest": 3})
    s = vmapped.resolve_one(config)
    state = jax.eval_shape(lambda: initial_state.new_state(s, s.rl, None))
    step = lambda values, state: rl.make_train_step(s.with_numbers(values))(state)
    after, metrics = jax.eval_shape(step, s.numbers(), state)
    assert jax.tree.structure(after) == jax.tree.structure(state) and metrics["reward"].shape == ()


def test_configs_that_differ_in_numbers_are_alike_and_stacked():
    configs = three()
    assert len({vmap_groups.signature(c) for c in configs}) == 1
    base, numbers = vmap_groups.stack_numbers(configs)
    assert base is configs[0] and set(numbers) == {
        "seed", "rl.temperature", "rl.optimizer.learning_rate", "rl.row.kl.coef", "rl.row.surrogate.low",
        "rl.row.surrogate.high",
    }  # fmt: skip
    assert numbers["seed"].tolist() == [3, 4, 5] and numbers["seed"].dtype == np.int32
    np.testing.assert_allclose(numbers["rl.row.kl.coef"], [0.1, 0.04, 0.04])
    np.testing.assert_allclose(numbers["rl.row.surrogate.low"], [0.2, 0.2, 0.05])
    assert vmap_groups.stack_numbers(configs[:1])[1] == {}
    named = config_of(**{"rl.algorithm": "r1_zero"}), config_of(**{"sft.steps": 7, "rl.start": "elsewhere:sft"})
    assert {vmap_groups.signature(c) for c in named} == {vmap_groups.signature(configs[0])}, (
        "same parts; RL does not look at SFT"
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"rl.group_size": 8},
        {"rl.algorithm": "dr_grpo"},
        {"rl.steps": 4},
        {"rl.row.surrogate": "ppo_clip(dual_clip=3.0)"},
        {"rl.row.advantage": "grpo(ddof=0)"},
        {"rl.row.kl": "k3(coef=0.04, unbiased=True)"},
        {"rl.row.positive_nll": 0.1},
        {"rl.optimizer.schedule": "constant"},
        {"task.options.prices": 6},
        {"eval.problems": 8},
    ],
)
def test_configs_that_make_another_program_are_not_alike(changes):
    config = config_of(**changes)
    assert vmap_groups.signature(config) != vmap_groups.signature(config_of())
    with pytest.raises(UserError, match=r"runs differ in \S+ \(.*cannot be computed together: only seed") as e:
        vmap_groups.stack_numbers([config_of(), config])
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"rl.reward": "correct + 0.5*format"}, "is verified on the host"),
        ({"rl.lora.rank": 2}, "rl.lora.rank=2"),
        ({"mesh.fsdp": 2}, "mesh.fsdp=2: runs together have one device each"),
        ({"rl.group_size": 1}, "rl.group_size=1"),
    ],
)
def test_what_cannot_be_one_function_of_arrays_is_refused_in_a_line(changes, said, tmp_path):
    configs = [config_of(seed=n, **changes) for n in range(2)]
    with pytest.raises(UserError) as e:
        vmapped.train_together(rl.make_train_step, configs, [tmp_path / "a", tmp_path / "b"], tmp_path / "group")
    assert said in str(e.value) and "\n" not in str(e.value)
    assert not (tmp_path / "group").exists()


def test_folders_are_those_of_one_run_each_and_none_that_has_begun(tmp_path):
    configs = [config_of(seed=n) for n in range(2)]
    with pytest.raises(UserError, match="as many folders and one for the group"):
        vmapped.train_together(rl.make_train_step, configs, [tmp_path / "a", tmp_path / "a"], tmp_path / "group")
    (tmp_path / "b" / "checkpoints" / "rl" / "2").mkdir(parents=True)
    (tmp_path / "b" / "config.json").write_text(json.dumps({"config": journal.to_plain(configs[1].to_dict())}))
    with pytest.raises(UserError, match="has begun its RL by itself"):
        vmapped.train_together(rl.make_train_step, configs, [tmp_path / "c", tmp_path / "b"], tmp_path / "other")


def test_an_interrupt_saves_the_group_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.processes, "make_stop_vote", lambda: lambda asked: True)
    with pytest.raises(Interrupted, match="stopped at step 1 of 3"):
        vmapped.train_together(rl.make_train_step, three(), folders(tmp_path), tmp_path / "group")
    assert (tmp_path / "group" / "checkpoints" / "rl" / "1").is_dir()
