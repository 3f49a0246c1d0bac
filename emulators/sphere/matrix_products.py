"""The sums of a harmonic transform as products of matrices: four functions, two and two each other's transpose.

    waves   r_mk = sum_j exp(-i m lambda_j) f_jk   along longitude, from the grid to waves      columns   its transpose
    sums    c_ml = sum_k A_mlk r_mk                along latitude, from waves to coefficients   series    its transpose

with A any functions of order, degree and latitude. Each backward pass is the transpose, with the same tables.

Longitude. A fast Fourier transform in two steps (Cooley & Tukey 1965, doi 10.1090/S0025-5718-1965-0178586-1): columns
j = s + S p, s < S, of each residue s are transformed alone, which separates waves m up to multiples of their number P;
then, for each k, S residues are combined to the waves m with m = k or -k modulo P:

    y_sk = sum_p exp(-2 pi i k p / P) f_sp,   r_m = sum_s exp(-i m lambda_s) y_s,(m mod P),   y_s,-k = conj(y_sk)

Both steps are batched products of real matrices, which need no other layout than that of the fields. On few columns one
product with a single table, the cosines and sines themselves, is faster.
Degrees. All entries at l < m are zero: orders come in blocks, and a block's table starts at its first order.
Storage. Real and imaginary parts have the same functions of latitude. Stored once, a table is doubled when it is used,
and multiplied on the way by factors of latitude or order alone; if memory allows, it is stored doubled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, wraps
from typing import NamedTuple, ParamSpec

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

P = ParamSpec("P")
DIRECT_UP_TO = 1500  # columns times orders
PIECE = 2**13  # numbers at least that a CPU copies at once


class Waves(NamedTuple):
    """Hold the tables of the two steps along longitude.

    With Q = P / 2 rounded up, and at most R waves for one k:
    first: (2 Q, P), real and imaginary parts of all k. second: (Q, 2 R, 2 S). rows: position of each wave, (2 M).
    first_back: (P, 2 Q) and second_back: (Q, 2 S, 2 R), for the transpose. slots: the inverse of rows, (2 R Q).
    """

    first: Tensor
    second: Tensor
    rows: Tensor
    first_back: Tensor
    second_back: Tensor
    slots: Tensor


@lru_cache(maxsize=16)
def wave_tables(nlon: int, orders: int, start: float) -> tuple[np.ndarray, ...]:
    """Return the tables of `Waves`, or the single table of few columns.

    Start: longitude of the first column, radians.
    """
    if nlon * orders <= DIRECT_UP_TO:
        angle = np.outer(np.arange(orders), start + np.arange(nlon) * (2.0 * np.pi / nlon))
        return (np.stack([np.cos(angle), -np.sin(angle)], axis=1).reshape(2 * orders, nlon),)
    strides = residues(nlon, orders)
    size = nlon // strides
    half = (size + 1) // 2
    k, p, s = np.arange(half)[:, None], np.arange(size), np.arange(strides)
    angle = (k * p % size) * (2.0 * np.pi / size)
    first = np.stack([np.cos(angle), -np.sin(angle)])
    if size % 2 == 0:
        first[1, 0] = 1.0 - 2.0 * (p % 2)  # k = 0 and k = P / 2 have no imaginary part: they share two rows
    groups: list[list[int]] = [[] for _ in range(half)]
    for m in range(orders):
        k_of_m = min(m % size, -m % size)
        groups[k_of_m if k_of_m < half else 0].append(m)
    most = max(len(group) for group in groups)
    second, slots = np.zeros((half, most, 2, 2, strides)), np.zeros((half, most), dtype=np.int64)
    for number, group in enumerate(groups):
        for slot, m in enumerate(group):
            angle = (m * s % nlon) * (2.0 * np.pi / nlon) + m * start
            turn = np.stack([np.cos(angle), -np.sin(angle)])  # times (1, i): what a real part adds to both parts
            slots[number, slot] = m
            if number == 0:
                second[0, slot, :, int(m % size > 0)] = turn
            else:
                sign = 1.0 if m % size == number else -1.0
                second[number, slot, :, 0] = turn
                second[number, slot, :, 1] = sign * np.stack([-turn[1], turn[0]])
    rows = np.zeros(orders, dtype=np.int64)
    for number, group in enumerate(groups):
        rows[group] = number * most + np.arange(len(group))
    pair = np.arange(2)
    return (
        first.reshape(2 * half, size),
        second.transpose(0, 1, 2, 4, 3).reshape(half, 2 * most, 2 * strides),
        (2 * rows[:, None] + pair).ravel(),
        first.transpose(2, 1, 0).reshape(size, 2 * half),
        second.reshape(half, 2 * most, 2 * strides).transpose(0, 2, 1),
        (2 * slots.reshape(-1, 1) + pair).ravel(),
    )


def residues(nlon: int, orders: int) -> int:
    """Return S, the divisor of nlon for which both steps together need the fewest multiplications."""
    divisors = [s for s in range(1, nlon + 1) if nlon % s == 0]
    return min(divisors, key=lambda s: nlon / s + 2.0 * s * 2 * orders / nlon)


def waves(field: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
    """Sum over longitude: (lon, lat, n) -> (2 * orders, lat, n).

    The real part of order m is in row 2m, the imaginary part in row 2m + 1.
    """
    if torch.is_grad_enabled() and field.requires_grad:
        return _Waves.apply(field, *tables)
    return _waves(field, tables)


def columns(rows: Tensor, tables: tuple[Tensor, ...]) -> Tensor:
    """Apply the transpose of `waves`: (2 * orders, lat, n) -> (lon, lat, n)."""
    if torch.is_grad_enabled() and rows.requires_grad:
        return _Columns.apply(rows, *tables)
    return _columns(rows, tables)


def sums(rows: Tensor, factor: Tensor | None, blocks: Sequence[Tensor]) -> Tensor:
    """Sum over latitude: (2 * orders, lat, n) -> (2 * orders, kinds, degrees, n).

    blocks: tables (orders of the block, parts, kinds, degrees from its first order on, lat); parts: 2 if a table is
    stored doubled, for real and imaginary rows, else 1; kinds: number of functions to sum with.
    factor: factor of the blocks, (orders or 1, 2, 1, 1, lat or 1); None if they include it.
    """
    if torch.is_grad_enabled() and rows.requires_grad:
        return _Sums.apply(rows, factor, *blocks)
    return _sums(rows, factor, blocks)


def series(coefficients: Tensor, factor: Tensor | None, blocks: Sequence[Tensor]) -> Tensor:
    """Apply the transpose of `sums`: (2 * orders, kinds, degrees, n) -> (2 * orders, lat, n)."""
    if torch.is_grad_enabled() and coefficients.requires_grad:
        return _Series.apply(coefficients, factor, *blocks)
    return _series(coefficients, factor, blocks)


class _Waves(Function):
    @staticmethod
    def forward(ctx, field: Tensor, *tables: Tensor) -> Tensor:
        ctx.save_for_backward(*tables)
        return _waves(field, tables)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tables = ctx.saved_tensors  # read once: with recomputation they are given out once only
        return columns(gradient, tables), *(None for _ in tables)


class _Columns(Function):
    @staticmethod
    def forward(ctx, rows: Tensor, *tables: Tensor) -> Tensor:
        ctx.save_for_backward(*tables)
        return _columns(rows, tables)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tables = ctx.saved_tensors  # read once: with recomputation they are given out once only
        return waves(gradient, tables), *(None for _ in tables)


class _Sums(Function):
    @staticmethod
    def forward(ctx, rows: Tensor, factor: Tensor | None, *blocks: Tensor) -> Tensor:
        ctx.save_for_backward(factor, *blocks)
        return _sums(rows, factor, blocks)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        factor, *blocks = ctx.saved_tensors
        return series(gradient.contiguous(), factor, blocks), None, *(None for _ in blocks)


class _Series(Function):
    @staticmethod
    def forward(ctx, coefficients: Tensor, factor: Tensor | None, *blocks: Tensor) -> Tensor:
        ctx.save_for_backward(factor, *blocks)
        return _series(coefficients, factor, blocks)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        factor, *blocks = ctx.saved_tensors
        return sums(gradient.contiguous(), factor, blocks), None, *(None for _ in blocks)


def full_precision(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Return `function` with autocast switched off."""

    @wraps(function)
    def plain(*arguments: P.args, **options: P.kwargs) -> Tensor:
        device = arguments[0].device.type  # type: ignore[attr-defined]
        if device == "meta" or not torch.is_autocast_enabled(device):
            return function(*arguments, **options)
        with torch.autocast(device, enabled=False):
            return function(*arguments, **options)

    return plain


