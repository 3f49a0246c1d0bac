"""U-Net: any grid size, both blocks and both ways up, turning with the planet."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.models.unet import UNet
from emulators.variables import Variable, VariableSet
from emulators.world import World


def world(grid) -> World:
    return World(grid, VariableSet((Variable("state", "", (1.0, 2.0, 3.0)),)), np.timedelta64(6, "h"))


@pytest.mark.parametrize(
    ("block", "upsampling", "edges"),
    list(product(["residual", "convnext"], ["bilinear", "transposed"], ["cross", "replicate", "zeros"])),
)
def test_turning_the_planet_turns_the_answer(block, upsampling, edges):
    torch.manual_seed(0)
    net = UNet(world(gaussian_grid(16)), channels=(8, 8, 8), blocks=1, block=block, upsampling=upsampling, edges=edges)
    fields, time = torch.randn(2, 3, 16, 32), torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        turned = net(fields.roll(8, -1), time)
        torch.testing.assert_close(turned, net(fields, time).roll(8, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "grid",
    [
        equiangular_grid(13, 24, poles=True),
        gaussian_grid(9, 18),
        gaussian_grid(9, 15),
        LatLonGrid(np.linspace(60, 40, 7), np.linspace(0, 30, 13)),
    ],
    ids=str,
)
def test_any_number_of_rows_and_columns(grid):
    torch.manual_seed(0)
    net = UNet(world(grid), channels=(8, 16, 16), blocks=1)
    fields = torch.randn(1, 3, *grid.shape, requires_grad=True)
    output = net(fields, torch.zeros(1, dtype=torch.int64))
    output.sum().backward()
    assert output.shape == fields.shape
    assert torch.isfinite(fields.grad).all()


def test_information_crosses_the_pole_and_the_date_line():
    torch.manual_seed(0)
    for edges in ("cross", "replicate"):
        fields, time = torch.randn(1, 3, 16, 32), torch.zeros(1, dtype=torch.int64)
        net = UNet(world(gaussian_grid(16)), channels=(8,), blocks=1, edges=edges)
        net.head[0] = torch.nn.Identity()
        for block in net.down[0]:
            block.body[0] = block.body[3] = torch.nn.Identity()
        fields.requires_grad_()
        net(fields, time)[0, :, 0, 0].sum().backward()
        reached = fields.grad[0].abs().sum(0) > 0
        assert reached[0, -1]
        assert reached[0, 16] == (edges == "cross")


def test_one_level_is_a_plain_convolutional_network():
    net = UNet(world(gaussian_grid(4)), channels=(8,), blocks=3)
    assert len(net.down[0]) == 3
    assert len(net.up) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": (8, 8, 8, 8)}, "at most 3 channels"),
        ({"channels": ()}, "at least one level"),
        ({"upsampling": "nearest"}, "bilinear"),
        ({"block": "dense"}, "convnext"),
        ({"blocks": 0}, "at least 1"),
        ({"edges": "mirror"}, "replicate"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UNet(world(gaussian_grid(4)), **options)


def test_the_size_of_a_field_is_not_lost_in_the_norms():
    torch.manual_seed(0)
    net = UNet(world(gaussian_grid(8)), channels=(8, 8), blocks=1)
    net.across.weight.data.copy_(-0.5 * torch.eye(3)[..., None, None])
    fields, time = torch.randn(1, 3, 8, 16), torch.zeros(1, dtype=torch.int64)
    with torch.no_grad():
        growth = net(1000.0 * fields, time)
    assert float((growth * fields).mean()) == pytest.approx(-500.0 * float(fields.square().mean()), rel=0.02)
