"""Quality checks of a dataset: every value is read once, compared with physical ranges, and missing values are counted.

A check that is interrupted can be continued: the result of each block of times is saved until the check is complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import origin_of
from data_pipelines.files.batch_records import BatchRecords
from data_pipelines.files.fingerprints import fingerprint
from data_pipelines.files.identity import digest
from data_pipelines.reading.damaged_data import DamagedData
from emulators.physics.physical_ranges import plausible_range

BLOCK_BYTES = 64e6


@dataclass(frozen=True)
class VariableReport:
    """Hold the extremes, outliers and missing values of one variable.

    least, greatest: extremes; least_at, greatest_at: their times, None for fields without time. limits: physical range,
    None if unknown. beyond: number of values outside it. count, missing: number of values, and of missing ones. always:
    number of points that are missing at every time. times: number of times at which further points are missing. first:
    the first of these times.
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
    """Return a report on each variable, and maps of the number of missing values, (latitude, longitude).

    folder: where the results of an interrupted check are saved. Raises DamagedData if values cannot be read.
    """
    records = BatchRecords(folder / _fingerprint(dataset))
    names = [str(name) for name in dataset.data_vars]
    blocks = {name: list(_blocks(dataset[name])) for name in names}
    total, done, reports, maps = sum(map(len, blocks.values())), 0, [], {}
    for name in names:
        statistics = []
        for block in blocks[name]:
            saved = records.read(done)
            if saved is None:
                arrays = _block_statistics(dataset, name, block)
                records.write(done, arrays, {})
            else:
                arrays = saved[0]
            statistics.append(arrays)
            done += 1
            if report:
                report(name, done / total)
        reports.append(_variable_report(dataset[name], statistics))
        maps[name] = (("latitude", "longitude"), np.sum([block["missing_map"] for block in statistics], axis=0))
    records.remove()
    records.root.rmdir()
    coords = {"latitude": dataset["latitude"], "longitude": dataset["longitude"]}
    return reports, xr.Dataset(maps, coords, {"title": "number of missing values, over times and levels"})


def _fingerprint(dataset: xr.Dataset) -> str:
    """Return the name of the folder of records for these data; it changes when the files change."""
    told = digest(fingerprint(origin_of(dataset, ""), dataset))
    return f".check-{told[:12]}"


def _blocks(field: xr.DataArray) -> Iterator[slice]:
    """Yield the slices of times that are read at once."""
    if "time" not in field.dims:
        yield slice(None)
        return
    count = field.sizes["time"]
    stored = int(field.encoding.get("preferred_chunks", {}).get("time", 1))
    step = max(1, stored, int(BLOCK_BYTES * count // (4 * field.size)))
    yield from (slice(start, min(start + step, count)) for start in range(0, count, step))


def _block_statistics(dataset: xr.Dataset, name: str, block: slice) -> dict[str, np.ndarray]:
    """Return extremes by time, values outside the range, and missing values by time and by point, of one block."""
    field = dataset[name].isel(time=block) if "time" in dataset[name].dims else dataset[name].expand_dims("time")
    try:
        values = np.asarray(field.values, dtype=np.float32)
    except Exception as error:
        when = str(field["time"].values[0].astype("datetime64[s]")) if "time" in field.coords else "any time"
        raise DamagedData(origin_of(dataset), name, when, error) from error
    values = values.reshape(values.shape[0], -1, *values.shape[-2:])
    good = np.isfinite(values)
    axes = (1, 2, 3)
    limits = plausible_range(name, str(field.attrs.get("units", "")))
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


def _variable_report(field: xr.DataArray, blocks: list[dict[str, np.ndarray]]) -> VariableReport:
    """Combine the statistics of all blocks of a variable."""
    least, greatest, missing = (
        np.concatenate([block[key] for block in blocks]) for key in ("least", "greatest", "missing")
    )
    always = int(np.all([block["always"] for block in blocks], axis=0).sum())
    times = field["time"].values.astype("datetime64[s]") if "time" in field.dims else None
    intermittent = np.flatnonzero(missing > always)
    units = str(field.attrs.get("units", ""))

    def at(position: np.integer | int) -> np.datetime64 | None:
        return None if times is None else times[position]

    any_finite = np.isfinite(least).any()
    return VariableReport(
        name=str(field.name),
        units=units,
        least=float(least.min()) if any_finite else float("nan"),
        least_at=at(least.argmin()),
        greatest=float(greatest.max()) if any_finite else float("nan"),
        greatest_at=at(greatest.argmax()),
        limits=plausible_range(str(field.name), units),
        beyond=int(sum(block["beyond"][0] for block in blocks)),
        count=int(field.size),
        missing=int(missing.sum()),
        always=always,
        times=int(intermittent.size),
        first=at(intermittent[0]) if intermittent.size else None,
    )
