"""Read the results of trials from their run folders, and write those of a sweep as one Dataset and one table."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from data_pipelines.files.atomic import atomic_text
from data_pipelines.files.metrics_table import read_rows
from data_pipelines.files.seals import read_json
from data_pipelines.files.tables import plain_cells


class Progress(NamedTuple):
    """Hold the steps that a training has made, the best value of a metric so far, and its values by step."""

    step: int
    best: float
    marks: list[tuple[int, float]]


def read_progress(run: Path, metric: str) -> Progress:
    """The progress of the training in a run folder; best is NaN before the first validation."""
    rows = read_rows(run / "metrics.csv")
    marks = [(row["step"], row[metric]) for row in rows if metric in row]
    best = min((value for _, value in marks if not math.isnan(value)), default=math.nan)
    return Progress(rows[-1]["step"] if rows else 0, best, marks)


def read_result(run: Path) -> dict[str, Any] | None:
    """The result.json of a finished training; None before."""
    try:
        return read_json(run / "result.json")
    except (OSError, ValueError):  # made again where it is damaged
        return None


def trial_row(name: str, values: Mapping[str, str], state: str, run: Path, metric: str) -> dict[str, Any]:
    """One row of the results: the values that vary, the state, the steps and the scores of a trial."""
    progress, result = read_progress(run, metric), read_result(run) or {}
    validation = dict(result.get("validation", {}))
    last = validation.pop(metric, math.nan)  # of a network that is solved for in one step
    best = float(last) if math.isnan(progress.best) else progress.best
    row = {"trial": name, **values, "state": state, "step": result.get("step", progress.step)}
    return row | {metric: best, **validation}


def is_lagging(marks: Sequence[tuple[int, float]], others: Sequence[Sequence[tuple[int, float]]]) -> bool:
    """True if the latest value of a metric is not among the best third at its step (successive halving).

    Li et al. 2018 (JMLR 18). others: values by step of the other trials; fewer than two at this step decide nothing.
    """
    if not marks:
        return False
    step, value = marks[-1]
    rivals = sorted(v for other in others for s, v in other if s == step)
    return len(rivals) >= 2 and not value <= rivals[(len(rivals) - 1) // 3]


def sorted_rows(rows: Sequence[Mapping[str, Any]], metric: str, first: str) -> list[dict[str, Any]]:
    """Rows of trials in the state `first`, then the others, each with the best metric on top and NaN last."""

    def key(row: Mapping[str, Any]) -> tuple[bool, float]:
        return row["state"] != first, math.inf if math.isnan(row[metric]) else row[metric]

    return [dict(row) for row in sorted(rows, key=key)]


def trials_dataset(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], attributes: Mapping[str, str]) -> xr.Dataset:
    """Results along the dimension `trial`; the keys that vary and the state are coordinates, the rest variables."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    labels = {"trial", "state", *keys}
    return xr.Dataset(
        {name: ("trial", column) for name, column in columns.items() if name not in labels},
        {name: ("trial", column) for name, column in columns.items() if name in labels},
        dict(attributes),
    )


def _column(values: Sequence[Any]) -> np.ndarray:
    """Numbers if all values are numbers or empty, else text."""
    try:
        return np.array([np.nan if value in (None, "") else float(value) for value in values])
    except (TypeError, ValueError):
        return np.array(["" if value is None else str(value) for value in values])


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a CSV file with one line a row, atomically."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_text(path) as file:
        writer = csv.writer(file)
        writer.writerow(plain_cells(names))
        writer.writerows(plain_cells(row.get(name, "") for name in names) for row in rows)
