"""The spherical-harmonic transform: a sum over longitude, then one over latitude, and back.

    analysis   a_lm = sum_k A_lmk (1/nlon) sum_j f(lambda_j, mu_k) exp(-i m lambda_j)
    synthesis  f    = Re sum_m (2 - delta_m0) exp(i m lambda) sum_l a_lm P_lm(mu)

Truncation is triangular: m <= l < degrees, m < orders. On Gaussian and Lobatto grids A = 2 pi w_k P_lm(mu_k) with the
weights w of the quadrature, and analysis is exact for all that the grid holds, l < nlat and l < nlat - 1. Quadrature
on equally spaced rows is exact only to about half of that; there A inverts the sums over latitude by least squares,
weighted by area, which recovers every field of at most nlat degrees (nlat - 1 with poles) at the same cost.

Layout: fields are (lon, lat, n) and coefficients (2 * orders, degrees, n), the real part of order m in row 2m and the
imaginary part in row 2m + 1, n being everything else (batch, channels, levels); zero where l < m. All sums then are
plain products of matrices (`products`). `coefficients` and `field` take the customary (..., lat, lon).

Constant tensors of which a process holds one copy, however many modules use them.

A network of eight blocks has sixteen transforms with the same tables; so have its moving average and its loss. Tables
are identified by their recipe, precision and device, also after `.to(device)`. Tables that no module uses any more are
kept up to a limit for the next module: at a quarter of a degree they are gigabytes. Numbers stay in float32 or float64,
whatever a module is cast to, and are computed in float64; indices stay integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor, nn

from emulators.grid import LatLonGrid
from emulators.sphere import matrix_products
from emulators.sphere.legendre import legendre, nodes

CACHED_BYTES = 2**30  # bytes of tables that outlast their modules


class Tables(nn.Module):
    """Hold buffers that are shared tables and no part of the module's state. On the meta device none is computed."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = _precision(dtype)
        self._recipes: dict[str, tuple[Callable[..., np.ndarray], tuple]] = {}
        self._shared: dict[str, SharedTable] = {}

    def share(self, name: str, shape: tuple[int, ...], make: Callable[..., np.ndarray], *arguments: Any) -> None:
        """Register a buffer `name` of `shape` with the numbers of make(*arguments); the arguments are hashable."""
        self._recipes[name] = make, arguments
        self._shared[name] = shared_table(shape, self.dtype, torch.empty(0).device, make, arguments)
        self.register_buffer(name, self._shared[name].table, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Tables:
        """Replace the tables by those of another device or precision; `.to`, `.double` and their like call this."""
        probe = fn(torch.empty(0, dtype=self.dtype, device=next(self.buffers()).device))
        self.dtype = _precision(probe.dtype)
        before, self._shared = self._shared, {}  # another one, for a copy of this module has the first
        for name, recipe in self._recipes.items():
            self._shared[name] = shared_table(tuple(before[name].table.shape), self.dtype, probe.device, *recipe)
            self._buffers[name] = self._shared[name].table
        return self

    def __deepcopy__(self, memo: dict) -> Tables:
        twin = self.__class__.__new__(self.__class__)
        memo[id(self)] = twin
        twin.__dict__.update(self.__dict__)
        twin._buffers = dict(self._buffers)
        return twin


def _precision(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(eq=False)
class SharedTable:
    """Hold a table, for as long as a module refers to this."""

    table: Tensor

    @property
    def nbytes(self) -> int:
        """The size in memory, 0 on the meta device."""
        return 0 if self.table.is_meta else self.table.nbytes


class TableCache:
    """Cache tables by recipe: those in use, and the latest of the others up to CACHED_BYTES."""

    def __init__(self) -> None:
        self._held: WeakValueDictionary[tuple, SharedTable] = WeakValueDictionary()
        self._latest: dict[tuple, SharedTable] = {}
        self._bytes = 0
        self._lock = Lock()

    def __call__(self, *recipe: Any) -> SharedTable:
        """Return the table of a recipe, the arguments of `_table`."""
        table = self._held.get(recipe) or SharedTable(_table(*recipe))
        with self._lock:
            table = self._held.setdefault(recipe, table)
            if self._latest.pop(recipe, None) is None:
                self._bytes += table.nbytes
            self._latest[recipe] = table
            while self._bytes > CACHED_BYTES:
                self._bytes -= self._latest.pop(next(iter(self._latest))).nbytes
        return table


shared_table = TableCache()


def _table(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, make: Callable[..., np.ndarray], arguments: tuple
) -> Tensor:
    if device.type == "meta":
        return torch.empty(shape, dtype=dtype, device=device)
    with torch.device("cpu"), torch.inference_mode(False):  # a forecast may be the first to ask, a training the next
        table = torch.from_numpy(np.ascontiguousarray(make(*arguments)))
        return table.to(device=device, dtype=dtype if table.is_floating_point() else table.dtype)


ONE_BLOCK_UP_TO = 40  # degrees: below, blocks of orders cost more than they save


class SphericalHarmonics(Tables):
    """Transform between fields on `grid` and coefficients of degree l < degrees, order m < orders (triangular: l >= m).

    Defaults: as many degrees as the grid resolves, at most half of nlon, and as many orders. quadrature: analysis by
    the weights alone on equally spaced rows too, as other programs do; exact to half the degrees. condon_shortley:
    whether coefficients of odd order have the other sign. Tables are float64 for dtype float64, else float32;
    transforms never run in less (autocast is switched off).
    """

    counts: Tensor
    scale: Tensor
    uncounted: Tensor

    def __init__(
        self,
        grid: LatLonGrid,
        degrees: int | None = None,
        orders: int | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        quadrature: bool = False,
        condon_shortley: bool = False,
    ) -> None:
        super().__init__(dtype)
        self.grid, self.condon_shortley = grid, condon_shortley
        self.quadrature = quadrature or grid.kind in ("gaussian", "lobatto")
        self.degrees, self.orders = degrees_and_orders(grid, degrees, orders, quadrature)
        self.single = self.degrees <= ONE_BLOCK_UP_TO and self.quadrature
        nlat, nlon = grid.shape
        wave = (nlon, self.orders, float(np.deg2rad(grid.longitude[0])))
        for number, table in enumerate(matrix_products.wave_tables(*wave)):
            self.share(f"wave_{number}", table.shape, _wave_table, *wave, number)
        self.wave_names = list(self._buffers)
        self.share("counts", (self.orders, 2, 1, 1, 1), counts, self.orders)
        self.share("scale", (1, 2, 1, 1, nlat), scale, grid.kind, nlat, nlon, self.quadrature)
        self.counted = self.quadrature and not self.single  # one table for both ways: there is room to store it doubled
        if self.counted:
            self.share("uncounted", (self.orders, 2, 1, 1, 1), uncounted, self.orders)
            self._share_blocks("synthesis", (2, 1), counted_functions)
        else:
            self._share_blocks("synthesis", (1, 1), functions)
        if not self.quadrature:
            self._share_blocks("analysis", (1, 1), inverses)

    def _share_blocks(self, name: str, parts_kinds: tuple[int, int], make: Callable[..., np.ndarray]) -> None:
        """Register buffers name_0, name_1, ... with the result of `make` for each block of orders."""
        for number, (start, end) in enumerate(self.cuts):
            shape = (end - start, *parts_kinds, self.degrees - start, self.grid.shape[0])
            arguments = (self.grid.kind, self.grid.shape[0], self.degrees, start, end, self.condon_shortley)
            self.share(f"{name}_{number}", shape, make, *arguments)

    def blocks(self, name: str) -> list[Tensor]:
        """Return the tables of `_share_blocks`."""
        return [self._buffers[f"{name}_{number}"] for number in range(len(self.cuts))]  # type: ignore[misc]

    def weighted(self, name: str, factor: str) -> tuple[Tensor | None, list[Tensor]]:
        """Return the tables `name` and their factor, `scale` or `counts`; None if the tables include it."""
        by = self.get_buffer(factor)
        if self.counted and name == "synthesis":
            return None if factor == "counts" else by * self.uncounted, self.blocks(name)
        return by, self.blocks(name)

    @cached_property
    def cuts(self) -> list[tuple[int, int]]:
        """The first order and last order + 1 of each block."""
        count = 1 if self.single else max(6, self.degrees // 10)
        return list(pairwise(sorted({round(k * self.orders / count) for k in range(count + 1)})))

    @property
    def wave_tables(self) -> tuple[Tensor, ...]:
        """The tables of the sums over longitude."""
        return tuple(self._buffers[name] for name in self.wave_names)  # type: ignore[misc]

    def analysis(self, field: Tensor) -> Tensor:
        """Return the coefficients (2 * orders, degrees, n) of fields (lon, lat, n)."""
        waves = matrix_products.waves(field.to(self.dtype), self.wave_tables)
        tables = self.weighted("synthesis" if self.quadrature else "analysis", "scale")
        return matrix_products.sums(waves, *tables).squeeze(1)

    def synthesis(self, coefficients: Tensor) -> Tensor:
        """Return the fields (lon, lat, n) of coefficients (2 * orders, degrees, n)."""
        waves = matrix_products.series(coefficients.to(self.dtype).unsqueeze(1), *self.weighted("synthesis", "counts"))
        return matrix_products.columns(waves, self.wave_tables)

    def coefficients(self, field: Tensor) -> Tensor:
        """Return the complex coefficients (..., degrees, orders) of fields (..., lat, lon)."""
        check_last("fields (..., lat, lon)", field, self.grid.shape)
        lead = field.shape[:-2]
        rows = self.analysis(field.reshape(-1, *field.shape[-2:]).permute(2, 1, 0))
        pairs = rows.view(self.orders, 2, self.degrees, -1).permute(3, 2, 0, 1).contiguous()
        return torch.view_as_complex(pairs).reshape(*lead, self.degrees, self.orders)

    def field(self, coefficients: Tensor) -> Tensor:
        """Return the fields (..., lat, lon) of complex coefficients (..., degrees, orders)."""
        check_last("coefficients (..., degrees, orders)", coefficients, (self.degrees, self.orders))
        lead = coefficients.shape[:-2]
        pairs = torch.view_as_real(coefficients.resolve_conj().reshape(-1, self.degrees, self.orders))
        rows = pairs.permute(2, 3, 1, 0).reshape(2 * self.orders, self.degrees, -1)
        return self.synthesis(rows).permute(2, 1, 0).reshape(*lead, *self.grid.shape)


def check_last(what: str, tensor: Tensor, sizes: tuple[int, int]) -> None:
    """Raise ValueError unless the last two dimensions of `tensor` have these sizes; what: its name in the message."""
    if tuple(tensor.shape[-2:]) != sizes:
        raise ValueError(f"Expected {what} with {sizes[0]} x {sizes[1]} at the end; got shape {tuple(tensor.shape)}.")


def degrees_and_orders(
    grid: LatLonGrid, degrees: int | None = None, orders: int | None = None, quadrature: bool = False
) -> tuple[int, int]:
    """Return `degrees` and `orders`; default, as many degrees as the grid resolves at every order, and as many orders.

    Raises ValueError if the grid does not resolve them or does not cover the whole sphere.
    """
    if not grid.is_cyclic or grid.kind == "limited_area":
        raise ValueError(
            f"Spherical harmonics need a grid over the whole sphere; got {grid!r}. On a limited area take models and "
            "scores that do without."
        )
    nlon = grid.shape[1]
    steps = np.mod(np.diff(grid.longitude), 360.0)
    if np.ptp(steps) > 1e-3 * steps.mean():
        raise ValueError(
            f"Spherical harmonics need equal steps of longitude; got {steps.min()} to {steps.max()} degrees."
        )
    limit, waves = resolved_degrees(grid, quadrature), (nlon + 1) // 2
    degrees = min(limit, waves) if degrees is None else degrees
    orders = min(degrees, waves) if orders is None else orders
    if not 1 <= degrees <= limit or not 1 <= orders <= min(degrees, waves):
        raise ValueError(
            f"{grid!r} resolves {limit} degrees and {waves} orders, no more orders than degrees; expected at least 1 "
            f"of each and no more than that, got {degrees} and {orders}."
        )
    return degrees, orders


def resolved_degrees(grid: LatLonGrid, quadrature: bool = False) -> int:
    """Return the number of degrees that a grid's rows resolve; a row at each pole costs one degree."""
    with_poles = grid.kind == "lobatto" or (grid.kind == "equiangular_with_poles" and not quadrature)
    return grid.shape[0] - with_poles


def functions(kind: str, nlat: int, degrees: int, start: int, end: int, condon_shortley: bool) -> np.ndarray:
    """Return P_lm of the orders from `start` to `end` at a grid's rows, (end - start, 1, 1, degrees - start, nlat)."""
    table = legendre(degrees, end, nodes(kind, nlat)[0], start)[:, None, None, start:]
    return table * phase(start, end) if condon_shortley else table


def counted_functions(kind: str, nlat: int, degrees: int, start: int, end: int, condon_shortley: bool) -> np.ndarray:
    """Return `functions` for real and imaginary rows, times `counts`, (end - start, 2, 1, degrees - start, nlat)."""
    return functions(kind, nlat, degrees, start, end, condon_shortley) * counts(end)[start:]


def inverses(kind: str, nlat: int, degrees: int, start: int, end: int, condon_shortley: bool) -> np.ndarray:
    """Return the least-squares inverse of the sums over l with `functions`, in the same shape."""
    table = functions(kind, nlat, degrees, start, end, condon_shortley)
    weights = nodes(kind, nlat)[1]
    inverse = np.zeros_like(table)
    for m in range(end - start):
        inverse[m, 0, 0, m:] = least_squares(table[m, 0, 0, m:].T, weights)
    return inverse


def least_squares(matrix: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the least-squares inverse (unknown, row) of `matrix` (row, unknown), with weights of the rows."""
    root = np.sqrt(weights)
    q, r = np.linalg.qr(matrix * root[:, None])
    return np.linalg.solve(r, q.T * root)


def phase(start: int, end: int) -> np.ndarray:
    """Return the phase of Condon & Shortley, (-1)^m."""
    return (1.0 - 2.0 * (np.arange(start, end) % 2))[:, None, None, None, None]


def _wave_table(nlon: int, orders: int, start: float, number: int) -> np.ndarray:
    return matrix_products.wave_tables(nlon, orders, start)[number]


def counts(orders: int) -> np.ndarray:
    """Return how often an order occurs in the sum for a real field: as m and -m; the mean has no imaginary part."""
    counts = np.full((orders, 2), 2.0)
    counts[0] = 1.0, 0.0
    return counts[..., None, None, None]


def uncounted(orders: int) -> np.ndarray:
    """Return the factor that removes `counts`."""
    return 1.0 / np.maximum(counts(orders), 1.0)


def scale(kind: str, nlat: int, nlon: int, quadrature: bool) -> np.ndarray:
    """Return the factor of the sums over longitude and latitude, (1, 2, 1, 1, nlat)."""
    weights = 2.0 * np.pi * nodes(kind, nlat)[1] if quadrature else np.ones(nlat)
    return np.broadcast_to(weights / nlon, (1, 2, 1, 1, nlat))
