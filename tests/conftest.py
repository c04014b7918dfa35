"""Shared by all tests: quick compilation, and one cache of compiled programs and bytecode, apart from that of real runs.

Compiling takes most of the time, and these models are tiny: programs are compiled quickly rather than well. Some tests kill
processes while they write to the cache, and what they leave there costs a warning and a compilation. The files that take
longest are run first, so that no worker waits for one that began last.
"""

import os
from importlib.metadata import version
from pathlib import Path

import pytest

LONGEST = (
    "test_processes",
    "test_sharding",
    "test_resume",
    "test_resume_options",
    "test_damage_table",
    "test_algorithm_learning",
    "test_vmapped_runs",
    "test_sandbox_isolation",
)

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rljax" / "tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if version("jaxlib").startswith(
    "0.10."
):  # JAX 0.12 no longer knows these two, and a flag that is unknown ends the process
    QUICK_TO_COMPILE += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault("XLA_FLAGS", QUICK_TO_COMPILE)
# Processes that tests start: reading JAX and the others from their sources takes each of them two seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.setdefault("PYTHONPYCACHEPREFIX", str(CACHE / "bytecode"))


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """What one file compiled, the next does not need: without this, a worker holds gigabytes of programs."""
    yield
    import jax

    jax.clear_caches()
