"""Scales that a finer grid adds are carried by the law that they follow; larger ones are as the network has them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.grid import equiangular_grid, gaussian_grid
from emulators.grids.catalogue import named_grid
from emulators.state import State, Window
from emulators.steps.small_scales import SmallScales, carried_by, learned_degree
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

LEARNED, CASES = 3, 60
RAIN, STATE = 1, [0, 2, 3]  # rows of rain, and of temperature, vorticity and divergence
NAMES = ("temperature", "u_component_of_wind", "v_component_of_wind")
TIME = np.array(["2001-01-01"] * CASES, "datetime64[s]")


def world(grid=None, truncation=None) -> World:
    """Temperature, a wind, and rain, which is diagnostic."""
    channels = (*NAMES, "total_precipitation_6hr")
    return World(
        grid=grid or gaussian_grid(12),
        prognostic=VariableSet(tuple(Variable(name, truncation=truncation) for name in NAMES)),
        diagnostic=VariableSet((Variable(channels[-1]),)),
        timestep=np.timedelta64(6, "h"),
        scales={name: Scale(1.0, 1.0, 1.0) for name in channels},
        learned=LEARNED,
    )


def fields(small: SmallScales, seed: int, cases: int = CASES) -> torch.Tensor:
    """Random fields of all degrees, (case, channel, lat, lon)."""
    shape = 2 * small.harmonics.orders, small.harmonics.degrees, cases, 4
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    degree = torch.arange(shape[1])[None, :, None, None]
    order = torch.arange(shape[0])[:, None, None, None] // 2
    rows[1], rows[0, 0, :, 2:] = 0, 0
    return small._fields(rows * (degree >= order))


class Written(torch.nn.Module):
    """Writes given changes."""

    def __init__(self, changes: torch.Tensor) -> None:
        super().__init__()
        self.changes = changes

    def forward(self, fields, time):
        return self.changes


@pytest.mark.parametrize("grid", [gaussian_grid(12), equiangular_grid(13, poles=True)])
@pytest.mark.parametrize("damped", [False, True])
def test_two_bands_that_follow_a_law_are_carried_by_it(grid, damped):
    """Factors of each band are found; small scales of a step then are the truth, larger ones what the network wrote."""
    planet = world(grid)
    small = SmallScales(planet, LEARNED)
    before, changes, mean = (fields(small, seed) for seed in range(3))
    changes = 0 * changes if damped else changes
    degree = torch.arange(small.harmonics.degrees)[None, :, None, None]
    kept = torch.where(degree <= 6, 0.8, 0.3) * torch.ones(4)
    kept[..., RAIN] = 0  # which is not in the state before
    anomaly = small.rows(before - mean[:1])
    truth = mean[:1] + small._fields(kept * anomaly + 0.5 * small.rows(changes))
    state = State(before[:, :3], planet.prognostic, TIME)
    forcing = State(torch.zeros(CASES, 0, *grid.shape), VariableSet(), TIME + np.timedelta64(6, "h"))
    step = Step(planet, Written(torch.cat([changes[:, :3], changes[:, 3:] - 1], 1)))
    step.small_scales.damped = damped
    as_written = step((state,), forcing).values
    step.measure([Window((state,), (State(truth, planet.predicted, forcing.time),), (forcing,))])
    r, g = step.small_scales.slopes
    beyond = LEARNED + 1
    torch.testing.assert_close(r[beyond:, STATE], kept[0, beyond:, 0, STATE], rtol=0, atol=1e-3)
    assert (g[beyond:, STATE] - (0 if damped else 0.5)).abs().max() < 1e-3
    made = small.rows(step((state,), forcing).values)
    torch.testing.assert_close(made[:, beyond:], small.rows(truth)[:, beyond:], rtol=0, atol=2e-3)
    torch.testing.assert_close(made[:, :beyond], small.rows(as_written)[:, :beyond], rtol=0, atol=1e-4)


def test_damped_persistence_without_skill_of_the_network_is_that_of_the_data():
    """An AR(1) process of factor 0.6 is damped by it, whatever a network writes that knows nothing of it."""
    small = SmallScales(world(), LEARNED)
    before, noise, changes = (fields(small, seed, 400) for seed in range(3))
    truth = 0.6 * before + 0.8 * noise
    small.measure([(before[:, :3], before + changes, truth)])
    r, g = (slope[LEARNED + 1 :, STATE] for slope in small.slopes)
    assert (r - 0.6).abs().max() < 0.05
    assert g.abs().max() < 0.05
    assert (small.slopes[:, : LEARNED + 1] == 1).all()


def test_what_was_learned_ends_where_the_coarser_data_ended():
    coarse, fine = (replace(world(gaussian_grid(rows)), learned=None) for rows in (8, 16))
    assert learned_degree(coarse, fine) == 7
    assert learned_degree(replace(world(gaussian_grid(8), truncation=5), learned=None), fine) == 5
    assert learned_degree(fine, fine) is None
    assert learned_degree(fine, coarse) is None
    carried = replace(fine, learned=7)
    assert learned_degree(carried, fine) == 7  # tuned further on the same grid
    assert learned_degree(carried, coarse) is None
    assert World.from_plain(carried.plain()).learned == 7
    cells, more = (replace(fine, grid=named_grid(f"healpix:{n}")) for n in (2, 8))
    assert learned_degree(more, cells) is None
    assert learned_degree(coarse, more) is None
    assert "as the network writes them" in carried_by(None, "regressed", coarse, more)["small scales"]
    assert carried_by(None, "regressed", more, coarse) == {}
