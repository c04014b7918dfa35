"""Golden cases: values and gradients that an independent reference and the unmodified source of TRL and verl agree on.

``golden_losses.json`` says for each case where it comes from. Fixture A: one prompt, four attempts of 3, 2, 1, 3 tokens.
Each loss is computed twice: by its function and ``aggregate``, and through a row as the learner computes it.
"""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rljax import policy_gradient as pg
from rljax import rewards

DATA = json.loads(Path(__file__).with_name("golden_losses.json").read_text())
CASES = {c["id"]: c for c in DATA["cases"]}
A = {name: np.asarray(x) for name, x in DATA["fixtures"]["A"].items()}  # [B, G, T], rewards [B, G]
LOWERED = np.asarray(CASES["dual_clip_active/A"]["inputs"]["old_override"])  # old log-probabilities, where bounds bite


@pytest.fixture(params=[32, 64])
def bits(request):
    with jax.enable_x64(request.param == 64):
        yield request.param


def close(actual, expected, bits):
    """rtol 2e-5 and atol 1e-6 in float32, atol 1e-7 in float64."""
    assert jnp.asarray(actual).dtype == f"float{bits}"
    rtol, atol = (2e-5, 1e-6) if bits == 32 else (0, 1e-7)
    np.testing.assert_allclose(actual, np.asarray(expected), rtol=rtol, atol=atol)


def data(bits, **instead):
    return {name: jnp.asarray(x, f"float{bits}") for name, x in (A | instead).items()}


# ---------------------------------------------------------------------------------------------------------------------
# Advantages.

ADVANTAGES = {
    "adv_mean_center/A": lambda d: pg.mean_center(d["rewards"]),
    "adv_grpo_trl/A": lambda d: pg.grpo(d["rewards"]),  # the default: eps 1e-4, sample deviation
    "adv_grpo_verl/A": lambda d: pg.grpo(d["rewards"], eps=1e-6),
    "adv_grpo_popstd/A": lambda d: pg.grpo(d["rewards"], eps=1e-8, ddof=0),
    "adv_batch_std/A": lambda d: pg.batch_std(d["rewards"]),
    "adv_rloo/A": lambda d: pg.rloo(d["rewards"]),
    "adv_rloo_normalized/A": lambda d: pg.rloo(d["rewards"], normalize=True),
    "adv_reinforce_whiten_seq/A": lambda d: pg.whiten_seq(d["rewards"]),
    "adv_reinforce_pp/A": lambda d: pg.rf_pp(d["rewards"], d["mask"]),
    "adv_reinforce_pp_baseline/A": lambda d: pg.rf_pp_baseline(d["rewards"], d["mask"]),
    "adv_opo/A": lambda d: pg.opo(d["rewards"], d["mask"]),
    "adv_gpg/A": lambda d: pg.gpg(d["rewards"]),
    "adv_maxrl/A": lambda d: pg.maxrl(d["rewards"]),
    "adv_passk_best_norm1/A": lambda d: pg.passk_best(d["rewards"]),
    "adv_passk_best_norm0/A": lambda d: pg.passk_best(d["rewards"], norm_by_std=False),
    "rfpp_kl_in_reward/A": lambda d: pg.rf_pp(d["rewards"], d["mask"], 0.05 * pg.k1(d["old"], d["ref"])),
}
GAE = {
    "gae_g1.0_l1.0/A": dict(gamma=1.0, lam=1.0),
    "gae_g1.0_l0.95/A": dict(gamma=1.0, lam=0.95),
    "gae_g0.99_l0.9/A": dict(gamma=0.99, lam=0.9),
}
VAPO = {"vapo_gae_a0.05/A": 0.05, "vapo_gae_a1.0/A": 1.0}


@pytest.mark.parametrize("case", ADVANTAGES)
def test_golden_advantage(case, bits):
    expected = CASES[case]["expected"]
    close(ADVANTAGES[case](data(bits)), expected.get("adv", expected.get("adv_tok")), bits)


