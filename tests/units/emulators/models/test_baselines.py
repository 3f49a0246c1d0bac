"""Persistence, climatology and linear regression against what they must give in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.models.climatology import Climatology
from emulators.models.linear import Linear
from emulators.models.persistence import Persistence
from emulators.state import State
from emulators.statistics.climatology import HarmonicClimatology, resolved_harmonics
from emulators.steps.step import Step

HOURS = np.datetime64("2001-01-01T00", "s") + np.arange(0, 2 * 365 * 24, 6) * np.timedelta64(3600, "s")


def states(world, history=1):
    generator = torch.Generator().manual_seed(0)
    time = np.array(["2001-03-01T00", "2001-09-01T12"], "datetime64[s]")

    def state(variables, when):
        return State(torch.randn(2, variables.size, *world.grid.shape, generator=generator), variables, when)

    past = tuple(state(world.prognostic, world.after(time, n - history + 1)) for n in range(history))
    return past, state(world.forcing, world.after(time))


@pytest.mark.parametrize("output", ["residual", "absolute"])
@pytest.mark.parametrize("history", [1, 2])
def test_persistence_repeats_the_last_state(small_world, output, history):
    world = small_world(history=history)
    past, forcing = states(world, history)
    forecast = Step(world, Persistence(world, output=output), output=output)(past, forcing)
    last = forecast.select(world.prognostic.names).values
    torch.testing.assert_close(last, past[-1].values, rtol=0, atol=1e-5)
    diagnostic = forecast.select(world.diagnostic.names).values
    mean = torch.as_tensor(world.scale(world.diagnostic, "mean"))[:, None, None].expand_as(diagnostic)
    torch.testing.assert_close(diagnostic, mean)


def test_persistence_knows_its_outputs(small_world):
    with pytest.raises(ValueError, match="'residual' or 'absolute'"):
        Persistence(small_world(), output="tendency")


def cycles(times):
    """Two channels on 2x3 points with a year, a day and their product."""
    seconds = torch.from_numpy(times.astype("datetime64[s]").astype(np.int64)).double()
    year, day = 2 * np.pi * seconds / 31_556_925, 2 * np.pi * seconds / 86_400
    first = 3.0 + 2.0 * torch.cos(year) - torch.sin(2 * year) + 0.5 * torch.sin(day) * torch.cos(year)
    second = -1.0 + 4.0 * torch.sin(year) + 0.3 * torch.cos(2 * day)
    where = torch.arange(1.0, 7.0).view(2, 3)
    return torch.stack([first, second], 1)[..., None, None] * where


def test_climatology_finds_the_cycles_whatever_the_batches():
    climatology = HarmonicClimatology(annual=2, diurnal=2)
    generator = np.random.default_rng(0)
    for part in np.array_split(generator.permutation(HOURS), 7):
        climatology.accumulate(part, cycles(part).float())
    later = HOURS[:50] + np.timedelta64(4 * 365, "D")
    torch.testing.assert_close(
        climatology.solve().evaluate(later.reshape(5, 10)),
        cycles(later).float().view(5, 10, 2, 2, 3),
        rtol=0,
        atol=1e-3,
    )


def test_climatology_leaves_out_what_a_short_record_cannot_tell():
    climatology = HarmonicClimatology(annual=2, diurnal=1)
    noise = torch.randn(120, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    climatology.accumulate(HOURS[:120], 5.0 + noise)
    normal = climatology.solve().evaluate(HOURS)
    assert normal[:120].sub(5.0).abs().max() < 2.0
    assert normal.sub(5.0).abs().max() < 20.0


def test_what_a_climatology_refuses():
    climatology = HarmonicClimatology(annual=1, diurnal=0)
    with pytest.raises(ValueError, match="accumulate before solve"):
        climatology.solve()
    with pytest.raises(ValueError, match="solved before"):
        climatology.evaluate(HOURS)
    with pytest.raises(ValueError, match="at least 0"):
        HarmonicClimatology(annual=-1)
    with pytest.raises(ValueError, match="a field a time"):
        climatology.accumulate(HOURS[:3], torch.zeros(2, 1, 2, 2))


@pytest.mark.parametrize(
    ("timestep", "expected"),
    [
        (np.timedelta64(6, "h"), (2, 2)),
        (np.timedelta64(12, "h"), (2, 1)),
        (np.timedelta64(1, "D"), (2, 0)),
        (np.timedelta64(1, "M"), (2, 0)),
        (np.timedelta64(6, "M"), (1, 0)),
        (np.timedelta64(12, "M"), (0, 0)),
        (np.timedelta64(365, "D"), (0, 0)),
    ],
)
def test_harmonics_that_a_timestep_can_show(timestep, expected):
    assert resolved_harmonics(timestep, 2, 2) == expected
    assert HarmonicClimatology.for_timestep(timestep).annual == expected[0]


def test_climatology_as_a_model_is_the_climatology(small_world):
    world = small_world()
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(len(HOURS[:400]), world.output_channels, *world.grid.shape, generator=generator)
    seconds = torch.from_numpy(HOURS[:400].astype(np.int64))
    net = Climatology(world, annual=1, diurnal=1)
    net.fit((torch.empty(0), seconds[i : i + 100], target[i : i + 100]) for i in range(0, 400, 100))
    expected = HarmonicClimatology(1, 1)
    expected.accumulate(HOURS[:400], target)
    torch.testing.assert_close(
        net(torch.empty(0), seconds[:5]), expected.solve().evaluate(HOURS[:5]), rtol=1e-5, atol=1e-5
    )


def test_linear_regression_is_the_area_weighted_least_squares(small_world):
    """At one point and without penalty: numpy's lstsq on the stacked points, a bias for each half of the planet."""
    world = small_world()
    generator = torch.Generator().manual_seed(0)
    fields = torch.randn(4, world.input_channels, *world.grid.shape, generator=generator)
    target = torch.randn(4, world.output_channels, *world.grid.shape, generator=generator)
    net = Linear(world, kernel=1, bands=2, ridge=0.0)
    net.fit([(fields[:3], torch.zeros(3), target[:3]), (fields[3:], torch.zeros(1), target[3:])])
    north = (torch.arange(8) < 4).float()[:, None].expand(8, 16)
    bands = torch.stack([north, 1 - north]).expand(4, 2, 8, 16)
    x = torch.cat([fields, bands], 1).movedim(1, -1).flatten(0, 2).double().numpy()
    y = target.movedim(1, -1).flatten(0, 2).double().numpy()
    root = np.sqrt(np.tile(world.grid.weights.ravel(), 4))[:, None]
    solution = np.linalg.lstsq(root * x, root * y, rcond=None)[0]
    np.testing.assert_allclose(net.weight[:, :, 0, 0].detach().T, solution[:-2], atol=1e-5)
    np.testing.assert_allclose(net.bias.detach(), solution[-2:], atol=1e-5)


