"""Scores as files: those of several forecasts side by side, and those of an earlier evaluation."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.files.atomic import atomic_file

OF_ONE_FORECAST = ("forecast", "verdict", "number_of_inits", "nan_share", "metrics_left_out")


def side_by_side(parts: Mapping[str, xr.Dataset], like: xr.Dataset) -> xr.Dataset | None:
    """Scores of several sources in one Dataset, dimension `source` first, metrics as in `like`, then those of ensembles
    that `like` has not; None for no source."""
    if not parts:
        return None
    every = [like, *parts.values()]
    metrics = list(dict.fromkeys(str(metric) for dataset in every for metric in dataset["metric"].values))
    aligned = [dataset.drop_vars("inits").reindex(metric=metrics) for dataset in parts.values()]
    source = xr.DataArray(list(parts), dims="source", name="source")
    joined = xr.concat(aligned, dim=source, combine_attrs="override")
    counts = np.stack([dataset["inits"].values for dataset in parts.values()])
    joined = joined.assign_coords(inits=(("source", "lead_time"), counts))
    joined.attrs = {name: value for name, value in like.attrs.items() if name not in OF_ONE_FORECAST}
    for name in ("perfect", "exponent"):
        known = [json.loads(dataset.attrs[name]) for dataset in reversed(every) if name in dataset.attrs]
        joined.attrs[name] = json.dumps({metric: value for one in known for metric, value in one.items()})
    if "level" in joined.coords:
        joined["level"].attrs.update(like["level"].attrs)
    return joined


def read_scores(path: str | Path) -> xr.Dataset:
    """The scores.nc of an evaluation, in memory; FileNotFoundError or ValueError where it is none."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"No scores at {path}; expected a scores.nc that `emul eval` wrote.")
    with xr.open_dataset(path, decode_timedelta=True) as stored:
        absent = {"metric", "region", "lead_time"} - set(stored.dims)
        if absent:
            raise ValueError(
                f"{path} holds no scores: it lacks {', '.join(sorted(absent))}; take a scores.nc of `emul eval`."
            )
        return stored.load()


def read_budgets(folder: str | Path) -> xr.Dataset | None:
    """The budgets.nc in the folder of a forecast, in memory; None where there is none."""
    path = Path(folder) / "budgets.nc"
    if not path.is_file():
        return None
    with xr.open_dataset(path, decode_timedelta=True) as stored:
        return stored.load()


def write_table(path: Path, scores: xr.Dataset, others: xr.Dataset | None) -> Path:
    """Scores as a table for spreadsheets: a line a source, variable, level, metric, region and lead; NaN left empty."""
    sources = {"forecast": scores}
    if others is not None:
        sources |= {str(name): others.sel(source=name) for name in others["source"].values}
    with atomic_file(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["source", "variable", "level", "metric", "region", "lead_hours", "inits", "value", "units"])
        for source, dataset in sources.items():
            for name in dataset.data_vars:
                table.writerows([source, *line] for line in _lines(dataset, str(name)))
    return path


def _lines(dataset: xr.Dataset, name: str) -> Iterator[list[object]]:
    """variable, level, metric, region, lead in hours, initial times, value, units of what was scored."""
    field = dataset[name] if "level" in dataset[name].dims else dataset[name].expand_dims(level=[""], axis=-1)
    exponent = json.loads(str(dataset.attrs["exponent"]))
    inits = dataset["inits"].values
    hours = dataset["lead_time"].values.astype("timedelta64[s]").astype(float) / 3600
    values = field.transpose("level", "metric", "region", "lead_time").values
    for at, level in enumerate(field["level"].values.tolist()):
        if np.isnan(values[at]).all():
            continue
        for m, metric in enumerate(field["metric"].values.tolist()):
            power = exponent.get(metric, 0)
            units = str(field.attrs.get("units", ""))
            units = "" if power == 0 else units if power == 1 else f"({units})^{power}"
            for r, region in enumerate(field["region"].values.tolist()):
                for i, hour in enumerate(hours):
                    value = values[at, m, r, i]
                    shown = "" if np.isnan(value) else repr(float(value))
                    yield [name, level, metric, region, f"{hour:g}", int(inits[i]), shown, units]


def read_by_init(path: str | Path) -> dict[str, xr.Dataset]:
    """The by_init.nc of an evaluation, in memory: of `forecast` and, by name, of its baselines; empty where there is
    none."""
    if not Path(path).is_file():
        return {}
    stored = xr.open_groups(path, decode_timedelta=True)
    try:
        return {name.strip("/") or "forecast": group.load() for name, group in stored.items()}
    finally:
        for group in stored.values():
            group.close()


def read_spectra(path: str | Path) -> xr.Dataset | None:
    """The spectra in the scores.nc of an evaluation, in memory; None where it has none."""
    try:
        with xr.open_dataset(path, group="spectra", decode_timedelta=True) as stored:
            return stored.load()
    except OSError:  # no such group
        return None


def along(parts: Mapping[str, xr.Dataset], dim: str) -> xr.Dataset:
    """Datasets of the same shape along a new first dimension `dim`, labelled by name; no attributes."""
    return xr.concat(
        list(parts.values()), dim=xr.DataArray(list(parts), dims=dim, name=dim), combine_attrs="drop", join="outer"
    )


def same_errors(first: xr.Dataset, second: xr.Dataset, tolerance: float) -> bool | None:
    """Whether the squared errors in two by_init.nc agree wherever both have them; None where they share none."""
    if not all("squared_error" in one["statistic"].values for one in (first, second)):
        return None
    a, b = xr.align(first.sel(statistic="squared_error"), second.sel(statistic="squared_error"), join="inner")
    shared = [name for name in a.data_vars if name in b]
    if not shared or not all(a.sizes.values()):
        return None
    return all(np.allclose(a[name], b[name], rtol=tolerance, equal_nan=True) for name in shared)
