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


def around_attention(config):
    """Where attention's result lies, and the kinds of communication between devices in it and its gradient."""
    heads, e = config.kv_heads, config.head_width
    lie = lambda *s: jax.ShapeDtypeStruct(s, jnp.float32, sharding=config.layout.sharding(("rows", "heads"), s))
    qkv = lie(4, heads, config.heads // heads, 40, e), lie(4, heads, 40, e), lie(4, heads, 40, config.value_width or e)
    mask, positions = jnp.ones((4, 40), bool), jnp.zeros((4, 40), int)

    def both(q, k, v):
        out, back = jax.vjp(lambda q, k, v: attention.attend_sequence(q, k, v, mask, positions, 0, config), q, k, v)
        return out, back(out)

    compiled = jax.jit(both, compiler_options=QUICK).lower(*qkv).compile()
    spec = compiled.output_shardings[0].spec
    found = [kind for kind, rest in COLLECTIVE.findall(compiled.as_text()) if sends(rest)]
    return {"split": str(spec), "collectives": sorted(set(found))}


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
        most = lambda tree: max(float(np.abs(x).max()) for x in jax.tree.leaves(tree))
        out[name] = {"apart": most(jax.tree.map(np.subtract, found, wanted)), "size": most(wanted)}
        out[name] |= around_attention(config)
    print(json.dumps(out))
