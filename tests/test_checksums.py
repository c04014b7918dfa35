"""Which changes of an array the checksums of a checkpoint detect."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rljax.training import checkpoint


def test_a_checksum_changes_with_one_element_and_with_the_order_for_every_dtype():
    values = np.arange(24).reshape(2, 3, 4)
    for dtype in ("float32", "bfloat16", "int8", "uint32", "bool", "float16"):
        x = jnp.asarray(values % 5 > 2 if dtype == "bool" else values, dtype)
        before = int(checkpoint.checksum(x))
        wrong, exchanged = x.at[1, 1, 1].add(1) if dtype != "bool" else ~x, x[::-1]
        assert before == int(checkpoint.checksum(x + 0 if dtype != "bool" else x | x))
        assert before not in (int(checkpoint.checksum(wrong)), int(checkpoint.checksum(exchanged)))
    key = jax.random.key(3)
    assert int(checkpoint.checksum(key)) != int(checkpoint.checksum(jax.random.key(4)))


def test_a_step_is_read_back_exactly_and_a_wrong_checksum_is_named(tmp_path):
    params = {"w": jnp.arange(6.0).reshape(2, 3), "n": jnp.arange(3, dtype=jnp.uint8)}
    for folder, change in (("good", {}), ("bad", {"['w']": 7})):
        manager = checkpoint.open_manager(tmp_path / folder)
        sums = {"params": checkpoint.checksums(params) | change}
        items = {"params": ocp.args.StandardSave(params), "sums": ocp.args.JsonSave(sums)}
        manager.save(1, args=ocp.args.Composite(**items))
        manager.wait_until_finished()
        if change:
            with pytest.raises(ValueError, match=r"checksum of params\['w'\] does not match: the file is damaged"):
                checkpoint.read_items(manager, 1, {"params": params})
        else:
            read = checkpoint.read_items(manager, 1, {"params": params})["params"]
            jax.tree.map(np.testing.assert_array_equal, read, params)
        manager.close()
