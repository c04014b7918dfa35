"""The sampler of a run: its settings, declared and bound to a model."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.core import Tracer

from rljax import transformer
from rljax.errors import UserError
from rljax.options import option
from rljax.sampler.parts import sample_part_by_part
from rljax.sampler.sampling import sample
from rljax.sampler.slots import choose_slots
from rljax.structs import Problems, Rollout
from rljax.text import StopStrings

Array = jax.Array
PolicySampler = Callable[..., Rollout]  # (params, problems, key, step=0, row_numbers=None) -> Rollout


@dataclasses.dataclass(frozen=True)
class LengthLimit:
    """A shorter maximum response length at the beginning of a run. R1-Zero raised its limit at step 8,200."""

    tokens: int = option(0, "maximum response length until step `until`, in tokens; 0: max_new_tokens", low=0)
    until: int = option(0, "step from which on max_new_tokens holds; 0: from the start", low=0)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How attempts are sampled."""

    group_size: int = option(16, "G: attempts at each prompt", low=1, high=1 << 20)
    max_new_tokens: int = option(144, "T: maximum response length, in tokens", low=1)
    temperature: Array | float = option(1.0, "divides the logits", above=0.0)
    top_k: int = option(0, "keep the k likeliest tokens; 0: all", low=0)
    top_p: float = option(1.0, "keep the likeliest tokens of this total probability; 1: all", above=0.0, high=1.0)
    keep_sampling_mask: bool = option(
        True,
        "with top_k or top_p: store which tokens were kept, and renormalise over them where the policy is scored; False: "
        "score it over the whole vocabulary",
    )
    slots: int = option(
        0,
        "rows that decode at a time: one that ends makes room for the next of the rollout; 0: a choice by device and number of rows",
        low=0,
    )
    verify_parts: int = option(
        0,
        "where text is verified on the host: responses that have ended are verified while the others decode, in up to so many "
        "parts, and the numbers stay the same; 1: all after the last token; 0: 8 where the task's verifier is slow (programs), else 1",
        low=0,
        high=64,
    )
    sampler_weights: str = option(
        "",
        "how the sampler keeps the layers' matrices: '' as they are, or quantized; see train/sampler_gap",
        choices=("", *transformer.WEIGHT_FORMATS),
    )
    limit: LengthLimit = LengthLimit()
    stop_ids: tuple[int, ...] = ()  # a response ends with the first of these that is sampled
    stop_strings: StopStrings | None = None  # or with the token that completes one of these

    @property
    def truncated(self) -> bool:
        """Whether top-k or top-p leave tokens out."""
        return self.top_p < 1 or self.top_k > 0

    @property
    def stores_sampling_mask(self) -> bool:
        """Whether the rollouts that are learned from hold a sampling mask."""
        return self.truncated and self.keep_sampling_mask

    def check_limit(self, where: str) -> None:
        """Raise UserError where the length limit is not below ``max_new_tokens``."""
        tokens, until = self.limit.tokens, self.limit.until
        if until and not 0 < tokens < self.max_new_tokens:
            raise UserError(
                f"{where}limit.tokens={tokens} until step {until}: must be at least 1 and less than "
                f"{where}max_new_tokens={self.max_new_tokens}"
            )


def make_sampler(
    sampling: Sampling,
    model: transformer.Config,
    *,
    greedy: bool = False,
    to_learn_from: bool = False,
    parts: int = 1,
) -> PolicySampler:
    """``draw(params, problems, key, step=0, row_numbers=None) -> Rollout`` of these settings on this model.

    ``greedy`` takes the likeliest token, and one response to each prompt. ``step`` matters to the length limit alone.
    ``to_learn_from`` stores the sampling mask where the settings ask for it: nobody else needs it, and it is large.
    ``row_numbers`` [rows] are those of a part of a batch: see ``sample``. More than one of ``parts`` makes several programs, so
    that rows can be read before all have ended (``sample_part_by_part``).
    At temperature 0 the responses are greedy too, all alike. Raises UserError for a temperature below 0.
    """
    limit, likeliest = sampling.limit, greedy or is_greedy(sampling.temperature)
    group_size = 1 if greedy else sampling.group_size

    def draw(
        params: transformer.Params,
        problems: Problems,
        key: Array,
        step: Array | int = 0,
        row_numbers: Array | None = None,
    ) -> Rollout:
        settings = dict(
            group_size=group_size,
            max_new_tokens=sampling.max_new_tokens,
            temperature=1.0 if likeliest else sampling.temperature,
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            stop_ids=sampling.stop_ids,
            stop_table=sampling.stop_strings and sampling.stop_strings.table,
            greedy=likeliest,
            weights=sampling.sampler_weights,
            keep_sampling_mask=to_learn_from and sampling.stores_sampling_mask and not likeliest,
            limit=jnp.where(step < limit.until, limit.tokens, sampling.max_new_tokens) if limit.until else None,
            row_numbers=row_numbers,
            slots=sampling.slots or choose_slots(problems.prompt.shape[0] * group_size, model.layout),
        )
        asked = params, model, problems.prompt, problems.prompt_mask, key
        return sample_part_by_part(*asked, parts=parts, **settings) if parts > 1 else sample(*asked, **settings)

    return draw


def is_greedy(temperature: Array | float) -> bool:
    """Whether this temperature means the likeliest token: 0 does. Raises UserError for one that is negative or no number.

    A traced temperature is one of several vmapped runs, which the config has checked.
    """
    if isinstance(temperature, Tracer):
        return False
    if not 0 <= float(temperature) < math.inf:
        raise UserError(f"temperature={temperature}: must be a finite number, at least 0; 0 takes the likeliest token")
    return float(temperature) == 0
