"""Truncation of what a step predicts: fields of the data pass, finer scales do not, and winds stay vectors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.layers.spectral_layers import Truncation
from emulators.sphere.calculus import SphericalCalculus
from emulators.state import State
from emulators.steps.step import Step, limits_of
from emulators.variables import Variable, VariableSet, wind_pairs
from emulators.world import Scale, World

LIMIT = 7
NAMES = ("temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity")


def world(grid: LatLonGrid | None = None, declared: tuple[str, ...] = NAMES[:3]) -> World:
    levels = (500.0, 850.0)
    variables = [Variable(n, "", levels, truncation=LIMIT if n in declared else None) for n in NAMES]
    prognostic, rain = VariableSet(tuple(variables)), VariableSet((Variable("total_precipitation_6hr", "m"),))
    means = {c: 280.0 if "temperature" in c else 5.0 for c in (*prognostic.channels, *rain.channels)}
    return World(
        grid=grid or gaussian_grid(16),
        prognostic=prognostic,
        diagnostic=rain,
        timestep=np.timedelta64(6, "h"),
        scales={name: Scale(mean, 2.0, 0.5) for name, mean in means.items()},
    )


def spectral_fields(planet: World, limit: int, batch: int = 3) -> torch.Tensor:
    """Random scalars and winds up to a total wavenumber, (batch, predicted channel, lat, lon); mean of scalars 280."""
    calculus = SphericalCalculus(planet.grid, limit + 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)

    def coefficients(count: int) -> torch.Tensor:
        waves = torch.randn(limit + 1, 2, limit + 1, count, generator=generator, dtype=torch.float64)
        kept = torch.arange(limit + 1)[:, None] <= torch.arange(limit + 1)
        waves[0, 1] = 0.0
        return (waves * kept[:, None, :, None]).reshape(2 * (limit + 1), limit + 1, count)

    scalars = calculus.synthesis(coefficients(batch * 5)) + 280.0
    turning, spreading = coefficients(batch * 2), coefficients(batch * 2)
    turning[0, 0], spreading[0, 0] = 0.0, 0.0
    u, v = calculus.winds(turning * 1e-5, spreading * 1e-5)
    rows = [field.permute(2, 1, 0).reshape(batch, -1, *planet.grid.shape) for field in (scalars, u, v)]
    return torch.cat([rows[0][:, :2], rows[1], rows[2], rows[0][:, 2:]], dim=1).float()


@pytest.mark.parametrize("grid", [gaussian_grid(16), equiangular_grid(16), equiangular_grid(17, poles=True)])
def test_fields_of_the_data_pass_unchanged_and_finer_scales_do_not(grid):
    planet = world(grid)
    truncation = Truncation(planet, limits_of(planet, "data"))
    within, beyond = spectral_fields(planet, LIMIT), spectral_fields(planet, 10)
    torch.testing.assert_close(truncation(within), within, rtol=0, atol=2e-4)
    kept = truncation(beyond)
    torch.testing.assert_close(truncation(kept), kept, rtol=0, atol=2e-4)
    changed = (kept - beyond).abs().amax(dim=(0, 2, 3))
    assert (changed[:6] > 0.1).all()  # temperature and winds
    assert (changed[6:] == 0).all()  # humidity and rain, of which no limit is declared
    weights = torch.from_numpy(grid.weights)
    means = ((kept - beyond).double() * weights).mean(dim=(2, 3))
    assert means[:, :2].abs().max() < (1e-4 if grid.kind == "gaussian" else 0.02)  # area means of scalars


def test_winds_keep_vorticity_and_divergence_up_to_the_limit():
    """A filter of either component alone would not: u and v end at no degree where vorticity and divergence do."""
    planet = world()
    calculus = SphericalCalculus(planet.grid, 11, dtype=torch.float64)
    beyond = spectral_fields(planet, 10)
    kept = Truncation(planet, limits_of(planet, "data"))(beyond)

    def rotation(values: torch.Tensor) -> torch.Tensor:
        u, v = (values[:, c].double().flatten(0, 1).permute(2, 1, 0) for c in (slice(2, 4), slice(4, 6)))
        return torch.stack(calculus.vorticity_divergence(u, v))

    before, after = rotation(beyond), rotation(kept)
    scale = before.abs().max()
    torch.testing.assert_close(after[:, :, : LIMIT + 1] / scale, before[:, :, : LIMIT + 1] / scale, rtol=0, atol=1e-5)
    assert (after[:, :, LIMIT + 1 :].abs() / scale).max() < 1e-5
    assert (before[:, :, LIMIT + 1 :].abs() / scale).max() > 0.1


class Noise(torch.nn.Module):
    """Writes noise of all scales."""

    def __init__(self, planet: World) -> None:
        super().__init__()
        self.output = torch.nn.Parameter(torch.randn(1, planet.output_channels, *planet.grid.shape))

    def forward(self, fields, time):
        return self.output.expand(fields.shape[0], -1, -1, -1)


@pytest.mark.parametrize(("option", "limited"), [("data", 6), (None, 0), (5, 8)])
def test_a_step_predicts_no_finer_scales_than_its_option_says(option, limited):
    planet = world()
    step = Step(planet, Noise(planet), truncation=option)
    time = np.array(["2001-01-01"] * 2, "datetime64[s]")
    before = State(spectral_fields(planet, 4, 2)[:, :8], planet.prognostic, time)
    forcing = State(torch.zeros(2, 0, *planet.grid.shape), VariableSet(), time + np.timedelta64(6, "h"))
    after = step((before,), forcing).values
    untouched = (after - step.truncation(after)).abs().amax(dim=(0, 2, 3))
    raw = step.outputs(step.network(before.values, None), before.values)
    assert [bool(change > 0.05) for change in (after - raw).abs().amax(dim=(0, 2, 3))] == [True] * limited + [False] * (
        9 - limited
    )
    assert untouched.max() < 2e-4


def test_gradients_pass_and_a_twin_in_double_precision_agrees():
    planet = world()
    values = spectral_fields(planet, 10).requires_grad_()
    truncation = Truncation(planet, limits_of(planet, "data"))
    truncation(values).square().sum().backward()
    assert torch.isfinite(values.grad).all()
    twin = Truncation(planet, limits_of(planet, "data")).double()
    torch.testing.assert_close(twin(values.detach().double()).float(), truncation(values).detach(), rtol=0, atol=2e-4)


def test_what_cannot_be_projected_is_left_or_refused():
    planet = world()
    with pytest.raises(ValueError, match=r"step.truncation must be 'data'"):
        limits_of(planet, "grid")
    with pytest.raises(ValueError, match="at least 1"):
        limits_of(planet, 0)
    without = replace(planet, prognostic=planet.prognostic.select(["u_component_of_wind", "temperature"]))
    parts = Truncation(without, limits_of(without, "data")).parts
    assert [winds for _, winds in parts] == [False]  # one component of the wind is no vector
    coarse = world(gaussian_grid(8))
    assert not Truncation(coarse, limits_of(coarse, "data")).parts  # the grid holds no finer scales
    other = VariableSet((Variable("u_component_of_wind", "", (500.0,)), Variable("v_component_of_wind", "", (850.0,))))
    assert not wind_pairs(other)
