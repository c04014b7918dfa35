"""jax.jit for functions that run once: compiled without optimisation, which is what takes the time."""

import functools

import jax

jit = functools.partial(
    jax.jit,
    static_argnums=1,
    compiler_options={"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False},
)
