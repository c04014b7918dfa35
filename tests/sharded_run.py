"""Run by test_sharding in a process with 8 simulated devices: the default config's sampler and update on several meshes."""

import dataclasses
import json
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from configs import shop
from experiments import rl
from rljax import pretrained, sampler, transformer
from rljax.distributed import sharding
from rljax.structs import Experience, Rewards
from rljax.text import find_stop_strings
from rljax.training import initial_state, journal
from rljax.training.dynamic_sampling import one_round
from rljax.training.rl_steps import make_steps
from rljax.training.run import resolve

LATENT: dict[str, object] = {
    "model.latent": 16,
    "model.query_latent": 32,
    "model.rope_width": 8,
    "model.value_width": 16,
}
CASES = {  # the default, one that takes statistics over the whole batch wherever it can, and other kinds of weights
    "default": {},
    "statistics": {
        "rl.algorithm": "orz_ppo",
        "rl.row.kl": "k3(coef=0.1)",
        "rl.row.tokens": "top_entropy(share=0.5)",
        "rl.row.correction": "sequence_truncate(hi=1.5, normalize=True)",
    },
    "adapters": {  # rows packed into sequences
        **{"rl.lora.rank": 4, "model.layers": 2, "model.scan_layers": True, "model.remat": "layer"},
        **{"rl.packing": 80, "model.logprob_chunk": 24, "rl.slots": 32},
    },
    "grouped": {  # fewer key heads than parts, a vocabulary in chunks, an odd number of columns
        **{"model.heads": 8, "model.kv_heads": 2, "model.head_width": 8, "model.qkv_bias": True, "model.layers": 2},
        **{"model.scan_layers": True, "model.remat": "dots", "model.logprob_chunk": 20, "rl.max_new_tokens": 15},
        **{"model.attention_chunk": 16, "rl.top_k": 20},  # a sampling mask, over the parts of the vocabulary
    },
    "experts": {
        **{"model.experts": 8, "model.expert_width": 32, "model.shared_width": 32, "model.router": "sigmoid"},
        **{"model.router_groups": 4, "model.router_top_groups": 2, "model.expert_chunk": 96, "rl.packing": 64},
        "rl.slots": 60,  # 30 in each of two shards of rows
        **LATENT,
    },
}
STOP_STRINGS = {"grouped", "experts"}  # cases, the second in slots, that end also with two small numbers in a row
SMALL: dict[str, object] = {  # most of the time goes to compiling: one layer, and so few tokens that they are one loop
    **{"model.layers": 1, "rl.max_new_tokens": 16, "rl.widths": (), "rl.prompts": 16, "rl.micro_batch": 128},
    **{"rl.optimizer.name": "sgd", "rl.optimizer.learning_rate": 1.0, "rl.optimizer.schedule": "constant"},
    **{"rl.optimizer.warmup": 0, "rl.optimizer.clip_norm": 0.0},
}

MESHES = {  # what each case is run on, beside one device
    "default": ("data=8",),
    "adapters": ("fsdp=4,tensor=2",),
    "experts": ("fsdp=2,tensor=2,expert=2",),
}
MORE_MESHES = {
    "default": ("data=4,tensor=2", "fsdp=4,context=2"),
    "statistics": ("data=2,fsdp=4",),
    "grouped": ("context=2,tensor=4",),
}


COLLECTIVE = re.compile(
    r"= \(?(\w+\[[\d,]*\]).*? (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)\("
)


def configured(axes: str, changes: dict[str, object]) -> Any:
    """The default config with these changes on this mesh, "fsdp=4,tensor=2"."""
    config = shop.get_config()
    config.update_from_flattened_dict(changes)
    config.mesh.data = 1
    config.mesh.update({axis: int(n) for axis, n in (part.split("=") for part in axes.split(","))})
    return config


