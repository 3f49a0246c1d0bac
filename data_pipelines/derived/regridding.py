"""From one grid to another: first-order conservative, bilinear, nearest, or by spherical harmonics.

    conservative   F_I = sum_i (area of cell i within cell I) f_i / sum_i (area of cell i within cell I)

over the cells whose value is known; it keeps area means to rounding and makes no new extremes (Jones 1999,
doi 10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2); WeatherBench 2 regrids so. A cell of which nothing is known is
missing. Bilinear is linear in latitude and longitude between rows and columns, constant beyond the outermost rows, and
missing where a neighbour is; nearest takes the nearest row and column. Cells are those whose areas are the weights of
the grids: on a Gaussian grid their edges lie where the sums of the Gauss-Legendre weights put them.

The spectral method, of winds too, is that of `emulators.sphere.regrid`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid, lobatto_grid
from emulators.sphere.spectral_regridding import Regrid
from emulators.sphere.transform import degrees_and_orders

SLIVER = 1e-12  # a share of a cell so small is rounding


class Regridding:
    """Regrid fields from `source` to `target` in float64. degrees: default, as many as both grids resolve.

    Fields are (..., lat, lon); NaN is a missing value. Where both grids are the same, fields pass as they are.
    """

    def __init__(self, source: LatLonGrid, target: LatLonGrid, degrees: int | None = None) -> None:
        self.source, self.target = source, target
        self.same = source.same_as(target)
        self._degrees = degrees
        if degrees is not None and (limit := degrees_and_orders(target)[0]) < degrees:
            raise ValueError(
                f"{target!r} resolves {limit} degrees, the data {degrees}; choose a grid of at least {degrees} rows."
            )

    @cached_property
    def overlaps(self) -> tuple[Tensor, Tensor]:
        """Shares of the source's rows in the target's, (lat, lat'), and of its columns, (lon', lon)."""
        rows = _row_overlap(_sine_edges(self.target), _sine_edges(self.source))
        columns = _column_overlap(self.target, self.source)
        return torch.from_numpy(rows), torch.from_numpy(columns.T.copy())

    def conservative(self, field: Tensor) -> Tensor:
        """Cell means of `field`, which is constant within each of its cells, over where it is known."""
        if self.same:
            return field
        rows, columns = self.overlaps
        known = field.isfinite()
        if known.all() and self._covered:
            return rows @ (field.double() @ columns)
        share = rows @ (known.double() @ columns)
        total = rows @ (torch.where(known, field, 0.0).double() @ columns)
        return torch.where(share > SLIVER, total / share, torch.nan)

    @cached_property
    def _covered(self) -> bool:
        """True where every cell of the target lies within cells of the source."""
        rows, columns = self.overlaps
        return bool((rows.sum(1) > 1.0 - SLIVER).all() and (columns.sum(0) > 1.0 - SLIVER).all())

    def bilinear(self, field: Tensor) -> Tensor:
        """`field` between its rows and columns; missing beyond the edge of a limited area."""
        rows, columns = self._between
        missing = ~field.isfinite()
        made = rows @ (torch.where(missing, 0.0, field).double() @ columns)
        touched = rows @ (missing.double() @ columns) > 0.0 if missing.any() else missing.new_zeros(())
        return torch.where(touched | self._outside, torch.nan, made)

    def nearest(self, field: Tensor) -> Tensor:
        """`field` at the nearest of its rows and columns; missing beyond the edge of a limited area."""
        rows = np.abs(self.target.latitude[:, None] - self.source.latitude).argmin(axis=1)
        columns = np.abs(_apart(self.target.longitude, self.source.longitude)).argmin(axis=1)
        made = field.double()[..., torch.from_numpy(rows), :][..., torch.from_numpy(columns)]
        return torch.where(self._outside, torch.nan, made)

    @cached_property
    def _between(self) -> tuple[Tensor, Tensor]:
        """Weights of the source's rows, (lat', lat), and columns, (lon, lon'), of linear interpolation."""
        latitude = self.source.latitude
        rows = np.stack(
            [np.interp(self.target.latitude, latitude[::-1], one[::-1]) for one in np.eye(latitude.size)], axis=1
        )
        east = np.mod(self.source.longitude - self.source.longitude[0], 360.0)
        wanted = np.mod(self.target.longitude - self.source.longitude[0], 360.0)
        round_trip = np.append(east, 360.0) if self.source.is_cyclic else east
        columns = np.stack(
            [
                np.interp(wanted, round_trip, np.append(one, one[0]) if self.source.is_cyclic else one)
                for one in np.eye(east.size)
            ]
        )
        return torch.from_numpy(rows), torch.from_numpy(columns)

    @cached_property
    def _outside(self) -> Tensor:
        """Where the target lies beyond the cells of a limited area, bool (lat', lon')."""
        if self.source.kind != "limited_area":
            return torch.zeros(self.target.shape, dtype=torch.bool)
        north, south = self.source.latitude_bounds[[0, -1]]
        rows = (self.target.latitude > north + 1e-9) | (self.target.latitude < south - 1e-9)
        near = np.abs(_apart(self.target.longitude, self.source.longitude)).min(axis=1)
        return torch.from_numpy(rows[:, None] | (near > 0.5 * _step(self.source) + 1e-9)[None])

    @cached_property
    def _regrid(self) -> Regrid:
        return Regrid(self.source, self.target, self._degrees, torch.float64)

    def spectral(self, field: Tensor) -> Tensor:
        """`field` as its spherical harmonics have it on the target."""
        return field if self.same else self._regrid(field)

    def winds(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Eastward and northward wind on the target; at a pole, along the meridian of each column."""
        return (u, v) if self.same else self._regrid.winds(u, v)


def _sine_edges(grid: LatLonGrid) -> np.ndarray:
    """Sines of the edges of the rows, from north to south, as the weights have them, shape (lat + 1,)."""
    if grid.kind == "limited_area":
        return np.sin(np.deg2rad(grid.latitude_bounds))
    shares = grid.weights.sum(axis=1) / grid.weights.sum()
    edges = 1.0 - 2.0 * np.concatenate([[0.0], np.cumsum(shares)])
    edges[-1] = -1.0
    return edges


def _row_overlap(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Share of each target row (edges falling) that lies within each source row, (target, source)."""
    top = np.minimum(target[:-1, None], source[None, :-1])
    bottom = np.maximum(target[1:, None], source[None, 1:])
    return np.clip(top - bottom, 0.0, None) / (target[:-1] - target[1:])[:, None]


def _apart(target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Degrees from each longitude of the target to each of the source, -180 to 180, (target, source)."""
    return (target[:, None] - source[None] + 180.0) % 360.0 - 180.0


def _step(grid: LatLonGrid) -> float:
    """Width of the columns in degrees."""
    if grid.is_cyclic:
        return 360.0 / grid.shape[1]
    return float(np.mod(np.diff(grid.longitude), 360.0).mean())


def _column_overlap(target: LatLonGrid, source: LatLonGrid) -> np.ndarray:
    """Share of each target column, cells with equal steps, within each source column."""
    wide, narrow = _step(target), _step(source)
    apart = _apart(target.longitude, source.longitude)
    shares = np.zeros_like(apart)
    for turn in (-360.0, 0.0, 360.0):  # wide cells may meet on both sides
        shift = apart + turn
        right = np.minimum(shift + 0.5 * wide, 0.5 * narrow)
        left = np.maximum(shift - 0.5 * wide, -0.5 * narrow)
        shares += np.clip(right - left, 0.0, None)
    return shares / wide


METHODS = ("conservative", "bilinear", "nearest", "spectral")
WINDS = (
    ("u_component_of_wind", "v_component_of_wind"),
    ("10m_u_component_of_wind", "10m_v_component_of_wind"),
)


def regridded(dataset: xr.Dataset, target: LatLonGrid, method: str = "conservative") -> xr.Dataset:
    """Regrid a canonical dataset, lazily; float32.

    Winds go through vorticity and divergence where the method is spectral and both components are there; otherwise
    each component by itself. ValueError where the method does not suit the grids or the values.
    """
    source = LatLonGrid(dataset["latitude"].values, dataset["longitude"].values)
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}; got '{method}'.")
    if method == "spectral" and "limited_area" in (source.kind, target.kind):
        raise ValueError(f"Spectral regridding is between grids over the whole sphere; got {source!r} and {target!r}.")
    regridding = Regridding(source, target)
    pairs = [pair for pair in WINDS if method == "spectral" and set(pair) <= set(dataset.data_vars)]
    fields: dict[str, xr.DataArray] = {}
    for names in pairs:
        made = _applied(regridding.winds, [dataset[n] for n in names], target)
        fields |= dict(zip(names, made, strict=True))
    for name in map(str, dataset.data_vars):
        if name not in fields:
            (fields[name],) = _applied(_one(getattr(regridding, method)), [dataset[name]], target)
    coordinates = {
        "latitude": ("latitude", target.latitude, dict(dataset["latitude"].attrs)),
        "longitude": ("longitude", target.longitude, dict(dataset["longitude"].attrs)),
    }
    kept = {n: c for n, c in dataset.coords.items() if n not in coordinates}
    for field in fields.values() if method != "spectral" else ():
        field.attrs.pop("spectral_truncation", None)  # means over cells have small scales
    return xr.Dataset({str(n): fields[str(n)] for n in dataset.data_vars}, {**kept, **coordinates}, dataset.attrs)


def _one(method: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor]]:
    return lambda field: (method(field),)


def _applied(
    method: Callable[..., tuple[Tensor, ...]], fields: list[xr.DataArray], target: LatLonGrid
) -> list[xr.DataArray]:
    """Fields through a method that takes and gives tensors (..., lat, lon)."""

    def numbers(*arrays: np.ndarray) -> tuple[np.ndarray, ...] | np.ndarray:
        made = method(*(torch.from_numpy(np.array(array, dtype=np.float64)) for array in arrays))
        plain = tuple(field.to(torch.float32).numpy() for field in made)
        return plain if len(plain) > 1 else plain[0]

    core = ["latitude", "longitude"]
    whole = dict.fromkeys(core, -1)
    lazy = [field.chunk(whole | {"time": 1} if "time" in field.dims else whole) for field in fields]
    made = xr.apply_ufunc(
        numbers,
        *lazy,
        input_core_dims=[core] * len(fields),
        output_core_dims=[core] * len(fields),
        exclude_dims=set(core),
        dask="parallelized",
        output_dtypes=[np.float32] * len(fields),
        dask_gufunc_kwargs={"output_sizes": dict(zip(core, target.shape, strict=True))},
    )
    several = list(made) if isinstance(made, tuple) else [made]
    return [one.assign_attrs(field.attrs) for one, field in zip(several, fields, strict=True)]


NAME = re.compile(r"(\d+)x(\d+)_(equiangular|gaussian|lobatto)(_with_poles)?(_conservative)?")


def grid_named(name: str) -> LatLonGrid:
    """Return the grid of a name: 64x32_equiangular, 240x121_equiangular_with_poles, 64x32_gaussian or 64x33_lobatto."""
    match = NAME.fullmatch(name)
    if match is None or (match[3] != "equiangular" and match[4]):
        raise ValueError(
            "grid: expected longitudes x latitudes and a kind, 64x32_equiangular, 240x121_equiangular_with_poles, "
            f"64x32_gaussian or 64x33_lobatto; got '{name}'."
        )
    columns, rows = int(match[1]), int(match[2])
    if match[3] == "equiangular":
        return equiangular_grid(rows, columns, poles=bool(match[4]))
    return (gaussian_grid if match[3] == "gaussian" else lobatto_grid)(rows, columns)
