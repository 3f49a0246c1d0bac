"""Weights go to networks with other channels and on other grids by the names of channels, measured on each network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.contracts.example_worlds import small_world
from emulators.grid import gaussian_grid
from emulators.models.aurora import Aurora
from emulators.models.resnet import ResNet
from emulators.models.sfno import SFNO
from emulators.models.vit import ViT
from emulators.training.published_weights import on_grid
from emulators.training.transfer import SUMMING, Trained, account, largest_change, mixed_scales, transferred
from emulators.variables import Variable, VariableSet
from emulators.world import Scale

TIMES = torch.tensor([1_000_000_000, 1_000_021_600])
BUILDERS = {
    "resnet": lambda world: ResNet(world, channels=16, blocks=1),
    "vit": lambda world: ViT(world, embed=16, depth=1, heads=2, positions="learned"),
    "sfno": lambda world: SFNO(world, embed=8, layers=2, scale_factor=1),
    "aurora": lambda world: Aurora(
        world, embed=16, encoder_depths=(1, 1), decoder_depths=(1, 1), heads=(2, 4), window=(2, 2, 4)
    ),
}


def drawn(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return network.eval()


def other_world(world):
    """A variable more, in the midst; one dropped; a history of two States."""
    variables = (Variable("temperature", "K", (500.0, 850.0)), Variable("ozone"), Variable("2m_temperature", "K"))
    return replace(world, prognostic=VariableSet(variables), scales={**world.scales, "ozone": Scale(0.0, 1.0, 1.0)})


def more_world(world):
    old = list(world.prognostic)
    variables = VariableSet((old[0], Variable("ozone"), *old[1:]))
    return replace(world, prognostic=variables, scales={**world.scales, "ozone": Scale(0.0, 1.0, 1.0)})


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("history", [1, 2])
def test_a_new_variable_leaves_the_old_forecast_as_it_is(name, history):
    world, build = small_world(), BUILDERS[name]
    old, new = Trained(world, build), Trained(more_world(replace(world, history=history)), build)
    before, after = drawn(build(world)), drawn(build(new.world), 1)
    state, fates = transferred(before.state_dict(), old, new, after)
    after.load_state_dict(state)
    assert {row.fate for row in fates} == {"loaded"}
    assert largest_change(old, new, before.state_dict(), after) <= SUMMING
    fields = torch.randn(2, len(new.inputs), *world.grid.shape)
    with torch.no_grad():
        made = after(fields, TIMES)
    assert not made[:, new.outputs.index("ozone")].any()  # persistence
    rows = account(fates, old, new, before.state_dict(), after)
    assert rows["old channels"].startswith("forecast as before")
    assert "new ozone" in rows["channels written"]
    (made := after(fields, TIMES)).square().sum().backward()
    slopes = {n: w.grad for n, w in after.named_parameters() if w.grad is not None}
    assert any(slopes[row.name].abs().sum() > 0 for row in fates if "ozone" in row.of)


@pytest.mark.parametrize("name", BUILDERS)
def test_a_dropped_variable_is_read_as_its_mean(name):
    world, build = small_world(), BUILDERS[name]
    old, new = Trained(world, build), Trained(other_world(world), build)
    before, after = drawn(build(world)), drawn(build(new.world), 1)
    state, fates = transferred(before.state_dict(), old, new, after)
    after.load_state_dict(state)
    fields = torch.randn(2, len(new.inputs), *world.grid.shape)
    seen = torch.zeros(2, len(old.inputs), *world.grid.shape)
    for place, channel in enumerate(old.inputs):
        if channel in new.inputs:
            seen[:, place] = fields[:, new.inputs.index(channel)]
    both = [channel for channel in old.outputs if channel in new.outputs]
    with torch.no_grad():
        expected = before(seen, TIMES)[:, [old.outputs.index(c) for c in both]]
        made = after(fields, TIMES)[:, [new.outputs.index(c) for c in both]]
    if name != "aurora":  # of which one kernel reads all levels of a variable, and a level more shares its attention
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)
    rows = account(fates, old, new, before.state_dict(), after)
    assert "dropped specific_humidity_500, specific_humidity_850" in rows["channels written"]


def test_another_size_is_refused_and_may_begin_anew():
    world = small_world()
    old, new = Trained(world, BUILDERS["vit"]), Trained(more_world(world), BUILDERS["vit"])
    wide = ViT(new.world, embed=16, depth=1, heads=2, positions="learned", mlp_ratio=2.0)
    weights = ViT(world, embed=16, depth=1, heads=2, positions="learned").state_dict()
    with pytest.raises(ValueError, match=r"blocks.0.mlp.expand.weight: expected 32x16, got 64x16"):
        transferred(weights, old, new, wide)
    state, fates = transferred(weights, old, new, wide, fresh=["blocks.*.mlp", "head"])
    anew = {row.name for row in fates if row.fate == "fresh"}
    assert "head.0.weight" in anew
    assert all("mlp" in name or name.startswith("head") for name in anew)
    assert torch.equal(state["blocks.0.mlp.expand.weight"], wide.state_dict()["blocks.0.mlp.expand.weight"])


@pytest.mark.parametrize("name", BUILDERS)
def test_weights_go_to_a_finer_grid(name):
    world, build = small_world(), BUILDERS[name]
    fine = Trained(world, build).on(gaussian_grid(16)).world
    old, new = Trained(world, build), Trained(fine, build)
    before, after = drawn(build(world)), build(fine).eval()
    state, fates = transferred(before.state_dict(), old, new, after)
    after.load_state_dict(state)
    moved = {row.name for row in fates if row.fate == "interpolated"}
    assert bool(moved) == (name in ("vit", "sfno"))
    if name == "sfno":
        ours, theirs = (one.state_dict()["blocks.0.filter.convolution.weight"] for one in (after, before))
        assert torch.equal(ours[: len(theirs)], theirs)
        assert torch.equal(ours[-1], theirs[-1])


def test_positions_are_interpolated_as_fields_are():
    world = small_world()
    fine = Trained(world, BUILDERS["vit"]).on(gaussian_grid(16)).world
    before, after = BUILDERS["vit"](world), BUILDERS["vit"](fine)
    rows = np.repeat(np.arange(4), 8)
    weights = before.state_dict() | {"position": torch.tensor(rows, dtype=torch.float32).expand(16, 32).T[None]}
    state, _ = on_grid(weights, before, after, (world.grid.shape, fine.grid.shape))
    made = state["position"].reshape(8, 16, 16)
    expected = torch.tensor([0.0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0])
    torch.testing.assert_close(made, expected[:, None, None].expand(8, 16, 16))


def test_mixed_scales_are_those_of_both_data_together():
    values = np.random.default_rng(0).normal(size=1000), 3 + 2 * np.random.default_rng(1).normal(size=1000)
    old, new = ({"t": Scale(v.mean(), v.std(), 1.0)} for v in values)
    mixed, whole = mixed_scales(old, {**new, "q": Scale(1.0, 2.0, 3.0)}), np.concatenate(values)
    assert (mixed["t"].mean, mixed["t"].std) == pytest.approx((whole.mean(), whole.std()))
    assert mixed["q"] == Scale(1.0, 2.0, 3.0)
