"""Data that are simulated, not fetched: where they are kept, how they are laid out, and that they are made once.

A store has the layout of WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560) and the attributes of CF (Eaton et al.
2022, doi 10.5281/zenodo.11288138). It is made in a folder beside its place and moved there whole: who finds it finds
all of it, and processes that want the same store wait for the one that makes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.files.atomic import atomic_folder
from data_pipelines.files.locks import wait_for_lock
from emulators.grid import LatLonGrid

COLUMN = ("time", "level", "latitude", "longitude")
SURFACE = ("time", "latitude", "longitude")
CHUNK, CHUNK_BYTES = 20, 2**20  # at most so many samples, or as many as are no larger together
TIME_ENCODING = {"units": "hours since 1970-01-01", "dtype": "int64"}


# dimensions, units, CF standard name or "", long name
VariableDescription = tuple[tuple[str, ...], str, str, str]


@dataclass(frozen=True)
class Trajectories:
    """Trajectories of equal length that follow each other on one time axis, with a gap before the next begins.

    number: how many; samples: of each; interval: between samples; gap: from the end of one to the start of the next.
    """

    number: int
    samples: int
    interval: np.timedelta64
    start: np.datetime64
    gap: np.timedelta64

    @property
    def times(self) -> np.ndarray:
        """Valid times of all samples, datetime64[s]."""
        step = self.interval.astype("timedelta64[s]")
        one = self.start.astype("datetime64[s]") + np.arange(self.samples) * step
        every = self.samples * step + self.gap.astype("timedelta64[s]")
        return (one + np.arange(self.number)[:, None] * every).ravel()

    def plain(self) -> dict[str, str]:
        """What distinguishes these trajectories from others, for the name of a store."""
        return {name: str(value) for name, value in asdict(self).items()}

    def write(
        self,
        folder: Path,
        template: xr.Dataset,
        samples: Iterable[Mapping[str, np.ndarray]],
        static: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """A whole store: `samples` of all trajectories together, first dimension trajectory, a chunk held at a time.

        static: fields without time. ValueError where a sample is not finite.
        """
        bytes_a_time = max(array[:1].nbytes for array in template.data_vars.values() if "time" in array.dims)
        most = max(CHUNK, CHUNK_BYTES // bytes_a_time)
        chunk = max(size for size in range(1, most + 1) if self.samples % size == 0)
        create_store(folder, template, chunk)
        stored = open_arrays(folder, [str(name) for name in template.data_vars])
        for name, field in (static or {}).items():
            stored.pop(name)[...] = field
        held: list[Mapping[str, np.ndarray]] = []
        for end, sample in enumerate(samples, start=1):
            held.append(sample)
            if len(held) < chunk:
                continue
            for name, array in stored.items():
                fields = np.stack([one[name] for one in held], axis=1)
                if not np.isfinite(fields).all():
                    raise ValueError(f"'{name}' grew without bound; choose a shorter timestep.")
                for trajectory, part in enumerate(fields):
                    last = trajectory * self.samples + end
                    array[last - chunk : last] = part
            held.clear()


def require_at_least(what: str, least: Mapping[str, tuple[float, float]]) -> None:
    """ValueError where a setting, given as {name: (value, least)}, is too small."""
    for name, (value, least_value) in least.items():
        if value < least_value:
            raise ValueError(f"{what}'s {name} must be at least {least_value:g}; got {value:g}.")


def store_path(folder: str | None, name: str, settings: Mapping[str, Any]) -> Path:
    """Where the store made with `settings` is kept: below `folder`, by default the user's cache."""
    text = json.dumps(dict(settings), sort_keys=True)
    return _cache(folder) / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.zarr"


def make_once(path: Path, make: Callable[[Path], None], *, resumable: bool = False) -> None:
    """Have `make` fill a folder and move it to `path`, unless that is there; what a killed run left is cleared away.

    resumable: `make` goes on with what it finds in the folder, which is kept unless what is wrong would be so again
    (ValueError).
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with wait_for_lock(path.with_suffix(".lock")):
        if path.exists():  # another process made it while this one waited
            return
        with atomic_folder(path, resumable=resumable) as unfinished:
            try:
                make(unfinished)
            except ValueError:
                shutil.rmtree(unfinished, ignore_errors=True)
                raise


def empty_dataset(
    variables: Mapping[str, VariableDescription],
    grid: LatLonGrid,
    times: np.ndarray,
    levels: tuple[Sequence[float], Mapping[str, str]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Coordinates, attributes and shapes of a dataset, without its numbers. levels: values and attributes."""
    coordinates: dict[str, Any] = {
        "time": ("time", times.astype("datetime64[ns]"), {"standard_name": "time", "axis": "T"})
    }
    if levels is not None:
        coordinates["level"] = ("level", np.asarray(levels[0]), dict(levels[1]))
    coordinates |= {
        "latitude": ("latitude", grid.latitude, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": ("longitude", grid.longitude, {"standard_name": "longitude", "units": "degrees_east"}),
    }
    sizes = {name: len(values) for name, (_, values, _) in coordinates.items()}
    fields = {
        name: (
            dimensions,
            np.broadcast_to(np.float32(0.0), tuple(sizes[d] for d in dimensions)),
            {"long_name": long_name, "units": units} | ({"standard_name": standard} if standard else {}),
        )
        for name, (dimensions, units, standard, long_name) in variables.items()
    }
    return xr.Dataset(fields, coordinates, {"Conventions": "CF-1.8", **(attributes or {})})


def create_store(folder: Path, template: xr.Dataset, chunk: int) -> None:
    """An empty store: coordinates, attributes, and arrays whose chunks, of `chunk` times, are yet to come."""
    import zarr

    coordinates = template.drop_vars(list(template.data_vars))
    coordinates.to_zarr(folder, mode="w", zarr_format=3, consolidated=False, encoding={"time": TIME_ENCODING})
    group = zarr.open_group(folder, mode="r+")
    for name, variable in template.data_vars.items():
        shape = variable.shape
        group.create_array(
            str(name),
            shape=shape,
            dtype="float32",
            chunks=(chunk, *shape[1:]) if "time" in variable.dims else shape,
            fill_value=float("nan"),
            compressors=None,  # weather hardly shrinks, and is read many times
            dimension_names=[str(dimension) for dimension in variable.dims],
            attributes=variable.attrs,
        )


def open_arrays(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """The named arrays of the store in `folder`, to be written."""
    import zarr

    group = zarr.open_group(folder, mode="r+")
    return {name: group[name] for name in names}


def open_store(path: Path, names: Sequence[str], what: str) -> xr.Dataset:
    """The store at `path`, lazily; FileNotFoundError before it is made."""
    if not path.exists():
        raise FileNotFoundError(f"{what} data are not made yet: no {path}. Call prepare() first.")
    return xr.open_zarr(path, consolidated=False, chunks=None)[list(names)]


def _cache(folder: str | None) -> Path:
    if folder is not None:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "emul"