@pytest.mark.parametrize("grid", ["gaussian", "limited_area"])
def test_linear_regression_finds_a_stencil(small_world, grid):
    world = small_world(grid)
    torch.manual_seed(0)
    truth = Linear(world, kernel=3, bands=3)
    torch.nn.init.normal_(truth.weight)
    torch.nn.init.normal_(truth.bias)
    fields, time = torch.randn(6, world.input_channels, *world.grid.shape), torch.zeros(6, dtype=torch.int64)
    fitted = Linear(world, kernel=3, bands=3, ridge=0.0)
    with torch.no_grad():
        fitted.fit([(fields, time, truth(fields, time))])
        torch.testing.assert_close(fitted.weight, truth.weight, rtol=0, atol=1e-4)
        torch.testing.assert_close(fitted.bias, truth.bias, rtol=0, atol=1e-4)


def test_the_ridge_shrinks_the_weights_and_not_the_bias(small_world):
    world = small_world()
    fields = torch.randn(2, world.input_channels, *world.grid.shape, generator=torch.Generator().manual_seed(0))
    target = 3.0 + fields[:, :1].expand(-1, world.output_channels, -1, -1)
    norms = []
    for ridge in (0.0, 1.0, 1e6):
        net = Linear(world, kernel=1, ridge=ridge)
        net.fit([(fields, torch.zeros(2), target)])
        norms.append(net.weight.norm().item())
    assert norms[0] > 1.5 * norms[1] > 100 * norms[2]
    assert (net.bias - 3.0).abs().max() < 0.2


@pytest.mark.parametrize("options", [{"kernel": 2}, {"kernel": 9}, {"bands": 0}, {"bands": 9}, {"ridge": -1.0}])
def test_linear_refuses_bad_options(small_world, options):
    with pytest.raises(ValueError, match="Expected an odd kernel"):
        Linear(small_world(), **options)


def test_linear_needs_an_example(small_world):
    with pytest.raises(ValueError, match="at least one example"):
        Linear(small_world()).fit([])