@pytest.mark.parametrize("case", GAE)
def test_golden_gae(case, bits):
    d, expected = data(bits), CASES[case]["expected"]
    advantage, returns = pg.gae(d["rewards"], d["values"], d["mask"], **GAE[case])
    close(advantage, expected["adv_tok"], bits)
    close(returns, expected["returns"], bits)
    white, same = pg.gae(d["rewards"], d["values"], d["mask"], whitened=True, **GAE[case])
    close(white, expected["adv_tok_whitened"], bits)
    close(same, expected["returns"], bits)  # returns are those before whitening


@pytest.mark.parametrize("case", VAPO)
def test_golden_length_adaptive_gae(case, bits):
    d, expected = data(bits), CASES[case]["expected"]
    advantage, returns = pg.gae_length_adaptive(d["rewards"], d["values"], d["mask"], alpha=VAPO[case])
    close(advantage, expected["adv_tok"], bits)
    close(returns, expected["returns_critic"], bits)
    close(pg.returns.length_adaptive_lam(d["mask"], VAPO[case]), expected["lam_policy"], bits)


def test_golden_rloo_with_kl_in_the_reward(bits):
    d, expected = data(bits), CASES["rloo_kl_in_reward/A"]["expected"]
    penalty = 0.05 * pg.k1(d["old"], d["ref"])
    close(d["rewards"] - jnp.sum(penalty * d["mask"], -1), expected["shaped_reward"], bits)
    row = pg.Algorithm("rloo", "reinforce", "token_mean", kl="k1(coef=0.05, where=reward)")
    close(pg.compute_advantages(row, pg.Attempts(d["rewards"], d["mask"], penalty=penalty))[0], expected["adv"], bits)


def test_golden_pass_at_k(bits):
    case = CASES["pkpo/bin"]
    g, k, expected = jnp.asarray(case["inputs"]["g"], f"float{bits}"), case["inputs"]["k"], case["expected"]
    for baseline, name in (("none", "s"), ("loo", "s_loo"), ("loo1", "s_loo1")):
        close(pg.pkpo(g[None], k=k, baseline=baseline)[0], expected[name], bits)
    close(pg.max_at_k(g[None], k)[0], expected["maxg_at_k"], bits)
    close(pg.passk_training(g[None], k=k)[0], expected["passk_training_adv"], bits)


# ---------------------------------------------------------------------------------------------------------------------
# Losses: (row, the same by its functions: token losses of d and the aggregation).


def row(surrogate="ppo_clip", aggregation="token_mean", advantage="grpo", **more):
    return pg.Algorithm(advantage, surrogate, aggregation, **more)


def by_function(function, mode="token_mean", **options):
    def tokens(d, a):
        known = dict(
            logp=d["logp"], old_logprobs=d["old"], advantage=a, mask=d["mask"], behaviour_logprobs=d["sampler"]
        )
        return function(*(known[name] for name in pg.choices.inputs(function)), **options)

    return tokens, mode


