"""Column sums against integrals known in closed form."""

import numpy as np
import pytest
import torch

from emulators.constants import GRAVITY
from emulators.grid import equiangular_grid, gaussian_grid
from emulators.physics.columns import area_mean, column_water, dry_air, has_closed_columns, layer_thickness
from emulators.variables import Variable, VariableSet
from emulators.world import Vertical

HYBRID = Vertical("hybrid", (200.0, 5_000.0, 3_000.0, 0.0), (0.0, 0.1, 0.6, 1.0))


def test_layers_fill_the_column_between_its_top_and_the_surface():
    pressure = torch.full((2, 3, 4), 98_000.0)
    thickness = layer_thickness(pressure, HYBRID)
    assert thickness.shape == (2, 3, 3, 4)
    assert thickness.dtype == torch.float64
    assert torch.allclose(thickness.sum(-3), torch.tensor(98_000.0 - 200.0, dtype=torch.float64))


def test_dry_air_and_water_make_up_the_column():
    generator = torch.Generator().manual_seed(0)
    pressure = 90_000.0 + 1e4 * torch.rand(2, 3, 4, generator=generator)
    humidity = 0.02 * torch.rand(2, 3, 3, 4, generator=generator)
    total = dry_air(humidity, pressure, HYBRID) + column_water(humidity, pressure, HYBRID)
    assert torch.allclose(total, (pressure.double() - 200.0) / GRAVITY, rtol=1e-14)


def test_uniform_humidity_gives_its_share_of_the_mass():
    sigma = Vertical("sigma", (0.0, 0.0, 0.0), (0.0, 0.4, 1.0))
    water = column_water(torch.full((2, 3, 4), 0.01), torch.full((3, 4), 1e5), sigma)
    assert torch.allclose(water, torch.tensor(0.01 * 1e5 / GRAVITY, dtype=torch.float64), rtol=1e-6)


def test_the_mean_is_by_area_not_by_point():
    grid = equiangular_grid(8, 16, poles=True)
    sine_squared = torch.from_numpy(np.sin(np.deg2rad(grid.latitude)) ** 2)[:, None].expand(grid.shape)
    by_area = area_mean(sine_squared, grid.weights).item()
    assert abs(by_area - 1 / 3) < 0.02
    assert abs(sine_squared.mean().item() - 1 / 3) > 0.1
    exact = gaussian_grid(8)
    sine_squared = torch.from_numpy(np.sin(np.deg2rad(exact.latitude)) ** 2)[:, None].expand(exact.shape)
    assert area_mean(sine_squared, exact.weights).item() == pytest.approx(1 / 3, abs=1e-14)


def test_budgets_need_every_layer_and_the_surface_pressure():
    q, ps = Variable("specific_humidity", "kg kg-1", (1, 2, 3)), Variable("surface_pressure", "Pa")
    assert has_closed_columns(VariableSet((q, ps)), HYBRID)
    assert not has_closed_columns(VariableSet((q,)), HYBRID)
    assert not has_closed_columns(VariableSet((Variable("specific_humidity", "kg kg-1", (1, 2)), ps)), HYBRID)
    assert not has_closed_columns(VariableSet((q, ps)), Vertical("pressure"))
    with pytest.raises(ValueError, match="as many coefficients"):
        layer_thickness(torch.ones(3, 4), Vertical("hybrid", (0.0,), (0.0, 1.0)))
