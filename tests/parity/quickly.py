"""jax.jit for functions that run once: compiled without optimization, because compiling takes most of the time."""

import functools
from typing import Any

import jax


def known_options(options: dict[str, Any]) -> dict[str, Any]:
    """The compile options that this JAX knows: xla_cpu_use_fusion_emitters is unknown to JAX 0.12."""

    def is_known(name: str) -> bool:
        try:
            jax.jit(lambda: 0, compiler_options={name: options[name]}).lower().compile()
        except jax.errors.JaxRuntimeError as e:
            if "No such compile option" not in str(e):
                raise
            return False
        return True

    return {name: options[name] for name in filter(is_known, options)}


QUICK = known_options({"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False})
jit = functools.partial(jax.jit, static_argnums=1, compiler_options=QUICK)