WIDE = dict(low=0.2, high=0.2)
LOSSES = {
    "ppo_clip_token_mean/A": (row(), by_function(pg.ppo_clip)),
    "dapo_clip_higher/A": (row("ppo_clip(low=0.2, high=0.28)"), by_function(pg.ppo_clip, low=0.2, high=0.28)),
    "grpo_seq_mean/A": (row(aggregation="seq_mean_token_mean"), by_function(pg.ppo_clip, "seq_mean_token_mean")),
    "r1_clip10_seq_mean/A": (
        row("ppo_clip(low=10, high=10)", "seq_mean_token_mean"),
        by_function(pg.ppo_clip, "seq_mean_token_mean", low=10.0, high=10.0),
    ),
    "dr_grpo/A": (
        row(aggregation="seq_mean_token_sum_const", advantage="mean_center"),
        by_function(pg.ppo_clip, "seq_mean_token_sum_const"),
    ),
    "verl_vanilla_token_mean/A": (row("ppo_clip(dual_clip=3)"), by_function(pg.ppo_clip, dual_clip=3.0)),
    "verl_vanilla_seq_mean_token_mean_live/A": (
        row("ppo_clip(dual_clip=3)", "seq_mean_token_mean"),
        by_function(pg.ppo_clip, "seq_mean_token_mean", dual_clip=3.0),
    ),
    "verl_vanilla_seq_mean_token_sum_live/A": (
        row("ppo_clip(dual_clip=3)", "seq_mean_token_sum"),
        by_function(pg.ppo_clip, "seq_mean_token_sum", dual_clip=3.0),
    ),
    "verl_vanilla_token_sum/A": (
        row("ppo_clip(dual_clip=3)", "token_sum"),
        by_function(pg.ppo_clip, "token_sum", dual_clip=3.0),
    ),
    "dual_clip_active/A": (row("ppo_clip(dual_clip=3)"), by_function(pg.ppo_clip, dual_clip=3.0)),
    "two_sided_delta4/A": (row("ppo_clip(delta=4)"), by_function(pg.ppo_clip, delta=4.0)),
    "gspo/A": (row("gspo", "seq_mean_token_mean"), by_function(pg.gspo, "seq_mean_token_mean")),
    "gspo_wide/A": (
        row("gspo(low=0.2, high=0.2)", "seq_mean_token_mean"),
        by_function(pg.gspo_token, "seq_mean_token_mean", **WIDE),  # the same value and gradient by token
    ),
    "luspo/A": (row("luspo", "seq_mean_token_mean"), by_function(pg.luspo, "seq_mean_token_mean")),
    "cispo_trl/A": (row("cispo"), by_function(pg.cispo)),
    "cispo_trl_cap1p2/A": (row("cispo(w_max=1.2)"), by_function(pg.cispo, w_max=1.2)),
    "cispo_verl/A": (row("cispo(w_min=0.8, w_max=1.2)"), by_function(pg.cispo, w_min=0.8, w_max=1.2)),
    "sapo/A": (row("sapo", "seq_mean_token_mean"), by_function(pg.sapo, "seq_mean_token_mean")),
    "vespo/A": (row("vespo"), by_function(pg.vespo)),
    "gmpo/A": (
        row("gmpo(low=0.37, high=0.37)", "seq_mean_token_mean"),
        by_function(pg.gmpo, "seq_mean_token_mean", low=0.37, high=0.37),
    ),
    "reinforce_token_mean/A": (row("reinforce"), by_function(pg.reinforce)),
    "reinforce_seq_sum/A": (row("reinforce", "seq_mean_token_sum"), by_function(pg.reinforce, "seq_mean_token_sum")),
    "dro/A": (row("dro(beta=0.5)"), by_function(pg.dro, beta=0.5)),
    "prompt_mean/A": (row(aggregation="prompt_mean"), by_function(pg.ppo_clip, "prompt_mean")),
    "dppo_tv/A": (row("dppo(low=0.15, high=0.15)"), by_function(pg.dppo, low=0.15, high=0.15)),
    "dppo_kl/A": (row("dppo(low=0.05, high=0.05, by=kl)"), by_function(pg.dppo, low=0.05, high=0.05, by="kl")),
    "decoupled_ppo/A": (row("decoupled_ppo"), by_function(pg.decoupled_ppo)),
    "grpo_k3_beta0.001/A": (row(aggregation="seq_mean_token_mean", kl="k3(coef=0.001)"), None),
    "grpo_k3_beta0.04/A": (row(aggregation="seq_mean_token_mean", kl="k3(coef=0.04)"), None),
    "grpo_k3_unbiased/A": (row(aggregation="seq_mean_token_mean", kl="k3(coef=0.04, unbiased=True)"), None),
    "dapo_with_token_truncate/A": (row(correction="token_truncate(hi=1.05)"), None),
    "dapo_with_token_mask/A": (row(correction="token_mask(lo=0.96, hi=1.05)"), None),
    "dapo_with_sequence_truncate/A": (row(correction="sequence_truncate(hi=1.05)"), None),
    "dapo_with_sequence_mask/A": (row(correction="sequence_mask(hi=3.0)"), None),
    "opsm/A": (row(off_policy_mask=0.02), None),
}
ENTROPY = "entropy_bonus/A"


