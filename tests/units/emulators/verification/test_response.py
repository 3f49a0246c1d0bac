"""The response to a forcing: known sensitivities, e-folding times and patterns are found again."""

import numpy as np
import pytest
import torch

import emul
from data_pipelines.files.netcdf import stored_form, write_netcdf
from emulators.grid import equiangular_grid
from emulators.scores.climate import e_folding, pattern_correlation, sensitivity
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.verification.climate import ClimateCard
from emulators.verification.climate_dataset import climate_dataset, climate_response
from emulators.world import World

GRID = equiangular_grid(6, 8)
VARIABLES = VariableSet((Variable("2m_temperature", "K"), Variable("top_net_radiation", "W m-2")))
WEIGHTS = GRID.weights.ravel() / GRID.weights.sum()


def test_the_sensitivity_of_a_line():
    warming = np.array([1.0, 1.8, 2.5, 3.0, 3.2])
    found = sensitivity(warming, 3.7 - 1.1 * warming)
    assert found == pytest.approx((3.7, 1.1, 3.7 / 1.1, 0.0), abs=1e-9)
    random = np.random.default_rng(0)
    tries = [sensitivity(warming, 3.7 - 1.1 * warming + 0.1 * random.normal(size=5)) for _ in range(400)]
    assert np.std([one.warming for one in tries]) == pytest.approx(np.mean([one.error for one in tries]), rel=0.25)
    with pytest.raises(ValueError, match="3 years"):
        sensitivity(warming[:2], warming[:2])


def test_the_time_of_one_layer_of_heat():
    times = np.arange(15.0, 360.0, 30.0)
    assert e_folding(times, 4.0 * (1 - np.exp(-times / 90.0))) == pytest.approx((4.0, 90.0), rel=2e-3)
    assert e_folding(times, -2.0 * (1 - np.exp(-times / 30.0))) == pytest.approx((-2.0, 30.0), rel=2e-3)
    assert np.isnan(e_folding(times, np.ones(12))[1])  # all of it at once
    with pytest.raises(ValueError, match="3 times"):
        e_folding(times[:2], times[:2])


def test_the_correlation_of_patterns_counts_areas():
    random = np.random.default_rng(0)
    field, other = random.normal(size=(2, WEIGHTS.size))
    assert pattern_correlation(field, 3.0 * field + 7.0, WEIGHTS) == pytest.approx(1.0)
    want = np.cov(field, other, aweights=WEIGHTS)
    assert pattern_correlation(field, other, WEIGHTS) == pytest.approx(want[0, 1] / np.sqrt(want[0, 0] * want[1, 1]))
    assert np.isnan(pattern_correlation(field, np.ones_like(field), WEIGHTS))
    field[3] = np.nan
    assert np.isfinite(pattern_correlation(field, other, WEIGHTS))


def climate(size, days, pattern, years=5, seed=0):
    """Climates in which T = size (1 - exp(-t / days)) pattern beside a season, and N = 4 - <T>; of both sources."""
    times = np.arange("2001", str(2001 + years), np.timedelta64(15, "D"), dtype="datetime64[D]").astype("datetime64[s]")
    past = (times - times[0]) / np.timedelta64(1, "D")
    season = 0.5 * np.cos(2 * np.pi * past / 365.25)[:, None, None]
    card = ClimateCard(World(GRID, VARIABLES, np.timedelta64(15, "D")), VARIABLES)
    states = []
    for role in range(2):
        reached = size[role] * -np.expm1(-past / days[role])
        noise = 0.02 * np.random.default_rng(seed + role).normal(size=(times.size, *GRID.shape))
        warmth = 280.0 + season + noise + reached[:, None, None] * pattern[role]
        gain = (4.0 - reached)[:, None, None] + 0.0 * warmth
        states.append(State(torch.from_numpy(np.stack([warmth, gain], axis=1)), VARIABLES, times))
    card.add(*states)
    return climate_dataset(card)


def test_size_pattern_and_time_of_a_response(tmp_path):
    polar = 1.0 + 0.5 * (3 * np.sin(np.deg2rad(GRID.latitude)) ** 2 - 1)[:, None] * np.ones(GRID.shape)
    polar = polar / (WEIGHTS @ polar.ravel())
    tilted = polar + 0.3 * np.cos(np.deg2rad(GRID.longitude))
    run = climate((4.4, 4.0), (400.0, 300.0), (tilted, polar))
    control = climate((0.0, 0.0), (1.0, 1.0), (polar, polar), years=3, seed=7)
    control["top_net_radiation_monthly_mean"] = control["top_net_radiation_monthly_mean"] * 0.0
    found = climate_response(run, control, "2m_temperature", imbalance={"top_net_radiation": 1.0})
    np.testing.assert_allclose(found["warming_approached"], [4.4, 4.0], rtol=0.01)
    np.testing.assert_allclose(found["e_folding_time"], [400.0, 300.0], rtol=0.03)
    np.testing.assert_allclose(found["pattern"].sel(source="truth"), polar, atol=0.02)
    assert float(found["pattern_correlation"]) == pytest.approx(
        pattern_correlation(tilted.ravel(), polar.ravel(), WEIGHTS), abs=0.01
    )
    np.testing.assert_allclose(found["sensitivity"], 4.0, rtol=0.01)
    np.testing.assert_allclose(found["feedback"], 1.0, rtol=0.03)
    assert found.attrs == {"variable": "2m_temperature", "region": "global"}
    for name, dataset in (("run", run), ("control", control)):
        write_netcdf(tmp_path / f"{name}.nc", stored_form(dataset, name))
    stored = emul.response(tmp_path / "run.nc", tmp_path / "control.nc", "2m_temperature")
    np.testing.assert_allclose(stored["e_folding_time"], found["e_folding_time"], rtol=1e-6)
    assert "sensitivity" not in climate_response(run, control, "2m_temperature")
    with pytest.raises(ValueError, match=r"lacks \[1, 2\]"):
        climate_response(run, control.isel(month=slice(2, 12)), "2m_temperature")
    with pytest.raises(KeyError):
        climate_response(run, control, "temperature")
