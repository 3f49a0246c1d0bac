"""Hard downscaling layers: the mean of every block of fine cells is that of the coarse cell they lie in.

For a coarse value x, raw fine values y and their mean m over the block,

    additive          y + (x - m)
    multiplicative    y x / m
    signed additive   y + (x - m) (s + y) / (s + m),   s = sign(m - x): keeps data that lie within -1..1 there
    softmax           x exp(y) / mean(exp(y)),         for x > 0

Harder et al. 2023, Hard-constrained deep learning for climate downscaling, JMLR 24, arXiv 2208.05424. There means are
of numbers; here they are by area, as rows of a grid shrink towards the poles.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from emulators.grid import LatLonGrid

Form = Literal["additive", "multiplicative", "signed_additive", "softmax"]


class BlockMeans(nn.Module):
    """form: which of the four. factor: fine rows and columns in a coarse cell. grid: the fine one; None counts all

    cells alike.
    """

    weights: Tensor

    def __init__(self, form: Form, factor: int, grid: LatLonGrid | None = None) -> None:
        super().__init__()
        if form not in ("additive", "multiplicative", "signed_additive", "softmax"):
            raise ValueError(
                f"A downscaling layer is additive, multiplicative, signed_additive or softmax; got '{form}'."
            )
        if factor < 1 or (grid is not None and any(size % factor for size in grid.shape)):
            raise ValueError(f"A factor of {factor} does not divide the fine grid {grid!r} into blocks.")
        self.form, self.factor = form, factor
        weights = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        if grid is not None:
            blocks = self._blocks(torch.as_tensor(grid.weights, dtype=torch.float64))
            weights = blocks / blocks.mean((-3, -1), keepdim=True)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """fine: (..., factor * lat, factor * lon); coarse: (..., lat, lon) -> as fine, with the coarse means."""
        if tuple(fine.shape[-2:]) != tuple(self.factor * size for size in coarse.shape[-2:]):
            raise ValueError(
                f"Fine fields must have {self.factor} times the rows and columns of the coarse ones; "
                f"got {tuple(fine.shape)} and {tuple(coarse.shape)}."
            )
        y, x = self._blocks(fine), coarse[..., :, None, :, None]
        if self.form == "softmax":
            y = torch.exp(y - y.amax((-3, -1), keepdim=True))
        m = self._mean(y)
        if self.form == "additive":
            y = y + (x - m)
        elif self.form == "signed_additive":
            sign = torch.where(m >= x, 1.0, -1.0).to(y.dtype)
            y = y + (x - m) * (sign + y) / (sign + m)
        else:
            y = y * (x / m)
        return y.reshape(fine.shape)

    def mean(self, fine: Tensor) -> Tensor:
        """Means of the blocks by area: (..., factor * lat, factor * lon) -> (..., lat, lon)."""
        return self._mean(self._blocks(fine))[..., :, 0, :, 0]

    def _mean(self, blocks: Tensor) -> Tensor:
        return (blocks * self.weights.to(blocks.dtype)).mean((-3, -1), keepdim=True)

    def _blocks(self, fine: Tensor) -> Tensor:
        """(..., lat, factor, lon, factor)."""
        rows, columns = (size // self.factor for size in fine.shape[-2:])
        return fine.reshape(*fine.shape[:-2], rows, self.factor, columns, self.factor)
