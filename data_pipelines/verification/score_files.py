"""Scores as files: those of several forecasts side by side, and those of an earlier evaluation."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import xarray as xr

from data_pipelines.files.atomic import atomic_text
from data_pipelines.files.netcdf import read_form, read_groups, read_netcdf, units_of_score
from data_pipelines.files.tables import plain_cells
from data_pipelines.verification.absences import Absence
from data_pipelines.verification.score_rows import Row, Score, headline_rows, score_rows
from emulators.scores.deterministic import skill

OF_ONE = ("rmse", "mse", "mae", "bias", "acc", "acc_by_init", "rmse_by_init")  # metrics of single forecasts


@dataclass(frozen=True)
class EvaluationResults:
    """Hold the scores of one forecast and the Datasets that are shown with them.

    scores: one variable a field, (metric, region, lead_time[, level]). baselines: the same, dimension `source` first.
    differences: to the baselines, with confidence limits and verdicts, dimensions `source` and `estimate`.
    further_scores: scores of other forecasts and limits of predictability by name. by_init: statistics of each initial
    time. spectra, histograms, budgets, climate: of the forecast. further_budgets: of other forecasts by name.
    """

    name: str
    scores: xr.Dataset
    baselines: xr.Dataset | None = None
    differences: xr.Dataset | None = None
    further_scores: Mapping[str, xr.Dataset] = field(default_factory=dict)
    by_init: xr.Dataset | None = None
    spectra: xr.Dataset | None = None
    histograms: xr.Dataset | None = None
    budgets: xr.Dataset | None = None
    further_budgets: Mapping[str, xr.Dataset] = field(default_factory=dict)
    climate: xr.Dataset | None = None

    @cached_property
    def headline(self) -> list[Row]:
        """The rows to show first."""
        return headline_rows(score_rows(self.scores))

    @cached_property
    def rows(self) -> list[Row]:
        """All rows, grouped by variable, those of the headline first."""
        order = [row.variable for row in self.headline]
        place = {name: order.index(name) for name in order}
        return sorted(score_rows(self.scores), key=lambda row: place.get(row.variable, len(order)))

    @property
    def shown_name(self) -> str:
        """The name, marked where the forecast failed its checks."""
        return f"{self.name} (failed its checks)" if self.scores.attrs.get("verdict") == "failed" else self.name

    @property
    def shown_metrics(self) -> list[str]:
        """The metrics of the score card: the first, and beside one of ensembles their spread/skill ratio."""
        leading = self.metrics[:1]
        of_members = leading and leading[0] not in OF_ONE and "spread_skill" in self.metrics[1:]
        return [*leading, *(["spread_skill"] if of_members else [])]

    @property
    def leads(self) -> np.ndarray:
        """Lead times, timedelta64."""
        return self.scores["lead_time"].values

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return [str(name) for name in self.scores["metric"].values]

    @property
    def regions(self) -> list[str]:
        """Names of the regions, the headline's first."""
        return [str(name) for name in self.scores["region"].values]

    @property
    def sources(self) -> list[str]:
        """Names of the baselines."""
        return [] if self.baselines is None else [str(name) for name in self.baselines["source"].values]

    @cached_property
    def curves(self) -> dict[str, xr.Dataset]:
        """Scores by name: `forecast`, then the baselines, then the further ones."""
        baselines = {} if self.baselines is None else {s: self.baselines.sel(source=s) for s in self.sources}
        return {"forecast": self.scores, **baselines, **self.further_scores}

    def score(self, metric: str, region: str | None = None) -> Score:
        """A metric in a region, by default the headline's."""
        return Score(metric, region or self.regions[0], int(json.loads(self.scores.attrs["exponent"])[metric]))

    def perfect(self, metric: str) -> float:
        """Value of the metric for a perfect forecast; NaN where there is none."""
        return float(json.loads(self.scores.attrs["perfect"])[metric])

    def values(self, row: Row, metric: str = "rmse", region: str | None = None) -> np.ndarray:
        """Scores by lead time in the units of the row."""
        return row.series(self.scores, metric, region or self.regions[0]) * row.scale(self.score(metric).exponent)

    def relative_difference(
        self, row: Row, source: str, metric: str = "rmse", region: str | None = None
    ) -> np.ndarray | None:
        """Loss of the forecast minus that of a baseline, as a fraction of the latter, by lead time; negative is better.

        The loss is |score - perfect score|: RMSE itself, 1 - ACC. None where the baseline lacks the row.
        """
        region = region or self.regions[0]
        if source not in self.sources or self.baselines is None or not row.is_in(self.baselines, metric, region):
            return None
        reference = row.series(self.baselines, metric, region, source=source)
        with np.errstate(divide="ignore", invalid="ignore"):
            return -skill(row.series(self.scores, metric, region), reference, self.perfect(metric))

    def verdicts(self, row: Row, source: str, metric: str = "rmse", region: str | None = None) -> list[Verdict]:
        """By lead time, whether the difference to a baseline is significant."""
        region, judged = region or self.regions[0], self.differences
        if judged is None or source not in judged["source"].values or not row.is_in(judged, metric, region):
            return [""] * len(self.leads)
        series = {e: row.series(judged, metric, region, source=source, estimate=e) for e in ("significant", EFFECTIVE)}
        least = float(judged.attrs["least_inits"])
        return [verdict(flag, count, least) for flag, count in zip(*series.values(), strict=True)]

    def verdict_counts(self, source: str, metric: str = "rmse", region: str | None = None) -> VerdictCounts | None:
        """How many differences to a baseline are significant, over all variables, levels and leads; None if unknown."""
        region, judged = region or self.regions[0], self.differences
        labels = {"source": source, "metric": metric, "region": region}
        if judged is None or any(label not in judged[dim].values for dim, label in labels.items()):
            return None
        fields = [judged[name].sel(labels).transpose("estimate", ...) for name in judged.data_vars]
        p_value, flag, effective = (
            np.concatenate([field.sel(estimate=estimate).values.ravel() for field in fields])
            for estimate in ("p_value", "significant", EFFECTIVE)
        )
        level, least = 0.01 * float(judged.attrs["level"]), float(judged.attrs["least_inits"])
        alone = int((p_value <= 1.0 - level).sum())
        together = int((flag == 1.0).sum())
        return VerdictCounts(int(np.isfinite(p_value).sum()), alone, together, int((effective < least).sum()))


