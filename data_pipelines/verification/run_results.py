"""Read what run folders hold: settings, progress, results; those of a sweep as a Dataset and a table."""

from __future__ import annotations

import csv
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_pipelines.files.atomic import atomic_text, is_locked
from data_pipelines.files.fingerprints import read_json
from data_pipelines.files.tables import plain_cells, read_rows
from data_pipelines.forecasts.manifest import read_manifest

if TYPE_CHECKING:
    import xarray as xr


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


FEW_STEPS = 300  # of a training, below which it shows how a network begins to learn, not how good it is


def across_seeds(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], metric: str) -> list[dict[str, Any]]:
    """The mean of a metric over the seeds of each combination of the other keys, the best first.

    low, high: the 95 % interval of Student's t, NaN for a single seed. steps: the mean.
    """
    from scipy import stats

    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if math.isfinite(row[metric]):
            groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    means = []
    for combo, runs in groups.items():
        values = np.array([row[metric] for row in runs], dtype=float)
        half = math.nan
        if len(values) > 1:
            half = float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
        mean = float(values.mean())
        row = {metric: mean, "low": mean - half, "high": mean + half, "seeds": len(values)}
        means.append(
            {
                **dict(zip(keys, combo, strict=True)),
                **row,
                "steps": float(np.mean([r["step"] for r in runs])),
            }
        )
    return sorted(means, key=lambda row: row[metric])


