"""Discrete-continuous (DISCO) convolutions on the sphere, and interpolation from a coarser grid.

    y_o(t, p) = b_o + sum_c sum_k W_kco sum_(h, q) psi_k(t, h, q) x_c(h, q + s p)

x on rows h and columns q of the source, y on rows t and columns p of the goal, which has every s-th column. psi is the
sparse tensor of `emulators.sphere.filter_bases`: filters are moved over the sphere continuously, and the sum over
points is a quadrature (Ocampo, Price & McEwen 2022, arXiv 2209.13603). Weights belong to functions of radians, not to
points: they hold for any grid that resolves them (Liu-Schiaffini et al. 2024, arXiv 2402.16845).

Along longitude the sum is a correlation, which waves turn into a product: Y_m = conj(Psi_m) X_m. Columns of the source
between those of the goal count as rows of their own. What is left is a product of matrices for each wave and each block
of rows, over the rows that its filters reach. Shifts of the input along longitude by columns of the goal shift the
output, exactly; other rotations up to the error of the quadrature.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from emulators.grid import LatLonGrid
from emulators.sphere import matrix_products
from emulators.sphere.filter_bases import FilterBasis, sparse_filter
from emulators.sphere.legendre import nodes
from emulators.sphere.transform import Tables, degrees_and_orders

ROWS = 8  # of output in a block, at least


class LocalFilters(Tables):
    """Hold the waves of the filters of a basis between two grids, and sum over the points that each filter reaches.

    Raises ValueError for grids that do not cover the sphere, and where the columns of `goal` are not evenly spread over
    those of `source`.
    """

    def __init__(self, source: LatLonGrid, goal: LatLonGrid, basis: FilterBasis, cutoff: float) -> None:
        super().__init__()
        _refuse(source, goal, cutoff)
        self.size, self.stride = basis.size, source.shape[1] // goal.shape[1]
        self.rows, self.orders = goal.shape[0], goal.shape[1] // 2 + 1
        wave = (goal.shape[1], self.orders, 0.0)
        for number, table in enumerate(matrix_products.wave_tables(*wave)):
            self.share(f"wave_{number}", table.shape, _wave_table, *wave, number)
        self.wave_names = list(self._buffers)
        ends = (source.kind, *source.shape), (goal.kind, *goal.shape)
        self.spans = _spans(*ends, cutoff)
        for number, span in enumerate(self.spans):
            start, end, first, last = span
            shape = (2, self.orders, self.size * (end - start), (last - first) * self.stride)
            self.share(f"filter_{number}", shape, _filter_waves, basis, *ends, cutoff, span)

    def waves(self, x: Tensor) -> Tensor:
        """Return waves of fields, (wave, row of the source and column within a stride, part, batch x channel)."""
        rows = x.to(self.dtype).flatten(2).unflatten(0, (-1, self.stride)).transpose(1, 2).flatten(1, 2)
        return matrix_products.waves(rows, self._wave_tables).unflatten(0, (-1, 2)).transpose(1, 2).contiguous()

    def filtered(self, waves: Tensor) -> Iterator[Tensor]:
        """Yield the filtered waves of each block, (wave, basis function, row of the goal, part, batch x channel)."""
        real, imaginary = waves.unbind(2)
        turned = torch.stack([imaginary, -real], dim=2).flatten(2)  # -i times the waves
        waves = waves.flatten(2)
        for number, (start, end, first, last) in enumerate(self.spans):
            near = slice(first * self.stride, last * self.stride)
            cosines, sines = self.get_buffer(f"filter_{number}").unbind()
            around = torch.baddbmm(torch.bmm(cosines, waves[:, near]), sines, turned[:, near])
            yield around.view(self.orders, self.size, end - start, 2, -1)

    def fields(self, waves: Tensor) -> Tensor:
        """Return fields (lon, row of the goal, n) of waves (wave, row of the goal, part, n)."""
        rows = waves.transpose(1, 2).reshape(2 * self.orders, self.rows, -1)
        return matrix_products.columns(rows, self._wave_tables)

    @property
    def _wave_tables(self) -> tuple[Tensor, ...]:
        return tuple(self.get_buffer(name) for name in self.wave_names)


class DiscoConvolution(nn.Module):
    """Convolve fields (lon, lat, batch, channel) on `source` with learned local filters, to fields on `goal`.

    into, out: channels. basis: of the filters. cutoff: their radius, radians. bias: add a learned number for each
    channel. Runs in single precision under autocast. Raises ValueError where `LocalFilters` does.
    """

    def __init__(
        self,
        into: int,
        out: int,
        source: LatLonGrid,
        goal: LatLonGrid,
        basis: FilterBasis,
        cutoff: float,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.filters = LocalFilters(source, goal, basis, cutoff)
        initial = torch.randn(basis.size, into, out) / math.sqrt(into * basis.size)
        self.weight = nn.Parameter(initial)  # (basis function, in, out)
        self.weight.matrix_axes = (1, 2)  # type: ignore[attr-defined]  # for optimisers of matrices
        self.weight.map_axes = (0, 1), (2,)  # type: ignore[attr-defined]  # for rates by width
        self.bias = nn.Parameter(torch.zeros(out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        y = _convolved(x, self.filters, self.weight)
        return y if self.bias is None else y + self.bias


@matrix_products.full_precision
def _convolved(x: Tensor, filters: LocalFilters, weight: Tensor) -> Tensor:
    batch, blocks = x.shape[2], []
    for around in filters.filtered(filters.waves(x)):
        rows = around.unflatten(4, (batch, -1))
        blocks.append(torch.einsum("mktpbc,kco->mtpbo", rows, weight.to(rows.dtype)))
    return filters.fields(torch.cat(blocks, dim=1).flatten(3)).unflatten(2, (batch, -1))


def _refuse(source: LatLonGrid, goal: LatLonGrid, cutoff: float) -> None:
    for grid in (source, goal):
        degrees_and_orders(grid)
    if source.shape[1] % goal.shape[1]:
        raise ValueError(
            f"Expected columns of the source that are a multiple of the goal's; got {source!r} and {goal!r}. Choose a "
            "scale_factor that divides the columns."
        )
    if not 0.0 < cutoff:
        raise ValueError(f"Expected a filter of positive radius; got {cutoff} radians.")


def _colatitudes(kind: str, nlat: int) -> np.ndarray:
    return np.arccos(np.clip(nodes(kind, nlat)[0], -1.0, 1.0))


def _spans(source: tuple[str, int, int], goal: tuple[str, int, int], cutoff: float) -> list[tuple[int, int, int, int]]:
    """Return (first row, last row + 1) of the goal for each block, and of the source's rows that its filters reach.

    A block has as many rows as a filter, so that no more than half of its table is zeros.
    """
    colatitudes, colatitudes_out = _colatitudes(*source[:2]), _colatitudes(*goal[:2])
    reach = 1.01 * cutoff
    size = max(ROWS, round(2.0 * reach / np.pi * goal[1]))
    spans = []
    for start in range(0, goal[1], size):
        end = min(start + size, goal[1])
        near = (colatitudes >= colatitudes_out[start] - reach) & (colatitudes <= colatitudes_out[end - 1] + reach)
        rows = np.flatnonzero(near)
        spans.append((start, end, int(rows[0]), int(rows[-1]) + 1))
    return spans


def _wave_table(nlon: int, orders: int, start: float, number: int) -> np.ndarray:
    return matrix_products.wave_tables(nlon, orders, start)[number]


def _filter_waves(
    basis: FilterBasis,
    source: tuple[str, int, int],
    goal: tuple[str, int, int],
    cutoff: float,
    span: tuple[int, int, int, int],
) -> np.ndarray:
    """Return the waves of a block's filters, (part, wave, function x row, row of the source x column of a stride).

    They include the factor of the sum over waves: how often each occurs, over the number of columns.
    """
    start, end, first, last = span
    columns, stride = goal[2], source[2] // goal[2]
    entries = sparse_filter(basis, source, goal, cutoff)
    here = slice(*np.searchsorted(entries.row_out, (start, end)))
    dense = np.zeros((basis.size, end - start, last - first, source[2]))
    at = entries.function[here], entries.row_out[here] - start, entries.row[here] - first, entries.column[here]
    dense[at] = entries.value[here]
    by_stride = dense.reshape(basis.size * (end - start), last - first, columns, stride)
    spectrum = np.fft.rfft(by_stride, axis=2).transpose(2, 0, 1, 3)
    counts = np.full(columns // 2 + 1, 2.0 / columns)
    counts[0] /= 2.0
    if columns % 2 == 0:
        counts[-1] /= 2.0
    spectrum = spectrum.reshape(len(counts), basis.size * (end - start), -1) * counts[:, None, None]
    return np.stack([spectrum.real, spectrum.imag])


class Interpolation(nn.Module):
    """Interpolate fields (lon, lat, batch, channel) linearly in latitude and longitude to a grid of more columns.

    source: without rows at the poles; these have the mean of the first and of the last row.
    """

    above: Tensor
    share: Tensor
    between: Tensor

    def __init__(self, source: LatLonGrid, goal: LatLonGrid) -> None:
        super().__init__()
        inner, outer = (_colatitudes(grid.kind, grid.shape[0]) for grid in (source, goal))
        rows = np.concatenate([[0.0], inner, [np.pi]])
        above = np.clip(np.searchsorted(rows, outer, side="right") - 1, 0, len(rows) - 2)
        share = (outer - rows[above]) / np.diff(rows)[above]
        columns = goal.shape[1] // source.shape[1]
        between = np.arange(columns) / columns
        self.register_buffer("above", torch.from_numpy(above), persistent=False)
        self.register_buffer("share", torch.from_numpy(share).float()[:, None, None], persistent=False)
        self.register_buffer("between", torch.from_numpy(between).float()[:, None, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        north, south = (x[:, row].mean(0).expand_as(x[:, row]).unsqueeze(1) for row in (0, -1))
        x = torch.cat([north, x, south], dim=1)
        x = torch.lerp(x[:, self.above], x[:, self.above + 1], self.share.to(x.dtype))
        east = x.roll(-1, 0)
        return torch.lerp(x.unsqueeze(1), east.unsqueeze(1), self.between.to(x.dtype)).flatten(0, 1)
