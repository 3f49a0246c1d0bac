"""`emul eval compare a b c`: several evaluations on the same initial times, to outputs/eval/<name>/compare.html."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from data_pipelines.files.atomic import atomic_file, write_netcdf
from data_pipelines.files.provenance import revision
from data_pipelines.forecasts.manifest import now
from data_pipelines.verification.score_files import evaluation_folders, read_evaluation
from data_pipelines.verification.score_rows import (
    headline_leads,
    headline_rows,
    relative_difference,
    score_rows,
    significance,
)
from emul.config.build import build_all
from emul.config.settings import read_settings, refuse_others
from emul.display.text import lead_text, number, percent
from emul.terminal.console import console, header, progress, table, warn
from emulators.statistics.bootstrap import Bootstrap
from emulators.verification.comparison import Comparison, StoredEvaluation, along, compare

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class CompareSettings:
    """Settings of a comparison.

    baseline: an evaluation, persistence or climatology to take differences to, default the first evaluation. metric and
    region: what tables and pictures show. name: of the folder in <output>/eval. resamples, level, block: of the
    bootstrap; block in initial times, default from the autocorrelation.
    """

    baseline: str | None = None
    metric: str = "rmse"
    region: str | None = None
    name: str = "compare"
    output: str = "outputs"
    resamples: int = 500
    level: float = 0.95
    block: int | None = None


def main(arguments: list[str]) -> int:
    """The words of the command: evaluations by name or folder, and settings as key=value."""
    settings, words = read_settings(CompareSettings, arguments)
    refuse_others(words, CompareSettings, "emul eval compare")
    bootstrap = Bootstrap(settings.resamples, settings.level, settings.block)
    output = Path(settings.output)
    if len(words) < 2:
        raise ValueError("Nothing to compare: give two or more evaluations, `emul eval compare a b`.")
    with progress("comparing"):
        folders = evaluation_folders(words, output)
        evaluations = [StoredEvaluation(name, path, **read_evaluation(path)) for name, path in folders.items()]
        found = compare(evaluations, _built, bootstrap, settings.baseline, settings.region)
    header(
        f"emul eval compare {' '.join(found.runs)}", [f"{found.inits} initial times in all, against {found.baseline}"]
    )
    for note in found.notes:
        warn(note)
    metric, region = _chosen(found, settings.metric, settings.region)
    target = output / "eval" / settings.name
    target.mkdir(parents=True, exist_ok=True)
    dataset = _dataset(found)
    write_netcdf(target / "compare.nc", dataset, {} if found.judged is None else {"differences": found.judged})
    _write_table(target / "compare.csv", found, region)
    show(found, metric, region)
    from emul.report.comparison_page import present  # pictures come after the numbers are safe

    present(target, found, metric, region)
    console().print(f"table, pictures and page are in [key]{target}[/]", soft_wrap=True)
    return 0


def _built(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics from their stored configurations."""
    return build_all(OmegaConf.create(dict(metrics)))


def _chosen(found: Comparison, metric: str, region: str | None) -> tuple[str, str]:
    """Metric and region of tables and pictures; where nobody has the metric, the first that there is."""
    scores = found.reference
    names = [str(name) for name in scores["metric"].values]
    if metric not in names:
        if metric != CompareSettings.metric:
            raise ValueError(f"metric={metric}: expected one that all share, of {', '.join(names)}.")
        metric = names[0]
    judged = found.judged
    if region is None and judged is not None:
        region = str(judged["region"].values[0])
    return metric, region or str(scores["region"].values[0])


def _dataset(found: Comparison) -> xr.Dataset:
    """Scores of all runs, dimension `run` first, with what they were made of as attributes."""
    first = next(iter(found.runs.values())).scores
    joined = along({n: entry.scores.drop_vars("inits", errors="ignore") for n, entry in found.runs.items()}, "run")
    kept = ("grid", "truth", "climatology", "weights", "averaging", "points_left_out", "definitions", "perfect")
    joined.attrs = {name: first.attrs[name] for name in (*kept, "exponent", "metrics") if name in first.attrs}
    for name in first.data_vars:
        joined[name].attrs = first[name].attrs
    told = {name: str(entry.scores.attrs.get("forecast")) for name, entry in found.runs.items()}
    joined.attrs |= {
        "forecasts": json.dumps(told),
        "baseline": found.baseline,
        "number_of_inits": found.inits,
        "left_out": " ".join(found.notes) or "nothing",
        "created": now(),
        "revision": revision(),
    }
    return joined


def _write_table(path: Path, found: Comparison, region: str) -> None:
    """A line a run, variable, level, metric and lead, in one region, with the difference to the baseline."""
    head = ["run", "variable", "level", "metric", "region", "lead_hours", "value", "baseline", "difference_percent"]
    with atomic_file(path) as unfinished, open(unfinished, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*head, "significant"])
        for name in found.runs:
            writer.writerows(_lines(found, name, region))


def _lines(found: Comparison, name: str, region: str) -> Iterator[list[object]]:
    scores = found.runs[name].scores
    against = found.reference.expand_dims(source=[found.baseline])
    hours = scores["lead_time"].values.astype("timedelta64[s]").astype(float) / 3600
    for row in score_rows(scores):
        for metric in map(str, scores["metric"].values):
            values = row.series(scores, metric, region)
            difference = relative_difference(row, scores, against, found.baseline, metric, region)
            sure = significance(row, found.judged, name, metric, region)
            for i, hour in enumerate(hours):
                share = np.nan if difference is None or name == found.baseline else difference[i]
                told = [f"{values[i]:.8g}", found.baseline, f"{100 * share:.4g}"]
                flag = {True: "yes", False: "no", None: ""}[sure[i] if sure else None]
                shown = ["" if text == "nan" else text for text in told]
                yield [name, row.variable, row.level or "", metric, region, f"{hour:g}", *shown, flag]


def show(found: Comparison, metric: str, region: str) -> None:
    """In the terminal: a line a run, a column a headline variable, at the middle of the usual leads."""
    scores = found.reference
    first = headline_rows(score_rows(scores), most=8)
    leads = headline_leads(scores["lead_time"].values)
    lead = leads[len(leads) // 2]
    exponent = json.loads(scores.attrs["exponent"])[metric]
    head = [f"{metric}, {lead_text(scores['lead_time'].values[lead])}, {region}", *(row.label for row in first)]
    against = scores.expand_dims(source=[found.baseline])
    lines = []
    for name, entry in found.runs.items():
        cells = [name + (" (baseline)" if name == found.baseline else "")]
        for row in first:
            value = number(row.series(entry.scores, metric, region)[lead] * row.scale(exponent))
            difference = relative_difference(row, entry.scores, against, found.baseline, metric, region)
            sure = significance(row, found.judged, name, metric, region)
            mark = "~" if sure and sure[lead] is False else ""
            shown = "" if difference is None or name == found.baseline else f" {mark}{percent(difference[lead])}"
            cells.append(value + shown)
        lines.append(cells)
    table(head, lines, head[1:])
    if found.judged is not None:
        console().print(
            f"[quiet]differences to {found.baseline}; ~ not significant at {found.judged.attrs['level']} %[/]"
        )
