"""On eight simulated devices Muon makes the update of one device, and sums over all tokens are rounded once."""

import pytest
import simulated

pytestmark = pytest.mark.exhaustive


@pytest.fixture(scope="module")
def found():
    return simulated.on_devices(8, "sharded_sums_run.py")


@pytest.mark.parametrize("axes", ["data=2,fsdp=2,tensor=2"])
def test_muon_makes_the_same_update_on_a_mesh(found, axes):
    """It multiplies whole matrices, of which a device holds a part."""
    assert found["muon"][axes]["moved"] > 1e-3 and found["muon"][axes]["tokens"]
    assert found["muon"][axes]["apart"] < 1e-3


@pytest.mark.parametrize("layout", ["whole weights", "split", "split rows"])
@pytest.mark.parametrize("weight", ["bias", "embedding"])
def test_gradients_of_bfloat16_weights_that_are_sums_over_tokens_are_rounded_once(found, layout, weight):
    """Not once a device, nor once a token: 2,112 tokens would lose all but two digits."""
    assert 0 < found["sums"][layout][weight] <= 2**-8
