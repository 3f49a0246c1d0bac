"""The runs of a scaling study as points: their folders, scores, and what a law is fitted to.

points.csv, points.nc   a row for each finished run: size, data, operations, scores; `kind` marks the one held out
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.files.netcdf import write_netcdf
from data_pipelines.verification.run_results import read_result, trials_dataset, write_table
from emulators.scaling.laws import Runs
from emulators.scaling.study import PlannedRun

SCORES = {"rmse": "rmse", "crps": "crps", "crps_fair": "crps_fair", "acc": "1-acc"}  # by metric: what falls with skill
FOLDERS = {"trunk": "trunks", "branch": "branches", "held_out": "held_out"}


def run_folder(study: Path, run: PlannedRun) -> Path:
    """The run folder of a run within the folder of a study."""
    return study / FOLDERS[run.kind] / "train" / run.name


def trunk_state(trunks: Path, run: PlannedRun) -> Path:
    """The state of its trunk that a branch starts from. trunks: the folder of the trunks' sweep."""
    return (trunks / "train" / run.trunk / "checkpoints" / f"step_{run.start}.ckpt").resolve()


def point(study: Path, run: PlannedRun, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """One row of the points; None where the run is not finished."""
    result = read_result(run_folder(study, run))
    if result is None:
        return None
    samples = run.steps * facts["batch"]
    row = {
        "run": run.name,
        "kind": run.kind,
        "width": run.width,
        "seed": run.seed,
        "steps": run.steps,
        "size": run.cost.parameters,
        "parameters": run.cost.all_parameters,
        "samples": samples,
        "data": samples * facts["points"],
        "passes": samples / facts["samples"],
        "operations": run.operations,
        **dict(result.get("validation", {})),
        **headline_scores(study / FOLDERS[run.kind] / "eval" / run.name / "scores.nc"),
    }
    return row


def finished(study: Path, runs: Sequence[PlannedRun], facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The points of those runs that are finished."""
    return [row for run in runs if (row := point(study, run, facts)) is not None]


def headline_scores(path: Path) -> dict[str, float]:
    """Global scores of an evaluation, under `rmse temperature 850 5d` or `1-acc temperature 850 5d`; none if absent."""
    if not path.is_file():
        return {}
    import xarray as xr

    found: dict[str, float] = {}
    with xr.open_dataset(path) as scores:
        for name, values in scores.data_vars.items():
            if not {"metric", "lead_time"} <= {*values.dims}:
                continue
            whole = values.sel(region="global") if "region" in values.dims else values
            days = whole["lead_time"].values / np.timedelta64(1, "D")
            for metric in (m for m in SCORES if m in whole["metric"]):
                score = whole.sel(metric=metric)
                for level in score["level"].values if "level" in score.dims else [None]:
                    column = score if level is None else score.sel(level=level)
                    label = f"{SCORES[metric]} {name}" + ("" if level is None else f" {level:g}")
                    by_day = {day: float(value) for day, value in zip(days, np.ravel(column.values), strict=True)}
                    errors = {day: 1.0 - value if metric == "acc" else value for day, value in by_day.items()}
                    found |= {f"{label} {day:g}d": errors[day] for day in (1, 3, 5) if day in errors}
    return found


def write_points(study: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write points.csv and points.nc."""
    write_table(study / "points.csv", rows)
    trials = [{"trial": row["run"], "state": "finished", **row} for row in rows]
    write_netcdf(study / "points.nc", trials_dataset(trials, ["kind", "width", "seed", "steps"], {"study": study.name}))


def measured_runs(rows: Sequence[Mapping[str, Any]], metric: str, facts: Mapping[str, Any]) -> Runs:
    """The points as runs of a law. ValueError where a run has no such score."""
    if missing := [row["run"] for row in rows if not math.isfinite(row.get(metric, math.nan))]:
        names = [name for name in rows[0] if name.startswith(("score", *SCORES.values()))]
        raise ValueError(
            f"study.metric={metric}: {missing[0]} has no finite value of it; there are {', '.join(names[:12])}. A run "
            "that diverged is to be left out by study.widths or study.durations, or trained at a smaller rate."
        )
    columns = (
        np.array([row[name] for row in rows], dtype=np.float64) for name in ("size", "data", metric, "operations")
    )
    size, data, loss, operations = columns
    return Runs(size, data, loss, operations, float(facts["samples"] * facts["points"]))


def held_out_runs(run: PlannedRun, facts: Mapping[str, Any]) -> Runs:
    """The held-out run without its loss."""
    data = float(run.steps * facts["batch"] * facts["points"])
    unique = float(facts["samples"] * facts["points"])
    ones = np.ones(1)
    return Runs(ones * run.cost.parameters, ones * data, ones, ones * run.operations, unique)
