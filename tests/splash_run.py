"""Run by test_splash in a process with 8 simulated devices: splash attention over rows and heads, beside one device's own."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
from models import DEEPSEEK, EVERYTHING, params_of, tokens_of

from rljax import transformer
from rljax.distributed import sharding
from rljax.transformer import attention

COLLECTIVE = re.compile(r" (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)\((.*)")
ALONE = re.compile(r"groups=\{\{0\},")  # groups of one device each: nothing is sent
NEWER = re.compile(
    r"groups=mesh\[([^\]]*)\] ?\{([^}]*)\}"
)  # as JAX 0.12 writes them: the mesh, and the axes of a group
MESH = sharding.make_mesh(data=2, fsdp=2, tensor=2)
QUICK = {"xla_backend_optimization_level": 0}
RULES = {"rows": "data fsdp", "heads": "tensor", "kv_heads": "tensor", "ff": "tensor", "embed": "fsdp"}


def pushed(config, params):
    """The gradient of a weighted sum of logits, of four rows padded on either side."""
    columns = np.arange(21)
    mask = (columns >= np.array([[0], [4], [7], [0]])) & (columns < np.array([[21], [20], [21], [9]]))
    weight = np.random.default_rng(0).normal(size=(*mask.shape, config.vocab_size)) * mask[..., None]
    total = lambda p: jnp.sum(weight * transformer.forward(p, config, tokens_of(*mask.shape), mask))
    return jax.device_get(jax.jit(jax.grad(total), compiler_options=QUICK)(params))


def around_attention(config, plain, segments=None):
    """Where attention's result lies, the kinds of communication between devices in it and its gradient, and how far both
    are from those of ``plain`` on one device."""
    heads, e, draw = config.kv_heads, config.head_width, np.random.default_rng(0)
    shapes = (heads, config.heads // heads, 40, e), (heads, 40, e), (heads, 40, config.value_width or e)
    qkv = [draw.normal(size=(4, *shape)).astype(np.float32) for shape in shapes]
    lie = [jax.device_put(x, config.layout.sharding(("rows", "heads"), x.shape)) for x in qkv]
    mask, positions = jnp.ones((4, 40), bool), jnp.tile(jnp.arange(40), (4, 1))

    def attend(config):
        def both(q, k, v):
            one = lambda *qkv: attention.attend_sequence(*qkv, mask, positions, 0, config, segments)
            out, back = jax.vjp(one, q, k, v)
            return out, back(out)

        return jax.jit(both, compiler_options=QUICK)

    compiled = attend(config).lower(*lie).compile()
    spec = compiled.output_shardings[0].spec
    found = [kind for kind, rest in COLLECTIVE.findall(compiled.as_text()) if sends(rest)]
    distance = compare(compiled(*lie), attend(plain)(*qkv))
    return {"split": str(spec), "collectives": sorted(set(found))} | distance


def compare(found, wanted):
    """The largest difference, and the largest number, of two pytrees of arrays."""
    found, wanted = jax.device_get((found, wanted))
    most = lambda tree: max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))
    return {"apart": most(jax.tree.map(np.subtract, found, wanted)), "size": most(wanted)}


def shared_prompts():
    """Segments of four packed sequences: two responses behind one prompt, at other columns in each, and empty columns."""
    at, row = np.arange(40), np.arange(4)[:, None]
    response = (at >= 8 + 3 * row).astype(int) + (at >= 18 + 2 * row) - 1
    return jnp.asarray(np.where(at < 37, 0, -1) + 0 * row), jnp.asarray(np.where(at < 37, response, -1))


def sends(instruction):
    """Whether a collective sends anything: some group of it has more than one device."""
    if newer := NEWER.search(instruction):
        sizes = dict(axis.split("=") for axis in newer[1].replace("'", "").split(","))
        return any(int(sizes[axis]) > 1 for axis in newer[2].replace("'", "").split(","))
    return not ALONE.search(instruction)


if __name__ == "__main__":
    assert jax.device_count() == 8, jax.devices()
    out = {}
    grouped = dataclasses.replace(EVERYTHING, layers=2, heads=8, kv_heads=4)
    latent = dataclasses.replace(DEEPSEEK, layers=1)
    for name, plain in {"grouped": grouped, "latent": latent}.items():
        layout = sharding.make_layout(MESH, RULES)
        config = dataclasses.replace(plain, attention="splash_interpreted", layout=layout)
        params = params_of(plain)
        wanted = pushed(plain, params)
        found = pushed(config, jax.device_put(params, sharding.weight_shardings(config)))
        out[name] = around_attention(config, plain) | compare(found, wanted)
        out[f"{name}, packed"] = around_attention(config, plain, shared_prompts())
    print(json.dumps(out))
