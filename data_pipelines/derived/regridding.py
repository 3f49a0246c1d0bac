"""From one grid to another: first-order conservative, bilinear, nearest, or by spherical harmonics.

    conservative   F_I = sum_i (area of cell i within cell I) f_i / sum_i (area of cell i within cell I)

over the cells whose value is known; it keeps area means to rounding and makes no new extremes (Jones 1999,
doi 10.1175/1520-0493(1999)127<2204:FASOCR>2.0.CO;2); WeatherBench 2 regrids so. A cell of which nothing is known is
missing. Bilinear is linear in latitude and longitude between rows and columns, constant beyond the outermost rows, and
missing where a neighbour is; nearest takes the nearest row and column. Cells are those whose areas are the weights of
the grids: on a Gaussian grid their edges lie where the sums of the Gauss-Legendre weights put them.

The spectral method, of winds too, is that of `emulators.sphere.calculus`. Between grids of which one is a set of cells,
and by inverse distance, fields go through sparse weights: `CellRegridding`, `emulators.grids.weights`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from scipy.sparse import csr_array, load_npz
from torch import Tensor

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.conventions.cells import grid_attributes
from data_pipelines.files.archives import refusing_damage
from data_pipelines.files.atomic import atomic_file
from emulators.grid import Grid, LatLonGrid, grid_coordinates, grid_dims, lat_lon
from emulators.grids.weights import bilinear_weights, conservative_weights, nearest_weights
from emulators.sphere.calculus import Regrid
from emulators.sphere.transform import degrees_and_orders

METHODS = ("conservative", "bilinear", "nearest", "inverse_distance", "spectral")
WINDS = (
    ("u_component_of_wind", "v_component_of_wind"),
    ("10m_u_component_of_wind", "10m_v_component_of_wind"),
)
SPARSE_METHODS = ("conservative", "bilinear", "nearest", "inverse_distance")
SLIVER = 1e-12  # a share of a cell so small is rounding
SIDE_SLIVER = 1e-3  # a share of a cell so small may come from sides that are taken for arcs
NEIGHBOURS = 4  # of inverse distance


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
        valid = field.isfinite()
        if valid.all() and self._covered:
            return rows @ (field.double() @ columns)
        share = rows @ (valid.double() @ columns)
        total = rows @ (torch.where(valid, field, 0.0).double() @ columns)
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
        values = rows @ (torch.where(missing, 0.0, field).double() @ columns)
        touched = rows @ (missing.double() @ columns) > 0.0 if missing.any() else missing.new_zeros(())
        return torch.where(touched | self._outside, torch.nan, values)

    def nearest(self, field: Tensor) -> Tensor:
        """`field` at the nearest of its rows and columns; missing beyond the edge of a limited area."""
        rows = np.abs(self.target.latitude[:, None] - self.source.latitude).argmin(axis=1)
        columns = np.abs(_apart(self.target.longitude, self.source.longitude)).argmin(axis=1)
        values = field.double()[..., torch.from_numpy(rows), :][..., torch.from_numpy(columns)]
        return torch.where(self._outside, torch.nan, values)

    @cached_property
    def _between(self) -> tuple[Tensor, Tensor]:
        """Weights of the source's rows, (lat', lat), and columns, (lon, lon'), of linear interpolation."""
        latitude = self.source.latitude
        rows = np.stack(
            [np.interp(self.target.latitude, latitude[::-1], unit[::-1]) for unit in np.eye(latitude.size)], axis=1
        )
        east = np.mod(self.source.longitude - self.source.longitude[0], 360.0)
        target_east = np.mod(self.target.longitude - self.source.longitude[0], 360.0)
        round_trip = np.append(east, 360.0) if self.source.is_cyclic else east
        columns = np.stack(
            [
                np.interp(target_east, round_trip, np.append(unit, unit[0]) if self.source.is_cyclic else unit)
                for unit in np.eye(east.size)
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
        separation = np.abs(_apart(self.target.longitude, self.source.longitude)).min(axis=1)
        return torch.from_numpy(rows[:, None] | (separation > 0.5 * _step(self.source) + 1e-9)[None])

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
    separation = _apart(target.longitude, source.longitude)
    shares = np.zeros_like(separation)
    for turn in (-360.0, 0.0, 360.0):  # wide cells may meet on both sides
        shift = separation + turn
        right = np.minimum(shift + 0.5 * wide, 0.5 * narrow)
        left = np.maximum(shift - 0.5 * wide, -0.5 * narrow)
        shares += np.clip(right - left, 0.0, None)
    return shares / wide


class CellRegridding:
    """Regrid fields (..., *source.shape) to (..., *target.shape) in float64; NaN is a missing value.

    method: one of SPARSE_METHODS. file: sparse weights that are read from there, or put there once they are made;
    ValueError if it holds those of other grids or another method. A cell of which nothing is known is missing; means
    are over what is known of it.
    """

    def __init__(self, source: Grid, target: Grid, method: str = "conservative", file: Path | None = None) -> None:
        if method not in SPARSE_METHODS:
            raise ValueError(f"Between these grids method is one of {', '.join(SPARSE_METHODS)}; got '{method}'.")
        self.source, self.target, self.method = source, target, method
        matrix = _stored(file, source, target, method) if file is not None and file.exists() else None
        if matrix is None:
            matrix = _makers()[method](source, target)
            if file is not None:
                _store(file, matrix, source, target, method)
        self.matrix = matrix.tocsr()
        self._share = np.asarray(self.matrix.sum(axis=1)).reshape(-1)

    def __call__(self, field: Tensor) -> Tensor:
        """Return the field on the target."""
        rank = len(self.source.shape)
        values = field.double().numpy().reshape(*field.shape[: field.ndim - rank], -1)
        flat = values.reshape(-1, values.shape[-1]).T
        valid = np.isfinite(flat)
        complete = valid.all()
        total = self.matrix @ (flat if complete else np.where(valid, flat, 0.0))
        share = self._share[:, None] if complete else self.matrix @ valid.astype(np.float64)
        least = SIDE_SLIVER if self.method == "conservative" else 1.0 - 1e-9
        with np.errstate(invalid="ignore", divide="ignore"):
            result = np.where(share > least, total / share, np.nan)
        return torch.from_numpy(result.T.reshape(*values.shape[:-1], *self.target.shape))


def _makers() -> dict:
    return {
        "conservative": conservative_weights,
        "bilinear": bilinear_weights,
        "nearest": nearest_weights,
        "inverse_distance": lambda source, target: nearest_weights(source, target, NEIGHBOURS),
    }


def _label(source: Grid, target: Grid, method: str) -> str:
    """Return what weights depend on, in a few letters."""
    checksum = hashlib.sha256(method.encode())
    for grid in (source, target):
        for values in (*grid.points, grid.weights.reshape(-1)):
            checksum.update(np.round(values, 6).tobytes())
    return checksum.hexdigest()[:16]


def _stored(file: Path, source: Grid, target: Grid, method: str) -> csr_array:
    with refusing_damage(file), np.load(file) as archive:
        label = str(archive["label"]) if "label" in archive else ""
        matrix = csr_array(load_npz(file))
    if label != _label(source, target, method):
        raise ValueError(
            f"{file} holds other weights than those of {source} to {target}, {method}; remove it, or name another "
            "file: weights=..."
        )
    return matrix


def _store(file: Path, matrix: csr_array, source: Grid, target: Grid, method: str) -> None:
    with atomic_file(file) as partial, partial.open("wb") as stream:
        np.savez(
            stream,
            format=np.array(b"csr"), _is_array=True, shape=matrix.shape, data=matrix.data, indices=matrix.indices,
            indptr=matrix.indptr, label=_label(source, target, method),
        )  # fmt: skip


def regridded(
    dataset: xr.Dataset, target: Grid, method: str = "conservative", weights: Path | None = None
) -> xr.Dataset:
    """Regrid a canonical dataset, lazily; float32.

    Winds go through vorticity and divergence where the method is spectral and both components are there; otherwise
    each component by itself. weights: a file of sparse weights to keep or to use, see `CellRegridding`. ValueError
    where the method does not suit the grids or the values.
    """
    source = grid_of(dataset)
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}; got '{method}'.")
    if method == "spectral" and not (source.is_global and target.is_global):
        raise ValueError(f"Spectral regridding is between grids over the whole sphere; got {source!r} and {target!r}.")
    fields: dict[str, xr.DataArray] = {}
    transform: Callable[[Tensor], Tensor]
    are_lat_lon = isinstance(source, LatLonGrid) and isinstance(target, LatLonGrid) and method != "inverse_distance"
    if method == "spectral" or (are_lat_lon and weights is None):
        regridding = Regridding(lat_lon(source), lat_lon(target))
        transform = {
            "conservative": regridding.conservative,
            "bilinear": regridding.bilinear,
            "nearest": regridding.nearest,
            "spectral": regridding.spectral,
        }[method]
        pairs = [pair for pair in WINDS if method == "spectral" and set(pair) <= set(dataset.data_vars)]
        for names in pairs:
            winds = _applied(regridding.winds, [dataset[n] for n in names], source, target)
            fields |= dict(zip(names, winds, strict=True))
    else:
        transform = CellRegridding(source, target, method, weights)
    for name in map(str, dataset.data_vars):
        if name not in fields:
            (fields[name],) = _applied(_one(transform), [dataset[name]], source, target)
    coordinates = grid_coordinates(target)
    coords = {n: c for n, c in dataset.coords.items() if not {*c.dims} & {*grid_dims(source)} and n not in coordinates}
    for field in fields.values() if method != "spectral" else ():
        field.attrs.pop("spectral_truncation", None)  # means over cells have small scales
    attrs = {n: value for n, value in dataset.attrs.items() if not str(n).startswith("grid_")} | grid_attributes(target)
    return xr.Dataset({str(n): fields[str(n)] for n in dataset.data_vars}, {**coords, **coordinates}, attrs)


def _one(method: Callable[[Tensor], Tensor]) -> Callable[[Tensor], tuple[Tensor]]:
    return lambda field: (method(field),)


def _applied(
    method: Callable[..., tuple[Tensor, ...]], fields: list[xr.DataArray], source: Grid, target: Grid
) -> list[xr.DataArray]:
    """Fields through a method that takes and gives tensors (..., *grid)."""

    def numbers(*arrays: np.ndarray) -> tuple[np.ndarray, ...] | np.ndarray:
        results = method(*(torch.from_numpy(np.array(array, dtype=np.float64)) for array in arrays))
        outputs = tuple(field.to(torch.float32).numpy() for field in results)
        return outputs if len(outputs) > 1 else outputs[0]

    core, output_core = list(grid_dims(source)), list(grid_dims(target))
    one_chunk = dict.fromkeys(core, -1)
    lazy = [field.chunk(one_chunk | {"time": 1} if "time" in field.dims else one_chunk) for field in fields]
    results = xr.apply_ufunc(
        numbers,
        *lazy,
        input_core_dims=[core] * len(fields),
        output_core_dims=[output_core] * len(fields),
        exclude_dims=set(core),
        dask="parallelized",
        output_dtypes=[np.float32] * len(fields),
        dask_gufunc_kwargs={"output_sizes": dict(zip(output_core, target.shape, strict=True))},
    )
    several = list(results) if isinstance(results, tuple) else [results]
    return [result.assign_attrs(field.attrs) for result, field in zip(several, fields, strict=True)]
