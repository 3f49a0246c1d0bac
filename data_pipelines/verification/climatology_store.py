"""Climatologies by hour and day of the year, made from any dataset into a Zarr store that `emul eval` reads.

The samples of all years of a variable are gathered in memory, in blocks of levels and rows that fit, and turned into
the statistics of `emulators.statistics.climatology` hour by hour. Finished blocks are marked, so that the same
call resumes an interrupted one, and the store takes its name only when it is complete. Names are those of
WeatherBench 2 (Rasp et al. 2024, arXiv 2308.15560): `<variable>`, `_std`, `_quantile`, `_seeps_threshold`,
`_seeps_dry_fraction`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import grid_of, horizontal, level_index
from data_pipelines.conventions.cells import grid_attributes
from data_pipelines.conventions.dialects import variable_hint
from data_pipelines.conventions.durations import bounds, spacing
from data_pipelines.files.atomic import atomic_folder, sole_maker, write_text
from data_pipelines.files.fingerprints import every_chunk, seal_store
from data_pipelines.files.identity import differences, listed, revision
from emulators.grid import grid_coordinates
from emulators.statistics.climatology import (
    DAYS,
    WIDTH,
    calendar,
    dry_fraction,
    fill_last_day,
    mean_and_std,
    quantiles,
    seeps_threshold,
    window_weights,
)

Report = Callable[[str, float], None]
DRY = {"total_precipitation_6hr": 1e-4, "total_precipitation_24hr": 2.5e-4}  # m: less is dry (WeatherBench 2)
CHUNK = 2**18  # numbers of a chunk on disk
READ = 2**26  # bytes read at a time


@dataclass(frozen=True)
class Recipe:
    """Define a climatology by its period, window and statistics.

    period: [start, end], both inclusive, such as ["1990", "2019"]; null: all. hours: of the day; null: all that the
    data have. window: width in days. quantiles: between 0 and 1. variables: names, or {name: [levels]}; null: all that
    vary in time. levels: null: all. dry: by variable the amount in m below which precipitation is dry; these get the
    fields of SEEPS.
    """

    period: tuple[str, str] | None = None
    hours: tuple[int, ...] | None = None
    window: int = WIDTH
    quantiles: tuple[float, ...] = ()
    variables: Sequence | None = None
    levels: tuple[float, ...] | None = None
    dry: Mapping[str, float] = field(default_factory=lambda: dict(DRY))

    def __post_init__(self) -> None:
        window_weights(self.window)
        wrong = [q for q in self.quantiles if not 0.0 < q < 1.0]
        if wrong:
            raise ValueError(f"quantiles lie between 0 and 1; got {', '.join(map(str, wrong))}.")


@dataclass(frozen=True)
class StoredVariable:
    """Describe a variable of the store, its levels (empty: none), and the size of the blocks it is computed in."""

    name: str
    levels: tuple[float, ...]
    at: tuple[int, ...]  # where the levels stand in the data
    levels_at_a_time: int
    rows_at_a_time: int

    def blocks(self, rows: int) -> Iterator[tuple[slice, slice]]:
        """Levels and rows of each block."""
        for level in range(0, max(1, len(self.levels)), self.levels_at_a_time):
            for row in range(0, rows, self.rows_at_a_time):
                yield slice(level, level + self.levels_at_a_time), slice(row, min(row + self.rows_at_a_time, rows))


class Samples:
    """Sort the times of a dataset by hour, year and day of the year."""

    def __init__(self, dataset: xr.Dataset, recipe: Recipe) -> None:
        times = dataset["time"].values.astype("datetime64[s]")
        step = spacing(times)
        if step is None or np.datetime_data(step)[0] == "M" or step > np.timedelta64(1, "D"):
            raise ValueError(
                "A climatology by day of the year needs daily data or finer; these have "
                f"{times.size} times{'' if step is None else f', a step of {step}'}."
            )
        year, self.day, second = calendar(times)
        self.hours = tuple(sorted(set((second // 3600).tolist()))) if recipe.hours is None else recipe.hours
        first, last = (times[0], times[-1]) if recipe.period is None else bounds(recipe.period)
        self.index = np.flatnonzero((times >= first) & (times <= last) & np.isin(second, 3600 * np.array(self.hours)))
        if not self.index.size:
            raise ValueError(
                f"The data have no time from {first} to {last} at {', '.join(map(str, self.hours))} h of the day; they "
                f"run from {times[0]} to {times[-1]}."
            )
        self.first, self.last = int(year[self.index].min()), int(year[self.index].max())
        self.day, self.year = self.day[self.index], year[self.index] - self.first
        self.hour = np.searchsorted(self.hours, second[self.index] // 3600)
        self.shape = (len(self.hours), self.last - self.first + 1, DAYS)
        self.times = times[self.index]

    def of(self, field: xr.DataArray, report: Callable[[float], None]) -> np.ndarray:
        """float32 (hour, year, day, point) of a field (time, ...); NaN where there is none."""
        rest = [str(dim) for dim in field.dims if dim != "time"]
        points = int(np.prod([field.sizes[dim] for dim in rest]))
        sampled = np.full((*self.shape, points), np.nan, dtype=np.float32)
        step = max(1, READ // (4 * points))
        for start in range(0, self.index.size, step):
            batch = slice(start, start + step)
            index = self.index[batch]
            run = slice(index[0], index[-1] + 1) if index.size == index[-1] - index[0] + 1 else index
            values = field.isel(time=run).transpose("time", *rest).values
            sampled[self.hour[batch], self.year[batch], self.day[batch]] = values.reshape(index.size, points)
            report(min(1.0, (start + step) / self.index.size))
        fill_last_day(sampled)
        return sampled


def days_without(dataset: xr.Dataset, recipe: Recipe) -> int:
    """Days of the year within whose window the data have no time; there the climatology is missing."""
    days = set(Samples(dataset, recipe).day.tolist())
    if DAYS - 2 in days:
        days.add(DAYS - 1)
    inner = recipe.window // 2 - 1  # days at the ends of a window have no weight
    covered = {(day + beside) % DAYS for day in days for beside in range(-inner, inner + 1)}
    return DAYS - len(covered)


def climatology(
    dataset: xr.Dataset,
    path: Path,
    recipe: Recipe,
    *,
    made_from: Mapping[str, Any] | None = None,
    megabytes: float = 2048,
    report: Report | None = None,
) -> Path:
    """Make the climatology of a canonical dataset at `path`, or go on making it; a whole one of this recipe is kept.

    made_from: identity of the data. megabytes: of samples and what is made of them, held at a time. ValueError where
    the data do not fit the recipe, or `path` holds something else.
    """
    samples = Samples(dataset, recipe)
    rows, *across = (dataset.sizes[dim] for dim in horizontal(dataset))
    columns = int(np.prod(across))
    sizes = len(samples.hours), samples.shape[1], len(recipe.quantiles)
    bytes_of_row = columns * DAYS * (4 * sizes[0] * sizes[1] + 8 * (12 + sizes[2]))
    variables = [
        StoredVariable(name, levels, at, *_fitting(len(levels), rows, bytes_of_row, int(megabytes * 2**20)))
        for name, (levels, at) in _chosen(dataset, recipe).items()
    ]
    attributes = _attributes(dataset, samples, recipe, made_from or {})
    with sole_maker(path):
        if path.exists():
            _refuse_other(path, attributes)
        else:
            _make(path, dataset, samples, recipe, variables, attributes, report)
    return path


def _make(
    path: Path,
    dataset: xr.Dataset,
    samples: Samples,
    recipe: Recipe,
    parts: Sequence[StoredVariable],
    attributes: Mapping[str, Any],
    report: Report | None,
) -> None:
    """Make the store, or go on making it; every chunk is written, also those without a number."""
    rows = dataset.sizes[horizontal(dataset)[0]]
    total = sum(len(list(variable.blocks(rows))) for variable in parts) * len(samples.hours)
    done = 0
    with atomic_folder(path, resumable=True) as partial, every_chunk():
        if not _is_of(partial, attributes, parts):
            _lay_out(partial, dataset, samples, recipe, parts, attributes)
        for variable in parts:
            for levels, block in variable.blocks(rows):
                done += len(samples.hours)
                status = (report, f"{variable.name}, rows {block.start + 1} to {block.stop} of {rows}", done, total)
                _fill(partial, dataset, samples, recipe, variable, levels, block, status)
        seal_store(partial)
        shutil.rmtree(partial / "finished")


def _chosen(dataset: xr.Dataset, recipe: Recipe) -> dict[str, tuple[tuple[float, ...], tuple[int, ...]]]:
    """The levels of each variable, and their positions in the data."""
    moving = [str(n) for n in dataset.data_vars if {"time", *horizontal(dataset)} <= set(dataset[n].dims)]
    requested: dict[str, Sequence[float] | None] = {}
    for entry in moving if recipe.variables is None else recipe.variables:
        requested |= {entry: recipe.levels} if isinstance(entry, str) else {str(k): v for k, v in entry.items()}
    selection: dict[str, tuple[tuple[float, ...], tuple[int, ...]]] = {}
    for name, levels in requested.items():
        if name not in moving:
            raise ValueError(f"fields: the data have no '{name}' that varies in time; {variable_hint(name, moving)}")
        units = str(dataset[name].attrs.get("units", ""))
        if name in recipe.dry and units not in ("m", ""):
            raise ValueError(f"What is dry is told in m, '{name}' is in {units}; leave it out with dry={{}}.")
        if "level" not in dataset[name].dims:
            selection[name] = ((), ())
            continue
        stored_levels = dataset["level"].values.astype(float)
        positions = list(range(stored_levels.size)) if levels is None else level_index(stored_levels, levels)
        selection[name] = (tuple(stored_levels[positions].tolist()), tuple(positions))
    if not selection:
        raise ValueError("No variable of the data varies in time, latitude and longitude; there is nothing to average.")
    return selection


def _fitting(levels: int, rows: int, bytes_of_row: int, budget: int) -> tuple[int, int]:
    """The number of levels, and of rows of them, that fit in memory."""
    level_count = budget // (bytes_of_row * rows)
    return (min(level_count, max(1, levels)), rows) if level_count else (1, max(1, budget // bytes_of_row))


def _attributes(dataset: xr.Dataset, samples: Samples, recipe: Recipe, made_from: Mapping[str, Any]) -> dict[str, Any]:
    plain = asdict(recipe)
    return {
        "title": "climatology by hour and day of the year",
        "years": [int(samples.first), int(samples.last)],
        "times": f"{samples.times.size} from {samples.times[0]} to {samples.times[-1]}",
        **grid_attributes(grid_of(dataset)),
        "origin_of_data": str(dataset.attrs.get("origin", "")),
        "recipe": "; ".join(f"{name}={value}" for name, value in sorted(plain.items())),
        **({"made_from": dict(made_from)} if made_from else {}),
    }


def _refuse_other(path: Path, attributes: Mapping[str, Any]) -> None:
    import zarr

    try:
        stored = dict(zarr.open_group(path, mode="r").attrs)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is there and is no climatology; give another to=.") from error
    stored = {"made_from": attributes.get("made_from"), **stored}  # an attribute that older stores lack
    ignored = {"origin_of_data"} if "made_from" in attributes else set()  # equal data may lie elsewhere
    expected = {name: value for name, value in attributes.items() if name not in ignored}
    if altered := differences({name: stored.get(name) for name in expected}, expected):
        raise ValueError(f"{path} is there and was made otherwise ({listed(altered)}); remove it or give another to=.")


def _is_of(partial: Path, attributes: Mapping[str, Any], parts: Sequence[StoredVariable]) -> bool:
    """True where `partial` was laid out completely for the same recipe and blocks."""
    try:
        stored = json.loads((partial / "finished" / "layout.json").read_text())
    except (OSError, ValueError):
        return False
    return stored == _plain_layout(attributes, parts)


def _plain_layout(attributes: Mapping[str, Any], parts: Sequence[StoredVariable]) -> Any:
    return json.loads(json.dumps([attributes, [asdict(variable) for variable in parts]]))


def _statistics(part: StoredVariable, recipe: Recipe, units: str) -> dict[str, tuple[str, str]]:
    """Suffixes of what is stored of a variable, with units and a long name."""
    stats = {"": (units, "mean"), "_std": (units, "standard deviation")}
    if recipe.quantiles:
        stats["_quantile"] = (units, "quantile")
    if part.name in recipe.dry:
        stats["_seeps_threshold"] = (units, f"two of three cases of at least {recipe.dry[part.name]:g} m stay below it")
        stats["_seeps_dry_fraction"] = ("1", f"share of cases below {recipe.dry[part.name]:g} m")
    return stats


def _lay_out(
    partial: Path,
    dataset: xr.Dataset,
    samples: Samples,
    recipe: Recipe,
    parts: Sequence[StoredVariable],
    attributes: Mapping[str, Any],
) -> None:
    """The store without numbers: arrays whose chunks are each written by one block."""
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    levels = sorted({level for variable in parts for level in variable.levels})
    integral = all(level.is_integer() for level in levels)
    coordinates: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "hour": (np.array(samples.hours, dtype=np.int64), {"long_name": "hour of the day, UTC", "units": "1"}),
        "dayofyear": (np.arange(1, DAYS + 1), {"long_name": "day of the year, of leap years", "units": "1"}),
    }
    grid, points = horizontal(dataset), grid_coordinates(grid_of(dataset))
    if levels:
        attrs = {k: v for k, v in dataset["level"].attrs.items() if isinstance(v, str)}
        coordinates["level"] = (np.array(levels, dtype=np.int64 if integral else np.float64), attrs)
    if recipe.quantiles:
        of_years = {"long_name": "share of the years that stay below", "units": "1"}
        coordinates["quantile"] = (np.array(recipe.quantiles, dtype=np.float64), of_years)
    said = {"Conventions": "CF-1.11", **attributes, "revision": revision()}
    root: Any = zarr.create_group(partial, zarr_format=3, attributes=said)
    for name, (values, attrs) in coordinates.items():
        more = {"dimension_names": (name,), "compressors": [Crc32cCodec()]}
        root.create_array(name, data=values, chunks=values.shape, attributes=attrs, **more)
    for name, (dims, values, attrs) in points.items():
        more = {"dimension_names": dims, "compressors": [Crc32cCodec()]}
        root.create_array(name, data=values, chunks=values.shape, attributes=dict(attrs), **more)
    lengths = {name: len(values) for name, (values, _) in coordinates.items()} | {d: dataset.sizes[d] for d in grid}
    for variable in parts:
        units = str(dataset[variable.name].attrs.get("units", ""))
        for suffix, (unit, long_name) in _statistics(variable, recipe, units).items():
            dims = ("hour", *(["quantile"] if suffix == "_quantile" else []), "dayofyear")
            dims = (*dims, *(["level"] if variable.levels else []), *grid)
            chunks = {**{dim: dataset.sizes[dim] for dim in grid}, grid[0]: variable.rows_at_a_time}
            chunks["dayofyear"] = max(1, min(DAYS, CHUNK // int(np.prod([chunks[dim] for dim in grid]))))
            root.create_array(
                variable.name + suffix,
                shape=tuple(lengths[dim] for dim in dims),
                chunks=tuple(chunks.get(dim, 1) for dim in dims),
                dtype="<f4",
                compressors=[ZstdCodec(level=0), Crc32cCodec()],
                fill_value=np.nan,
                dimension_names=dims,
                attributes={"units": unit, "long_name": f"{variable.name}: {long_name}"},
            )
    (partial / "finished").mkdir()
    write_text(partial / "finished" / "layout.json", json.dumps(_plain_layout(attributes, parts)))


def _fill(
    partial: Path,
    dataset: xr.Dataset,
    samples: Samples,
    recipe: Recipe,
    part: StoredVariable,
    levels: slice,
    rows: slice,
    progress: tuple[Report | None, str, int, int],
) -> None:
    """Gather the samples of one block and write what follows from them, hour by hour; finished hours are kept."""
    import zarr

    marks = [
        partial / "finished" / f"{part.name}.{levels.start}.{rows.start}.{place}" for place in range(len(samples.hours))
    ]
    if all(mark.exists() for mark in marks):
        return
    report, text, done, total = progress

    def tell(share: float) -> None:  # reading counts as much as an hour of the statistics
        if report:
            report(text, (done - len(marks) * (1.0 - share)) / total)

    grid = horizontal(dataset)
    taken = dataset[part.name].isel({grid[0]: rows})
    if part.levels:
        taken = taken.isel(level=list(part.at[levels])).transpose("time", "level", *grid)
    shape = taken.shape[1:]
    root: Any = zarr.open_group(partial, mode="r+")
    stored = root["level"][:].tolist() if part.levels else []
    gathered = samples.of(taken, lambda share: tell(share / (len(marks) + 1)))
    for place, mark in enumerate(marks):
        if mark.exists():
            continue
        for suffix, values in _of_hour(gathered[place], part, recipe).items():
            array, maps = root[part.name + suffix], values.reshape(*values.shape[:-1], *shape).astype(np.float32)
            points = (rows, *[slice(None)] * (len(grid) - 1))
            if not part.levels:
                array[(place, ..., *points)] = maps
            for number, level in enumerate(part.levels[levels]):
                array[(place, ..., stored.index(level), *points)] = maps.take(number, axis=maps.ndim - 1 - len(grid))
        mark.touch()
        tell((place + 2) / (len(marks) + 1))


def _of_hour(samples: np.ndarray, part: StoredVariable, recipe: Recipe) -> dict[str, np.ndarray]:
    """By suffix the statistics of one hour, ([quantile,] day, point)."""
    weights = window_weights(recipe.window)
    stats = dict(zip(("", "_std"), mean_and_std(samples, weights), strict=True))
    if recipe.quantiles:
        stats["_quantile"] = quantiles(samples, weights, recipe.quantiles)
    if part.name in recipe.dry:
        dry = recipe.dry[part.name]
        stats["_seeps_threshold"] = seeps_threshold(samples, weights, dry)
        stats["_seeps_dry_fraction"] = dry_fraction(samples, recipe.window, dry)
    return stats
