"""SFNO: published sizes, symmetries, both layouts of the block, every option."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from emulators.grid import equiangular_grid, gaussian_grid
from emulators.models.sfno import SFNO
from emulators.variables import Variable, VariableSet
from emulators.world import World


def size(net) -> int:
    return sum(p.numel() for p in net.parameters())


def channels(name: str, count: int) -> VariableSet:
    return VariableSet((Variable(name, "", tuple(range(count))),))


def inputs(world, batch=2, seed=0):
    fields = torch.randn(batch, world.input_channels, *world.grid.shape, generator=torch.Generator().manual_seed(seed))
    return fields, torch.zeros(batch, dtype=torch.int64)


@pytest.mark.parametrize(("embed", "millions"), [(256, 208.1), (384, 455.8)])
def test_published_sizes(embed, millions):
    """ACE and ACE2: 39 channels in, 44 out, 180x360 points."""
    world = World(
        gaussian_grid(180),
        channels("state", 32),
        np.timedelta64(6, "h"),
        forcing=channels("forcing", 7),
        diagnostic=channels("flux", 12),
    )
    options = OmegaConf.load(Path(__file__).parents[2] / "conf" / "model" / "sfno_ace.yaml")
    options.pop("_target_")
    with torch.device("meta"):
        net = SFNO(world, **{**options, "embed": embed})
    assert round(size(net) / 1e6, 1) == millions


def test_size_of_the_spectral_weights(small_world):
    net = SFNO(small_world(), embed=6, layers=3, modes_fraction=0.75)
    spectral = [p.shape for name, p in net.named_parameters() if "convolution" in name]
    assert spectral == [(6, 6, 6, 2)] * 3


@pytest.mark.parametrize("block", ["ace", "makani"])
@pytest.mark.parametrize("grid", ["gaussian", "equiangular"])
def test_turning_the_planet_turns_the_answer(small_world, block, grid):
    torch.manual_seed(0)
    world = small_world(grid)
    net = SFNO(world, block=block, embed=8, layers=2, position_embedding="none")
    fields, time = inputs(world)
    with torch.no_grad():
        torch.testing.assert_close(net(fields.roll(3, -1), time), net(fields, time).roll(3, -1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["instance", "instance_area", "layer"])
def test_turning_the_planet_upside_down_turns_the_answer(small_world, norm):
    """Half a turn about an axis in the equator: latitude and longitude change sign; for real spectral weights."""
    torch.manual_seed(0)
    world = small_world()
    net = SFNO(world, embed=8, layers=2, position_embedding="none", norm=norm)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "convolution" in name:
                parameter[..., 1] = 0

    def turned(x):
        return x.flip((-2, -1)).roll(1, -1)

    fields, time = inputs(world)
    with torch.no_grad():
        torch.testing.assert_close(net(turned(fields), time), turned(net(fields, time)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("block", "position", "norm"),
    list(product(["ace", "makani"], ["none", "grid", "spectral"], ["instance", "instance_area", "layer", "none"])),
)
def test_options_work_together_on_a_coarser_inner_grid(block, position, norm):
    world = World(equiangular_grid(9, 16, poles=True), channels("state", 3), np.timedelta64(6, "h"))
    torch.manual_seed(0)
    net = SFNO(
        world, block=block, embed=4, layers=3, scale_factor=2, position_embedding=position, norm=norm, mlp_ratio=1.5
    )
    fields, time = inputs(world)
    output = net(fields, time)
    output.square().mean().backward()
    assert output.shape == fields.shape
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_the_inner_grid_is_coarser_and_gaussian():
    world = World(equiangular_grid(16, 32), channels("state", 2), np.timedelta64(6, "h"))
    net = SFNO(world, embed=4, layers=3, scale_factor=2, modes_fraction=0.5)
    assert net.blocks[0].filter.source.grid is world.grid
    assert net.blocks[2].filter.goal.grid is world.grid
    inner = net.blocks[1].filter.source
    assert (inner.grid.kind, inner.grid.shape, inner.degrees) == ("gaussian", (8, 16), 4)


def test_without_the_big_skip_the_decoder_sees_only_the_blocks(small_world):
    world = small_world()
    for block in ("ace", "makani"):
        bare = SFNO(world, block=block, embed=4, layers=1, big_skip=False)
        whole = SFNO(world, block=block, embed=4, layers=1)
        width = 4 if block == "ace" else world.output_channels
        assert size(whole) - size(bare) == world.input_channels * width


def test_blocks_follow_their_formulas(small_world):
    """Both layouts, written out with complex numbers on (batch, channel, lat, lon) fields."""
    torch.manual_seed(0)
    world = small_world()
    fields = torch.randn(2, 4, *world.grid.shape)

    def filtered(block, x):
        a = block.filter.source.coefficients(x)
        weight = torch.view_as_complex(block.filter.convolution.weight)
        return block.filter.source.field(torch.einsum("bilm,lio->bolm", a, weight))

    def last(layer, x):
        return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def norm(x):
        return torch.nn.functional.instance_norm(x, eps=1e-6)

    gelu = torch.nn.functional.gelu
    for kind in ("ace", "makani"):
        block = SFNO(world, block=kind, embed=4, layers=1).blocks[0]
        with torch.no_grad():
            if kind == "ace":
                h = norm(fields)
                expected = h + last(block.mlp, norm(gelu(filtered(block, h) + last(block.skip, h))))
            else:
                expected = last(block.skip, fields) + norm(last(block.mlp, gelu(norm(filtered(block, fields)))))
            output = block(fields.permute(3, 2, 0, 1).contiguous()).permute(2, 3, 1, 0)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


def test_half_precision_leaves_the_transforms_in_single(small_world):
    world = small_world()
    torch.manual_seed(0)
    net = SFNO(world, embed=8, layers=2)
    fields, time = inputs(world)
    with torch.no_grad():
        exact = net(fields, time)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = net(fields, time)
    assert (half.float() - exact).square().mean() < 0.001 * exact.square().mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "fno"}, "'ace' or 'makani'"),
        ({"layers": 0}, "at least 1 layer"),
        ({"scale_factor": 8}, "scale_factor"),
        ({"modes_fraction": 0.0}, "modes_fraction"),
        ({"position_embedding": "sine"}, "position_embedding"),
        ({"norm": "batch"}, "norm"),
    ],
)
def test_bad_options_are_refused(small_world, options, message):
    with pytest.raises(ValueError, match=message):
        SFNO(small_world(), **options)
