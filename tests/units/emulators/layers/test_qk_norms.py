"""Norms of queries and keys: logits are bounded whatever the input, and networks without are as they were."""

import pytest
import torch
from networks import build, randomised

from emulators.contracts.parts import example_inputs
from emulators.layers.attention.transformer import QKNorms

NETWORKS = ("vit_small", "climax_small", "stormer_small", "prithvi_small", "pangu_small", "swin_small")
GAIN = 1.5


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_are_bounded_by_the_root_of_the_channels_of_a_head(small_world, name):
    world = small_world()
    torch.manual_seed(0)
    network = randomised(build(name, world, qk_norm=True))
    largest = []

    def logits(module, given, out):
        q, k = out
        largest.append(float((q @ k.mT).abs().max() / q.shape[-1]))  # over sqrt(d), as a share of sqrt(d)

    norms = [module for module in network.modules() if isinstance(module, QKNorms)]
    for module in norms:
        module.register_forward_hook(logits)
        for norm in module:
            torch.nn.init.constant_(norm.weight, GAIN)
    fields, time, _ = example_inputs(world)
    with torch.no_grad():
        for scale in (1.0, 1e4):
            network(scale * fields, time)
    assert norms
    assert len(largest) == 2 * len(norms)
    assert 0.1 < max(largest) <= GAIN**2 * (1.0 + 1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_without_have_the_other_weights_and_no_more(small_world, name):
    world = small_world()
    states = []
    for normed in (False, True):
        torch.manual_seed(0)
        states.append(build(name, world, qk_norm=normed).state_dict())
    off, on = states
    assert off.keys() == {key for key in on if ".norms." not in key} != on.keys()
    assert all(torch.equal(value, on[key]) for key, value in off.items())
