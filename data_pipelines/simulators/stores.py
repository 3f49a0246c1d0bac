"""Stores of simulated data: where they are kept, their layout, and how each is made once.

A store has the layout of WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560) and the attributes of CF (Eaton et al.
2022, doi 10.5281/zenodo.11288138). It is made in a temporary folder and then moved to its path, so a store that exists
is complete. Processes that need the same store wait for the one that makes it.
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
from data_pipelines.files.seals import every_chunk, seal_store, sealed_root
from data_pipelines.reading.zarr_chunks import with_direct_reads
from emulators.grid import LatLonGrid

COLUMN = ("time", "level", "latitude", "longitude")
SURFACE = ("time", "latitude", "longitude")
CHUNK, CHUNK_BYTES = 20, 2**20  # a chunk holds at most 20 samples, or as many as fit into 1 MiB
TIME_ENCODING = {"units": "hours since 1970-01-01", "dtype": "int64"}


# dimensions, units, CF standard name or "", long name
VariableDescription = tuple[tuple[str, ...], str, str, str]


@dataclass(frozen=True)
class Trajectories:
    """Lay trajectories of equal length one after the other along one time axis, with gaps between them.

    number: of trajectories. samples: of each trajectory. interval: between samples. start: of the first trajectory.
    gap: from the end of a trajectory to the start of the next.
    """

    number: int
    samples: int
    interval: np.timedelta64
    start: np.datetime64
    gap: np.timedelta64

    @property
    def times(self) -> np.ndarray:
        """Return the valid times of all samples, datetime64[s], (number * samples,)."""
        step = self.interval.astype("timedelta64[s]")
        first = self.start.astype("datetime64[s]") + np.arange(self.samples) * step
        period = self.samples * step + self.gap.astype("timedelta64[s]")
        return (first + np.arange(self.number)[:, None] * period).ravel()

    def plain(self) -> dict[str, str]:
        """Return the settings as strings, for `store_path`."""
        return {name: str(value) for name, value in asdict(self).items()}

    def write(
        self,
        folder: Path,
        template: xr.Dataset,
        samples: Iterable[Mapping[str, np.ndarray]],
        static: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Write a store, holding one chunk of samples in memory.

        samples: the fields of all trajectories at each time, (trajectory, [level,] lat, lon). static: fields without
        time. Raises ValueError if a sample is not finite.
        """
        largest = max(array[:1].nbytes for array in template.data_vars.values() if "time" in array.dims)
        limit = max(CHUNK, CHUNK_BYTES // largest)
        chunk = max(size for size in range(1, limit + 1) if self.samples % size == 0)
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
                fields = np.stack([fields_at_time[name] for fields_at_time in held], axis=1)
                if not np.isfinite(fields).all():
                    raise ValueError(f"'{name}' grew without bound; choose a shorter timestep.")
                for trajectory, values in enumerate(fields):
                    last = trajectory * self.samples + end
                    array[last - chunk : last] = values
            held.clear()


def require_at_least(owner: str, settings: Mapping[str, tuple[float, float]]) -> None:
    """Raise ValueError if a setting is too small. settings: {name: (value, least value)}."""
    for name, (value, least) in settings.items():
        if value < least:
            raise ValueError(f"{owner}'s {name} must be at least {least:g}; got {value:g}.")


def store_path(folder: str | None, name: str, settings: Mapping[str, Any]) -> Path:
    """Return the path of the store with these settings, in `folder` or by default in the user's cache."""
    text = json.dumps(dict(settings), sort_keys=True)
    return _cache(folder) / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.zarr"


def make_once(path: Path, make: Callable[[Path], None], *, resumable: bool = False) -> None:
    """Call `make` with a temporary folder to fill with a store, seal that and move it to `path`, unless `path` exists.

    resumable: after an interruption the temporary folder is kept, and the next call of `make` continues it. Otherwise,
    and after a ValueError, which would occur again, the temporary folder is removed.
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
            seal_store(unfinished)


def empty_dataset(
    variables: Mapping[str, VariableDescription],
    grid: LatLonGrid,
    times: np.ndarray,
    levels: tuple[Sequence[float], Mapping[str, str]] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Return a dataset with coordinates, attributes and shapes, whose fields take no memory.

    levels: values and attributes of the coordinate `level`. attributes: of the dataset.
    """
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
    """Create a store with the coordinates and attributes of `template` and empty arrays, `chunk` times in a chunk."""
    import zarr
    from zarr.codecs import Crc32cCodec

    coordinates = template.drop_vars(list(template.data_vars))
    encoding: dict[str, dict[str, Any]] = {str(name): {"compressors": (Crc32cCodec(),)} for name in coordinates.coords}
    encoding["time"] |= TIME_ENCODING
    with every_chunk():
        coordinates.to_zarr(folder, mode="w", zarr_format=3, consolidated=False, encoding=encoding)
    group = zarr.open_group(folder, mode="r+")
    for name, variable in template.data_vars.items():
        shape = variable.shape
        group.create_array(
            str(name),
            shape=shape,
            dtype="float32",
            chunks=(chunk, *shape[1:]) if "time" in variable.dims else shape,
            fill_value=float("nan"),
            compressors=[Crc32cCodec()],  # weather hardly shrinks, and is read many times
            dimension_names=[str(dimension) for dimension in variable.dims],
            attributes=variable.attrs,
        )


def open_arrays(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Open the named arrays of the store in `folder` for writing."""
    import zarr

    group = zarr.open_group(folder, mode="r+")
    return {name: group[name] for name in names}


def open_store(path: Path, names: Sequence[str], owner: str) -> xr.Dataset:
    """Open the named variables of the store at `path` lazily; FileNotFoundError if it is not made yet.

    ValueError if the store is damaged; damaged chunks are found when they are read.
    """
    if not path.exists():
        raise FileNotFoundError(f"{owner} data are not made yet: no {path}. Call prepare() first.")
    try:
        sealed = sealed_root(path) is not None
        stored = with_direct_reads(xr.open_zarr(path, consolidated=sealed, chunks=None, decode_cf=False), path)
        return xr.decode_cf(stored)[list(names)]
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(f"{owner} data are damaged ({error}): remove {path}, and they are made again.") from error


def _cache(folder: str | None) -> Path:
    if folder is not None:
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "emul"
