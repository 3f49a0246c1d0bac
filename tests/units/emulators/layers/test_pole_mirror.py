"""Winds beyond a pole: one smooth wind across it, as between rows elsewhere, and CREDIT's form by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.grid import equiangular_grid, gaussian_grid
from emulators.layers.attention.patches import Frame
from emulators.layers.convolution import Edges, pole_mirror
from emulators.models.unet import UNet
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

NAMES = ("temperature", "u_component_of_wind", "v_component_of_wind", "10m_u_component_of_wind")


def world(grid, **changes) -> World:
    scales = {name: Scale(5.0 + n, 2.0 + n, 1.0) for n, name in enumerate((*NAMES, "eastward_stress"))}
    prognostic = VariableSet(tuple(Variable(name) for name in NAMES))
    forcing = VariableSet((Variable("eastward_stress"),))
    return World(grid, prognostic, np.timedelta64(6, "h"), forcing=forcing, scales=scales, **changes)


def across_the_pole(grid) -> torch.Tensor:
    """A flow of 10 m/s straight over the north pole, and the components that it has there: (temperature, u, v, u)."""
    longitude = torch.deg2rad(torch.as_tensor(grid.longitude)).expand(grid.shape)
    u, v = -10.0 * torch.sin(longitude), -10.0 * torch.cos(longitude)
    return torch.stack([torch.cos(longitude) + 3.0, u, v, u])


@pytest.mark.parametrize("grid", [gaussian_grid(16), equiangular_grid(17, poles=True)], ids=["gaussian", "poles"])
def test_a_wind_across_the_pole_goes_on(grid):
    """In physical units both components continue; as CREDIT pads, they turn round."""
    made = world(grid, history=2)
    fields = across_the_pole(grid)
    mean, std = (torch.as_tensor(made.scale(made.prognostic, kind)).reshape(-1, 1, 1) for kind in ("mean", "std"))
    stress = made.scales["eastward_stress"]
    normalised = torch.cat([(fields - mean) / std] * 2 + [(fields[1:2] - stress.mean) / stress.std])[None].float()
    mirror = pole_mirror(made)
    padded = {kind: Edges(grid, kind).pad(normalised, 1, 1, 0, 0, mirror=mirror) for kind in ("cross", "credit")}
    physical = padded["cross"][0, 4:8] * std + mean
    for row in (0, -1):
        torch.testing.assert_close(physical[1:, row].float(), fields[1:, row].float(), rtol=1e-4, atol=1e-4)
        unturned = padded["credit"][0, 4:8, row] * std[..., 0] + mean[..., 0]
        torch.testing.assert_close(unturned[1:].float(), -fields[1:, row].float(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(physical[0, row], unturned[0])
    opposite = (-fields[1, 0].roll(len(grid.longitude) // 2) - stress.mean) / stress.std
    torch.testing.assert_close(padded["cross"][0, 8, 0], opposite.float(), rtol=1e-4, atol=1e-4)
    framed = Frame(grid, 8, 8, edges="cross", margin=8).inward(normalised, mirror)
    more = Edges(grid, "cross").pad(normalised, *Frame(grid, 8, 8, margin=8).borders, mirror=mirror)
    assert torch.equal(framed, more)


def test_without_vectors_there_is_nothing_to_turn():
    grid = gaussian_grid(8)
    made = world(grid)
    plain = World(grid, made.prognostic.select(["temperature"]), made.timestep, scales=made.scales)
    assert pole_mirror(plain) is None


def test_components_are_found_in_the_order_that_published_weights_read():
    grid, order = gaussian_grid(16), ["10m_u_component_of_wind", "eastward_stress", *NAMES[:3]]
    made = world(grid)
    network = UNet(made, channels=[4, 4])
    signs = network.mirror.signs.flatten().clone()
    assert signs.tolist() == [1, -1, -1, -1, -1]
    step = Step(made, network, reads=order)
    assert network.mirror.signs.flatten().tolist() == [-1, -1, 1, -1, -1]
    assert step.network.stem.mirror is network.mirror