def through_the_algorithm(r, d, rows=slice(None)):
    """loss(logp [N, T]) of a part of the rows, as the learner sums it up: weights from all rows, losses of these."""
    flat = {name: x.reshape(4, -1) if x.ndim == 3 else x for name, x in d.items()}
    advantage = pg.compute_advantages(r, pg.Attempts(d["rewards"], d["mask"]))[0].reshape(-1)
    weight = pg.token_weights(r, flat["mask"], group_size=4, const=3)
    fix = None
    if r.name("correction") != "none":
        fix = pg.correction_weights(r, flat["old"], flat["sampler"], flat["mask"])[rows]

    def loss(logp):
        part = {name: flat[name][rows] for name in ("old", "mask", "sampler", "ref")}
        extra = dict(behaviour_logprobs=part["sampler"], ref_logprobs=part["ref"], correction=fix)
        return jnp.sum(weight[rows] * pg.token_loss(r, logp[rows], part["old"], advantage[rows], part["mask"], **extra))

    return loss


@pytest.mark.parametrize("case", LOSSES)
def test_golden_loss_and_its_gradient(case, bits):
    r, functions = LOSSES[case]
    inputs, expected = CASES[case]["inputs"], CASES[case]["expected"]
    d = data(bits, **({"old": LOWERED} if "old_override" in inputs else {}))

    @jax.jit  # operation by operation, each would be compiled by itself
    def found(d):
        """[(loss, its gradient [4, 3])]: of the whole, of two micro-batches together, of the function by itself."""
        logp = d["logp"].reshape(4, 3)
        part = lambda rows: jax.value_and_grad(through_the_algorithm(r, d, rows))(logp)
        out = [part(slice(None)), jax.tree.map(jnp.add, part(np.arange(2)), part(np.arange(2, 4)))]
        if functions:
            tokens, mode = functions
            a = pg.mean_center(d["rewards"]) if r.name("advantage") == "mean_center" else pg.grpo(d["rewards"])
            total = lambda logp: pg.aggregate(tokens(d | {"logp": logp}, a), d["mask"], mode, const=3)
            out.append(jax.value_and_grad(total)(d["logp"]))
        return out

    for value, grad in found(d):
        close(value, expected["loss"], bits)
        close(grad.reshape(4, 3), np.reshape(expected["grad_logp"], (4, 3)), bits)


def test_golden_off_policy_mask_keeps_all_here(bits):
    d = data(bits)
    keep = pg.near_policy(d["logp"], d["sampler"], pg.grpo(d["rewards"]), d["mask"], 0.02)
    close(keep[..., 0], CASES["opsm/A"]["expected"]["keep"], bits)
    strict = pg.near_policy(d["logp"], d["sampler"], pg.grpo(d["rewards"]), d["mask"], 0.005)
    close(strict[..., 0], [[1.0, 0.0, 1.0, 1.0]], bits)  # attempt 1: A < 0, and .01 nats a token from the sampler


def test_golden_entropy_bonus(bits):
    d, case = data(bits), CASES[ENTROPY]
    entropy = jnp.asarray(case["inputs"]["entropies"], f"float{bits}")
    loss = pg.aggregate(pg.ppo_clip(d["logp"], d["old"], pg.grpo(d["rewards"])), d["mask"], "token_mean")
    close(loss - 0.01 * pg.aggregate(entropy, d["mask"], "token_mean"), case["expected"]["loss"], bits)


def test_golden_value_loss(bits):
    d = data(bits)
    returns = pg.gae(d["rewards"], d["values"], d["mask"])[1]
    tokens = pg.value_clipped(d["values_new"], d["values"], returns, clip=0.2)
    close(pg.aggregate(tokens, d["mask"], "token_mean"), CASES["value_loss/A"]["expected"]["loss"], bits)


