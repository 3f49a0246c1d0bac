"""The sums of a harmonic transform as products of matrices: four functions, two and two each other's transpose.

    waves    r_mk = sum_j E_mj f_jk        along longitude, from the grid to waves       columns   its transpose
    sums     c_ml = sum_k A_mlk r_mk       along latitude, from waves to coefficients    series    its transpose

E holds cos(m lambda_j) and -sin(m lambda_j), A any functions of order, degree and latitude. Each backward pass is the
transpose, with the same tables. Three savings:

Longitude. Waves of even m repeat after half a turn and those of odd m change sign; cosines and sines are mirrored
within the half. Where four divides the columns, fields are folded twice and four products of a quarter of the columns
do what one would: a quarter of the operations, in less time than an FFT and the new layouts before and after it.
Degrees. Nothing stands at l < m: orders come in blocks, and a block's table starts at its first order.
Storage. Real and imaginary parts have the same functions of latitude, stored once; the table is doubled when it is
used, and takes up what depends on latitude or order alone on the way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function


def wave_table(nlon: int, orders: int, first: float, folded: bool) -> np.ndarray:
    """E at columns from longitude `first` (radians) on: (2 * orders, nlon), or folded, for `first` = 0.

    Folded: (2, 2, orders / 2 rounded up, nlon / 4 + 1) by parity of m, and even or odd about a quarter turn.
    """
    m, j = np.arange(orders)[:, None], np.arange(nlon)
    angle = (m * j % nlon) * (2.0 * np.pi / nlon) + m * first
    plain = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    if not folded:
        return plain.reshape(2 * orders, nlon)
    table = np.zeros(folded_shape(nlon, orders))
    for parity in (0, 1):
        for odd in (0, 1):
            part = plain[parity::2, parity ^ odd, : nlon // 4 + 1].copy()
            part[:, [0, -1]] *= np.abs(part[:, [0, -1]]) > 0.5  # zeros of the waves, exactly
            table[parity, odd, : len(part)] = part
    return table


def folded_shape(nlon: int, orders: int) -> tuple[int, int, int, int]:
    """Shape of a folded table."""
    return (2, 2, (orders + 1) // 2, nlon // 4 + 1)


def waves(field: Tensor, table: Tensor, orders: int) -> Tensor:
    """(lon, lat, n) -> (2 * orders, lat, n), real part of order m in row 2m, imaginary part in row 2m + 1."""
    if torch.is_grad_enabled() and field.requires_grad:
        return _Waves.apply(field, table, orders)
    return _waves(field, table, orders)


def columns(rows: Tensor, table: Tensor) -> Tensor:
    """(2 * orders, lat, n) -> (lon, lat, n)."""
    if torch.is_grad_enabled() and rows.requires_grad:
        return _Columns.apply(rows, table)
    return _columns(rows, table)


def sums(rows: Tensor, factor: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """(2 * orders, lat, n) -> (2 * orders, kinds, degrees, n).

    blocks: tables (orders of the block, kinds, degrees from its first order on, lat); kinds of functions to sum with.
    factor: what the blocks are multiplied by, (orders or 1, 2, 1, 1, lat or 1).
    """
    if torch.is_grad_enabled() and rows.requires_grad:
        return _Sums.apply(rows, factor, *blocks)
    return _sums(rows, factor, blocks)


def series(coefficients: Tensor, factor: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """(2 * orders, kinds, degrees, n) -> (2 * orders, lat, n); tables as in `sums`."""
    if torch.is_grad_enabled() and coefficients.requires_grad:
        return _Series.apply(coefficients, factor, *blocks)
    return _series(coefficients, factor, blocks)


class _Waves(Function):
    @staticmethod
    def forward(ctx, field: Tensor, table: Tensor, orders: int) -> Tensor:
        ctx.save_for_backward(table)
        return _waves(field, table, orders)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (table,) = ctx.saved_tensors
        return columns(gradient.contiguous(), table), None, None


class _Columns(Function):
    @staticmethod
    def forward(ctx, rows: Tensor, table: Tensor) -> Tensor:
        ctx.save_for_backward(table)
        ctx.orders = len(rows) // 2
        return _columns(rows, table)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        (table,) = ctx.saved_tensors
        return waves(gradient.contiguous(), table, ctx.orders), None


class _Sums(Function):
    @staticmethod
    def forward(ctx, rows: Tensor, factor: Tensor, *blocks: Tensor) -> Tensor:
        ctx.save_for_backward(factor, *blocks)
        return _sums(rows, factor, blocks)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        factor, *blocks = ctx.saved_tensors
        return series(gradient.contiguous(), factor, blocks), None, *(None for _ in blocks)


class _Series(Function):
    @staticmethod
    def forward(ctx, coefficients: Tensor, factor: Tensor, *blocks: Tensor) -> Tensor:
        ctx.save_for_backward(factor, *blocks)
        return _series(coefficients, factor, blocks)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        factor, *blocks = ctx.saved_tensors
        return sums(gradient.contiguous(), factor, blocks), None, *(None for _ in blocks)


def _sums(rows: Tensor, factor: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    _, kinds, degrees, _ = blocks[0].shape
    n = rows.shape[2]
    with torch.autocast(rows.device.type, enabled=False):
        if len(blocks) == 1:
            return torch.bmm(_doubled(blocks[0], factor), rows).view(-1, kinds, degrees, n)
        coefficients = rows.new_zeros(len(rows), kinds, degrees, n)
        for part, start, block, scale in _parts(blocks, factor):
            product = torch.bmm(_doubled(block, scale), rows[part])
            coefficients[part, :, start:] = product.view(-1, kinds, degrees - start, n)
        return coefficients


def _series(coefficients: Tensor, factor: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    nlat, n = blocks[0].shape[3], coefficients.shape[3]
    with torch.autocast(coefficients.device.type, enabled=False):
        if len(blocks) == 1:
            return torch.bmm(_doubled(blocks[0], factor).mT, coefficients.flatten(1, 2))
        rows = coefficients.new_empty(len(coefficients), nlat, n)
        for part, start, block, scale in _parts(blocks, factor):
            torch.bmm(_doubled(block, scale).mT, coefficients[part, :, start:].flatten(1, 2), out=rows[part])
        return rows


def _parts(blocks: Sequence[Tensor], factor: Tensor) -> Iterator[tuple[slice, int, Tensor, Tensor]]:
    """(rows, first order, table, factor) of each block."""
    start = 0
    for block in blocks:
        end = start + len(block)
        yield slice(2 * start, 2 * end), start, block, factor if len(factor) == 1 else factor[start:end]
        start = end


def _doubled(block: Tensor, factor: Tensor) -> Tensor:
    """The table for real and imaginary rows, (2 * orders, kinds * degrees, lat)."""
    return (block.unsqueeze(1) * factor).flatten(2, 3).flatten(0, 1)


def _waves(field: Tensor, table: Tensor, orders: int) -> Tensor:
    nlon, nlat, n = field.shape
    with torch.autocast(field.device.type, enabled=False):
        flat = field.reshape(nlon, nlat * n)
        rows = table @ flat if table.dim() == 2 else _folded_waves(flat, table, orders)
        return rows.view(2 * orders, nlat, n)


def _columns(rows: Tensor, table: Tensor) -> Tensor:
    _, nlat, n = rows.shape
    with torch.autocast(rows.device.type, enabled=False):
        flat = rows.reshape(-1, nlat * n)
        field = table.mT @ flat if table.dim() == 2 else _unfolded_waves(flat, table)
        return field.view(-1, nlat, n)


def _folded_waves(field: Tensor, table: Tensor, orders: int) -> Tensor:
    """(lon, x) -> (2 * orders, x)"""
    half, quarter, x = len(field) // 2, len(field) // 4, field.shape[1]
    turned = field.new_empty(2, half, x)
    torch.add(field[:half], field[half:], out=turned[0])
    torch.sub(field[:half], field[half:], out=turned[1])
    inner, mirror = turned[:, 1:quarter], turned[:, quarter + 1 :].flip(1)
    folded = field.new_empty(2, 2, quarter + 1, x)
    torch.add(inner, mirror, out=folded[:, 0, 1:quarter])
    torch.sub(inner, mirror, out=folded[:, 1, 1:quarter])
    folded[:, :, ::quarter] = turned[:, None, : quarter + 1 : quarter]
    rows = field.new_empty(orders, 2, x)
    for parity in (0, 1):
        for odd in (0, 1):
            part = rows[parity::2, parity ^ odd]
            torch.mm(table[parity, odd, : len(part)], folded[parity, odd], out=part)
    return rows


def _unfolded_waves(rows: Tensor, table: Tensor) -> Tensor:
    """The transpose of `_folded_waves`: (2 * orders, x) -> (lon, x)."""
    quarter, x = table.shape[3] - 1, rows.shape[1]
    pairs = rows.view(-1, 2, x)
    folded = rows.new_empty(2, 2, quarter + 1, x)
    for parity in (0, 1):
        for odd in (0, 1):
            part = pairs[parity::2, parity ^ odd]
            torch.mm(table[parity, odd, : len(part)].mT, part, out=folded[parity, odd])
    turned = rows.new_empty(2, 2 * quarter, x)
    torch.add(folded[:, 0], folded[:, 1], out=turned[:, : quarter + 1])
    turned[:, quarter + 1 :] = (folded[:, 0, 1:quarter] - folded[:, 1, 1:quarter]).flip(1)
    field = rows.new_empty(4 * quarter, x)
    torch.add(turned[0], turned[1], out=field[: 2 * quarter])
    torch.sub(turned[0], turned[1], out=field[2 * quarter :])
    return field