def results_of(scores: xr.Dataset, name: str = "forecast") -> EvaluationResults:
    """The scores of one forecast with those of its baselines, which a dimension `source` holds, the forecast first."""
    if "source" not in scores.dims:
        return EvaluationResults(name, scores)
    first, *others = scores["source"].values
    return EvaluationResults(name, scores.sel(source=first), scores.sel(source=others) if others else None)


EFFECTIVE = "effective_inits"
Verdict = Literal["yes", "no", "few", ""]  # significant, not significant, too few initial times to say, not judged


class VerdictCounts(NamedTuple):
    """Count differences: judged; significant each for itself, and as shown; with too few initial times to say."""

    judged: int
    alone: int
    shown: int
    few: int


def verdict(flag: float, effective_inits: float, least: float) -> Verdict:
    """The verdict of a difference from the estimates of differences.nc."""
    if np.isnan(flag):
        return "few" if effective_inits < least else ""
    return "yes" if flag else "no"


def compared_evaluations(
    runs: Mapping[str, xr.Dataset], baseline: str, reference: xr.Dataset, differences: xr.Dataset | None
) -> dict[str, EvaluationResults]:
    """An EvaluationResults for each run of a comparison, with one of them (or another forecast) as its only baseline.

    runs: scores by name. reference: scores of the baseline. differences: of the runs to it, dimension `source` the run.
    """
    against, evaluations = reference.expand_dims(source=[baseline]), {}
    for name, scores in runs.items():
        judged = None
        if differences is not None and name in differences["source"].values:
            judged = differences.sel(source=[name]).assign_coords(source=[baseline])
        evaluations[name] = EvaluationResults(name, scores, None if name == baseline else against, judged)
    return evaluations


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
            cells = {"source": "forecast", ABSENT_IN.get(absence.kind, absence.kind): absence.name}
            note = f"{absence.name} left out: {absence.reason}"
            table.writerow(plain_cells([*(cells.get(column, "") for column in COLUMNS), note]))
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
                    text = "" if np.isnan(value) else repr(float(value))
                    yield [name, level, metric, region, f"{hour:g}", int(inits[i]), text, units]


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
                cells = ["" if np.isnan(values[i]) else f"{values[i]:.8g}", baseline, ""]
                cells[2] = "" if np.isnan(share) else f"{share:.4g}"
                flag = verdicts[i].replace("few", "too few initial times")
                yield [run.name, row.variable, row.level or "", metric, region, f"{hour:g}", *cells, flag, units, note]


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
    forecasts = {}
    for name, folder in folders.items():
        scores = read_scores(folder / "scores.nc") if (folder / "scores.nc").is_file() else None
        forecasts[name] = StoredForecast(scores, read_budgets(folder))
        if scores is None and forecasts[name].budgets is None:
            raise FileNotFoundError(
                f"beside.{name}: no scores.nc and no budgets.nc in {folder}; give a folder of `emul forecast`."
            )
    return forecasts


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


def region_text(entry: str | Mapping[str, Any]) -> str:
    """Return a region as it was asked for: a name, or a name with its bounds in degrees."""
    if isinstance(entry, str):
        return entry
    ((name, box),) = entry.items()
    bounds = [f"{key} {value[0]:g} to {value[1]:g}" for key, value in box.items() if isinstance(value, list | tuple)]
    return f"{name}: {', '.join([*bounds, *(key for key, value in box.items() if value is True)])}"
