"""Spectra: Parseval, a harmonic's power, coherence, WeatherBench 2's zonal spectrum, effective resolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

from emulators.constants import EARTH_RADIUS
from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.sphere.spectra import (
    coherence,
    cross_power,
    effective_resolution,
    power,
    zonal_energy_spectrum,
    zonal_wavelength,
)
from emulators.sphere.transform import SphericalHarmonics
from places import SHARED

REFERENCE = SHARED / "reference" / "verification"


@pytest.fixture
def transform() -> SphericalHarmonics:
    return SphericalHarmonics(gaussian_grid(12), dtype=torch.float64)


def fields(transform: SphericalHarmonics, count: int, seed: int = 0) -> torch.Tensor:
    """Random coefficients of real fields, (2 * orders, degrees, count)."""
    nlat, nlon = transform.grid.shape
    noise = torch.randn(nlon, nlat, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return transform.analysis(noise)


def test_power_sums_to_the_mean_square(transform):
    a = fields(transform, 3)
    field = transform.synthesis(a)
    weights = torch.from_numpy(transform.grid.weights.T)[..., None]
    torch.testing.assert_close(power(a).sum(0), 4 * torch.pi * (weights * field * field).mean((0, 1)))


def test_cross_power_sums_to_the_mean_product(transform):
    a, b = fields(transform, 3), fields(transform, 3, seed=1)
    product = transform.synthesis(a) * transform.synthesis(b)
    weights = torch.from_numpy(transform.grid.weights.T)[..., None]
    torch.testing.assert_close(cross_power(a, b).sum(0), 4 * torch.pi * (weights * product).mean((0, 1)))


def test_a_zonal_wave_has_all_its_power_at_its_degree(transform):
    phi, lam = np.deg2rad(transform.grid.latitude), np.deg2rad(transform.grid.longitude)[:, None]
    wave = torch.from_numpy(np.sin(phi) * np.cos(phi) * np.cos(lam - 0.3))[..., None]  # degree 2, order 1
    expected = torch.zeros(12, 1, dtype=torch.float64)
    expected[2] = 4 * torch.pi / 15  # 4 pi times its mean square
    torch.testing.assert_close(power(transform.analysis(wave)), expected, rtol=0, atol=1e-14)


def test_power_does_not_turn_with_the_planet(transform):
    field = transform.synthesis(fields(transform, 2))
    turned = transform.analysis(field.roll(5, dims=0))
    torch.testing.assert_close(power(turned), power(transform.analysis(field)))


def test_coherence_is_one_with_itself_minus_one_with_its_opposite_and_zero_without_power(transform):
    a = fields(transform, 2)
    torch.testing.assert_close(coherence(a, 0.1 * a), torch.ones(12, 2, dtype=torch.float64))
    torch.testing.assert_close(coherence(a, -a), -torch.ones(12, 2, dtype=torch.float64))
    assert (coherence(a, torch.zeros_like(a)) == 0).all()


def test_coherence_of_fields_in_quadrature_vanishes(transform):
    a = fields(transform, 1)
    a[:2] = 0  # waves only
    quadrature = a.unflatten(0, (-1, 2)).flip(1).mul(torch.tensor([-1.0, 1.0])[None, :, None, None]).flatten(0, 1)
    assert coherence(a, quadrature)[1:].abs().max() < 1e-14


def test_gradients_of_spectra(transform):
    b = fields(transform, 1)[:6, :4]
    a = fields(transform, 1, seed=1)[:6, :4].requires_grad_()
    assert torch.autograd.gradcheck(power, a)
    assert torch.autograd.gradcheck(lambda x: coherence(x, b), a)
    zero = torch.zeros_like(b, requires_grad=True)
    coherence(zero, b).sum().backward()
    assert zero.grad.isfinite().all()


def test_zonal_spectrum_sums_to_the_mean_square_of_a_row():
    grid = equiangular_grid(6, 15)
    field = torch.randn(2, 6, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    circle = 2 * torch.pi * 6.3675e6 * torch.from_numpy(np.cos(np.deg2rad(grid.latitude)))
    torch.testing.assert_close(zonal_energy_spectrum(field, grid).sum(-1), circle * field.square().mean(-1))


def test_zonal_spectrum_needs_whole_circles():
    area = LatLonGrid(np.linspace(60, 30, 5), np.linspace(0, 40, 9))
    with pytest.raises(ValueError, match="whole circles"):
        zonal_energy_spectrum(torch.zeros(5, 9), area)
    with pytest.raises(ValueError, match=r"12 x 24 at the end; got shape \(3, 12, 20\)"):
        zonal_energy_spectrum(torch.zeros(3, 12, 20), gaussian_grid(12))


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="the reference numbers of WeatherBench 2 are not here")
def test_zonal_spectrum_is_that_of_weatherbench():
    expected = xr.open_dataset(REFERENCE / "expected_spectra_64x32.nc").isel(latitude=slice(None, None, -1))
    truth = xr.open_dataset(REFERENCE / "obs_64x32.nc").isel(latitude=slice(None, None, -1))
    forecast = xr.open_dataset(REFERENCE / "forecast_64x32.nc", decode_timedelta=True)
    forecast = forecast.isel(latitude=slice(None, None, -1)).sel(prediction_timedelta=np.timedelta64(24, "h"))
    truth = truth.sel(time=forecast["time"] + np.timedelta64(24, "h"))
    grid = LatLonGrid(truth["latitude"].values, truth["longitude"].values)
    wavelength = expected["wavelength"].transpose("latitude", ...)
    np.testing.assert_allclose(zonal_wavelength(grid), wavelength, rtol=1e-12)
    for name in ("2m_temperature", "geopotential", "u_component_of_wind"):
        for data, kind in ((forecast, "forecast24h"), (truth, "obs")):
            field = torch.from_numpy(data[name].transpose(..., "latitude", "longitude").values.astype(np.float64))
            found = zonal_energy_spectrum(field, grid).mean(0)
            spectrum = expected[f"{name}_{kind}"].transpose(..., "latitude", "zonal_wavenumber")
            np.testing.assert_allclose(found, spectrum, rtol=1e-12)


def test_effective_resolution_ends_where_power_first_falls_short():
    truth = torch.ones(8, 3)
    forecast = torch.ones(8, 3)
    forecast[0] = 0.0  # the mean is not counted
    forecast[4, 0] = 0.49
    forecast[1, 1] = 0.0
    found = effective_resolution(forecast, truth)
    assert found.degree.tolist() == [3, 0, 7]
    expected = 2 * np.pi * EARTH_RADIUS / np.array([3.0, np.inf, 7.0])
    expected[1] = np.inf
    np.testing.assert_allclose(found.wavelength, expected)
    assert "0.5" in found.convention
    assert "2 pi a / l" in found.convention
    assert effective_resolution(forecast, truth, threshold=0.4).degree.tolist() == [7, 0, 7]
    with pytest.raises(ValueError, match="threshold"):
        effective_resolution(forecast, truth, threshold=0.0)
