"""On-policy distillation: a teacher scores the tokens that the student itself has sampled. -> [B, G, T]"""

import jax

from rljax.policy_gradient.losses import where_counted
from rljax.policy_gradient.returns import discounted

Array = jax.Array


def reverse_kl(logprobs: Array, ref_logprobs: Array, mask: Array, *, gamma: float = 0.0) -> Array:
    """log pi_teacher - log pi_student of each sampled token, and of those after it, discounted by ``gamma`` a token.

    All [B, G, T], nats. ``logprobs`` are those of the policy that sampled, ``ref_logprobs`` those of the reference, which is
    the teacher. The reward is not looked at. Its expectation over the student's samples is -KL(student || teacher), so that
    the policy gradient with ``gamma`` 1 is that of the reverse KL of whole responses (MiniLLM, arXiv 2306.08543, without its
    length normalisation). With 0 each token answers for itself alone, at the states that the student reaches: the gradient
    of the sum over tokens of KL(student || teacher), with the states held fixed (GKD, arXiv 2306.13649, with the student's
    samples alone and the reverse KL, estimated from the sampled token instead of the whole vocabulary; K. Lu,
    "On-Policy Distillation", Thinking Machines Lab, 2025).
    """
    better = where_counted(ref_logprobs - logprobs, mask)
    return discounted(better, mask, gamma) if gamma else better
