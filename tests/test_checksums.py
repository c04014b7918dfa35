"""What a checkpoint's checksums see, on any mesh; those of earlier versions are still read."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from rljax.training import checkpoint


def test_a_checksum_sees_one_bit_and_one_exchange_whatever_the_type():
    values = np.arange(24).reshape(2, 3, 4)
    for dtype in ("float32", "bfloat16", "int8", "uint32", "bool", "float16"):
        x = jnp.asarray(values % 5 > 2 if dtype == "bool" else values, dtype)
        before = int(checkpoint.checksum(x))
        wrong, exchanged = x.at[1, 1, 1].add(1) if dtype != "bool" else ~x, x[::-1]
        assert before == int(checkpoint.checksum(x + 0 if dtype != "bool" else x | x))
        assert before not in (int(checkpoint.checksum(wrong)), int(checkpoint.checksum(exchanged)))
    key = jax.random.key(3)
    assert int(checkpoint.checksum(key)) != int(checkpoint.checksum(jax.random.key(4)))


def write_as_before(manager, params, crcs) -> None:
    """A step as versions with a CRC-32 of each array wrote it."""
    items = {"params": ocp.args.StandardSave(params), "crc32": ocp.args.JsonSave({"params": crcs})}
    manager.save(1, args=ocp.args.Composite(**items), metrics={checkpoint.METRIC: 0.0})
    manager.wait_until_finished()


def test_a_checkpoint_of_an_earlier_version_is_read_and_checked(tmp_path):
    params = {"w": jnp.arange(6.0).reshape(2, 3), "n": jnp.arange(3, dtype=jnp.uint8)}
    manager = checkpoint.open_manager(tmp_path / "good", 1, 0)
    write_as_before(manager, params, checkpoint.crcs(params))
    read = checkpoint.read_items(manager, 1, {"params": params})["params"]
    jax.tree.map(np.testing.assert_array_equal, read, params)
    manager.close()
    manager = checkpoint.open_manager(tmp_path / "bad", 1, 0)
    write_as_before(manager, params, checkpoint.crcs(params) | {"['w']": 7})
    with pytest.raises(ValueError, match="checksum of params\\['w'\\] does not match"):
        checkpoint.read_items(manager, 1, {"params": params})
    manager.close()
