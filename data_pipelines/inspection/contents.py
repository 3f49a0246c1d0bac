"""Summaries of a canonical dataset, advice on chunks, and what a configuration asks of it in vain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import grid_of, timestep_of, vertical_coordinate
from data_pipelines.conventions.dialects import nearest_variable
from data_pipelines.conventions.durations import bounds, duration_text, gaps
from data_pipelines.conventions.suggestions import Finding, listing, refusal
from data_pipelines.derived.forcings import FIXED, MOVING
from data_pipelines.files.atomic import bytes_text
from emulators.grid import Grid, LatLonGrid

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
    intervals = tuple((times[i], times[i + 1]) for i in gaps(times))
    return TimeAxis(times[0], times[-1], times.size, duration_text(step) if step is not None else None, intervals)


def grid_description(grid: Grid) -> str:
    """Return a line that describes the grid."""
    if not isinstance(grid, LatLonGrid):
        (south, north), (west, east) = ((coordinate.min(), coordinate.max()) for coordinate in grid.points)
        extent = "global" if grid.is_global else f"latitude {south:g} to {north:g} N, longitude {west:g} to {east:g} E"
        return f"{grid}, {extent}".replace("_", " ")
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
        sampled = field
        if "time" in field.dims:
            picked = np.unique(np.linspace(0, field.sizes["time"] - 1, samples).round().astype(int))
            sampled = field.isel(time=picked)
        try:
            values = np.asarray(sampled.values, dtype=np.float64)
        except Exception as error:
            raise ValueError(
                f"Cannot read '{name}' from {dataset.attrs.get('origin', 'the data')}: a chunk or file is damaged or "
                f"incomplete ({type(error).__name__}: {str(error)[:160]})."
            ) from error
        finite = np.isfinite(values)
        least, greatest = (float(f(values[finite])) if finite.any() else float("nan") for f in (np.min, np.max))
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
            float(1.0 - finite.mean()),
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


def split_findings(splits: Mapping[str, Any], times: np.ndarray) -> tuple[list[Finding], dict[str, str], list[str]]:
    """Find splits that are no periods, lie outside the data, or are empty.

    Returns the findings, a line for each period by name, and warnings of overlaps.
    """
    times = times.astype("datetime64[s]")
    first, last = times.min(), times.max()
    slack = max(np.timedelta64(1, "D"), *np.diff(times[:2]))
    span = f"{first} to {last}"
    findings, periods, rows, warnings = [], {}, {}, []
    for name, period in splits.items():
        key = f"data.splits.{name}"
        try:
            start, end = periods[name] = bounds(period)
        except ValueError as error:
            findings.append(refusal(key, "a period [start, end]", error))
            continue
        inside = int(((times >= start) & (times <= end)).sum())
        got = f"{period[0]} to {period[1]}"
        if not inside:
            findings.append(Finding(key, f"times of the data, {span}", f"{got}, which holds none"))
        elif start < first - slack or end > last + slack:
            findings.append(Finding(key, f"a period within {span}", got, "shorten it"))
        rows[name] = f"{got}, {inside} times"
    for used, name in (("train", "validation"), ("train", "test"), ("validation", "test")):
        if name in periods and used in periods:
            (a, b), (c, d) = periods[used], periods[name]
            if a <= d and c <= b:
                why = ", which chooses the best weights" if used == "validation" else ""
                after = "or know that reports will say so." if used == "train" else "which no choice was made on."
                warnings.append(
                    f"data.splits.{name} overlaps data.splits.{used}{why}: its scores will flatter. Take other times, "
                    f"{after}"
                )
    missing = [name for name in ("train", "validation", "test") if name not in splits]
    findings += [Finding(f"data.splits.{name}", "a period [start, end]", "nothing", "add it") for name in missing]
    return findings, rows, warnings


def variable_findings(roles: Mapping[str, Any], template: xr.Dataset) -> list[Finding]:
    """Find variables that the data do not hold and that cannot be computed."""
    if roles.get("prognostic") is None and "roles" in template.attrs:  # as stored
        return []
    computed = {"forcing": MOVING, "static": FIXED}
    findings = []
    for role in ("prognostic", "forcing", "diagnostic", "static"):
        for index, entry in enumerate(roles.get(role) or ()):
            finding = _entry_finding(f"variables.{role}[{index}]", entry, template, computed.get(role, ()))
            if finding:
                findings.append(finding)
    if not roles.get("prognostic"):
        fix = f"list what is to be predicted; {listing(template.data_vars)}"
        findings.append(Finding("variables.prognostic", "at least one variable", "none", fix))
    return findings


def _entry_finding(key: str, entry: Any, template: xr.Dataset, computed: Iterable[str]) -> Finding | None:
    name, levels = (entry, None) if isinstance(entry, str) else next(iter(dict(entry).items()))
    names = [*map(str, template.data_vars), *computed]
    if name not in names:
        best = nearest_variable(str(name), names)
        fix = f"write {best}" if best else listing(names).rstrip(".")
        return Finding(key, "a variable of the data" + (" or a computed one" if computed else ""), str(name), fix)
    if not levels:
        return None
    if name not in template.data_vars or "level" not in template[name].dims:
        return Finding(key, f"{name} alone, which has no levels", f"levels {levels}", f"write {name}")
    available = [float(level) for level in template["level"].values]
    absent = [level for level in levels if float(level) not in available]
    if absent:
        closest = [f"{min(available, key=lambda other: abs(other - float(level))):g}" for level in absent]
        listed = ", ".join(f"{level:g}" for level in available)
        got = ", ".join(f"{float(level):g}" for level in absent)
        return Finding(key, f"levels of {name}: {listed}", got, f"write {', '.join(closest)}")
    return None


def length_findings(
    splits: Mapping[str, Any], times: np.ndarray, history: int, lengths: Mapping[str, int], batch: int, stride: int
) -> list[Finding]:
    """Find splits that are shorter than one example, and a batch larger than the training split.

    lengths: of the rollouts by split, in timesteps. stride: times between the starts of examples.
    """
    findings = []
    for name, rollout in lengths.items():
        start, end = bounds(splits[name])
        count, needed = int(((times >= start) & (times <= end)).sum()), history + rollout
        if count < needed:
            expected = f"at least {needed} times, {history} known and {rollout} forecast"
            findings.append(Finding(f"data.splits.{name}", expected, f"{count}", "lengthen it, or shorten the rollout"))
        elif name == "train" and batch > (windows := (count - needed) // stride + 1):
            expected = f"at most the {windows} windows of data.splits.train"
            findings.append(
                Finding("training.batch_size", expected, f"{batch}", "take less, or a longer data.splits.train")
            )
    return findings


GAPS = 10  # listed one by one


def times_in_words(dataset: xr.Dataset) -> str:
    """How many times there are, from when to when, and the gaps in them."""
    axis = time_axis(dataset)
    if axis is None:
        return "none"
    text = f"{axis.count}, {axis.first} to {axis.last}, every {axis.step}, in order"
    for first, last in axis.gaps[:GAPS]:
        text += f"\n  gap: {first} to {last}"
    return text + (f"\n  and {len(axis.gaps) - GAPS} more gaps" if len(axis.gaps) > GAPS else "")


def dataset_rows(dataset: xr.Dataset) -> dict[str, str]:
    """Rows on the origin, grid, levels, times and their gaps, members and size of a dataset."""
    axis = time_axis(dataset)
    size = sum(field.size * field.dtype.itemsize for field in dataset.data_vars.values())
    rows = {"origin": dataset.attrs.get("origin", "a data source"), "grid": grid_description(grid_of(dataset))}
    rows["levels"] = level_description(dataset)
    if axis is None:
        rows["times"] = "none"
    else:
        span = f"{axis.first} to {axis.last}, every {axis.step}" if axis.count > 1 else f"{axis.first}, no step"
        rows["times"] = f"{axis.count}, {span}"
        gaps = "; ".join(f"{a} to {b}" for a, b in axis.gaps[:4])
        more = f"; and {len(axis.gaps) - 4} more" if len(axis.gaps) > 4 else ""
        rows["gaps"] = gaps + more if gaps else "none"
    if "member" in dataset.dims:
        rows["members"] = f"{dataset.sizes['member']}, each a sample of its own"
    rows["size"] = f"{bytes_text(size)} uncompressed, {len(dataset.data_vars)} variables"
    return rows


def summary_row(row: VariableSummary) -> list[str]:
    """The cells of a table: name, units, shape, chunks, bytes, least, greatest, share of missing values."""
    shape = " x ".join(map(str, row.shape)) + (" static" if row.is_static else "")
    missing = f"{row.missing:.1%}" if row.missing else "0"
    chunks = " x ".join(map(str, row.chunks)) if row.chunks else "-"
    cells = (row.name, row.units, shape, chunks, bytes_text(row.bytes))
    return [*cells, f"{row.least:.5g}", f"{row.greatest:.5g}", missing]
