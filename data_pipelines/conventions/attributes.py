"""Attributes of a canonical dataset by which one part of the pipeline informs another.

    origin            the file, store or address that the data come from
    left_out          variables that cannot be used, a line each: `name: reason`
    timestep          the timestep that was declared for the data, such as 6h or 1M
    vertical_kind     of the levels: sigma, hybrid or pressure; with vertical_a, vertical_b, vertical_dry as in
                      `emulators.world.Vertical`
    flux_convention   ecmwf, where fluxes follow the European centre (`data_pipelines.conventions.fluxes`)
    roles             of a packed store, JSON: the roles of variables that it was made with
    assumed           of a forecast: what had to be assumed of its lead times
    assumed_units     what had to be assumed of the units of coordinates, a line each
    ranges            least and greatest possible value by variable, JSON, where they are not those of
                      `emulators.physics.physical_ranges`

A variable has `units`, `levels` if it has not all levels of the dataset, and `spectral_truncation` if its fields end at
a total wavenumber, as those of spectral models.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from data_pipelines.conventions.durations import duration, spacing
from emulators.grid import LatLonGrid
from emulators.world import Vertical


def origin_of(dataset: xr.Dataset, default: str = "the data") -> str:
    """Return where the data come from, for messages."""
    return str(dataset.attrs.get("origin", default))


def assumptions(dataset: xr.Dataset) -> list[str]:
    """Return what had to be assumed of the units of coordinates, a sentence each."""
    return str(dataset.attrs.get("assumed_units") or "").splitlines()


def left_out_reasons(dataset: xr.Dataset) -> dict[str, str]:
    """Return the reason for each variable of the source that the dataset does not have."""
    lines = str(dataset.attrs.get("left_out", "")).splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def timestep_of(dataset: xr.Dataset) -> np.timedelta64 | None:
    """Return the declared timestep, else the usual spacing of the times; None if the data have fewer than two."""
    if declared := dataset.attrs.get("timestep"):
        return duration(declared)
    return spacing(dataset["time"].values) if "time" in dataset.dims else None


def vertical_coordinate(dataset: xr.Dataset) -> Vertical:
    """Return the vertical coordinate; of a dataset that declares none, pressure where it has levels."""
    kind = dataset.attrs.get("vertical_kind") or ("pressure" if "level" in dataset.dims else "none")
    a, b = (tuple(float(x) for x in np.atleast_1d(dataset.attrs.get(f"vertical_{n}", ()))) for n in "ab")
    return Vertical(kind, a, b, bool(dataset.attrs.get("vertical_dry", False)))


def truncation_of(field: xr.DataArray) -> int | None:
    """Return the largest total wavenumber of a field; None if the data do not declare one."""
    declared = field.attrs.get("spectral_truncation")
    return None if declared is None else int(declared)


def grid_of(dataset: xr.Dataset) -> LatLonGrid:
    """Return the grid of a canonical dataset."""
    return LatLonGrid(dataset["latitude"].values, dataset["longitude"].values)
