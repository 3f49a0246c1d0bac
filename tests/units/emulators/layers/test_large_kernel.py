"""Large-kernel attention: how far it sees, that it multiplies, and the networks made of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.grid import equiangular_grid
from emulators.layers.attention.large_kernel import LargeKernelAttention, LargeKernelBlock
from emulators.layers.convolution import Edges
from emulators.models.met2net import Met2Net
from emulators.models.puyun import PuYun
from emulators.variables import Variable, VariableSet
from emulators.world import World

GRID = equiangular_grid(32)


def world(history: int, grid=GRID) -> World:
    def named(name: str, count: int) -> VariableSet:
        return VariableSet((Variable(name, "", tuple(range(count))),))

    sets = {"prognostic": named("state", 2), "forcing": named("sun", 1), "diagnostic": named("rain", 1)}
    return World(grid, timestep=np.timedelta64(6, "h"), history=history, **sets)


def test_it_sees_23_by_23_points():
    torch.manual_seed(0)
    attention = LargeKernelAttention(3, Edges(GRID))
    x = torch.randn(1, 3, 32, 64, requires_grad=True)
    attention(x)[0, :, 16, 2].sum().backward()
    seen = x.grad[0].abs().sum(0) > 0
    rows, columns = seen.any(1).nonzero().flatten(), (seen.roll(32, 1)).any(0).nonzero().flatten()
    assert (rows.min(), rows.max()) == (16 - 11, 16 + 11)
    assert (columns.min(), columns.max()) == (34 - 11, 34 + 11)  # around the globe


def test_it_multiplies():
    attention = LargeKernelAttention(3, Edges(GRID))
    x = torch.randn(1, 3, 32, 64)
    x[:, 1, 5, 7] = 0.0
    assert attention(x)[0, 1, 5, 7] == 0.0
    torch.testing.assert_close(attention(x), x * attention.mix(attention.far(attention.near(x))))


def test_a_block_starts_near_the_identity():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 16, 32)
    assert (LargeKernelBlock(4, Edges(equiangular_grid(16)))(x) - x).abs().mean() < 0.05


@pytest.mark.parametrize(("reach", "dilation", "sizes"), [(21, 3, (5, 7)), (7, 2, (3, 3)), (5, 1, (1, 5))])
def test_kernels_by_reach(reach, dilation, sizes):
    attention = LargeKernelAttention(2, Edges(GRID), reach=reach, dilation=dilation)
    assert (attention.near.kernel_size[0], attention.far.kernel_size[0]) == sizes


def test_a_reach_below_the_dilation_is_refused():
    with pytest.raises(ValueError, match="reach of at least the dilation"):
        LargeKernelAttention(2, Edges(GRID), reach=2, dilation=3)


@pytest.mark.parametrize(("kind", "history"), [(PuYun, 2), (Met2Net, 3)])
def test_turning_the_planet_turns_the_answer(kind, history):
    torch.manual_seed(0)
    where = world(history, equiangular_grid(16))
    options = {"embed": 16, "depth": 2}
    net = kind(where, **options).eval()
    fields, time = torch.randn(2, where.input_channels, 16, 32), torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        turned = net(fields.roll(6, -1), time).roll(-6, -1)
        torch.testing.assert_close(turned, net(fields, time), rtol=1e-3, atol=1e-5)


def test_the_answer_is_the_first_of_the_frames():
    torch.manual_seed(0)
    where = world(3, equiangular_grid(9, poles=True))
    net = Met2Net(where, embed=16, depth=2, levels=2).eval()
    fields = torch.randn(2, where.input_channels, *where.grid.shape)
    with torch.no_grad():
        frames = net.frames(fields)
        assert frames.shape == (2, 3, 3, *where.grid.shape)
        torch.testing.assert_close(net(fields, torch.zeros(2, dtype=torch.int64)), frames[:, 0])


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (PuYun, {"depth": 0}, "at least 1 block"),
        (PuYun, {"patch": 5, "fit": "exact"}, "Regrid to 30x65"),
        (Met2Net, {"hidden": 3}, "an even number of hidden"),
        (Met2Net, {"heads": 3}, "divides the 64 channels"),
    ],
)
def test_wrong_options_are_refused(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(world(2), **options)
