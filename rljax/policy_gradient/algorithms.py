"""An algorithm is a row of a table: an advantage, a surrogate, an aggregation, a KL term, and filters.

Every field is a choice from a table, written as a call: ``surrogate="ppo_clip(low=0.2, high=0.28)"``. ``ALGORITHMS`` names
the algorithms of the literature. A config starts from one and changes any field. A plug-in adds entries to the tables.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from rljax.errors import UserError
from rljax.policy_gradient import advantages, choices, distillation, kl, returns, selection, tokens
from rljax.policy_gradient.aggregation import AGGREGATION
from rljax.policy_gradient.choices import Choice
from rljax.policy_gradient.corrections import CORRECTION
from rljax.policy_gradient.losses import SURROGATE

ADVANTAGE = {
    "mean_center": advantages.mean_center,
    "grpo": advantages.grpo,
    "batch_std": advantages.batch_std,
    "rloo": advantages.rloo,
    "opo": advantages.opo,
    "gpg": advantages.gpg,
    "gdpo": advantages.gdpo,
    "raw": advantages.raw,
    "whiten_seq": advantages.whiten_seq,
    "remax": advantages.remax,
    "maxrl": advantages.maxrl,
    "pkpo": advantages.pkpo,
    "passk_training": advantages.passk_training,
    "passk_best": advantages.passk_best,
    "rf_pp": returns.rf_pp,
    "rf_pp_baseline": returns.rf_pp_baseline,
    "gae": returns.gae,
    "gae_length_adaptive": returns.gae_length_adaptive,
    "best_of_n": selection.best_of_n,
    "all_correct": selection.all_correct,
    "reverse_kl": distillation.reverse_kl,
}
NEEDS_GROUP = {  # a group of one has advantage 0, or 0 / 0
    "mean_center", "grpo", "batch_std", "rloo", "opo", "gpg", "gdpo", "maxrl", "pkpo", "passk_training", "passk_best",
    "rf_pp_baseline",
}  # fmt: skip
BINARY = {"maxrl", "passk_training", "all_correct"}  # take a reward of 1 for right and any less for wrong
BY_TOKEN = {"rf_pp", "gae", "gae_length_adaptive", "reverse_kl"}  # where tokens of one attempt differ
SELECTS = {"best_of_n", "all_correct"}
CHOOSES_TOKENS = {"clip_cov", "kl_cov"}
BY_SEQUENCE = {"gspo", "luspo", "gmpo"}  # surrogates that stand for a whole sequence


def no_options() -> None:
    """A choice without options."""


def entropy_bonus(*, coef: float) -> None:
    """Options of a constant entropy bonus."""


def adaptive_entropy(*, target: float = 0.2, step: float = 0.005) -> None:
    """Options of an entropy bonus whose coefficient adapts (arXiv 2505.22312)."""


def dynamic_sampling(*, rounds: int = 8) -> None:
    """Options of dynamic sampling (arXiv 2503.14476)."""


def soft_overlong(*, share: float = 0.2) -> None:
    """Options of the soft overlong punishment (arXiv 2503.14476, eq. 13)."""


ENTROPY = {"none": no_options, "bonus": entropy_bonus, "adaptive": adaptive_entropy}
GROUPS = {"all": no_options, "mixed": no_options, "refill": dynamic_sampling}
TRUNCATED = {"keep": no_options, "mask": no_options, "soft": soft_overlong}
SIGNS = ("both", "positive", "negative")
# Numbers that decide how a program is made: 1 means that no token of an attempt differs, 0 that none looks ahead
FIXED = {("rf_pp", "gamma"), ("reverse_kl", "gamma")}
TABLES = {
    "advantage": ADVANTAGE,
    "surrogate": SURROGATE,
    "aggregation": AGGREGATION,
    "kl": kl.KL,
    "entropy": ENTROPY,
    "correction": CORRECTION,
    "tokens": tokens.TOKENS,
    "groups": GROUPS,
    "truncated": TRUNCATED,
}


@dataclasses.dataclass(frozen=True)
class Algorithm:
    """One algorithm. Raises UserError for names that no table knows, and for choices that contradict each other.

    advantage    attempts -> how much better than expected (``ADVANTAGE``)
    surrogate    log-probabilities and advantage -> token loss (``SURROGATE``)
    aggregation  token losses -> loss; ``token_mean(empty_rows=all)`` lets rows without a token count in a mean
    kl           none | k1 | k2 | k3 | abs (coef=, where=loss | reward, grad=auto | k2 | none, unbiased=): in the loss the
                 token losses gain coef KL, in the reward each token's (or the attempt's) reward loses it, detached
    entropy      none | bonus(coef=) | adaptive(target=, step=): a bonus on the token mean of the entropy; the adaptive
                 coefficient moves by ``step`` an update and acts only while entropy is at most ``target`` (2505.22312)
    correction   none | token_truncate(hi=) | sequence_mask(hi=) | ...: weights pi_old / pi_sampler on the token losses
    tokens       all | top_entropy(share=): which tokens learn; the mean still counts all
    groups       all | mixed (groups that agree leave the loss and its mean) | refill(rounds=): also ask for more problems
                 until all groups are mixed, or that many rounds are sampled (DAPO's dynamic sampling)
    truncated    keep (the reward as it is) | mask (out of the loss; their reward still counts in the baseline) |
                 soft(share=): the reward falls from 0 to -1 over the last ``share`` of the window (DAPO, eq. 13)
    sign         both | positive | negative: learn only from such advantages
    off_policy_mask  nats a token: leave out worse-than-expected responses that far from the sampler (``near_policy``)
    positive_nll  weight of -log pi on the tokens of right attempts, added to the loss (VAPO)
    """

    advantage: str | Choice
    surrogate: str | Choice
    aggregation: str | Choice
    kl: str | Choice = "none"
    entropy: str | Choice = "none"
    correction: str | Choice = "none"
    tokens: str | Choice = "all"
    groups: str | Choice = "all"
    truncated: str | Choice = "keep"
    sign: str = "both"
    off_policy_mask: float | None = None
    positive_nll: float = 0.0

    def __post_init__(self):
        for field, table in TABLES.items():
            object.__setattr__(self, field, choices.parse(getattr(self, field), table, f"algorithm: {field}"))
        if self.sign not in SIGNS:
            raise UserError(f"algorithm: sign={self.sign!r} is unknown, choose from {SIGNS}")
        refuse_contradictions(self)

    def choice(self, field: str) -> Choice:
        """What was chosen for a field."""
        return getattr(self, field)

    def name(self, field: str) -> str:
        """The name of what was chosen for a field."""
        return self.choice(field).name

    def option(self, field: str, option: str) -> Any:
        """An option of what was chosen, or its default; None where the choice has no such option."""
        return choices.value(self.choice(field), TABLES[field], option)

    def number_options(self) -> dict[tuple[str, str], float]:
        """{(field, option): value} of the options that only enter formulas: an array may stand in their place.

        These are the ones annotated ``float`` whose default is a number. A whole number, a word, yes or no, and an option
        that may also be None decide how a program is made.
        """
        found = {}
        for field, table in TABLES.items():
            name = self.name(field)
            for option in choices.float_options(table[name]):
                if (name, option) not in FIXED:
                    found[field, option] = self.option(field, option)
        return found

    def with_numbers(self, numbers: Mapping[tuple[str, str], Any]) -> "Algorithm":
        """The same algorithm with other values, also traced ones, of some ``number_options``."""
        changes: dict[str, Choice] = {}
        for (field, option), value in numbers.items():
            name, options = changes.get(field, self.choice(field))
            changes[field] = Choice(name, options | {option: value})
        return dataclasses.replace(self, **changes)

    def looks_at(self, data: str) -> bool:
        """Whether the advantage looks at this field of ``Attempts``."""
        return data in choices.inputs(ADVANTAGE[self.name("advantage")])

    @property
    def kl_in(self) -> str:
        """Where the KL term stands: "loss", "reward" or "" for nowhere."""
        return "" if self.name("kl") == "none" else self.option("kl", "where")

    @property
    def has_reference(self) -> bool:
        """Whether a reference is compared with: in a KL term, or as the teacher of an advantage."""
        return bool(self.kl_in) or self.looks_at("ref_logprobs")

    @property
    def ranks_tokens(self) -> bool:
        """Whether the loss depends on how a token ranks in its optimizer batch, which must then be scored first."""
        return self.name("tokens") != "all" or self.name("surrogate") in CHOOSES_TOKENS or self.adapts_entropy

    @property
    def adapts_entropy(self) -> bool:
        return self.name("entropy") == "adaptive"


def refuse_contradictions(algorithm: Algorithm) -> None:
    """Raise UserError, with the reason, for choices that cannot stand together."""
    advantage, surrogate, aggregation = (
        algorithm.name("advantage"),
        algorithm.name("surrogate"),
        algorithm.name("aggregation"),
    )
    grad, unbiased = algorithm.option("kl", "grad"), algorithm.option("kl", "unbiased")
    reasons = [
        (
            surrogate in BY_SEQUENCE and aggregation != "seq_mean_token_mean",
            f"surrogate={surrogate} has one loss for a whole sequence, and aggregation={aggregation} would weigh it by "
            "length: use seq_mean_token_mean (or luspo, which weighs by length on purpose)",
        ),
        (
            surrogate in BY_SEQUENCE and differs_by_token(algorithm),
            f"surrogate={surrogate} has one loss for a whole sequence, but advantage={algorithm.advantage} differs by token: use "
            "gspo_token, or a surrogate by token",
        ),
        (
            surrogate in ("vespo", "decoupled_ppo") and algorithm.name("correction") != "none",
            f"surrogate={surrogate} with correction={algorithm.correction}: the sampler's ratio would count twice (vespo takes it "
            "in with from_sampler=True, decoupled_ppo always does)",
        ),
        (
            surrogate == "imitation" and advantage not in SELECTS | {"raw"},
            f"surrogate=imitation learns from weights that are not negative, and advantage={advantage} has both signs: "
            "choose best_of_n, all_correct or raw, or another surrogate",
        ),
        (
            surrogate == "imitation" and algorithm.sign != "both",
            f"sign={algorithm.sign} with surrogate=imitation: its weights are never negative",
        ),
        (
            surrogate in CHOOSES_TOKENS and algorithm.name("tokens") != "all",
            f"surrogate={surrogate} and tokens={algorithm.tokens} both choose tokens, and an algorithm has one choice: use ppo_clip, or "
            "tokens=all",
        ),
        (
            algorithm.name("kl") == "k1" and algorithm.kl_in == "loss" and grad is None,
            "kl=k1 in the loss has an expected gradient of zero, it only adds noise: use k2 or k3, where=reward, or "
            "grad=k2; say grad=auto if that is what you study",
        ),
        (
            algorithm.kl_in == "reward" and (grad is not None or unbiased),
            f"kl={algorithm.kl}: a term in the reward is detached, it has neither grad nor unbiased",
        ),
        (
            algorithm.kl_in == "reward" and advantage in SELECTS,
            f"advantage={advantage} chooses attempts by their reward, a KL term there would choose those near the "
            "reference: use where=loss",
        ),
        (
            advantage == "gdpo" and algorithm.kl_in == "reward",
            "advantage=gdpo looks at each reward by itself, a KL term in their sum would be lost: use where=loss",
        ),
    ]
    for holds, reason in reasons:
        if holds:
            raise UserError(f"algorithm: {reason}")


def differs_by_token(algorithm: Algorithm) -> bool:
    """Whether advantages differ within an attempt."""
    return algorithm.name("advantage") in BY_TOKEN and (
        algorithm.name("advantage") != "rf_pp"
        or algorithm.kl_in == "reward"
        or algorithm.option("advantage", "gamma") != 1.0
    )


ALGORITHMS = {
    # ----- compare with the group
    # arXiv 2501.12948; R1-Zero's clip range is not published, 0.2 is GRPO's. Refresh the reference every 400 updates.
    "r1_zero": Algorithm("grpo", "ppo_clip", "seq_mean_token_mean", kl="k3(coef=0.001)"),
    # the same paper's first RL stage of R1, sec. 3.2.1
    "r1_stage1": Algorithm("grpo", "ppo_clip(low=10, high=10)", "seq_mean_token_mean", kl="k3(coef=0.001)"),
    # arXiv 2402.03300
    "grpo": Algorithm("grpo", "ppo_clip", "seq_mean_token_mean", kl="k3(coef=0.04)"),
    # arXiv 2503.20783
    "dr_grpo": Algorithm("mean_center", "ppo_clip", "seq_mean_token_sum_const"),
    # arXiv 2503.14476
    "dapo": Algorithm(
        "grpo", "ppo_clip(low=0.2, high=0.28)", "token_mean", groups="refill(rounds=8)", truncated="soft(share=0.2)"
    ),
    # arXiv 2508.08221
    "lite_ppo": Algorithm("batch_std", "ppo_clip", "token_mean"),
    # arXiv 2507.18071, sec. 5.1
    "gspo": Algorithm("grpo", "gspo(low=3e-4, high=4e-4)", "seq_mean_token_mean"),
    # arXiv 2506.13585
    "cispo": Algorithm("grpo", "cispo(w_max=5.0)", "token_mean"),
    # arXiv 2402.14740, without its KL term
    "rloo": Algorithm("rloo", "reinforce", "seq_mean_token_sum"),
    # plain REINFORCE with the reward as it is
    "reinforce": Algorithm("raw", "reinforce", "token_mean"),
    # arXiv 2501.03262
    "reinforce_pp": Algorithm("rf_pp", "ppo_clip", "token_mean", kl="k1(coef=0.001, where=reward)"),
    # arXiv 2602.02710
    "maxrl": Algorithm("maxrl", "ppo_clip", "token_mean"),
    # karpathy/nanochat, scripts/chat_rl.py
    "nanochat": Algorithm("mean_center", "reinforce", "token_mean"),
    # ----- compare with a critic
    # arXiv 2503.24290
    "orz_ppo": Algorithm("gae(gamma=1.0, lam=1.0, whitened=True)", "ppo_clip", "token_mean"),
    # arXiv 2504.05118
    "vapo": Algorithm(
        "gae_length_adaptive(alpha=0.05, whitened=True)", "ppo_clip(low=0.2, high=0.28)", "token_mean", positive_nll=0.1
    ),
    # ----- imitate one's own attempts
    # arXiv 2304.06767, the best being right
    "best_of_n": Algorithm("best_of_n(at_least=1)", "imitation", "token_mean"),
    # arXiv 2203.14465: all that reached the answer
    "rejection_sampling": Algorithm("all_correct", "imitation", "token_mean"),
    # only the shortest of them
    "shortest_correct": Algorithm("best_of_n(by=shortest, at_least=1)", "imitation", "token_mean"),
    # ----- follow a teacher (rl.teacher) on one's own attempts, whatever they earn
    # arXiv 2306.13649, by the sampled token as in thinkingmachines.ai/blog/on-policy-distillation
    "on_policy_distillation": Algorithm("reverse_kl", "cispo(w_max=5.0)", "token_mean"),
}
