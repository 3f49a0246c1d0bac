"""Scores as files: those of several forecasts side by side, and those of an earlier evaluation."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from data_pipelines.files.atomic import atomic_text
from data_pipelines.files.netcdf import read_groups, read_netcdf
from data_pipelines.files.score_form import read_form, units_of_score
from data_pipelines.files.tables import plain_cells
from data_pipelines.verification.absences import Absence
from data_pipelines.verification.evaluation_results import EvaluationResults
from data_pipelines.verification.score_rows import score_rows

OF_ALL_RUNS = (  # attributes that runs share in a comparison
    "grid", "truth", "climatology", "weights", "averaging", "points_left_out", "definitions", "perfect", "exponent",
    "metrics",
)  # fmt: skip

COLUMNS = ("source", "variable", "level", "metric", "region", "lead_hours", "inits", "value", "units")
FAILED = "the forecast failed its checks"
ABSENT_IN = {"lead": "lead_hours", "date": "inits"}  # columns by kind of absence


def read_scores(path: str | Path) -> xr.Dataset:
    """The scores.nc of an evaluation, in memory; FileNotFoundError or ValueError where it is none."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"No scores at {path}; expected a scores.nc that `emul eval` wrote.")
    stored = read_netcdf(path)
    absent = {"metric", "region", "lead_time"} - set(stored.dims)
    if absent:
        raise ValueError(
            f"{path} holds no scores: it lacks {', '.join(sorted(absent))}; take a scores.nc of `emul eval`."
        )
    return read_form(stored)


def read_budgets(folder: str | Path) -> xr.Dataset | None:
    """The budgets.nc in the folder of a forecast, in memory; None where there is none."""
    path = Path(folder) / "budgets.nc"
    if not path.is_file():
        return None
    return read_netcdf(path)


def write_table(path: Path, scores: xr.Dataset, others: xr.Dataset | None, absences: Sequence[Absence] = ()) -> Path:
    """Scores as a table for spreadsheets: a line a source, variable, level, metric, region and lead; NaN left empty.

    absences: a line each at the end, the name in the column of its kind, the reason in the column `note`.
    """
    sources = {"forecast": scores}
    if others is not None:
        sources |= {str(name): others.sel(source=name) for name in others["source"].values}
    with atomic_text(path) as file:
        table = csv.writer(file)
        table.writerow([*COLUMNS, "note"])
        for source, dataset in sources.items():
            for name in dataset.data_vars:
                note = FAILED if source == "forecast" and dataset.attrs.get("verdict") == "failed" else ""
                table.writerows(plain_cells([source, *line, note]) for line in _lines(dataset, str(name)))
        for absence in absences:
            named = {"source": "forecast", ABSENT_IN.get(absence.kind, absence.kind): absence.name}
            note = f"{absence.name} left out: {absence.reason}"
            table.writerow(plain_cells([*(named.get(column, "") for column in COLUMNS), note]))
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
            units = units_of_score(str(field.attrs.get("units", "")), power)
            for r, region in enumerate(field["region"].values.tolist()):
                for i, hour in enumerate(hours):
                    value = values[at, m, r, i]
                    shown = "" if np.isnan(value) else repr(float(value))
                    yield [name, level, metric, region, f"{hour:g}", int(inits[i]), shown, units]


def write_comparison(path: Path, runs: Mapping[str, EvaluationResults], baseline: str, region: str) -> None:
    """Scores of runs in one region as a CSV file, with their relative differences to the baseline."""
    head = ["run", "variable", "level", "metric", "region", "lead_hours", "value", "baseline", "difference_percent"]
    with atomic_text(path) as file:
        table = csv.writer(file)
        table.writerow([*head, "significant", "units", "note"])
        for run in runs.values():
            table.writerows(map(plain_cells, _comparison_lines(run, baseline, region)))


