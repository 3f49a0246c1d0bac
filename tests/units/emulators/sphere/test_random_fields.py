"""Random fields: their spectra and variance, over many draws, and their seeds."""

import pytest
import torch

from emulators.grid import equiangular_grid, gaussian_grid
from emulators.sphere.random_fields import RandomField
from emulators.sphere.spectra import power


@pytest.mark.parametrize("spectrum", ["degree", "coefficient"])
@pytest.mark.parametrize("grid", [gaussian_grid(12), equiangular_grid(12, 16)], ids=["square", "few_orders"])
def test_variance_is_one_and_the_spectrum_is_as_named(grid, spectrum):
    noise = RandomField(grid, spectrum, dtype=torch.float64)
    draws = noise((4000,), torch.Generator().manual_seed(0))
    assert draws.shape == (4000, *grid.shape)
    assert draws.mean().abs() < 0.02
    transform = noise.transform
    by_degree = power(transform.analysis(draws.permute(2, 1, 0))).mean(-1) / (4 * torch.pi)
    held = 2 * torch.arange(transform.degrees).clamp(max=transform.orders - 1) + 1
    expected = torch.full_like(by_degree, 1 / transform.degrees) if spectrum == "degree" else held / held.sum()
    torch.testing.assert_close(by_degree, expected.double(), rtol=0.08, atol=0)
    if transform.orders == transform.degrees:  # isotropic: the same at every point
        torch.testing.assert_close(draws.var(0), torch.ones(grid.shape, dtype=torch.float64), rtol=0, atol=0.12)


def test_draws_follow_the_generator():
    noise = RandomField(gaussian_grid(8))
    first, second, third = (noise((2, 3), torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert first.shape == (2, 3, 8, 16)
    assert torch.equal(first, second)
    assert not torch.allclose(first, third)


def test_other_spectra_are_refused():
    with pytest.raises(ValueError, match="spectrum"):
        RandomField(gaussian_grid(8), "white")
