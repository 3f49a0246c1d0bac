"""`emul list`: the trainings of a folder of results; `emul show RUN`: one of them, its curves, forecasts and scores."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from data_pipelines.conventions.suggestions import suggestion
from data_pipelines.files.locks import is_locked
from data_pipelines.files.metrics_table import read_rows
from data_pipelines.forecasts.manifest import read_manifest
from emul.terminal.console import console, next_command, show_rows, table

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTH = 40  # characters of a curve


def main(arguments: list[str]) -> int:
    """Run `emul list` or `emul show`, as the first argument says."""
    verb, words = arguments[0], arguments[1:]
    if verb == "list":
        return list_runs(words)
    if len(words) != 1:
        raise ValueError("emul show takes one run: its folder, or its name below outputs/train.")
    show(found_run(words[0].removeprefix("run=")))
    return 0


def list_runs(arguments: list[str]) -> int:
    """List the trainings below a folder of results, by default outputs."""
    if len(arguments) > 1:
        raise ValueError(f"emul list takes one folder of results; got {' '.join(arguments)}.")
    output = Path((arguments or ["outputs"])[0].removeprefix("output="))
    runs = [*run_folders(output)]
    if not runs:
        console().print(f"There are no trainings in {output}; `emul train` makes one.", markup=False)
        return 0
    rows = []
    for run in runs:
        forecasts = [manifest["verdict"] for _, manifest in forecasts_of(run)]
        verdicts = ", ".join(f"{forecasts.count(v)} {v}" for v in dict.fromkeys(forecasts))
        score = read_result(run).get("validation", {}).get("score")
        rows.append([str(run), state_of(run), "" if score is None else f"{score:.4f}", verdicts])
    table(["run", "state", "score", "forecasts"], rows, right=("score",))
    next_command(f"emul show {shlex.quote(str(runs[-1]))}")
    return 0


def found_run(name: str) -> Path:
    """Return the folder of a run given by its path or name. Raises FileNotFoundError with the nearest name."""
    for folder in (Path(name), Path("outputs", "train", name)):
        if (folder / "config.yaml").is_file():
            return folder
    known = [str(run.relative_to("outputs/train")) for run in run_folders(Path("outputs")) if run.parts[1] == "train"]
    raise FileNotFoundError(f"There is no run at {name} or outputs/train/{name}; {suggestion(name, known)}")


def run_folders(output: Path) -> Iterator[Path]:
    """Yield the folders of trainings and of trials of sweeps, the one that changed last at the end."""
    found = [path.parent for path in output.glob("**/checkpoints") if (path.parent / "config.yaml").is_file()]
    yield from sorted(found, key=lambda run: (run / "config.yaml").stat().st_mtime)


def read_result(run: Path) -> dict[str, Any]:
    """Return result.json of a run; empty while it trains."""
    path = run / "result.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def state_of(run: Path) -> str:
    """Say in words how far a training is."""
    result, rows = read_result(run), read_rows(run / "metrics.csv")
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


def show(run: Path) -> None:
    """Print what a run is, how its training went, its forecasts and what may follow."""
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    show_rows(str(run), {"state": state_of(run), **described(config)})
    rows = read_rows(run / "metrics.csv")
    curves = {name: [row[name] for row in rows if name in row] for name in ("loss", "score")}
    show_rows("curves", {name: curve_text(values) for name, values in curves.items() if values})
    validation = read_result(run).get("validation", {})
    leads = [(name.removeprefix("score_"), value) for name, value in validation.items() if name.startswith("score_")]
    if leads:
        show_rows(
            "validation, RMSE over standard deviation by timestep", {lead: f"{value:.4f}" for lead, value in leads}
        )
    made = [*forecasts_of(run)]
    if made:
        columns = ["forecast", "verdict", "initial times", "lead", "scores"]
        table(columns, [forecast_row(folder, manifest) for folder, manifest in made])
    next_command(following(run, made))


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
    shown = [" " if not np.isfinite(h) else BLOCKS[int((h - low) / span * (len(BLOCKS) - 1))] for h in heights]
    return f"{''.join(shown)}  {numbers[0]:.4g} to {numbers[-1]:.4g}, least {np.nanmin(numbers):.4g}"


def forecast_row(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """The cells of one forecast: folder, verdict, initial times, lead, and where its scores are."""
    inits, leads = manifest.get("inits") or {}, manifest.get("leads") or {}
    scores = folder.parents[1] / "eval" / folder.name / "scores.nc"
    period = f"{inits.get('count')}, {str(inits.get('first'))[:10]} to {str(inits.get('last'))[:10]}" if inits else ""
    lead = f"{leads.get('steps')} x {leads.get('timestep')}" if leads else ""
    return [str(folder), str(manifest.get("verdict")), period, lead, str(scores.parent) if scores.is_file() else "none"]


def following(run: Path, made: Sequence[tuple[Path, Mapping[str, Any]]]) -> str:
    """The command that follows: resume, forecast, score, or compare."""
    if not read_result(run).get("finished"):
        return f"emul train with the same words goes on with {run}"
    if not made:
        return f"emul forecast {shlex.quote(f'run={run}')}"
    unscored = [folder for folder, _ in made if not (folder.parents[1] / "eval" / folder.name / "scores.nc").is_file()]
    name = [] if not unscored or unscored[0].name == run.name else [f"name={unscored[0].name}"]
    words = ["eval", f"run={run}", *name] if unscored else ["eval", "compare", run.name, "..."]
    return shlex.join(["emul", *words])
