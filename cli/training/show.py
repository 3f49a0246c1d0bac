"""`emul list`: the trainings of a folder of results; `emul show RUN`: one of them, its curves, forecasts and scores."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml

from data_pipelines.conventions.suggestions import suggestion
from data_pipelines.files.tables import read_rows
from data_pipelines.options.folders import refuse_expansion
from data_pipelines.verification.run_results import (
    curve_text,
    described,
    following,
    forecast_row,
    forecasts_of,
    read_result,
    run_folders,
    state_of,
)
from emul.terminal.console import console, next_command, show_rows, table


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
    word = (arguments or ["outputs"])[0]
    if "=" in word and not word.startswith("output="):
        raise ValueError(f"emul list takes a folder of results; got {word}; write output={word.partition('=')[2]}.")
    output = Path(word.removeprefix("output="))
    runs = [*run_folders(output)]
    if not runs:
        console().print(f"There are no trainings in {output}; `emul train` makes one.", markup=False)
        return 0
    rows = []
    for run in runs:
        forecasts = [manifest["verdict"] for _, manifest in forecasts_of(run)]
        verdicts = ", ".join(f"{forecasts.count(v)} {v}" for v in dict.fromkeys(forecasts))
        score = (read_result(run) or {}).get("validation", {}).get("score")
        rows.append([str(run), state_of(run), "" if score is None else f"{score:.4f}", verdicts])
    table(["run", "state", "score", "forecasts"], rows, right=("score",))
    next_command(f"emul show {shlex.quote(str(runs[-1]))}")
    return 0


def found_run(name: str) -> Path:
    """Return the folder of a run given by its path or name. Raises FileNotFoundError with the nearest name."""
    for folder in (Path(name), Path("outputs", "train", name)):
        if (folder / "config.yaml").is_file():
            return folder
    names = [str(run.relative_to("outputs/train")) for run in run_folders(Path("outputs")) if run.parts[1] == "train"]
    place = name if "/" in name else f"{name} or outputs/train/{name}"
    raise FileNotFoundError(f"There is no run at {place}; {suggestion(Path(name).name, names)}")


def show(run: Path) -> None:
    """Print what a run is, how its training went, its forecasts and what may follow."""
    text = (run / "config.yaml").read_text(encoding="utf-8")
    refuse_expansion(text)
    config = yaml.safe_load(text)
    show_rows(str(run), {"state": state_of(run), **described(config)})
    rows = read_rows(run / "metrics.csv")
    curves = {name: [row[name] for row in rows if name in row] for name in ("loss", "score")}
    show_rows("curves", {name: curve_text(values) for name, values in curves.items() if values})
    validation = (read_result(run) or {}).get("validation", {})
    leads = [(name.removeprefix("score_"), value) for name, value in validation.items() if name.startswith("score_")]
    if leads:
        show_rows(
            "validation, RMSE over standard deviation by timestep", {lead: f"{value:.4f}" for lead, value in leads}
        )
    forecasts = [*forecasts_of(run)]
    if forecasts:
        columns = ["forecast", "verdict", "initial times", "lead", "scores"]
        table(columns, [forecast_row(folder, manifest) for folder, manifest in forecasts])
    next_command(following(run, forecasts))
