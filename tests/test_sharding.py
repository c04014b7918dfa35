"""Eight simulated devices see what one sees: the same tokens, the same gradient."""

import dataclasses

import jax
import pytest
import simulated
from jax.sharding import AbstractMesh, PartitionSpec
from sharded_run import MESHES, MORE_MESHES

from configs import common, shop
from rljax import transformer
from rljax.distributed import sharding
from rljax.errors import UserError
from rljax.training import checks
from rljax.training.run import resolve


@pytest.fixture(scope="module")
def runs():
    return simulated.on_devices(8, "sharded_run.py")


@pytest.fixture(scope="module")
def more_runs():
    return simulated.on_devices(8, "sharded_run.py", "more")


RUNS, MORE = ([f"{case} {axes}" for case, of in meshes.items() for axes in of] for meshes in (MESHES, MORE_MESHES))


@pytest.mark.parametrize("run", [run for run in RUNS if run.endswith("data=8")])
def test_on_a_mesh_of_data_alone_the_sampled_tokens_are_identical(runs, run):
    assert runs[run]["tokens_equal"] == 1.0 and runs[run]["masks_equal"] == 1.0


@pytest.mark.parametrize("run", RUNS)
def test_on_every_mesh_at_least_9999_of_10000_sampled_tokens_agree(runs, run):
    assert runs[run]["tokens_equal"] >= 0.9999 and runs[run]["masks_equal"] >= 0.9999


@pytest.mark.parametrize("run", RUNS)
def test_the_same_rollout_gives_the_same_gradient_on_every_mesh(runs, run):
    assert runs[run]["grad_norm"] > 1e-3
    assert runs[run]["gradient_difference"] <= 1e-5


@pytest.mark.exhaustive
@pytest.mark.parametrize("run", MORE)
def test_on_more_meshes_tokens_and_gradient_are_the_same(more_runs, run):
    found = more_runs[run]
    assert found["tokens_equal"] >= 0.9999 and found["masks_equal"] >= 0.9999
    assert found["grad_norm"] > 1e-3 and found["gradient_difference"] <= 1e-5
    assert "fsdp" not in run or "fsdp" in found["rows"]


def test_weights_and_rows_really_are_split(runs):
    split = lambda run: " ".join(runs[run]["layout"])
    assert all(axis in split("adapters fsdp=4,tensor=2") for axis in ("fsdp", "tensor"))
    assert all(axis in split("experts fsdp=2,tensor=2,expert=2") for axis in ("fsdp", "tensor", "expert"))
    assert runs["adapters fsdp=4,tensor=2"]["rows"] == "P('fsdp',)"
    assert runs["default data=8"]["rows"] == "P('data',)"


def test_no_weights_are_collected_inside_the_decode_loop(runs):
    """What a step needs by its layout: two sums a layer where heads and widths are split, and the tokens drawn."""
    found = runs["decode loop"]
    assert found["fsdp=8"] == {"all-reduce pred[]": 1}
    rows, width = "f32[64,1,64]", 2 * 2  # rows of a device; two sums in each of two layers
    of_tensor = {f"all-reduce {rows}": width, "all-gather s32[64]": 1, "all-gather f32[64]": 1, "all-reduce pred[]": 1}
    assert found["data=4,tensor=2"] == found["latents data=4,tensor=2"] == of_tensor
    of_head = {"all-to-all f32[1,1,32,32]": 1}  # logits: from parts of the vocabulary to parts of the rows
    assert found["head fsdp=4,tensor=2"] == of_tensor | of_head | {f"all-reduce {rows}": width + 1}  # and the embedding
    in_scan = {
        f"all-reduce {rows}": 2 + 1,
        "all-reduce f32[4,13,64]": 2,
    }  # the sums of a scanned layer, and of the prompt's
    assert found["stacked fsdp=4,tensor=2"] == of_tensor | of_head | in_scan
    both = found["experts data=2,tensor=2,expert=2"]
    assert both.pop("all-gather f32[128,1,64]") == both.pop("reduce-scatter f32[64,1,64]") == 2  # a pair a layer
    assert both == of_tensor


