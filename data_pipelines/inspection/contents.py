"""Summaries of a canonical dataset: times, grid, levels, variables, and advice on chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import timestep_of, vertical_coordinate
from data_pipelines.conventions.durations import duration_text, gaps
from emulators.grid import LatLonGrid

SAMPLES = 8  # times read for the range and the share of missing values
WASTEFUL, SCATTERED = 4, 32  # times in a chunk, and chunks of a time, above which reading slows a training down


@dataclass(frozen=True)
class TimeAxis:
    """Describe the times of a dataset. step: usual spacing, or None. gaps: (last time before, first time after)."""

    first: np.datetime64
    last: np.datetime64
    count: int
    step: str | None
    gaps: tuple[tuple[np.datetime64, np.datetime64], ...]


@dataclass(frozen=True)
class VariableSummary:
    """Describe one variable. chunks: as stored, or None. missing: share of missing values in the times read."""

    name: str
    units: str
    shape: tuple[int, ...]
    is_static: bool
    chunks: tuple[int, ...] | None
    bytes: int
    least: float
    greatest: float
    missing: float


def time_axis(dataset: xr.Dataset) -> TimeAxis | None:
    """Return the description of the times of a canonical dataset; None if it has none."""
    if "time" not in dataset.dims:
        return None
    times = dataset["time"].values.astype("datetime64[s]")
    step = timestep_of(dataset)
    wide = tuple((times[i], times[i + 1]) for i in gaps(times))
    return TimeAxis(times[0], times[-1], times.size, duration_text(step) if step is not None else None, wide)


def grid_description(grid: LatLonGrid) -> str:
    """Return a line that describes the grid."""
    rows = f"{grid.latitude[0]:g} to {grid.latitude[-1]:g} N"
    columns = f"{grid.longitude[0]:g} to {grid.longitude[-1]:g} E"
    return f"{grid.kind.replace('_', ' ')}, {grid.shape[0]} x {grid.shape[1]} (latitude {rows}, longitude {columns})"


def level_description(dataset: xr.Dataset) -> str:
    """Return a line that describes the levels."""
    if "level" not in dataset.dims:
        return "none"
    values = ", ".join(f"{value:g}" for value in dataset["level"].values)
    units = dataset["level"].attrs.get("units", "")
    return f"{dataset.sizes['level']} ({vertical_coordinate(dataset).kind}): {values}{f' {units}' if units else ''}"


def variable_summaries(dataset: xr.Dataset, samples: int = SAMPLES) -> Iterator[VariableSummary]:
    """Yield a summary of each variable, with its range over `samples` times spread over the whole period.

    Raises ValueError if a chunk cannot be read.
    """
    for key, field in dataset.data_vars.items():
        name = str(key)
        read = field
        if "time" in field.dims:
            picked = np.unique(np.linspace(0, field.sizes["time"] - 1, samples).round().astype(int))
            read = field.isel(time=picked)
        try:
            values = np.asarray(read.values, dtype=np.float64)
        except Exception as error:
            raise ValueError(
                f"Cannot read '{name}' from {dataset.attrs.get('origin', 'the data')}: a chunk or file is damaged or "
                f"incomplete ({type(error).__name__}: {str(error)[:160]})."
            ) from error
        good = np.isfinite(values)
        least, greatest = (float(f(values[good])) if good.any() else float("nan") for f in (np.min, np.max))
        chunks = field.encoding.get("chunks") or field.encoding.get("chunksizes")
        yield VariableSummary(
            name,
            str(field.attrs.get("units", "")).replace("**", ""),
            field.shape,
            "time" not in field.dims,
            tuple(chunks) if chunks else None,
            int(field.size) * field.dtype.itemsize,
            least,
            greatest,
            float(1.0 - good.mean()),
        )


def chunk_advice(dataset: xr.Dataset, summaries: list[VariableSummary]) -> list[str]:
    """Return a sentence for each way in which the chunks slow a training down, with its remedy."""
    wasteful: dict[int, list[str]] = {}
    scattered: dict[int, list[str]] = {}
    for row in summaries:
        stored = dataset[row.name].encoding.get("preferred_chunks") or {}
        if row.is_static or not row.chunks or "time" not in stored:
            continue
        times = min(int(stored["time"]), dataset.sizes["time"])
        pieces = int(np.prod([-(-n // stored.get(d, n)) for d, n in dataset[row.name].sizes.items() if d != "time"]))
        if times >= WASTEFUL:
            wasteful.setdefault(times, []).append(row.name)
        if pieces >= SCATTERED:
            scattered.setdefault(pieces, []).append(row.name)
    remedy = "pack them once for training: emul data convert"
    sentences = [
        f"{_short_list(names)}: a chunk holds {times} times, so that one random time costs the reading of {times}; "
        f"{remedy}."
        for times, names in wasteful.items()
    ]
    return sentences + [
        f"{_short_list(names)}: one time lies in {pieces} chunks; {remedy}." for pieces, names in scattered.items()
    ]


def _short_list(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