def on_mesh(axes: str, case: str) -> dict[str, Any]:
    """One train step on this mesh: what was sampled, the gradient of made-up rewards, and where rows and weights lie."""
    run = resolve(configured(axes, SMALL | CASES[case]))
    stops = find_stop_strings(run.task.tokenizer, [f"{n // 9} {n % 9}" for n in range(81)])
    if case in STOP_STRINGS:
        sampling = dataclasses.replace(run.rl.sampling, stop_strings=stops)
        run = dataclasses.replace(run, rl=dataclasses.replace(run.rl, sampling=sampling))
    steps, state = make_steps(run), initial_state.new_state(run, run.rl, None)
    if state.reference is not None:
        state = state.replace(reference=jax.tree.map(lambda x: 1.05 * x, state.reference))
    before = jax.device_get(state.params)
    whole = state.frozen.params if state.frozen else state.params
    spread = {str(x.sharding.spec) for x in jax.tree.leaves(whole)}

    @jax.jit
    def sample(state):
        problems = steps.ask(state, jnp.int32(0))
        rollout, _ = steps.sample(state, problems, jnp.int32(0))
        return rollout, steps.verify(rollout, problems).correct

    @jax.jit
    def learn(state, experience):
        batch, _ = steps.compute_advantages(state, one_round(lambda number: experience))
        return steps.update_policy(state, batch)

    rollout, reward = sample(state)
    if case in STOP_STRINGS:
        assert stops is not None
        lengths = np.asarray(rollout.lengths)
        ended = [stops.find_end(ids[:n]) == n for ids, n in zip(np.asarray(rollout.response), lengths, strict=True)]
        assert np.mean(ended) > 0.2 and np.asarray(rollout.finished)[ended].all()
    # the reward of an untrained model is zero everywhere: any other shows the gradient
    shown = jnp.asarray(np.random.default_rng(0).normal(size=reward.shape), jnp.float32)
    new, metrics = learn(state, Experience(rollout, Rewards(shown, shown[..., None], {})))
    return {
        "response": np.asarray(rollout.response),
        "mask": np.asarray(rollout.mask),
        "gradient": jax.tree.map(np.subtract, before, jax.device_get(new.params)),
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
        layout = sharding.make_layout(sharding.make_mesh(2, 4), {"embed": "fsdp"})
        config, parts, _ = pretrained.load(f"{folder}/model", layout=layout)
        in_stacks = dataclasses.replace(config, scan_layers=True)
        stacked = pretrained.read_params(f"{folder}/model", in_stacks)
    again, _ = transformer.unstack_layers(jax.device_get(stacked), in_stacks)
    equal = lambda a, b: all(jax.tree.leaves(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)))
    gate = parts["layers"][0]["experts"]["gate"]
    return {
        "equal": equal(params, parts) and equal(params, again),
        "gate": list(gate.shape),
        "part": sorted({str(list(s.data.shape)) for s in gate.addressable_shards}),
    }


def in_decode_loop(axes: str, changes: dict[str, object], vocab_size: int | None = None) -> dict[str, int]:
    """Collectives in one step of the first decode loop of the compiled sampler: "kind shape" -> how many."""
    run = resolve(configured(axes, changes))
    model, sampler_model = (
        dataclasses.replace(m, vocab_size=vocab_size or m.vocab_size) for m in (run.model, run.sampler_model)
    )
    params = jax.eval_shape(lambda: transformer.init(model, jax.random.key(0)))
    lie = lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
    params = jax.tree.map(lie, params, sharding.weight_shardings(model))
    shape = 16, run.task.prompt_slots
    prompt, mask = (
        jax.ShapeDtypeStruct(shape, d, sharding=sampler_model.layout.sharding(("rows",), shape)) for d in (int, bool)
    )
    how = dict(group_size=16, max_new_tokens=16, stop_ids=(1,))  # so few tokens that there is one loop
    text = sampler.sample.lower(params, sampler_model, prompt, mask, jax.random.key(0), **how).compile().as_text()
    found = [COLLECTIVE.search(line) for line in text.splitlines() if "while/" in line]
    return dict(Counter(f"{m[2]} {m[1]}" for m in found if m))


