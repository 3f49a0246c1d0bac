"""Scalar and vector transforms equal those of torch-harmonics on all its grids in float64, fields and gradients."""

import warnings

import pytest
import torch

from emulators.grid import equiangular_grid, gaussian_grid, lobatto_grid
from emulators.sphere.calculus import SphericalCalculus
from emulators.sphere.transform import SphericalHarmonics

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("torch_harmonics", reason="torch-harmonics is not installed")

CASES = {  # grid, their name of it, degrees: all that their quadrature is exact for
    "gaussian": (gaussian_grid(16), "legendre-gauss", 16),
    "gaussian_blocks": (gaussian_grid(48), "legendre-gauss", 48),
    "gaussian_odd": (gaussian_grid(13, 30), "legendre-gauss", 13),
    "lobatto": (lobatto_grid(17, 36), "lobatto", 16),
    "equiangular": (equiangular_grid(31, 60, poles=True), "equiangular", 16),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request):
    return request.param


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def theirs(kind: str, grid, name: str, degrees: int, phase: bool) -> torch.nn.Module:
    """One of their modules with float64 tables."""
    return getattr(peer, kind)(*grid.shape, lmax=degrees, mmax=degrees, grid=name, csphase=phase).double()


@pytest.mark.parametrize("phase", [True, False])
def test_analysis_and_synthesis_of_any_field(case, phase):
    grid, name, degrees = case
    ours = SphericalHarmonics(grid, degrees, degrees, torch.float64, condon_shortley=phase)
    field = noise(3, *grid.shape)
    expected = theirs("RealSHT", grid, name, degrees, phase)(field)
    torch.testing.assert_close(ours.coefficients(field), expected, rtol=0, atol=1e-12)
    back = theirs("InverseRealSHT", grid, name, degrees, phase)(expected)
    torch.testing.assert_close(ours.field(expected), back, rtol=0, atol=1e-12)


def test_quadrature_at_every_degree_of_an_equiangular_grid():
    grid = equiangular_grid(17, poles=True)
    ours = SphericalHarmonics(grid, 17, 16, torch.float64, quadrature=True, condon_shortley=True)
    field = noise(2, *grid.shape)
    expected = peer.RealSHT(17, 32, lmax=17, mmax=16, grid="equiangular").double()(field)
    torch.testing.assert_close(ours.coefficients(field), expected, rtol=0, atol=1e-12)


def test_exact_analysis_gives_back_what_their_synthesis_was_given():
    grid = equiangular_grid(17, poles=True)
    ours = SphericalHarmonics(grid, 16, 16, torch.float64, condon_shortley=True)
    a = ours.coefficients(noise(2, *grid.shape))
    field = theirs("InverseRealSHT", grid, "equiangular", 16, True)(a)
    torch.testing.assert_close(ours.coefficients(field), a, rtol=0, atol=1e-12)


def test_gradients_of_analysis_and_synthesis(case):
    grid, name, degrees = case
    ours = SphericalHarmonics(grid, degrees, degrees, torch.float64, condon_shortley=True)
    forward, inverse = (theirs(kind, grid, name, degrees, True) for kind in ("RealSHT", "InverseRealSHT"))
    weights, slopes = noise(degrees, degrees, seed=1), noise(*grid.shape, seed=2)
    gradients = []
    for analysis, synthesis in ((ours.coefficients, ours.field), (forward, inverse)):
        field = noise(2, *grid.shape).requires_grad_()
        (synthesis(analysis(field) * weights) * slopes).sum().backward()
        gradients.append(field.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-11)


def test_vector_analysis_and_synthesis(case):
    """Their first component runs along colatitude, and their toroidal harmonics turn the other way about.

    Their analysis divides by l (l + 1) in single precision, which is taken out here.
    """
    grid, name, degrees = case
    ours = SphericalCalculus(grid, degrees, degrees, torch.float64, radius=1.0, condon_shortley=True)
    forward, inverse = (theirs(kind, grid, name, degrees, True) for kind in ("RealVectorSHT", "InverseRealVectorSHT"))
    l = torch.arange(degrees)
    rounding = (l * (l + 1)).double() * (1.0 / l / (l + 1)).double().nan_to_num(posinf=0.0)
    root = (l * (l + 1)).double().sqrt()[None, :, None]
    a = [ours.analysis(noise(*grid.shape[::-1], 3, seed=seed)) for seed in (0, 1)]
    s, t = (part * (root > 0) for part in a)
    u, v = ours.vector_synthesis(s, t)
    flow = torch.stack([-v, u]).permute(3, 0, 2, 1)
    potentials = torch.stack([s, -t]) / root.clamp(min=1.0)
    expected = torch.complex(potentials[:, 0::2], potentials[:, 1::2]).permute(3, 0, 2, 1)
    torch.testing.assert_close(forward(flow), expected * rounding[:, None], rtol=0, atol=1e-12)
    torch.testing.assert_close(inverse(expected), flow, rtol=0, atol=1e-11)
