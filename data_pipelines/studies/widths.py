"""What a sweep of learning rates over width found: its rows, summary, picture and section of the report.

rates.csv     a row for each training: parametrisation, width, factor of the rates, seed, score
rates.json    by parametrisation: best factors, how far they move, sensitivity, slopes of activations, gradient noise
rates.png     scores over rates by width, and sizes of activations over width
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.display.text import number
from data_pipelines.files.fingerprints import read_json, write_json
from data_pipelines.pictures.curves import draw_rates
from data_pipelines.reports.page import Html, image, join, quiet, table
from data_pipelines.verification.run_results import read_result, write_table
from emulators.scaling.width import WidthRun, WidthSweep, best_factor, coordinate_slopes, rate_sensitivity

FOLDER = "rates"  # of the trainings


def run_folder(study: Path, run: WidthRun) -> Path:
    """The run folder of a training within the folder of a study."""
    return study / FOLDER / "train" / run.name


def rate_rows(study: Path, sweep: WidthSweep, metric: str) -> list[dict[str, Any]]:
    """A row for each training; the score of one that diverged is NaN."""
    results = {run: read_result(run_folder(study, run)) for run in sweep.runs()}
    return [
        {**vars(run), metric: float((result or {}).get("validation", {}).get(metric, math.nan))}
        for run, result in results.items()
    ]


def scores_of(rows: Sequence[Mapping[str, Any]], metric: str, kind: str, width: int) -> dict[float, float]:
    """The mean score over seeds by factor, NaN where one diverged; 0: of the untrained network."""
    here = [row for row in rows if row["parametrisation"] == kind and row["width"] == width]
    return {f: float(np.mean([r[metric] for r in here if r["factor"] == f])) for f in {r["factor"] for r in here}}


def best_run(rows: Sequence[Mapping[str, Any]], sweep: WidthSweep, metric: str, kind: str, width: int) -> WidthRun:
    """The training of the first seed with the best score. ValueError where all diverged."""
    scores = scores_of(rows, metric, kind, width)
    finite = {factor: score for factor, score in scores.items() if factor > 0 and math.isfinite(score)}
    if not finite:
        raise ValueError(
            f"study.rates.factors: no training of width {width} with the parametrisation {kind} is finished; take "
            f"smaller factors than {min(sweep.factors):g}, or look at what failed in its log."
        )
    return WidthRun(kind, width, min(finite, key=finite.__getitem__), 0)


def summary(rows: Sequence[Mapping[str, Any]], sweep: WidthSweep, metric: str) -> dict[str, Any]:
    """By parametrisation: best factors by width, by how much they move, and the sensitivity to the rate by width."""
    found: dict[str, Any] = {}
    for kind in sweep.parametrisations:
        best, sensitivity = {}, {}
        for width in sweep.widths:
            scores = scores_of(rows, metric, kind, width)
            trained = np.array([scores[factor] for factor in sweep.factors])
            best[str(width)] = best_factor(sweep.factors, trained)
            sensitivity[str(width)] = rate_sensitivity(trained, scores[0.0])
        values = [factor for factor, _ in best.values()]
        found[kind] = {"best": best, "moves": max(values) / min(values), "sensitivity": sensitivity}
    return found


def write(
    study: Path,
    rows: Sequence[Mapping[str, Any]],
    sweep: WidthSweep,
    metric: str,
    sizes: Mapping[str, Mapping[str, Sequence[float]]],
    noise: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Write rates.csv, rates.json and rates.png, and return the summary.

    sizes: of activations by parametrisation and part, (width,). noise: scale of the gradient's noise by
    parametrisation and width, in samples.
    """
    found = summary(rows, sweep, metric)
    widths = np.array(sweep.widths, dtype=float)
    for kind, part in found.items():
        arrays = {name: np.array(values) for name, values in sizes[kind].items()}
        part |= {"sizes": sizes[kind], "slopes": coordinate_slopes(widths, arrays), "noise": noise[kind]}
    write_table(study / "rates.csv", rows)
    write_json(study / "rates.json", {"widths": list(sweep.widths), "metric": metric, "by": found})
    scores = {k: {w: scores_of(rows, metric, k, w) for w in sweep.widths} for k in sweep.parametrisations}
    draw_rates(study / "rates.png", scores, found, sweep.widths, metric)
    return found


def steepest(slopes: Mapping[str, float]) -> tuple[str, float]:
    """The part whose activations grow or shrink most with width, and its slope."""
    name = max(slopes, key=lambda part: abs(slopes[part]))
    return name, slopes[name]


def table_rows(found: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """A row for each parametrisation: best factors by width, how far they move, sensitivity, slope, noise."""
    rows = []
    for kind, part in found.items():
        name, slope = steepest(part["slopes"])
        best = [f"{factor:.3g}{'' if inside else ' (at the edge)'}" for factor, inside in part["best"].values()]
        columns = [*best, f"{part['moves']:.3g}", f"{max(part['sensitivity'].values()):.3g}", f"{slope:+.3f} ({name})"]
        rows.append((kind, [*columns, ", ".join(number(value) for value in part["noise"].values())]))
    return rows


def table_head(widths: Sequence[int]) -> list[str]:
    """The columns of `table_rows`, the first of which names the parametrisation."""
    best = [f"best factor, width {width}" for width in widths]
    return ["parametrisation", *best, "moves by", "sensitivity", "steepest slope", "noise scale by width"]


def section(study: Path) -> Html | None:
    """The section of the report; None where no such sweep was run."""
    if not (study / "rates.json").is_file():
        return None
    stored = read_json(study / "rates.json")
    text = (
        "Learning rates as factors of the study's own. Where the best one stays over width, what was tuned narrow "
        "serves wide. Sensitivity: what a rate drawn at random loses. Slope: of activations over width, 0 where they "
        "keep their size. Noise scale: samples a step beyond which more bring little."
    )
    rows = table_rows(stored["by"])
    return join(quiet(text), table(table_head(stored["widths"]), rows), image(study / "rates.png", "rates over width"))
