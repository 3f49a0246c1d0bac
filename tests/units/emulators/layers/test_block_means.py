"""Hard downscaling layers: the blocks of the reference, means by area, and what they refuse."""

import math

import pytest
import torch

from emulators.grid import gaussian_grid
from emulators.layers.convolution.block_means import BlockMeans

BLOCK = torch.tensor([[1.0, 2.0], [3.0, 6.0]], dtype=torch.float64)
COARSE = torch.tensor([[2.0]], dtype=torch.float64)
FORMS = ("additive", "multiplicative", "signed_additive", "softmax")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("additive", [[0.0, 1.0], [2.0, 5.0]]),
        ("multiplicative", [[2 / 3, 4 / 3], [2.0, 4.0]]),
        ("signed_additive", [[0.5, 1.25], [2.0, 4.25]]),
    ],
)
def test_block_of_four(form, expected):
    """Computed with the authors' code (RolnickLab/constrained-downscaling) for y = 1, 2, 3, 6 and x = 2."""
    torch.testing.assert_close(BlockMeans(form, 2)(BLOCK, COARSE), torch.tensor(expected, dtype=torch.float64))


def test_softmax_of_four():
    raw = torch.tensor([[0.0, 0.0], [0.0, math.log(2.0)]], dtype=torch.float64)
    found = BlockMeans("softmax", 2)(raw, COARSE)
    torch.testing.assert_close(found, torch.tensor([[1.6, 1.6], [1.6, 3.2]], dtype=torch.float64))
    torch.testing.assert_close(BlockMeans("softmax", 2)(raw + 1000.0, COARSE), found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_means_by_area(form, dtype):
    layer = BlockMeans(form, 4, gaussian_grid(16, 32))
    generator = torch.Generator().manual_seed(0)
    fine = torch.rand(3, 2, 16, 32, generator=generator).to(dtype)
    coarse = 0.2 + torch.rand(3, 2, 4, 8, generator=generator).to(dtype)
    once = layer(fine, coarse)
    torch.testing.assert_close(layer.mean(once), coarse)
    plain = BlockMeans(form, 4)
    assert (plain.mean(once) - coarse).abs().max() > 1e-4, "means of numbers are other than means by area"
    if form != "softmax":  # whose raw values are logarithms
        torch.testing.assert_close(layer(once, coarse), once)


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form):
    generator = torch.Generator().manual_seed(1)
    fine = torch.rand(4, 4, generator=generator, dtype=torch.float64).requires_grad_()
    coarse = (0.2 + torch.rand(2, 2, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(BlockMeans(form, 2), (fine, coarse))


def test_signs_keep_the_range():
    generator = torch.Generator().manual_seed(2)
    fine = 2.0 * torch.rand(8, 8, generator=generator, dtype=torch.float64) - 1.0
    coarse = 1.8 * torch.rand(4, 4, generator=generator, dtype=torch.float64) - 0.9
    assert BlockMeans("signed_additive", 2)(fine, coarse).abs().max() <= 1.0
    assert BlockMeans("additive", 2)(fine, coarse).abs().max() > 1.0


def test_refusals():
    with pytest.raises(ValueError, match="additive, multiplicative"):
        BlockMeans("divisive", 2)
    with pytest.raises(ValueError, match="does not divide"):
        BlockMeans("additive", 3, gaussian_grid(16))
    with pytest.raises(ValueError, match="2 times the rows"):
        BlockMeans("additive", 2)(torch.zeros(4, 4), torch.zeros(4, 4))
