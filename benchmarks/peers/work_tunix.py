"""The worker of google-tunix, in the environment of ``make peers``: its Llama 3, vanilla sampler, trainer and GRPO learner.

The cache has exactly the size that the case needs. The reference and its KL term are off (``beta=0``). The update is computed 32 rows
at a time. Tunix leaves the stop token out of a response, so it counts, and learns from, one token less a row: it is added here.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from tunix.generate import sampler as tunix_sampler
from tunix.models.llama3 import model as llama
from tunix.models.llama3 import params as llama_params
from tunix.rl import rl_cluster as clusters
from tunix.rl.grpo import grpo_learner
from tunix.rl.rollout import base_rollout

from benchmarks.peers.json_worker import Run, run_by_steps, serve

ROWS = 32  # of a micro-batch


class Words:
    """The tokenizer that tunix asks for: the word "<7>" is token 7."""

    def __init__(self, vocab: int):
        self.vocab = vocab

    def encode(self, text: str, **_: Any) -> list[int]:
        return [int(word[1:-1]) for word in text.split()]

    def decode(self, ids: list[int], **_: Any) -> str:
        return " ".join(f"<{n}>" for n in ids)

    def bos_id(self) -> None:
        return None

    def eos_id(self) -> int:
        return 0

    def pad_id(self) -> int:
        return self.vocab - 1


def prepare(case: dict[str, Any]) -> Run:
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("fsdp", "tp"))
    shape = case["model"]
    config = llama.ModelConfig(
        num_layers=shape["layers"],
        vocab_size=case["vocab"],
        embed_dim=shape["width"],
        hidden_dim=shape["ff_width"],
        num_heads=shape["heads"],
        head_dim=shape["head_width"],
        num_kv_heads=shape["kv_heads"],
        rope_theta=1_000_000,
        norm_eps=shape["norm_eps"],
    )
    dtype = jnp.dtype(case["dtype"])
    with mesh:
        model = llama_params.create_model_from_safe_tensors(case["folder"], config, mesh, dtype)
    prompts = case["prompt_texts"]
    if case["work"] == "sampler":
        return prepare_sampler(case, model, config, prompts)
    return {"update": prepare_update, "step": prepare_step}[case["work"]](case, model, mesh, prompts)


def prepare_sampler(case: dict[str, Any], model: Any, config: Any, prompts: list[str]) -> Run:
    cache = tunix_sampler.CacheConfig(
        cache_size=case["prompt_slots"] + case["new"],
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
    )
    sample = tunix_sampler.Sampler(model, Words(case["vocab"]), cache)
    texts = [text for text in prompts for _ in range(case["group"])]
    how: dict[str, Any] = dict(max_generation_steps=case["new"], max_prompt_length=case["prompt_slots"])

    def run(seed: int) -> int:
        out = sample(texts, temperature=1.0, top_p=1.0, seed=seed, **how)
        return count_tokens(map(len, out.tokens), case)

    return run


def count_tokens(lengths: Any, case: dict[str, Any]) -> int:
    """Sampled tokens, with the stop token that tunix leaves out."""
    return sum(min(n + 1, case["new"]) for n in lengths)


def make_learner(case: dict[str, Any], model: Any, mesh: Any, reward: Any) -> tuple[Any, Any]:
    """(the cluster, the GRPO learner) of the case."""
    columns = case["prompt_slots"] + case["new"]
    rollout = base_rollout.RolloutConfig(
        max_tokens_to_generate=case["new"],
        max_prompt_length=case["prompt_slots"],
        kv_cache_size=columns,
        temperature=1.0,
        top_p=1.0,
        top_k=None,
    )
    training = clusters.RLTrainingConfig(
        actor_optimizer=optax.adamw(1e-6),
        eval_every_n_steps=1_000_000,
        max_steps=1_000_000,
        mini_batch_size=case["prompts"],
        train_micro_batch_size=min(case["prompts"], max(1, ROWS // case["group"])),
        rollout_micro_batch_size=case["prompts"],
    )
    roles = (clusters.Role.ACTOR, clusters.Role.REFERENCE, clusters.Role.ROLLOUT)
    cluster = clusters.RLCluster(
        actor=model,
        tokenizer=Words(case["vocab"]),
        cluster_config=clusters.ClusterConfig(
            role_to_mesh={role: mesh for role in roles}, training_config=training, rollout_config=rollout
        ),
    )
    algorithm = grpo_learner.GRPOConfig(num_generations=case["group"], beta=0.0)
    return cluster, grpo_learner.GRPOLearner(cluster, algorithm, reward_fns=reward)


def prepare_update(case: dict[str, Any], model: Any, mesh: Any, prompts: list[str]) -> Run:
    cluster, _ = make_learner(case, model, mesh, lambda **_: [])
    pad = case["vocab"] - 1
    # without their stop token, and as wide as a response may be: so does its learner
    response = np.array([x[:-1] + [pad] * (case["new"] - len(x) + 1) for x in case["responses"]], np.int32)
    prompt = np.repeat(np.array(case["prompt_ids"], np.int32), case["group"], 0)
    reward = np.array(case["rewards"], np.float32).reshape(case["prompts"], case["group"])
    advantage = ((reward - reward.mean(1, keepdims=True)) / (reward.std(1, keepdims=True) + 1e-4)).reshape(-1)
    parts = [slice(n, n + ROWS) for n in range(0, len(prompt), ROWS)]
    examples = [
        grpo_learner.TrainExample(
            prompt_ids=jnp.asarray(prompt[part]),
            prompt_mask=jnp.asarray(prompt[part] != pad),
            completion_ids=jnp.asarray(response[part]),
            completion_mask=jnp.asarray(response[part] != pad),
            ref_per_token_logps=None,
            advantages=jnp.asarray(advantage[part]),
            old_per_token_logps=None,
        )
        for part in parts
    ]

    def run(seed: int) -> int:
        cluster.update_actor(examples, None)
        jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
        return sum(map(len, case["responses"]))

    return run


def prepare_step(case: dict[str, Any], model: Any, mesh: Any, prompts: list[str]) -> Run:
    tokens = []

    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        tokens.append(count_tokens((len(text.split()) for text in completions), case))
        return case["rewards"][: len(completions)]

    def loop(pause: Any) -> None:
        cluster, learner = make_learner(case, model, mesh, reward)

        def batches() -> Any:
            first = True
            while True:
                if not first:  # asked for the next batch: the step before it is done
                    jax.block_until_ready(nnx.state(cluster.actor_trainer.model))
                    pause()
                first = False
                yield {"prompts": np.array(prompts)}

        learner.train(batches())

    return run_by_steps(loop, tokens)


if __name__ == "__main__":
    serve(prepare, ("google-tunix", "jax"))
