"""Whether data are what they seem: every value read once, ranges no weather leaves, values that are missing and where.

A check that is stopped goes on where it was: what each block of times told is kept until the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import origin_of
from data_pipelines.files.batch_records import BatchRecords
from data_pipelines.reading.damaged_data import DamagedData
from emulators.physics.physical_ranges import bounds

BLOCK_BYTES = 64e6


@dataclass(frozen=True)
class VariableReport:
    """What all values of one variable tell.

    least, greatest: with the times at which they stand, None for fields without time. limits: of the physical range,
    or None where none is known; beyond: values outside. missing: values; always: points missing at every time; times:
    at which some are missing that are not always; first: of these.
    """

    name: str
    units: str
    least: float
    least_at: np.datetime64 | None
    greatest: float
    greatest_at: np.datetime64 | None
    limits: tuple[float, float] | None
    beyond: int
    count: int
    missing: int
    always: int
    times: int
    first: np.datetime64 | None


def check_values(
    dataset: xr.Dataset, folder: Path, report: Callable[[str, float], None] | None = None
) -> tuple[list[VariableReport], xr.Dataset]:
    """(a Finding a variable, how often each point is missing: variables on latitude and longitude, counts).

    folder: where a check that is stopped keeps what it knows. DamagedData where values cannot be read.
    """
    parts = BatchRecords(folder / _fingerprint(dataset))
    names = [str(name) for name in dataset.data_vars]
    blocks = {name: list(_blocks(dataset[name])) for name in names}
    total, done, found, maps = sum(map(len, blocks.values())), 0, [], {}
    for name in names:
        told = []
        for block in blocks[name]:
            read = parts.read(done)
            if read is None:
                arrays = _block_statistics(dataset, name, block)
                parts.write(done, arrays, {})
            else:
                arrays = read[0]
            told.append(arrays)
            done += 1
            if report:
                report(name, done / total)
        found.append(_variable_report(dataset[name], told))
        maps[name] = (("latitude", "longitude"), np.sum([one["missing_map"] for one in told], axis=0))
    parts.remove()
    parts.root.rmdir()
    coords = {"latitude": dataset["latitude"], "longitude": dataset["longitude"]}
    return found, xr.Dataset(maps, coords, {"title": "number of missing values, over times and levels"})


def _fingerprint(dataset: xr.Dataset) -> str:
    """A name for the check of these data; files that were changed since are others."""
    origin = Path(origin_of(dataset, ""))
    told = hashlib.sha256(str(origin).encode())
    told.update(str(origin.stat().st_mtime_ns if origin.exists() else "").encode())
    for name in ("time", "level", "latitude", "longitude"):
        if name in dataset.coords:
            told.update(np.ascontiguousarray(dataset[name].values).tobytes())
    told.update(",".join(map(str, dataset.data_vars)).encode())
    return f".check-{told.hexdigest()[:12]}"


def _blocks(field: xr.DataArray) -> Iterator[slice]:
    """Stretches of times that are read at once."""
    if "time" not in field.dims:
        yield slice(None)
        return
    count = field.sizes["time"]
    stored = int(field.encoding.get("preferred_chunks", {}).get("time", 1))
    step = max(1, stored, int(BLOCK_BYTES * count // (4 * field.size)))
    yield from (slice(start, min(start + step, count)) for start in range(0, count, step))


def _block_statistics(dataset: xr.Dataset, name: str, block: slice) -> dict[str, np.ndarray]:
    """What one block tells: extremes by time, values beyond the range, missing values by time and by point."""
    field = dataset[name].isel(time=block) if "time" in dataset[name].dims else dataset[name].expand_dims("time")
    try:
        values = np.asarray(field.values, dtype=np.float32)
    except Exception as error:
        when = str(field["time"].values[0].astype("datetime64[s]")) if "time" in field.coords else "any time"
        raise DamagedData(origin_of(dataset), name, when, error) from error
    values = values.reshape(values.shape[0], -1, *values.shape[-2:])
    good = np.isfinite(values)
    axes = (1, 2, 3)
    limits = bounds(name, str(field.attrs.get("units", "")))
    beyond = np.zeros(1, np.int64)
    if limits:
        beyond[0] = (good & ((values < limits[0]) | (values > limits[1]))).sum()
    return {
        "least": np.where(good, values, np.inf).min(axis=axes),
        "greatest": np.where(good, values, -np.inf).max(axis=axes),
        "beyond": beyond,
        "missing": (~good).sum(axis=axes),
        "missing_map": (~good).sum(axis=(0, 1)),
        "always": (~good).all(axis=0),
    }


def _variable_report(field: xr.DataArray, told: list[dict[str, np.ndarray]]) -> VariableReport:
    least, greatest, missing = (np.concatenate([one[key] for one in told]) for key in ("least", "greatest", "missing"))
    always = int(np.all([one["always"] for one in told], axis=0).sum())
    times = field["time"].values.astype("datetime64[s]") if "time" in field.dims else None
    now_and_then = np.flatnonzero(missing > always)
    units = str(field.attrs.get("units", ""))

    def at(position: np.integer | int) -> np.datetime64 | None:
        return None if times is None else times[position]

    known = np.isfinite(least).any()
    return VariableReport(
        name=str(field.name),
        units=units,
        least=float(least.min()) if known else float("nan"),
        least_at=at(least.argmin()),
        greatest=float(greatest.max()) if known else float("nan"),
        greatest_at=at(greatest.argmax()),
        limits=bounds(str(field.name), units),
        beyond=int(sum(one["beyond"][0] for one in told)),
        count=int(field.size),
        missing=int(missing.sum()),
        always=always,
        times=int(now_and_then.size),
        first=at(now_and_then[0]) if now_and_then.size else None,
    )
