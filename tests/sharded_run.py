"""Run by test_sharding in a process with 8 simulated devices: the default config's sampler and update on several meshes."""

import dataclasses
import json
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from configs import shop
from experiments import rl
from rljax import lora, pretrained, settings, sharding, starts, transformer

ROWS = {  # the default, one that takes statistics over the whole batch wherever it can, and other kinds of weights
    "default": {},
    "statistics": {
        "rl.algorithm": "orz_ppo",
        "rl.row.kl": "k3(coef=0.1)",
        "rl.row.tokens": "top_entropy(share=0.5)",
        "rl.row.correction": "sequence_truncate(hi=1.5, normalize=True)",
    },
    "adapters": {"rl.lora.rank": 4, "model.scan_layers": True, "model.remat": "layer"},
    "experts": {
        **{"model.experts": 8, "model.expert_width": 32, "model.shared_width": 32, "model.router": "sigmoid"},
        **{"model.router_groups": 4, "model.router_top_groups": 2},
        **{"model.latent": 16, "model.query_latent": 32, "model.rope_width": 8, "model.value_width": 16},
    },
}


def on_mesh(data: int, fsdp: int, row: str) -> dict[str, object]:
    config = shop.get_config()
    config.update_from_flattened_dict(ROWS[row])
    config.mesh.data, config.mesh.fsdp = data, fsdp
    config.rl.optimizer.update(dict(name="sgd", learning_rate=1.0, schedule="constant", warmup=0, clip_norm=0.0))
    config.rl.max_new_tokens = 48
    config.rl.widths = ()
    config.rl.micro_batch = 64
    s = settings.resolve(config)
    verbs = rl.make_verbs(s)
    params = transformer.init(s.model, jax.random.key(3))
    state = starts.new_state(s, config.rl, params, settings.algorithm(config.rl))
    if state.reference is not None:
        state = state.replace(reference=jax.tree.map(lambda x: 1.05 * x, state.reference))
    before, problems = jax.device_get(state.params), verbs.ask(state.cursor)
    rollout, _ = verbs.sample(lora.policy(state.params, state.frozen), problems, state.step_key())
    reward, _, _ = verbs.verify(rollout, None, problems)
    whole = state.frozen.params if state.frozen else state.params
    spread = {str(x.sharding.spec) for x in jax.tree.leaves(whole)}
    # the reward of an untrained model is zero everywhere: any other shows the gradient
    shown = jnp.asarray(np.random.default_rng(0).normal(size=reward.shape), jnp.float32)
    experience, _ = verbs.compare(state, rollout, shown)
    new, metrics = verbs.push(state, experience)
    gradient = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), before, jax.device_get(new.params))
    return {
        "response": np.asarray(rollout.response),
        "mask": np.asarray(rollout.mask),
        "reward": np.asarray(reward),
        "gradient": gradient,
        "rollout": rollout,
        "layout": sorted(spread),
        "rows": str(rollout.response.sharding.spec),
        "grad_norm": float(metrics["grad_norm"]),
    }


def same_rollout_gradient(one, other) -> float:
    norm = lambda tree: np.sqrt(sum(float((x**2).sum()) for x in jax.tree.leaves(tree)))
    return norm(jax.tree.map(lambda a, b: a - b, one["gradient"], other["gradient"])) / norm(one["gradient"])


def loaded_in_parts() -> dict[str, object]:
    """A Hugging Face folder read onto a mesh of 2 x 4: the same weights, each device's part copied by itself."""
    model = transformer.Config(vocab_size=64, width=32, heads=4, head_width=8, ff_width=48, experts=4, expert_width=16)
    model = dataclasses.replace(model, kv_heads=2, qk_norm=True, router_normalise=False)
    params = transformer.init(model, jax.random.key(0))
    with tempfile.TemporaryDirectory() as folder:
        pretrained.save(f"{folder}/model", model, params)
        config, parts, _ = pretrained.load(f"{folder}/model", mesh=sharding.make_mesh(2, 4))
        stacked = pretrained.read_params(
            f"{folder}/model", dataclasses.replace(config, scan_layers=True), sharding.make_mesh(2, 4)
        )
    again, _ = transformer.unstack(jax.device_get(stacked), dataclasses.replace(config, scan_layers=True))
    equal = lambda a, b: all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)))
    gate = parts["layers"][0]["experts"]["gate"]
    return {
        "equal": equal(params, parts) and equal(params, again),
        "gate": list(gate.shape),
        "part": sorted({str(list(s.data.shape)) for s in gate.addressable_shards}),
    }


if __name__ == "__main__":
    assert jax.device_count() == 8, jax.devices()
    out = {}
    for row in ROWS:
        one = on_mesh(1, 1, row)
        for data, fsdp in ((8, 1), (2, 4)) if row in ("default", "statistics") else ((2, 4),):
            many = on_mesh(data, fsdp, row)
            out[f"{row} {data}x{fsdp}"] = {
                "tokens_equal": float((one["response"] == many["response"]).mean()),
                "masks_equal": float((one["mask"] == many["mask"]).mean()),
                "gradient_difference": same_rollout_gradient(one, many),
                "grad_norm": many["grad_norm"],
                "layout": many["layout"],
                "rows": many["rows"],
            }
    out["folder"] = loaded_in_parts()
    json.dump(out, sys.stdout)
