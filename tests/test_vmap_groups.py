"""Which runs can be one vmapped program, and which settings can have a value for each run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from vmapped_configs import RUN_CHANGES, make_config

from experiments import rl
from rljax import policy_gradient as pg
from rljax.ablation import vmap_groups, vmapped
from rljax.errors import UserError
from rljax.training import initial_state
from tests import exhaustive


def test_every_option_that_may_differ_between_runs_can_be_traced():
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
        ref_logprobs=jnp.zeros((rows // group, group, tokens)),
    )
    data = dict(logp=log, old_logprobs=log, advantage=jnp.ones(rows), mask=mask.astype(float), chosen=mask)
    data |= dict(behaviour_logprobs=log)
    data |= dict(entropy=log)
    needed = {"pkpo": "k=2", "passk_training": "k=2", "dro": "beta=1.0"}
    traced = set()
    for part, arguments in (
        ("advantage", attempts._asdict()),
        ("surrogate", data),
        ("correction", data),
        ("tokens", data),
    ):
        for name in pg.TABLES[part]:
            parts = {"advantage": "raw", "surrogate": "reinforce", "aggregation": "token_mean"}
            parts |= {"aggregation": "seq_mean_token_mean"} if name in ("gspo", "luspo", "gmpo") else {}
            algorithm = pg.Algorithm(**parts | {part: f"{name}({needed.get(name, '')})"})
            numbers = {option: 1.0 for of_part, option in algorithm.number_options() if of_part == part}

            def call_choice(values, part=part, arguments=arguments, algorithm=algorithm):
                choice = algorithm.choice(part)
                choice = choice._replace(options=choice.options | values)
                return pg.choices.call(choice, pg.TABLES[part], arguments)

            jax.eval_shape(call_choice, numbers)
            traced |= {(name, option) for option in numbers}
    assert {("ppo_clip", "low"), ("gae", "lam"), ("cispo", "w_max"), ("token_truncate", "hi")} <= traced
    assert not {("ppo_clip", "dual_clip"), ("pkpo", "k"), ("grpo", "ddof"), ("rf_pp", "gamma")} & traced


@pytest.mark.parametrize(
    "changes",
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
        {"algorithm": "orz_ppo"},
        *exhaustive.cases(
            [
                {"levels.low": 4, "levels.rise": 2, "limit.tokens": 6, "limit.until": 2},
                {"algorithm": "gspo"},
                {"algorithm": "rejection_sampling"},
            ],
            lambda _: True,
        ),
    ],
)
def test_a_train_step_can_be_traced_in_every_number(changes):
    config = make_config(**{f"rl.{name}": choice for name, choice in changes.items()}, **{"task.options.fewest": 3})
    run = vmapped.resolve_on_one_device(config)
    state = jax.eval_shape(lambda: initial_state.new_state(run, run.rl, None))
    step = lambda values, state: rl.make_train_step(run.with_numbers(values))(state)
    after, metrics = jax.eval_shape(step, run.numbers(), state)
    assert jax.tree.structure(after) == jax.tree.structure(state) and metrics["reward"].shape == ()


def test_configs_that_differ_in_numbers_have_the_same_signature_and_are_stacked():
    configs = [make_config(**changes) for changes in RUN_CHANGES]
    assert len({vmap_groups.group_signature(c) for c in configs}) == 1
    first_config, numbers = vmap_groups.stack_numbers(configs)
    assert first_config is configs[0] and set(numbers) == {
        "seed", "rl.temperature", "rl.optimizer.learning_rate", "rl.row.kl.coef", "rl.row.surrogate.low",
        "rl.row.surrogate.high",
    }  # fmt: skip
    assert numbers["seed"].tolist() == [3, 4, 5] and numbers["seed"].dtype == np.int32
    np.testing.assert_allclose(numbers["rl.row.kl.coef"], [0.1, 0.04, 0.04])
    np.testing.assert_allclose(numbers["rl.row.surrogate.low"], [0.2, 0.2, 0.05])
    assert vmap_groups.stack_numbers(configs[:1])[1] == {}
    same = make_config(**{"rl.algorithm": "r1_zero"}), make_config(**{"sft.steps": 7, "rl.start": "elsewhere:sft"})
    assert {vmap_groups.group_signature(c) for c in same} == {vmap_groups.group_signature(configs[0])}, (
        "two names of the same algorithm; RL does not read the settings of SFT"
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
def test_configs_that_compile_to_different_programs_have_different_signatures(changes):
    config = make_config(**changes)
    assert vmap_groups.group_signature(config) != vmap_groups.group_signature(make_config())
    with pytest.raises(UserError, match=r"runs differ in \S+ \(.*cannot be one program: only seed") as e:
        vmap_groups.stack_numbers([make_config(), config])
    assert "\n" not in str(e.value)
