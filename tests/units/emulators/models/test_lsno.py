"""LSNO: the published size, symmetries, every option, grids that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.models.lsno import LSNO
from emulators.variables import Variable, VariableSet
from emulators.world import World
from places import CONF

SMALL = {"embed": 8, "layers": 2, "scale_factor": 2}


def world(grid: LatLonGrid, channels: int = 3) -> World:
    state = VariableSet((Variable("state", "", tuple(range(channels))),))
    return World(grid, prognostic=state, timestep=np.timedelta64(6, "h"))


def outcome(net: torch.nn.Module, fields: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net(fields, torch.zeros(len(fields), dtype=torch.int64))


def fields(grid: LatLonGrid, channels: int = 3) -> torch.Tensor:
    return torch.randn(2, channels, *grid.shape, generator=torch.Generator().manual_seed(0))


def test_published_size():
    """Counted with the example of torch-harmonics 0.8, complex numbers as two."""
    options = OmegaConf.to_container(OmegaConf.load(CONF / "model" / "lsno.yaml"))
    options.pop("_target_")
    with torch.device("meta"):
        net = LSNO(world(equiangular_grid(128, 256, poles=True)), **options)
    assert sum(p.numel() for p in net.parameters()) == 299_200


@pytest.mark.parametrize(
    "grid", [gaussian_grid(8), equiangular_grid(8), equiangular_grid(9, poles=True)], ids=lambda g: g.kind
)
def test_it_turns_with_the_planet(grid):
    net = LSNO(world(grid), **SMALL)
    x = fields(grid)
    torch.testing.assert_close(outcome(net, x.roll(4, 3)), outcome(net, x).roll(4, 3), rtol=1e-5, atol=1e-5)


def test_the_first_meridian_is_any():
    """A grid whose columns start elsewhere gives the same."""
    grid = gaussian_grid(8)
    shifted = LatLonGrid(grid.latitude, grid.longitude + 11.25)
    options = {**SMALL, "upsampling": "spectral"}
    torch.manual_seed(0)
    net = LSNO(world(grid), **options)
    moved = LSNO(world(shifted), **options)
    moved.load_state_dict(net.state_dict())
    x = fields(grid)
    torch.testing.assert_close(outcome(moved, x), outcome(net, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"basis": "morlet", "kernel": [2, 2]},
        {"basis": "zernike", "kernel": [2], "encoder_kernel": [2]},
        {"basis_norm": "individual"},
        {"basis_norm": "support"},
        {"basis_norm": "none"},
        {"encoder_kernel": [5, 3]},
        {"kernel": [5, 3]},
        {"global_every": 1},
        {"layers": 3},
        {"mlp_ratio": 1.0},
        {"norm": "layer"},
        {"modes_fraction": 0.5},
        {"filter_bias": True},
        {"upsampling": "spectral"},
        {"position_embedding": "grid"},
        {"scale_factor": 1},
        {"embed": 4},
    ],
    ids=str,
)
def test_every_option_matters(change):
    grid = equiangular_grid(16)
    generator = torch.Generator().manual_seed(1)
    outcomes = []
    for options in (SMALL, {**SMALL, **change}):
        torch.manual_seed(0)
        net = LSNO(world(grid), **options)
        with torch.no_grad():
            for parameter in net.parameters():
                if not parameter.any():
                    parameter.add_(torch.randn(parameter.shape, generator=generator))
        outcomes.append(outcome(net, fields(grid)))
    assert (outcomes[0] - outcomes[1]).abs().max() > 1e-3


def test_at_the_resolution_of_the_data_nothing_is_interpolated():
    assert isinstance(LSNO(world(gaussian_grid(8)), **{**SMALL, "scale_factor": 1}).upsample, torch.nn.Identity)


@pytest.mark.parametrize(
    ("grid", "change", "message"),
    [
        (gaussian_grid(8), {"scale_factor": 3}, "to divide the columns"),
        (gaussian_grid(8), {"scale_factor": 0}, "scale_factor to be at least 1"),
        (gaussian_grid(8), {"scale_factor": 8}, "to leave 2 rows and 4 columns"),
        (gaussian_grid(8), {"modes_fraction": 0.0}, "modes_fraction in"),
        (gaussian_grid(8), {"upsampling": "cubic"}, "upsampling to be one of linear, spectral"),
        (gaussian_grid(8), {"embed": 0, "global_every": 0}, "got embed 0, global_every 0, mlp_ratio x embed 0"),
        (LatLonGrid(np.linspace(70.0, 30.0, 9), np.linspace(-30.0, 30.0, 13)), {}, "limited_area"),
    ],
)
def test_refusals(grid, change, message):
    with pytest.raises(ValueError, match=message):
        LSNO(world(grid), **{**SMALL, **change})