# ---------------------------------------------------------------------------------------------------------------------
# KL, importance weights, imitation.

KLS = {f"kl_{kind}/A": function for kind, function in pg.kl.ESTIMATORS.items()}
TRL_WEIGHTS = {
    "is_weight_token_truncate/A": dict(level="token", mode="truncate", hi=1.05),
    "is_weight_token_mask/A": dict(level="token", mode="mask", lo=0.96, hi=1.05),
    "is_weight_sequence_truncate/A": dict(level="sequence", mode="truncate", hi=1.05),
    "is_weight_sequence_mask/A": dict(level="sequence", mode="mask", hi=3.0),
}
VERL_WEIGHTS = {
    f"verl_is_{level}_{name}_bn{int(normalize)}/A": dict(level=level, normalize=normalize, **bounds)
    for level in ("token", "sequence")
    for normalize in (False, True)
    for name, bounds in {"2.0": dict(hi=2.0), "0.9_1.1": dict(lo=0.9, hi=1.1, mode="mask")}.items()
}
IMITATION = {
    "imitation_best_of_n/A": row("imitation", advantage="best_of_n"),
    "imitation_rejection/A": row("imitation", advantage="all_correct"),
    "imitation_reward-weighted/A": row("imitation", advantage="raw"),
}


@pytest.mark.parametrize("case", KLS)
def test_golden_kl(case, bits):
    d, expected = data(bits), CASES[case]["expected"]
    tokens = KLS[case](d["logp"], d["ref"])
    close(tokens * d["mask"], expected["kl_tok"], bits)
    close(pg.aggregate(tokens, d["mask"], "token_mean"), expected["token_mean"], bits)


@pytest.mark.parametrize("case", TRL_WEIGHTS | VERL_WEIGHTS)
def test_golden_importance_weights(case, bits):
    """Ours are 0 on padding, like verl's; TRL's are 1 there, and multiply a loss that is 0."""
    d = data(bits)
    w = pg.is_weights(d["old"], d["sampler"], d["mask"], **(TRL_WEIGHTS | VERL_WEIGHTS)[case])
    close(w, np.asarray(CASES[case]["expected"]["w"]) * A["mask"], bits)


@pytest.mark.parametrize("case", IMITATION)
def test_golden_imitation(case, bits):
    d, expected, r = data(bits), CASES[case]["expected"], IMITATION[case]
    chosen = pg.compute_advantages(r, pg.Attempts(d["rewards"], d["mask"], d["logp"], jax.random.key(0)))[0]
    close(chosen, expected["weights"], bits)
    counted = d["mask"] * (chosen > 0)[..., None]
    close(pg.aggregate(pg.imitation(d["logp"], chosen), counted, "token_mean"), expected["loss"], bits)


def test_golden_overlong_filtering(bits):
    """The mask of attempt 0 is set to 0; its reward still counts in the group's mean and deviation."""
    expected, mask = CASES["overlong_filtering/A"]["expected"], A["mask"].copy()
    mask[0, 0] = 0
    d = data(bits)
    tokens = pg.ppo_clip(d["logp"], d["old"], pg.grpo(d["rewards"]), low=0.2, high=0.28)
    wanted = {
        ("token_mean", "live"): expected["token_mean_over_kept"],
        ("seq_mean_token_mean", "live"): expected["seq_mean_divisor_kept"],
        ("seq_mean_token_mean", "all"): expected["seq_mean_divisor_all"],
    }
    for (mode, empty), value in wanted.items():
        close(pg.aggregate(tokens, jnp.asarray(mask, f"float{bits}"), mode, empty_rows=empty), value, bits)