def _comparison_lines(run: EvaluationResults, baseline: str, region: str) -> Iterator[list[object]]:
    hours = run.leads.astype("timedelta64[s]").astype(float) / 3600
    note = FAILED if run.shown_name != run.name else ""
    for row in score_rows(run.scores):
        for metric in run.metrics:
            values = row.series(run.scores, metric, region)
            change = run.relative_difference(row, baseline, metric, region)
            verdicts = run.verdicts(row, baseline, metric, region)
            units = units_of_score(str(run.scores[row.variable].attrs.get("units", "")), run.score(metric).exponent)
            for i, hour in enumerate(hours):
                share = np.nan if change is None else 100 * change[i]
                shown = ["" if np.isnan(values[i]) else f"{values[i]:.8g}", baseline, ""]
                shown[2] = "" if np.isnan(share) else f"{share:.4g}"
                flag = verdicts[i].replace("few", "too few initial times")
                yield [run.name, row.variable, row.level or "", metric, region, f"{hour:g}", *shown, flag, units, note]


def read_by_init(path: str | Path) -> dict[str, xr.Dataset]:
    """The by_init.nc of an evaluation, in memory: of `forecast` and, by name, of its baselines; empty where there is
    none."""
    if not Path(path).is_file():
        return {}
    return {name.strip("/") or "forecast": read_form(group) for name, group in read_groups(path).items()}


def read_spectra(path: str | Path) -> xr.Dataset | None:
    """The spectra in the scores.nc of an evaluation, in memory; None where it has none."""
    return read_groups(path).get("/spectra")


def evaluation_folders(names: Sequence[str], output: Path) -> dict[str, Path]:
    """The folders of evaluations by a short name, from their paths, their names, or the runs that they scored."""
    folders = [_evaluation_folder(name, output) for name in names]
    short = [folder.resolve().name for folder in folders]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"An evaluation is named twice: {', '.join(map(str, folders))}.")
    if len(set(short)) < len(short):  # folders of the same name in different places
        short = ["/".join(folder.resolve().parts[-3:]) for folder in folders]
    return dict(zip(short, folders, strict=True))


def _evaluation_folder(name: str, output: Path) -> Path:
    for candidate in (Path(name), output / "eval" / name, output / "eval" / Path(name).name):
        if (candidate / "scores.nc").is_file() and "forecast" not in candidate.parts[-2:-1]:
            return candidate
    raise FileNotFoundError(
        f"No evaluation called '{name}': expected a folder with scores.nc, or {output / 'eval' / Path(name).name}; "
        "make it with `emul eval`."
    )


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Read an evaluation: `scores`, `by_init`, `spectra`, and (scores, by_init) of its `baselines` by name."""
    by_init = read_by_init(folder / "by_init.nc")
    baselines: dict[str, tuple[xr.Dataset, xr.Dataset | None]] = {}
    if (folder / "baselines.nc").is_file():
        stored = read_scores(folder / "baselines.nc")
        baselines = {str(s): (stored.sel(source=s, drop=True), by_init.get(str(s))) for s in stored["source"].values}
    return {
        "scores": read_scores(folder / "scores.nc"),
        "by_init": by_init.get("forecast"),
        "spectra": read_spectra(folder / "scores.nc"),
        "baselines": baselines,
    }


@dataclass(frozen=True)
class StoredForecast:
    """Hold the scores and budgets that `emul forecast` wrote of a forecast."""

    scores: xr.Dataset | None
    budgets: xr.Dataset | None


def read_forecasts(folders: Mapping[str, Path]) -> dict[str, StoredForecast]:
    """Scores and budgets of forecasts by name; FileNotFoundError where a folder has neither."""
    found = {}
    for name, folder in folders.items():
        scores = read_scores(folder / "scores.nc") if (folder / "scores.nc").is_file() else None
        found[name] = StoredForecast(scores, read_budgets(folder))
        if scores is None and found[name].budgets is None:
            raise FileNotFoundError(
                f"beside.{name}: no scores.nc and no budgets.nc in {folder}; give a folder of `emul forecast`."
            )
    return found


def joined_runs(scores: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Scores of several runs, dimension `run` first, with the attributes that all share."""
    first = next(iter(scores.values()))
    datasets = [dataset.drop_vars("inits", errors="ignore") for dataset in scores.values()]
    runs = xr.DataArray(list(scores), dims="run", name="run")
    joined = xr.concat(datasets, dim=runs, combine_attrs="drop", join="outer")
    joined.attrs = {name: first.attrs[name] for name in OF_ALL_RUNS if name in first.attrs}
    for name in joined.variables:
        joined[name].attrs = first[name].attrs if name in first.variables else {}
    return joined
