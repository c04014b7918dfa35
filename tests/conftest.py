"""Shared by all tests: quick compilation, and one cache of compiled programs and bytecode, apart from that of real runs.

Compiling takes most of the time, and these models are tiny: programs are compiled quickly rather than well. Some tests kill
processes while they write to the cache, and what they leave there costs a warning and a compilation. The files that take
longest are run first, so that no worker waits for one that began last.
"""

import ctypes
import gc
import os
from importlib.metadata import version
from pathlib import Path

import pytest

LONGEST = [
    f"test_{name}"
    for name in (
        "sharding processes parity vmapped_runs resume algorithm_learning packing plan verify_parts lora resume_options "
        "weights learner optimizer loss_scale offload reference parity_fields rewards damage_table sandbox_isolation"
    ).split()
]

LIBC = ctypes.CDLL(None)
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rljax" / "tests"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
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
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def pytest_collection_finish():
    """What is imported by now stays: the garbage collector need not look at it each time that a program is traced."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope="module", autouse=True)
def give_memory_back():
    """A worker would come to hold gigabytes: what the C library keeps of what is freed, and the programs of all files."""
    yield
    trim = getattr(LIBC, "malloc_trim", lambda _: 0)  # glibc's
    trim(0)
    if resident_bytes() > 700e6:
        import jax

        jax.clear_caches()
        gc.collect()
        trim(0)


def resident_bytes():
    """Memory of this process; infinite where there is no /proc to read it from."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
    except OSError:
        return float("inf")
