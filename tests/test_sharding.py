"""Eight simulated devices see what one sees: the same tokens, the same gradient."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from rljax import sharding, transformer
from rljax.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def runs():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "sharded_run.py")],
        env=environment,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_along_data_the_sampled_tokens_are_identical(runs):
    assert runs["default 8x1"]["tokens_equal"] == 1.0 and runs["default 8x1"]["masks_equal"] == 1.0


def test_with_sharded_weights_at_least_9999_in_10000_tokens_agree(runs):
    assert runs["default 2x4"]["tokens_equal"] >= 0.9999 and runs["default 2x4"]["masks_equal"] >= 0.9999


@pytest.mark.parametrize(
    "mesh", ["default 8x1", "default 2x4", "statistics 8x1", "statistics 2x4", "adapters 2x4", "experts 2x4"]
)
def test_pitfall_07_the_same_rollout_gives_the_same_gradient_on_every_mesh(runs, mesh):
    assert runs[mesh]["grad_norm"] > 1e-3
    assert runs[mesh]["gradient_difference"] <= 1e-5


def test_weights_and_rows_really_are_split(runs):
    assert any("fsdp" in axes for axes in runs["default 2x4"]["layout"])
    assert "data" in runs["default 2x4"]["rows"] and "fsdp" in runs["default 2x4"]["rows"]


def test_a_folder_is_read_onto_the_mesh_part_by_part(runs):
    assert runs["folder"] == {"equal": True, "gate": [4, 32, 16], "part": ["[4, 8, 16]"]}


def test_a_mesh_that_does_not_fit_the_devices_is_refused_with_the_way_out():
    with pytest.raises(UserError, match="needs 6 devices, but 1 are here.*xla_force_host_platform_device_count"):
        sharding.make_mesh(3, 2)


def test_rows_that_do_not_divide_over_the_devices_are_refused():
    class Mesh:
        size = 8

    with pytest.raises(UserError, match="rl.prompts=12 is not a multiple of the 8 devices"):
        sharding.check_rows(12, Mesh(), "rl.prompts")


def test_every_weight_has_logical_axes_and_a_sharding():
    model = transformer.Config(vocab_size=16, qkv_bias=True, qk_norm=True, post_norms=True)
    shardings = sharding.weight_shardings(model, sharding.make_mesh(1, 1))
    assert jax.tree.structure(shardings) == jax.tree.structure(transformer.init(model, jax.random.key(0)))
