"""Rows: how they are written, what they refuse, whom they choose to imitate, and which tokens they treat apart."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import policy_gradient as pg
from rljax.errors import UserError
from rljax.policy_gradient import tokens


def row(advantage="grpo", surrogate="ppo_clip", aggregation="token_mean", **more):
    return pg.Algorithm(advantage, surrogate, aggregation, **more)


# ---------------------------------------------------------------------------------------------------------------------
# Choices.


def test_a_choice_is_a_name_or_a_call_and_reads_back_as_it_was_written():
    for text in ("grpo", "grpo(eps=1e-06, ddof=0)", "best_of_n(by=shortest, at_least=1)"):
        choice = pg.choices.parse(text, pg.ADVANTAGE, "advantage")
        assert str(choice) == text
        assert pg.choices.parse(choice, pg.ADVANTAGE, "advantage") == choice
    assert row("grpo(ddof=0)").option("advantage", "eps") == 1e-4  # the default of what is not said
    assert row().option("surrogate", "w_max") is None


@pytest.mark.parametrize("text, match", [
    ("nonsense", "advantage='nonsense' is unknown, choose from .*'grpo'"),
    ("grpo(epsilon=1)", r"advantage=grpo\(epsilon=1\) has no option 'epsilon', its options are \['ddof', 'eps'\]"),
    ("rloo(", "is not of the form"), ("grpo(1e-4)", "is not of the form"), ("1 + 1", "is not of the form"),
    ("grpo(eps=open('x'))", "is not of the form"), ("grpo.eps", "is not of the form"), ("", "is not of the form"),
    ("pkpo", r"needs k, write pkpo\(k=...\)"),
])  # fmt: skip
def test_a_choice_that_cannot_be_read_is_refused_in_one_line(text, match):
    with pytest.raises(UserError, match=match) as e:
        row(text)
    assert "\n" not in str(e.value)


def test_options_may_be_traced_arrays():
    def loss(high):
        r = row(surrogate=pg.choices.Choice("ppo_clip", {"high": high}))
        return pg.token_loss(r, jnp.array([[0.5]]), jnp.zeros((1, 1)), jnp.ones(1), jnp.ones((1, 1))).sum()

    np.testing.assert_allclose(jax.jit(jax.vmap(loss))(jnp.array([0.1, 0.3])), [-1.1, -1.3], rtol=1e-6)


@pytest.mark.parametrize(
    "field", [f.name for f in dataclasses.fields(pg.Algorithm) if "nll" not in f.name and "mask" not in f.name]
)
def test_an_unknown_name_in_any_field_is_refused_with_the_choices(field):
    with pytest.raises(UserError, match=f"{field}='?nonsense'? is unknown, choose from"):
        row(**{field: "nonsense"})


# ---------------------------------------------------------------------------------------------------------------------
# What cannot stand together.

CONTRADICTIONS = {
    "gspo by tokens": (dict(surrogate="gspo"), "aggregation=token_mean would weigh it by length"),
    "gmpo by token sums": (
        dict(surrogate="gmpo", aggregation="seq_mean_token_sum_const"),
        "would weigh it by length: use seq_mean_token_mean",
    ),
    "gspo with a critic": (
        dict(advantage="gae", surrogate="gspo", aggregation="seq_mean_token_mean"),
        "advantage=gae differs by token: use gspo_token",
    ),
    "vespo, corrected twice": (
        dict(surrogate="vespo", correction="token_truncate"),
        "the sampler's ratio would count twice",
    ),
    "decoupled, corrected twice": (dict(surrogate="decoupled_ppo", correction="token_mask"), "would count twice"),
    "imitation of what is worse": (dict(surrogate="imitation"), "advantage=grpo has both signs"),
    "signed imitation": (dict(advantage="raw", surrogate="imitation", sign="negative"), "never negative"),
    "k1 in the loss": (dict(kl="k1(coef=0.1)"), "expected gradient of zero, it only adds noise"),
    "kl nowhere": (dict(kl="k3(coef=0.1, where=there)"), "where must be one of ('loss', 'reward')"),
    "kl with what gradient": (dict(kl="k3(coef=0.1, grad=k3)"), "grad must be one of"),
    "kl in the reward with a gradient": (dict(kl="k3(coef=0.1, where=reward, grad=k2)"), "is detached"),
    "kl chooses": (
        dict(advantage="all_correct", surrogate="imitation", kl="k1(coef=0.1, where=reward)"),
        "would choose those near the reference",
    ),
    "two choices of tokens": (dict(surrogate="kl_cov", tokens="top_entropy"), "both choose tokens"),
    "gdpo and KL in the reward": (
        dict(advantage="gdpo", truncated="soft", kl="k1(coef=0.1, where=reward)"),
        "would be lost",
    ),
    "an unknown word": (dict(advantage="best_of_n(by=longest)", surrogate="imitation"), "by must be one of ('first'"),
    "another": (dict(surrogate="dppo(by=js)"), "by must be one of ('tv', 'kl')"),
    "a word for a number": (dict(surrogate="ppo_clip(low=narrow)"), "low is a number, not 'narrow'"),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_a_contradiction_is_refused_with_its_reason(case):
    choices, reason = CONTRADICTIONS[case]
    with pytest.raises(UserError, match="^algorithm: ") as e:
        row(**choices)
    assert reason in str(e.value)


def test_what_only_looks_like_a_contradiction_is_allowed():
    row(kl="k1(coef=0.1, grad=auto)")  # said out loud
    row("gae", "gspo_token", "seq_mean_token_mean")
    row("rf_pp", "gspo", "seq_mean_token_mean")  # gamma 1, no penalty: the same on all tokens of an attempt
    row("raw", "imitation")


def test_the_rows_of_the_table_say_what_their_papers_say():
    rows = pg.ALGORITHMS
    main = lambda r: tuple(str(r.choice(f)) for f in ("advantage", "surrogate", "aggregation", "kl"))
    assert main(rows["grpo"]) == ("grpo", "ppo_clip", "seq_mean_token_mean", "k3(coef=0.04)")
    assert main(rows["r1_zero"]) == ("grpo", "ppo_clip", "seq_mean_token_mean", "k3(coef=0.001)")
    assert main(rows["r1_stage1"])[1:] == ("ppo_clip(low=10, high=10)", "seq_mean_token_mean", "k3(coef=0.001)")
    assert main(rows["dr_grpo"]) == ("mean_center", "ppo_clip", "seq_mean_token_sum_const", "none")
    assert main(rows["dapo"]) == ("grpo", "ppo_clip(low=0.2, high=0.28)", "token_mean", "none")
    assert rows["dapo"].name("groups") == "refill" and rows["dapo"].name("truncated") == "soft"
    assert main(rows["lite_ppo"]) == ("batch_std", "ppo_clip", "token_mean", "none")
    assert main(rows["gspo"]) == ("grpo", "gspo(low=0.0003, high=0.0004)", "seq_mean_token_mean", "none")
    assert main(rows["cispo"]) == ("grpo", "cispo(w_max=5.0)", "token_mean", "none")
    assert main(rows["rloo"]) == ("rloo", "reinforce", "seq_mean_token_sum", "none")
    assert main(rows["reinforce"]) == ("raw", "reinforce", "token_mean", "none")
    assert main(rows["reinforce_pp"])[:2] == ("rf_pp", "ppo_clip") and rows["reinforce_pp"].kl_in == "reward"
    assert main(rows["maxrl"])[0] == "maxrl"
    assert main(rows["nanochat"]) == ("mean_center", "reinforce", "token_mean", "none")
    gae = [rows["orz_ppo"].option("advantage", name) for name in ("gamma", "lam")]
    assert gae == [1.0, 1.0] and rows["orz_ppo"].kl_in == ""
    assert rows["vapo"].option("advantage", "alpha") == 0.05 and rows["vapo"].positive_nll == 0.1
    for name in ("best_of_n", "rejection_sampling", "shortest_correct"):
        assert rows[name].name("surrogate") == "imitation"
    for name in ("ppo_clip", "gspo"):  # dual clip and two-sided delta are off wherever nobody asks for them
        for r in rows.values():
            assert r.option("surrogate", "dual_clip") is None and r.option("surrogate", "delta") is None, name


# ---------------------------------------------------------------------------------------------------------------------
# Whom to imitate.

REWARDS = jnp.array([[0.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.5, 1.0, 0.0, 0.5]])
LENGTHS = np.array([[1, 5, 4, 4], [3, 2, 1, 4], [5, 1, 1, 1]])
MASK = (np.arange(5) < LENGTHS[..., None]).astype(float)
LOGP = jnp.asarray(MASK * -np.array([[1.0, 0.1, 0.5, 0.2], [1, 1, 1, 1], [1, 1, 1, 1]])[..., None])


def chosen(**options):
    return np.asarray(pg.best_of_n(REWARDS, MASK, LOGP, jax.random.key(0), **options)).argmax(-1)


def test_best_of_n_takes_the_first_the_shortest_the_likeliest_or_any_of_the_best():
    assert chosen().tolist() == [1, 0, 1]
    assert chosen(by="shortest").tolist() == [2, 2, 1]  # the first of a tie
    assert chosen(by="likeliest").tolist() == [1, 2, 1]  # log-probabilities -.5, -2, -.8 of the whole responses
    seen = {int(pg.best_of_n(REWARDS, MASK, LOGP, jax.random.key(i), by="random")[0].argmax()) for i in range(30)}
    assert seen == {1, 2, 3}
    near_one = pg.best_of_n(REWARDS, at_least=1.0)
    np.testing.assert_array_equal(near_one.sum(-1), [1, 0, 1])  # nobody at a prompt that nobody solved
    with pytest.raises(UserError, match="by='longest'"):
        chosen(by="longest")


def test_rejection_sampling_takes_all_that_are_right_or_a_few_or_each_once():
    take = lambda **options: pg.all_correct(REWARDS, MASK, LOGP, jax.random.key(0), first, **options)
    first = jnp.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 1]], bool)  # the last attempt repeats the third
    np.testing.assert_array_equal(take(), [[0, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(take(cap=2), [[0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(take(cap=2, by="shortest"), [[0, 0, 1, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(take(dedupe=True), [[0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]])
    np.testing.assert_array_equal(take(at_least=0.5)[2], [1, 1, 0, 1])


def test_a_response_is_distinct_if_no_earlier_attempt_at_its_prompt_has_its_tokens():
    shown = jnp.array([[[5, 6, 0], [5, 6, 9], [5, 6, 7], [5, 6, 8]], [[5, 6, 0], [5, 0, 0], [6, 5, 0], [5, 6, 0]]])
    mask = jnp.array([[[1, 1, 0], [1, 1, 0], [1, 1, 1], [1, 1, 0]]] * 2)  # what padding holds does not matter
    expected = [[True, False, True, False], [True, True, True, False]]
    np.testing.assert_array_equal(pg.distinct(shown, mask), expected)


def test_reinforce_with_a_reward_of_0_or_1_is_rejection_sampling_up_to_the_normaliser():
    logp, mask = LOGP[0], MASK[0]
    weights = {
        name: pg.compute_advantages(pg.ALGORITHMS[name], pg.Attempts(REWARDS[:1], MASK[:1], LOGP[:1]))[0][0]
        for name in ("reinforce", "rejection_sampling")
    }
    np.testing.assert_array_equal(weights["reinforce"], weights["rejection_sampling"])
    grads = [
        jax.grad(lambda x, f=f: jnp.sum(f(x, weights["reinforce"]) * mask))(logp) for f in (pg.reinforce, pg.imitation)
    ]
    np.testing.assert_array_equal(*grads)


# ---------------------------------------------------------------------------------------------------------------------
# Tokens treated apart.


def random_tokens(n=40, t=10):
    rng = np.random.default_rng(0)
    mask = np.arange(t) < rng.integers(1, t + 1, n)[:, None]
    draw = lambda: jnp.asarray(rng.normal(size=(n, t)) * mask)
    return draw(), draw(), jnp.asarray(rng.normal(size=n)), jnp.asarray(mask)


def test_top_entropy_keeps_the_share_of_tokens_with_the_highest_entropy():
    entropy, _, _, mask = random_tokens()
    keep = np.asarray(tokens.top_entropy(entropy, mask, share=0.2))
    assert keep.sum() == int(0.2 * mask.sum()) and not keep[~np.asarray(mask)].any()
    assert entropy[keep].min() >= entropy[~keep & np.asarray(mask)].max()


def test_kl_cov_chooses_the_tokens_of_highest_covariance_and_at_least_one():
    logp, _, advantage, mask = random_tokens()
    live = np.asarray(mask)
    a = np.broadcast_to(np.asarray(advantage)[:, None], live.shape)
    cov = (a - a[live].mean()) * (np.asarray(logp) - np.asarray(logp)[live].mean())
    keep = np.asarray(tokens.kl_cov_tokens(logp, advantage, mask, share=0.1))
    assert keep.sum() == int(0.1 * live.sum()) and cov[keep].min() >= cov[~keep & live].max()
    assert tokens.kl_cov_tokens(logp, advantage, mask, share=1e-6).sum() == 1
    assert not tokens.kl_cov_tokens(logp, advantage, jnp.zeros_like(mask), share=0.5).any()


def test_clip_cov_chooses_at_random_within_its_band_and_leaves_clipped_tokens_alone():
    logp, old, advantage, mask = random_tokens()
    cov = np.asarray(tokens.covariance(logp, advantage, mask))
    pick = lambda seed, share: np.asarray(
        tokens.clip_cov_tokens(logp, old, advantage, mask, jax.random.key(seed), share=share, lowest=0.2, highest=2.0)
    )
    one, two, everyone = pick(0, 0.05), pick(1, 0.05), pick(0, 1.0)
    assert one.sum() == two.sum() == int(0.05 * mask.sum()) and (one != two).any()
    assert ((cov[everyone] > 0.2) & (cov[everyone] < 2.0)).all() and not everyone[~np.asarray(mask)].any()
    clipped = np.asarray(pg.clipped(row(), logp, old, advantage, mask))
    assert clipped.any() and not (everyone & clipped).any()


def test_chosen_tokens_lose_their_gradient_or_gain_a_penalty():
    logp, old, advantage, mask = random_tokens()
    for surrogate, field in (("clip_cov(share=0.2, lowest=0.0)", {}), ("ppo_clip", {"tokens": "top_entropy"})):
        r = row(surrogate=surrogate, **field)
        special = pg.choose_tokens(r, logp, -logp, old, advantage, mask, jax.random.key(0))
        grad = jax.grad(lambda x, r=r, s=special: jnp.sum(pg.token_loss(r, x, old, advantage, mask, chosen=s) * mask))(
            logp
        )
        left_out = special if field == {} else ~special
        assert (grad[left_out] == 0).all() and (grad[~left_out & mask] != 0).any()
    assert pg.choose_tokens(row(), logp, -logp, old, advantage, mask, jax.random.key(0)) is None