def is_lagging(marks: Sequence[tuple[int, float]], others: Sequence[Sequence[tuple[int, float]]]) -> bool:
    """True if the latest value of a metric is not among the best third at its step (successive halving).

    Li et al. 2018 (JMLR 18). others: values by step of the other trials; fewer than two at this step decide nothing.
    """
    if not marks:
        return False
    step, value = marks[-1]
    rivals = sorted(v for curve in others for s, v in curve if s == step)
    return len(rivals) >= 2 and not value <= rivals[(len(rivals) - 1) // 3]


def sorted_rows(rows: Sequence[Mapping[str, Any]], metric: str, first: str) -> list[dict[str, Any]]:
    """Rows of trials in the state `first`, then the others, each with the best metric on top and NaN last."""

    def key(row: Mapping[str, Any]) -> tuple[bool, float]:
        return row["state"] != first, math.inf if math.isnan(row[metric]) else row[metric]

    return [dict(row) for row in sorted(rows, key=key)]


def trials_dataset(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], attributes: Mapping[str, str]) -> xr.Dataset:
    """Results along the dimension `trial`; the keys that vary and the state are coordinates, the rest variables."""
    import xarray as xr

    names = dict.fromkeys(name for row in rows for name in row)
    columns = {name: _column([row.get(name) for row in rows]) for name in names}
    labels = {"trial", "state", *keys}
    return xr.Dataset(
        {name: ("trial", column) for name, column in columns.items() if name not in labels},
        {name: ("trial", column) for name, column in columns.items() if name in labels},
        {"title": "Trainings side by side", **attributes},
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


BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40  # characters of a curve


def run_folders(output: Path) -> Iterator[Path]:
    """Yield the folders of trainings and of trials of sweeps, the one that changed last at the end."""
    folders = [path.parent for path in output.glob("**/checkpoints") if (path.parent / "config.yaml").is_file()]
    yield from sorted(folders, key=lambda run: (run / "config.yaml").stat().st_mtime)


def state_of(run: Path) -> str:
    """Say in words how far a training is."""
    result, rows = read_result(run) or {}, read_rows(run / "metrics.csv")
    if result.get("finished"):
        return f"finished, {result['step']:,} steps"
    step = f"step {rows[-1]['step']:,}" if rows else "no step"
    return f"training, {step}" if is_locked(run) else f"stopped, {step}"


def forecasts_of(run: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the folders and manifests of the forecasts of a run, beside it in the same folder of results."""
    output = next((folder.parent for folder in run.parents if folder.name in ("train", "sweep")), run.parent)
    for path in sorted((output / "forecast").glob("**/manifest.json")):
        manifest = read_manifest(path.parent)
        if Path(str(manifest.get("run"))).resolve() == run.resolve():
            yield path.parent, manifest


def described(config: Mapping[str, Any]) -> dict[str, str]:
    """Describe a training's configuration in a few rows."""
    data, training = config.get("data") or {}, config.get("training") or {}
    prognostic = (config.get("variables") or {}).get("prognostic")
    names = [next(iter(entry)) if isinstance(entry, Mapping) else str(entry) for entry in prognostic or ()]
    optimizer, hardware = config.get("optimizer") or {}, config.get("hardware") or {}
    batch = f"batches of {training.get('batch_size')}, learning rate {optimizer.get('lr')}, seed {config.get('seed')}"
    return {
        "data": " ".join(filter(None, [part_name(data), str(data.get("path") or "")])),
        "predicts": ", ".join(names) or "as stored",
        "model": part_text(config.get("model") or {}),
        "loss": ", ".join(config.get("loss") or ()),
        "constraints": ", ".join(config.get("constraint") or ()) or "none",
        "training": f"{training.get('steps')} steps of {batch}",
        "hardware": f"{hardware.get('accelerator')} x {hardware.get('devices')}, precision {hardware.get('precision')}",
    }


def part_name(node: Mapping[str, Any]) -> str:
    return str(node.get("_target_", "")).rpartition(".")[2]


def part_text(node: Mapping[str, Any]) -> str:
    """A part with its plain settings: `UNet(channels=[16, 32])`."""
    settings = (f"{key}={value}" for key, value in node.items() if key[0] != "_" and not isinstance(value, Mapping))
    return f"{part_name(node)}({', '.join(settings)})"


def curve_text(values: Sequence[float]) -> str:
    """Draw values in one line of blocks on a logarithmic scale, with the first, the last and the least."""
    numbers = np.asarray(values, dtype=np.float64)
    picked = numbers[np.linspace(0, numbers.size - 1, min(WIDTH, numbers.size)).round().astype(int)]
    heights = np.log(np.where(picked > 0, picked, np.nan))
    low, span = np.nanmin(heights), np.ptp(heights[np.isfinite(heights)]) or 1.0
    blocks = [" " if not np.isfinite(h) else BLOCKS[int((h - low) / span * (len(BLOCKS) - 1))] for h in heights]
    return f"{''.join(blocks)}  {numbers[0]:.4g} to {numbers[-1]:.4g}, least {np.nanmin(numbers):.4g}"


def forecast_row(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The cells of one forecast: folder, verdict, initial times, lead, and where its scores are."""
    inits, leads = manifest.get("inits") or {}, manifest.get("leads") or {}
    scores = folder.parents[1] / "eval" / folder.name / "scores.nc"
    period = f"{inits.get('count')}, {str(inits.get('first'))[:10]} to {str(inits.get('last'))[:10]}" if inits else ""
    lead = f"{leads.get('steps')} x {leads.get('timestep')}" if leads else ""
    return [str(folder), str(manifest.get("verdict")), period, lead, str(scores.parent) if scores.is_file() else "none"]


def following(run: Path, forecasts: Sequence[tuple[Path, Mapping[str, Any]]]) -> str:
    """The command that follows: resume, forecast, score, or compare."""
    if not (read_result(run) or {}).get("finished"):
        return f"emul train with the same words goes on with {run}"
    if not forecasts:
        return f"emul forecast {shlex.quote(f'run={run}')}"
    unscored = [
        folder for folder, _ in forecasts if not (folder.parents[1] / "eval" / folder.name / "scores.nc").is_file()
    ]
    name = [] if not unscored or unscored[0].name == run.name else [f"name={unscored[0].name}"]
    words = ["eval", f"run={run}", *name] if unscored else ["eval", "compare", run.name, "..."]
    return shlex.join(["emul", *words])


def command_after(target: Path, folder: Path, run: str | None, same: Sequence[str]) -> str:
    """The command after an evaluation: compare it with one that measured alike, show its run, or verify its files.

    target: folder of the evaluation, in `folder` with others. same: attributes in which scores must agree.
    """
    measured = _measured(target, same)
    others = [path.parent for path in folder.glob("*/scores.nc") if path.parent != target]
    alike = [other for other in others if _measured(other, same) == measured]
    if alike:
        latest = max(alike, key=lambda other: (other / "scores.nc").stat().st_mtime)
        output = [] if folder == Path("outputs", "eval") else [f"output={folder.parent}"]
        return shlex.join(["emul", "eval", "compare", latest.name, str(target.relative_to(folder)), *output])
    return shlex.join(["emul", "show", str(run)] if run else ["emul", "verify", str(target)])


def _measured(evaluation: Path, names: Sequence[str]) -> list[str]:
    """The attributes of scores by these names; empty where they cannot be read."""
    from data_pipelines.files.netcdf import opened_netcdf  # loads NetCDF's library, which a list of runs does not need

    try:
        with opened_netcdf(evaluation / "scores.nc") as scores:
            return [str(scores.getncattr(name)) for name in names if name in scores.ncattrs()]
    except (OSError, ValueError, RuntimeError):
        return []
