"""Local convolutions and interpolation equal those of torch-harmonics, fields and gradients, on all its grids.

What came out of its network LSNO is stored, see test_zoo.py.
"""

import warnings

import numpy as np
import pytest
import torch

from emulators.grid import equiangular_grid, gaussian_grid, lobatto_grid
from emulators.layers.disco import DiscoConvolution, Interpolation
from emulators.sphere.filter_bases import NORMS, FilterBasis

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peer = pytest.importorskip("torch_harmonics", reason="torch-harmonics is not installed")

NAMES = {"gaussian": "legendre-gauss", "equiangular_with_poles": "equiangular", "lobatto": "lobatto"}
GRIDS = {
    "coarser": (equiangular_grid(17, 32, poles=True), gaussian_grid(8, 16)),
    "same": (gaussian_grid(12, 24), gaussian_grid(12, 24)),
    "odd": (lobatto_grid(13, 30), gaussian_grid(7, 10)),
}
SHAPES = [
    ("piecewise linear", (3,)),
    ("piecewise linear", (4,)),
    ("piecewise linear", (3, 4)),
    ("piecewise linear", (4, 3)),
    ("morlet", (3, 2)),
    ("zernike", (3,)),
]
CUTOFF = 3.3 * np.pi / 16


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("kind", "shape"), SHAPES, ids=lambda value: str(value))
@pytest.mark.parametrize("grids", GRIDS)
def test_convolution(grids, kind, shape, norm):
    """In the norm `support` theirs counts points at the rim of a sector, where a hat is zero, as rounding has it."""
    if norm == "support" and kind == "piecewise linear" and len(shape) == 2:
        pytest.skip("points at the rim of a sector count here, there by rounding")
    source, goal = GRIDS[grids]
    names = {"grid_in": NAMES[source.kind], "grid_out": NAMES[goal.kind]}
    size = {"kernel_shape": shape, "basis_type": kind, "basis_norm_mode": norm, "theta_cutoff": CUTOFF}
    theirs = peer.DiscreteContinuousConvS2(3, 4, source.shape, goal.shape, **size, **names)
    ours = DiscoConvolution(3, 4, source, goal, FilterBasis(kind.replace(" ", "_"), shape, norm), CUTOFF, bias=True)
    with torch.no_grad():
        theirs.weight.copy_(noise(*theirs.weight.shape, seed=1))
        theirs.bias.copy_(noise(4, seed=2))
        ours.bias.copy_(theirs.bias)
        ours.weight.copy_(theirs.weight.permute(2, 1, 0))
    x, slopes = noise(2, 3, *source.shape), noise(2, 4, *goal.shape, seed=3)
    outcomes = []
    for layer, order in ((ours, lambda a: a.permute(3, 2, 0, 1)), (theirs, lambda a: a)):
        fields = x.clone().requires_grad_()
        out = layer(order(fields))
        out = out.permute(2, 3, 1, 0) if layer is ours else out
        (out * slopes).sum().backward()
        outcomes.append((out.detach(), fields.grad, layer.weight.grad))
    (out, gradient, of_weight), expected = outcomes
    for got, wanted in zip((out, gradient, of_weight.permute(2, 1, 0)), expected, strict=True):
        scale = float(wanted.abs().max())
        torch.testing.assert_close(got / scale, wanted / scale, rtol=0, atol=2e-6)


@pytest.mark.parametrize("goal", [equiangular_grid(17, 32, poles=True), gaussian_grid(16, 48), lobatto_grid(15, 16)])
def test_interpolation(goal):
    source = gaussian_grid(8, 16)
    theirs = peer.ResampleS2(*source.shape, *goal.shape, grid_in="legendre-gauss", grid_out=NAMES[goal.kind])
    x = noise(2, 3, *source.shape)
    got = Interpolation(source, goal)(x.permute(3, 2, 0, 1)).permute(2, 3, 1, 0)
    torch.testing.assert_close(got, theirs(x), rtol=0, atol=1e-6)
