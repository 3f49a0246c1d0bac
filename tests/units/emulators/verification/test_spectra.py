"""Spectra of forecasts: against a direct computation, in parts, with gaps and members; resolution of a known filter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.constants import EARTH_RADIUS
from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.grids.catalogue import named_grid
from emulators.scores.spectral_errors import image_power, spectral_divergence, spectral_residual
from emulators.sphere.transform import SphericalHarmonics
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.verification.spectra import LeadSpectra
from emulators.world import World

VARIABLES = VariableSet((Variable("temperature", "K", (500.0, 850.0)), Variable("2m_temperature", "K")))
LEADS = [np.timedelta64(hours, "h") for hours in (6, 24)]


def world(grid=None) -> World:
    return World(grid or gaussian_grid(8), VARIABLES, np.timedelta64(6, "h"))


def states(planet: World, seed: int, *lead: int) -> State:
    generator = torch.Generator().manual_seed(seed)
    values = 280.0 + torch.randn(*lead, 3, *planet.grid.shape, generator=generator)
    return State(values, VARIABLES, np.full(lead[-1], np.datetime64("2000-01-01", "s")))


def powers(grid, field, other) -> np.ndarray:
    """Re sum_m a conj(b) / (4 pi) of two fields (lat, lon), order by order."""
    harmonics = SphericalHarmonics(grid, dtype=torch.float64)
    a, b = (harmonics.coefficients(f.double()[None])[0].numpy() for f in (field, other))
    products = (a * b.conj()).real
    return (products[:, 0] + 2 * products[:, 1:].sum(axis=1)) / (4 * np.pi)


@pytest.mark.parametrize("grid", [gaussian_grid(8), equiangular_grid(8), equiangular_grid(9, poles=True)])
def test_against_a_direct_computation(grid):
    planet = world(grid)
    forecast, truth = states(planet, 1, 4), states(planet, 2, 4)
    spectra = LeadSpectra(planet, VARIABLES, LEADS)
    spectra.add(forecast, truth, LEADS[1])
    spectra.add(forecast, truth, np.timedelta64(12, "h"))  # not asked for
    ours, theirs, coherence = spectra.means()
    for channel in range(3):
        pairs = [(forecast.values[i, channel], truth.values[i, channel]) for i in range(4)]
        a = np.mean([powers(grid, f, f) for f, _ in pairs], axis=0)
        b = np.mean([powers(grid, o, o) for _, o in pairs], axis=0)
        both = np.mean([powers(grid, f, o) for f, o in pairs], axis=0)
        np.testing.assert_allclose(ours[1, channel], a, rtol=1e-10)
        np.testing.assert_allclose(theirs[1, channel], b, rtol=1e-10)
        np.testing.assert_allclose(coherence[1, channel], both / np.sqrt(a * b), rtol=1e-8, atol=1e-10)
    assert np.isnan(ours[0]).all()
    assert not spectra.counted[0].any()
    assert np.isnan(spectra.dataset()["temperature_effective_resolution"][0]).all()


def test_powers_add_up_to_the_mean_square():
    planet = world(gaussian_grid(12))
    waves = torch.randn(3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tril()
    fields = SphericalHarmonics(planet.grid, dtype=torch.float64).field(waves.to(torch.complex128))[None]
    state = State(fields, VARIABLES, np.array(["2000-01-01"], "datetime64[s]"))
    spectra = LeadSpectra(planet, VARIABLES, LEADS[:1])
    spectra.add(state, state, LEADS[0])
    expected = (fields[0].square() * torch.from_numpy(planet.grid.weights)).mean(dim=(1, 2))
    np.testing.assert_allclose(spectra.means()[0][0].sum(axis=-1), expected, rtol=1e-12)
    np.testing.assert_allclose(spectra.means()[2][0], 1.0, rtol=1e-12)


def test_parts_add_up_to_the_whole():
    planet = world()
    forecast, truth = states(planet, 1, 6), states(planet, 2, 6)
    whole, merged = (LeadSpectra(planet, VARIABLES, LEADS) for _ in range(2))
    whole.add(forecast, truth, LEADS[0])
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        part = LeadSpectra(planet, VARIABLES, LEADS)
        few = [State(s.values[start:stop], VARIABLES, s.time[start:stop]) for s in (forecast, truth)]
        part.add(*few, LEADS[0])
        merged.add_partial(part.partial())
    for one, other in zip(whole.means(), merged.means(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)
    with pytest.raises(ValueError, match="same leads"):
        merged.add_partial(LeadSpectra(planet, VARIABLES, LEADS[:1]).partial())


def test_fields_with_gaps_are_left_out():
    planet = world()
    forecast, truth = states(planet, 1, 3), states(planet, 2, 3)
    forecast.values[1, 0, 2, 3] = torch.nan
    truth.values[2, 2, 0, 0] = torch.nan
    spectra, kept = (LeadSpectra(planet, VARIABLES, LEADS[:1]) for _ in range(2))
    spectra.add(forecast, truth, LEADS[0])
    kept.add(*(State(s.values[[0, 2]], VARIABLES, s.time[[0, 2]]) for s in (forecast, truth)), LEADS[0])
    np.testing.assert_allclose(spectra.means()[0][0, 0], kept.means()[0][0, 0], rtol=1e-12)
    assert np.isfinite(spectra.means()[0]).all()
    assert spectra.dataset().attrs["left_out"] == 2


def test_members_are_averaged_by_their_spectra():
    planet = world()
    forecast, truth = states(planet, 1, 3, 2), states(planet, 2, 2)
    spectra = LeadSpectra(planet, VARIABLES, LEADS[:1])
    spectra.add(forecast, truth, LEADS[0])
    parts = []
    for member in forecast.values:
        one = LeadSpectra(planet, VARIABLES, LEADS[:1])
        one.add(State(member, VARIABLES, truth.time), truth, LEADS[0])
        parts.append(one.means())
    np.testing.assert_allclose(spectra.means()[0], np.mean([p[0] for p in parts], axis=0), rtol=1e-12)
    np.testing.assert_allclose(spectra.means()[1], parts[0][1], rtol=1e-12)
    mean, merged = (LeadSpectra(planet, VARIABLES, LEADS[:1]) for _ in range(2))
    mean.add(State(forecast.values.double().mean(0), VARIABLES, truth.time), truth, LEADS[0])
    np.testing.assert_allclose(spectra.mean_power(), mean.means()[0], rtol=1e-10)
    assert mean.mean_power() is None
    merged.add_partial(spectra.partial())
    sources = merged.dataset()["source"].values.tolist(), mean.dataset()["source"].values.tolist()
    assert sources == (["forecast", "truth", "ensemble_mean"], ["forecast", "truth"])


@pytest.mark.parametrize(("threshold", "degree"), [(0.5, 5), (0.2, 9), (0.8, 3)])
def test_resolution_of_a_known_filter(threshold, degree):
    planet = world(gaussian_grid(16))
    harmonics = SphericalHarmonics(planet.grid, dtype=torch.float64)
    truth = states(planet, 1, 2)
    passed = torch.tensor([1.0] * 4 + [0.6] * 2 + [0.3] * 4 + [0.1] * 2 + [1.0] * 4, dtype=torch.float64).sqrt()
    values = harmonics.field(harmonics.coefficients(truth.values.double()) * passed[:, None])
    limited = harmonics.field(harmonics.coefficients(truth.values.double()))
    spectra = LeadSpectra(planet, VARIABLES, LEADS[:1], threshold=threshold)
    spectra.add(*(State(v, VARIABLES, truth.time) for v in (values, limited)), LEADS[0])
    found = spectra.effective_resolution()
    np.testing.assert_allclose(found.wavelength, 2 * np.pi * EARTH_RADIUS / degree)
    assert f"{threshold:g} power(truth)" in found.convention
    assert (found.noise == 0).all()


def test_resolution_ends_at_the_truncation_that_the_data_declare():
    variables = VariableSet((Variable("temperature", "K", (500.0, 850.0), truncation=5), Variable("2m_temperature")))
    planet = world(gaussian_grid(16))
    truth = states(planet, 1, 2)
    spectra = LeadSpectra(planet, variables, LEADS[:1])
    spectra.add(truth, truth, LEADS[0])
    found = spectra.dataset()
    np.testing.assert_array_equal(found["temperature_last_degree"], 5)
    np.testing.assert_array_equal(found["2m_temperature_last_degree"], 15)
    np.testing.assert_allclose(found["temperature_effective_resolution"], 2 * np.pi * EARTH_RADIUS / 5)
    np.testing.assert_allclose(found["2m_temperature_coherent_resolution"], 2 * np.pi * EARTH_RADIUS / 15)


def test_the_dataset():
    planet = world()
    spectra = LeadSpectra(planet, VARIABLES, LEADS)
    for lead in LEADS:
        spectra.add(states(planet, 1, 2), states(planet, 2, 2), lead)
    found = spectra.dataset({"grid": "small"})
    assert found["temperature"].dims == ("source", "lead_time", "level", "total_wavenumber")
    assert found["temperature"].attrs["units"] == "(K)2"
    assert found["2m_temperature"].dims == ("source", "lead_time", "total_wavenumber")
    assert found["temperature_coherence"].dims == ("lead_time", "level", "total_wavenumber")
    assert found["temperature_effective_resolution"].dims == ("lead_time", "level")
    ours, theirs, _ = spectra.means()
    np.testing.assert_array_equal(found["temperature"].sel(source="truth", level=850), theirs[:, 1])
    np.testing.assert_array_equal(found["2m_temperature"].sel(source="forecast"), ours[:, 2])
    assert found["wavelength"].sel(total_wavenumber=2).item() == pytest.approx(np.pi * EARTH_RADIUS)
    assert found.attrs["grid"] == "small"


def test_errors_of_shape_and_their_form_in_chaosbench():
    planet = world()
    whole, merged = (LeadSpectra(planet, VARIABLES, LEADS[:1], chaosbench=True) for _ in range(2))
    pairs = [(states(planet, seed, 2), states(planet, seed + 5, 2)) for seed in (1, 2)]
    for pair in pairs:
        whole.add(*pair, LEADS[0])
        part = LeadSpectra(planet, VARIABLES, LEADS[:1], chaosbench=True)
        part.add(*pair, LEADS[0])
        merged.add_partial(part.partial())
    found, ours = whole.dataset(), merged.dataset()
    forecast, truth = (torch.cat([pair[side].values for pair in pairs]).double().mean(0) for side in (0, 1))
    expected = spectral_divergence(image_power(forecast), image_power(truth))
    np.testing.assert_allclose(found["2m_temperature_spectral_divergence_chaosbench"][0], expected[-1], rtol=1e-10)
    powers = [torch.from_numpy(part[0].T) for part in whole.means()[:2]]
    residual = spectral_residual(*powers)
    np.testing.assert_allclose(found["temperature_spectral_residual"][0], residual[:2], rtol=1e-10)
    for name in found.data_vars:
        np.testing.assert_allclose(ours[name], found[name], rtol=1e-10)
    with pytest.raises(ValueError, match="same leads"):
        merged.add_partial(LeadSpectra(planet, VARIABLES, LEADS[:1]).partial())


def test_grids_without_harmonics_are_refused():
    with pytest.raises(ValueError, match="whole sphere"):
        LeadSpectra(world(LatLonGrid(np.linspace(70, 30, 9), np.linspace(0, 40, 9))), VARIABLES, LEADS)
    with pytest.raises(ValueError, match="4 rows"):
        LeadSpectra(world(gaussian_grid(2)), VARIABLES, LEADS)
    with pytest.raises(ValueError, match="threshold"):
        LeadSpectra(world(), VARIABLES, LEADS, threshold=0.0)
    few = VariableSet((Variable("temperature", "K", (500.0, 850.0)),))
    state = State(torch.zeros(1, 2, 8, 16), few, np.array(["2000-01-01"], "datetime64[s]"))
    spectra = LeadSpectra(world(), VARIABLES, LEADS)
    with pytest.raises(ValueError, match="Expected 2m_temperature"):
        spectra.add(state, state, LEADS[0])


def test_points_on_rings_have_spectra():
    """One degree of unit power on a reduced Gaussian grid, forecast at half its amplitude."""
    where = replace(world(), grid=named_grid("O8"), static_fields=None)
    one = VariableSet((Variable("a"),))
    spectra = LeadSpectra(where, one, LEADS[:1])
    coefficients = torch.zeros(16, 8, 1, dtype=torch.float64)
    coefficients[0, 3] = 1.0
    field = spectra.harmonics.synthesis(coefficients).T[None]
    times = np.array(["2000-01-01"], "datetime64[s]")
    truth, forecast = (State(a * field, one, times, 1) for a in (1.0, 0.5))
    spectra.add(forecast, truth, LEADS[0])
    power, of_truth, coherence = (part[0, 0] for part in spectra.means())
    np.testing.assert_allclose(4 * np.pi * of_truth, np.eye(8)[3], atol=1e-9)
    np.testing.assert_allclose(power, 0.25 * of_truth, atol=1e-9)
    assert coherence[3] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="latitude"):
        LeadSpectra(where, one, LEADS[:1], chaosbench=True)