def test_golden_micro_batches_add_up_with_the_counts_of_the_whole(bits):
    expected = CASES["microbatch_invariance/A"]["expected"]
    d = data(bits)
    tokens, mask = pg.ppo_clip(d["logp"], d["old"], pg.grpo(d["rewards"]))[0], d["mask"][0]
    whole = dict(n_tokens=mask.sum(), n_seqs=4.0, const=3.0)
    wanted = {
        "token_mean": expected["token_mean"],
        "seq_mean_token_mean": expected["seq_mean_token_mean_all"],
        "seq_mean_token_sum_const": expected["seq_mean_token_sum_const"],
    }
    for mode, value in wanted.items():
        for cut in ([1, 2, 3], [2], [3], []):
            parts = zip(np.split(np.arange(4), cut), strict=True)
            close(sum(pg.aggregate(tokens[i], mask[i], mode, **whole) for (i,) in parts), value, bits)
    naive = np.mean([pg.aggregate(tokens[i : i + 1], mask[i : i + 1], "token_mean") for i in range(4)])
    assert naive == pytest.approx(expected["WRONG_mean_of_microbatch_token_means"], abs=1e-6)
    assert abs(naive - expected["token_mean"]) > 0.01


def test_golden_kl_gradients_in_expectation(bits):
    """k1 in the loss does nothing; k2 there, or k1 in the reward, is the reverse KL; k3 in the loss the forward KL."""
    case = CASES["kl_gradient_exact"]
    theta, ref_logits = (jnp.asarray(case["inputs"][k], f"float{bits}") for k in ("theta", "ref_logits"))
    ref, probability = jax.nn.log_softmax(ref_logits), jax.nn.softmax(theta)
    expectation = lambda kl: jax.grad(lambda t: jnp.sum(probability * kl(jax.nn.log_softmax(t), ref)))(theta)
    for kind in ("k1", "k2", "k3"):
        close(expectation(pg.kl.ESTIMATORS[kind]), case["expected"][f"E_grad_{kind}_in_loss"], bits)
        straight = lambda logp, ref, kind=kind: pg.kl.ESTIMATORS[kind](logp, ref, grad="k2")
        close(expectation(straight), case["expected"]["true_grad"], bits)
        close(expectation(lambda logp, ref, kind=kind: pg.kl.ESTIMATORS[kind](logp, ref, grad="none")), [0, 0, 0], bits)
    close(expectation(pg.k3), case["expected"]["grad_forward_KL(q||p)"], bits)
    penalty = pg.k1(jax.nn.log_softmax(theta), ref)  # detached, in the reward: the loss is -(-penalty) log pi
    close(expectation(lambda logp, ref: pg.reinforce(logp, -penalty)), case["expected"]["grad_k1_in_reward"], bits)
    for kind in ("k1", "k3"):  # on-policy, both estimate KL(p || q)
        value = jnp.sum(probability * pg.kl.ESTIMATORS[kind](jax.nn.log_softmax(theta), ref))
        close(value, case["expected"]["KL(p||q)"], bits)


def test_golden_soft_overlong_punishment(bits):
    case = CASES["soft_overlong"]
    lengths = jnp.asarray(case["inputs"]["lengths"], f"float{bits}")
    close(rewards.soft_overlong(lengths, 20480, 4096), case["expected"]["penalty"], bits)


def test_every_golden_case_is_bound():
    here = {
        "rloo_kl_in_reward/A",
        "pkpo/bin",
        ENTROPY,
        "value_loss/A",
        "overlong_filtering/A",
        "microbatch_invariance/A",
    }
    here |= {"kl_gradient_exact", "soft_overlong"}
    elsewhere = {
        "eval_metrics",
        "logprob_shift_temperature",
    }  # test_metrics.py; test_token_logprobs.py and test_sampler.py
    groups = [
        set(x) for x in (ADVANTAGES, GAE, VAPO, LOSSES, KLS, TRL_WEIGHTS, VERL_WEIGHTS, IMITATION, here, elsewhere)
    ]
    assert set().union(*groups) == set(CASES)
    assert sum(map(len, groups)) == len(CASES)  # none in two groups