@full_precision
def _sums(rows: Tensor, factor: Tensor | None, blocks: Sequence[Tensor]) -> Tensor:
    kinds, degrees = blocks[0].shape[2:4]
    n = rows.shape[2]
    if len(blocks) == 1:
        return torch.bmm(_doubled(blocks[0], factor), rows).view(-1, kinds, degrees, n)
    coefficients = rows.new_empty(len(rows), kinds, degrees, n)
    for orders, start, block, scale in _parts(blocks, factor):
        product = torch.bmm(_doubled(block, scale), rows[orders])
        coefficients[orders, :, :start] = 0.0
        coefficients[orders, :, start:] = product.view(-1, kinds, degrees - start, n)
    return coefficients


@full_precision
def _series(coefficients: Tensor, factor: Tensor | None, blocks: Sequence[Tensor]) -> Tensor:
    nlat, n = blocks[0].shape[4], coefficients.shape[3]
    if len(blocks) == 1:
        return torch.bmm(_doubled(blocks[0], factor).mT, coefficients.flatten(1, 2))
    rows = coefficients.new_empty(len(coefficients), nlat, n)
    for orders, start, block, scale in _parts(blocks, factor):
        torch.bmm(_doubled(block, scale).mT, coefficients[orders, :, start:].flatten(1, 2), out=rows[orders])
    return rows


