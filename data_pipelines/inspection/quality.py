"""Quality checks of a dataset: every value is read once, compared with physical ranges, and missing values are counted.

A check that is interrupted can be continued: the result of each block of times is saved until the check is complete.

Compare everything that lies at a path with its checksums: runs, forecasts, scores, stores and caches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import origin_of
from data_pipelines.files.archives import refuse_damaged_archive
from data_pipelines.files.batch_records import BatchRecords
from data_pipelines.files.fingerprints import (
    CRC_BYTES,
    fingerprint,
    is_sealed_json,
    read_json,
    refuse_damage,
    sealed_root,
    store_faults,
)
from data_pipelines.files.identity import digest
from data_pipelines.files.netcdf import is_sealed_netcdf, refuse_damaged_netcdf
from data_pipelines.forecasts.manifest import NAME, found_manifest, verify_checksums
from data_pipelines.packing.copying import CHECKSUMS, damaged_files
from data_pipelines.reading.packed_store import PackedStore, is_packed_store
from data_pipelines.reading.threads import DamagedData
from emulators.physics.physical_ranges import BOUNDS, plausible_range

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
    dataset: xr.Dataset,
    folder: Path,
    report: Callable[[str, float], None] | None = None,
    made_from: Mapping[str, Any] | None = None,
) -> tuple[list[VariableReport], xr.Dataset]:
    """Return a report on each variable, and maps of the number of missing values, (latitude, longitude).

    folder: where the results of an interrupted check are saved, for the same data. made_from: what the data are, with
    the fingerprint of their files; else those of their origin. Raises DamagedData if values cannot be read.
    """
    files = {"fingerprint": fingerprint(origin_of(dataset, ""))} if made_from is None else made_from
    records = BatchRecords(folder / f".check-{digest([files, fingerprint(None, dataset)])[:12]}")
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
    finite = np.isfinite(values)
    axes = (1, 2, 3)
    limits = plausible_range(name, str(field.attrs.get("units", "")))
    beyond = np.zeros(1, np.int64)
    if limits:
        beyond[0] = (finite & ((values < limits[0]) | (values > limits[1]))).sum()
    return {
        "least": np.where(finite, values, np.inf).min(axis=axes),
        "greatest": np.where(finite, values, -np.inf).max(axis=axes),
        "beyond": beyond,
        "missing": (~finite).sum(axis=axes),
        "missing_map": (~finite).sum(axis=(0, 1)),
        "always": (~finite).all(axis=0),
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


METADATA = ("zarr.json", ".zgroup", ".zarray")
ARCHIVES = (".ckpt", ".pt", ".npz")
HASH = re.compile(r"[0-9a-f]{64}")
LEFT = re.compile(r"\..*\.partial")


@dataclass(frozen=True)
class Verified:
    """Report on one thing. kind: in words. checked: whether it has checksums. faults: a sentence each."""

    path: Path
    kind: str
    checked: bool = True
    faults: tuple[str, ...] = ()


def verified(path: str | Path) -> Iterator[Verified]:
    """Yield a report on each thing at or below `path` that can have checksums; FileNotFoundError where nothing is."""
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"Nothing at {path}.")
    yield from _of_folder(path) if path.is_dir() else _of_file(path)


def _of_folder(folder: Path) -> Iterator[Verified]:
    if LEFT.fullmatch(folder.name):
        yield Verified(folder, "unfinished, left by an interruption", checked=False)
    elif any((folder / name).is_file() for name in METADATA):
        yield _of_store(folder)
    elif (folder / NAME).is_file():
        yield _of_forecast(folder)
    else:
        for path in sorted(folder.iterdir()):
            yield from _of_folder(path) if path.is_dir() else _of_file(path)


def _of_forecast(folder: Path) -> Verified:
    try:
        if not found_manifest(folder):
            return Verified(folder, f"folder with a {NAME} of another program", checked=False)
        return Verified(folder, "forecast", faults=tuple(verify_checksums(folder)))
    except (ValueError, OSError) as error:
        return Verified(folder, "forecast", faults=(str(error),))


def _of_store(folder: Path) -> Verified:
    try:
        root = sealed_root(folder)
        if is_packed_store(folder):
            return Verified(folder, "packed store", faults=tuple(PackedStore(folder).faults()))
        faults = store_faults(folder) if root is not None else None
        damaged = damaged_files(folder)
    except (ValueError, OSError) as error:
        return Verified(folder, "store", faults=(str(error),))
    if faults is None and damaged is None:
        return Verified(folder, "store of another program", checked=False)
    faulty = {fault.split(":")[0].split(" ")[0] for fault in faults or ()}
    more = [f"{name} differs from {CHECKSUMS}" for name in damaged or () if name not in faulty]
    return Verified(folder, "store", faults=(*(faults or ()), *more))


def _of_file(path: Path) -> Iterator[Verified]:
    """Yield a report on a file of a kind that can have a checksum; nothing on others."""
    try:
        if path.suffix in ARCHIVES:
            kind, checked = "archive", True
            refuse_damaged_archive(path)
        elif path.suffix == ".nc":
            kind, checked = "NetCDF", True
            checked = is_sealed_netcdf(path)
            refuse_damaged_netcdf(path)
        elif path.suffix == ".json":
            kind, checked = "JSON", True
            checked = is_sealed_json(path)
            if checked:
                read_json(path)
        elif HASH.fullmatch(path.name):
            kind, checked = "cached chunk", True
            content = path.read_bytes()
            refuse_damage(content[:-CRC_BYTES], content[-CRC_BYTES:])
        else:
            return
    except (ValueError, OSError) as error:
        yield Verified(path, kind, faults=(str(error),))
        return
    yield Verified(path, kind, checked)


def report_row(report: VariableReport) -> list[str]:
    """The cells of a table: name, units, least and greatest with their times, missing, missing always."""
    share = f"{report.missing / report.count:.2%}" if report.missing else "0"
    low, high = ("" if t is None else str(t)[:16] for t in (report.least_at, report.greatest_at))
    always = f"{report.always} points" if report.always else ""
    return [report.name, report.units, f"{report.least:.5g}", low, f"{report.greatest:.5g}", high, share, always]


def fault_sentences(reports: list[VariableReport]) -> list[str]:
    """A sentence for each variable with values that cannot be, or that are missing at some times only."""
    sentences = []
    for row in reports:
        if row.beyond and row.limits:
            low, high = row.limits
            sentences.append(
                f"{row.name}: expected {low:g} to {high:g} {row.units or '(units are not said)'}; got {row.beyond:,} "
                "values beyond; mend its units (data.units), or give what is something else a name (data.rename)."
            )
        if row.times and row.first is not None:
            sentences.append(
                f"{row.name}: values are missing at {row.times:,} times that are there at others, first {row.first}; "
                f"leave out these times, or give fill={{{row.name}: ...}} and masks=[{row.name}]."
            )
        if row.limits is None and row.name in BOUNDS:
            expected = BOUNDS[row.name][2]
            sentences.append(
                f"{row.name}: expected {expected}, the data say '{row.units}'; convert it, data.units={{{row.name}: "
                f"{expected}}}, or where they say it wrong: data.units={{{row.name}: '{expected} -> {expected}'}}."
            )
        if row.missing == row.count:
            sentences.append(f"{row.name}: every value is missing.")
    return sentences