def one_step_ahead() -> dict[str, float]:
    """Three train steps where four devices sample and four learn, beside the same steps written out on one device."""
    changes = {
        "rl.reward": "correct + overlong(share=0.9)",  # an untrained model is never right
        "rl.row.correction": "token_truncate(hi=2.0)",
        **{"rl.max_new_tokens": 16, "rl.widths": (), "rl.top_p": 0.9},  # a sampling mask travels with what is ahead
        **{"rl.prompts": 8, "rl.group_size": 4, "rl.micro_batch": 32, "model.layers": 1, "workers": 0},
        **{"eval.problems": 8, "eval.attempts": 2, "eval.greedy": False},
    }
    changes |= {"rl.steps": 3, "rl.eval_every": 3, "rl.start": "", "rl.optimizer.learning_rate": 0.01}
    changes |= {"rl.optimizer.warmup": 0}
    config = configured("fsdp=4", changes)
    config.mesh.actors = 4
    made, make = [], rl.make_train_step

    def make_once(run: Any) -> Any:  # the three runs have one config: compiled once
        made.extend([] if made else [make(run)])
        return made[0]

    rl.make_train_step = make_once
    with tempfile.TemporaryDirectory() as folder:
        rl.run(config, Path(folder) / "whole")
        rl.run(config, Path(folder) / "stopped", stop=2)
        rl.run(config, Path(folder) / "stopped")
        read = lambda run: [r for r in journal.read_records(Path(folder) / run / "metrics.jsonl") if "train/loss" in r]
        whole, stopped = read("whole"), read("stopped")
    run = resolve(configured("data=1", changes))
    steps, state = make_steps(run), initial_state.new_state(run, run.rl, None)
    before, written, first = None, [], jnp.int32(0)

    @jax.jit
    def act(state, params):
        problems = steps.ask(state, first)
        rollout, _ = steps.sample(state.replace(params=params), problems, first)
        return Experience(rollout, steps.verify(rollout, problems))

    @jax.jit
    def learn(state, experience):
        batch, _ = steps.compute_advantages(state, one_round(lambda number: experience))
        return steps.update_policy(state, batch)

    for _ in range(3):
        experience = act(state, before or state.params)
        before = jax.tree.map(jnp.copy, state.params)
        state, metrics = learn(state, experience)
        state = steps.advance(state, one_round(lambda number, experience=experience: experience))
        tokens = float(experience.rollout.lengths.mean())
        written.append({"tokens": tokens, **{k: float(metrics[k]) for k in ("sampler_gap", "entropy")}})
    names = {"tokens": "train/response_length/mean", "sampler_gap": "train/sampler_gap", "entropy": "train/entropy"}
    apart = max(abs(w[k] - r[name]) for w, r in zip(written, whole, strict=True) for k, name in names.items())
    return {
        "apart": apart,
        "same bytes": whole == stopped,
        "lags": [r["train/lag"] for r in whole],
        "gap": whole[2]["train/sampler_gap"],
    }


def on_meshes(meshes: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Each case on each of its meshes, beside one device."""
    out = {}
    for case in meshes:
        one = on_mesh("data=1", case)
        for axes in meshes[case]:
            many = on_mesh(axes, case)
            out[f"{case} {axes}"] = {
                "tokens_equal": float((one["response"] == many["response"]).mean()),
                "masks_equal": float((one["mask"] == many["mask"]).mean()),
                "gradient_difference": same_rollout_gradient(one, many),
                "grad_norm": many["grad_norm"],
                "layout": many["layout"],
                "rows": many["rows"],
            }
    return out


def in_decode_loops() -> dict[str, dict[str, int]]:
    few = {"model.experts": 8, "model.expert_width": 32}
    out = {axes: in_decode_loop(axes, {}) for axes in ("fsdp=8", "data=4,tensor=2")}
    tied = {"model.tied_head": True}
    out["head fsdp=4,tensor=2"] = in_decode_loop("fsdp=4,tensor=2", tied, vocab_size=64)  # even: the head is split too
    out["stacked fsdp=4,tensor=2"] = in_decode_loop(
        "fsdp=4,tensor=2", tied | {"model.scan_layers": True}, vocab_size=64
    )
    out["latents data=4,tensor=2"] = in_decode_loop("data=4,tensor=2", LATENT)
    out["experts data=2,tensor=2,expert=2"] = in_decode_loop("data=2,tensor=2,expert=2", few)
    return out


if __name__ == "__main__":
    assert jax.device_count() == 8, jax.devices()
    if "more" in sys.argv:
        out = on_meshes(MORE_MESHES) | {"ahead": one_step_ahead()}
    else:
        out = on_meshes(MESHES) | {"folder": loaded_in_parts(), "decode loop": in_decode_loops()}
    json.dump(out, sys.stdout)