def _parts(blocks: Sequence[Tensor], factor: Tensor | None) -> Iterator[tuple[slice, int, Tensor, Tensor | None]]:
    """Yield (rows, first order, table, factor) of each block."""
    start = 0
    for block in blocks:
        end = start + len(block)
        scale = factor if factor is None or len(factor) == 1 else factor[start:end]
        yield slice(2 * start, 2 * end), start, block, scale
        start = end


def _doubled(block: Tensor, factor: Tensor | None) -> Tensor:
    """Return the table for real and imaginary rows, (2 * orders, kinds * degrees, lat)."""
    return (block if factor is None else block * factor).flatten(2, 3).flatten(0, 1)


@full_precision
def _waves(field: Tensor, given: tuple[Tensor, ...]) -> Tensor:
    nlon, nlat, n = field.shape
    if len(given) == 1:
        return (given[0] @ field.reshape(nlon, nlat * n)).view(-1, nlat, n)
    tables = Waves(*given)
    half, size = len(tables.second), tables.first.shape[1]
    by_residue = field.reshape(size, nlon // size, nlat * n).transpose(0, 1)
    partial_sums = torch.bmm(tables.first.expand(len(by_residue), -1, -1), by_residue)
    rows = torch.bmm(tables.second, partial_sums.view(-1, half, nlat * n).transpose(0, 1))
    return _picked(rows.view(-1, nlat, n), tables.rows)


@full_precision
def _columns(rows: Tensor, given: tuple[Tensor, ...]) -> Tensor:
    _, nlat, n = rows.shape
    if len(given) == 1:
        return (given[0].mT @ rows.reshape(-1, nlat * n)).view(-1, nlat, n)
    tables = Waves(*given)
    half = len(tables.second)
    placed = _picked(rows, tables.slots).view(half, -1, nlat * n)
    partial_sums = torch.bmm(tables.second_back, placed).view(2 * half, -1)
    return (tables.first_back @ partial_sums).view(-1, nlat, n)


def _picked(rows: Tensor, which: Tensor) -> Tensor:
    """Select rows of (row, lat, n); on a CPU in pieces that its threads share and its caches hold."""
    nlat, n = rows.shape[1:]
    limit = min(nlat, nlat * n // PIECE) if rows.device.type == "cpu" else 1
    pieces = max([p for p in range(1, limit + 1) if nlat % p == 0] or [1])
    if pieces > 1:
        which = (which[:, None] * pieces + torch.arange(pieces)).flatten()
    return rows.reshape(-1, nlat // pieces * n).index_select(0, which).view(-1, nlat, n)
