"""Spectra: Parseval, a harmonic's power, effective resolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.constants import EARTH_RADIUS
from emulators.grid import gaussian_grid
from emulators.sphere.spectra import cross_power, effective_resolution, last_degree, power
from emulators.sphere.transform import SphericalHarmonics


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


def test_gradients_of_spectra(transform):
    b = fields(transform, 1)[:6, :4]
    a = fields(transform, 1, seed=1)[:6, :4].requires_grad_()
    assert torch.autograd.gradcheck(power, a)
    assert torch.autograd.gradcheck(lambda x: cross_power(x, b), a)


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


def test_noise_resolves_nothing_and_is_named():
    truth = torch.ones(12, 3)
    forecast, coherence = truth.clone(), torch.ones(12, 3)
    forecast[6, 0], forecast[9, 0], forecast[5, 2] = 2.1, 50.0, 1.9
    coherence[4:, 1] = 0.4
    found = effective_resolution(forecast, truth, coherence=coherence)
    assert found.degree.tolist() == [5, 11, 11]
    assert found.coherent.tolist() == [11, 3, 11]
    assert found.noise_degree.tolist() == [6, 0, 0]
    np.testing.assert_allclose(found.noise, [(0.1 + 48.0) / 11, 0, 0], rtol=1e-5)
    assert effective_resolution(forecast, truth).coherent.tolist() == [-1] * 3
    assert "2 power(truth)" in found.convention


def test_resolution_ends_where_the_truth_ends():
    """A spectrum cut at degree 21: whatever a forecast has beyond is not resolved, and noise if it matters."""
    degrees = torch.arange(32.0, dtype=torch.float64).clamp(min=1.0)
    truth = torch.stack([degrees**-3.0, degrees**-5.0, torch.ones(32)], dim=1)
    truth[22:, 0] = 1e-12
    assert last_degree(truth).tolist() == [21, 31, 31]
    forecast = truth.clone()
    forecast[22:, 0] = 8e8 * 1e-12
    found = effective_resolution(forecast, truth)
    assert found.degree.tolist() == [21, 31, 31]
    assert found.noise_degree.tolist() == [22, 0, 0]
    assert effective_resolution(truth, truth, last=torch.tensor([10, 10, 40])).degree.tolist() == [10, 10, 31]