@pytest.mark.exhaustive
def test_devices_that_sample_one_step_ahead_leave_what_the_algorithm_written_out_leaves(more_runs):
    ahead = more_runs["ahead"]
    assert ahead["lags"] == [0, 1, 1] and ahead["gap"] > 1e-4  # it is another policy that sampled
    assert ahead["apart"] < 1e-4
    assert ahead["same bytes"]  # stopped after the second step, and continued


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {},
            "with the policy before the update, which rl.algorithm does not correct for: add --config.rl.row.correction",
        ),
        ({"correction": "token_truncate(hi=2.0)", "groups": "refill(rounds=2)"}, "cannot ask again"),
    ],
)
def test_sampling_ahead_without_a_correction_is_refused_with_the_way_out(changes, said):
    config = shop.get_config()
    config.rl.row.update(changes)
    run = resolve(config)
    ahead = dataclasses.replace(run, mesh=dataclasses.replace(run.mesh, actors=1))
    with pytest.raises(UserError, match=said):
        checks.check_ahead(ahead)
    with pytest.raises(UserError, match="mesh.actors=1: of the 1 devices at least one must sample and one learn"):
        sharding.make_learn_and_sample_meshes(1)


def test_a_folder_is_read_onto_the_mesh_part_by_part(runs):
    assert runs["folder"] == {"equal": True, "gate": [4, 32, 16], "part": ["[4, 8, 16]"]}


def test_a_mesh_that_does_not_fit_the_devices_is_refused_with_the_way_out():
    with pytest.raises(UserError, match="needs 6 devices, but 1 are here.*xla_force_host_platform_device_count"):
        sharding.make_mesh(data=3, fsdp=2)


def test_rows_that_do_not_divide_over_the_devices_are_refused():
    mesh = AbstractMesh((2, 4), ("data", "fsdp"))
    layout = sharding.make_layout(mesh, {"rows": "data fsdp"})
    with pytest.raises(UserError, match="rl.prompts=12 is not a multiple of the 8 parts .data=2 x fsdp=4."):
        sharding.check_rows_divide(12, layout, "rl.prompts")


@pytest.mark.parametrize(
    "rules, said",
    [
        ({"row": "data"}, "no logical axis 'row'"),
        ({"rows": "dta"}, "the mesh has no axis 'dta'"),
        ({"heads": "tensor", "embed": "tensor"}, "split over 'tensor' twice"),
        ({"ff": "expert"}, "a weight of 256 along 'ff' cannot be split over expert=3"),
    ],
)
def test_rules_that_make_no_sense_are_refused_in_a_line(rules, said):
    mesh = AbstractMesh((1, 1, 2, 3, 1), sharding.MESH_AXES)
    with pytest.raises(UserError, match=said):
        model = transformer.Config(vocab_size=16, layout=sharding.make_layout(mesh, rules))
        sharding.weight_shardings(model)


def test_a_vocabulary_and_key_heads_that_do_not_divide_lie_whole():
    layout = sharding.make_layout(
        AbstractMesh((4,), ("tensor",)), dict.fromkeys(("vocab", "heads", "kv_heads"), "tensor")
    )
    model = transformer.Config(vocab_size=51, heads=8, kv_heads=2, layout=layout)
    found = sharding.weight_shardings(model)
    layer = found["layers"][0]
    assert found["embedding"].spec == PartitionSpec(None, None)
    assert layer["key"]["kernel"].spec == PartitionSpec(None, None, None)
    assert layer["query"]["kernel"].spec == PartitionSpec(None, "tensor", None)
    assert model.kv_head_copies == 2


def test_every_weight_has_logical_axes_and_a_sharding():
    layout = sharding.make_layout(sharding.make_mesh(), common.base().mesh.learn)
    model = transformer.Config(vocab_size=16, qkv_bias=True, qk_norm=True, post_norms=True, layout=layout)
    shardings = sharding.weight_shardings(model)
    assert jax.tree.structure(shardings) == jax.tree.structure(transformer.init(model, jax.random.key(0)))
