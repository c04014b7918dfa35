"""rljax: reinforcement learning for reasoning language models, in JAX, as a few pure functions.

    ask for problems -> sample many attempts at each -> verify them -> advantages within the group -> update the policy

Import the part you need, for example ``from rljax import policy_gradient``. This file imports none of them, so that
``rljax.verifiers`` works without JAX. ``rljax.configs`` and ``rljax.experiments`` are the folders configs/ and
experiments/: an installed package contains them, a checkout has them beside this folder.
"""

import importlib.util
import sys
from pathlib import Path

__version__ = "0.1.0"


def _add_folder_of_checkout(name: str) -> None:
    """Make the checkout's folder ``name`` importable as ``rljax.name``. An installed package needs nothing."""
    package = Path(__file__).parent
    folder = package.parent / name
    if (package / name).is_dir() or not (folder / "__init__.py").is_file():
        return
    spec = importlib.util.spec_from_file_location(
        f"{__name__}.{name}", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    globals()[name] = module


for _name in ("configs", "experiments"):
    _add_folder_of_checkout(_name)
