"""The climate of forecasts as a file, a table and maps: climate.nc, and climate/ with the pictures of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.files.atomic import write_netcdf
from data_pipelines.verification.score_rows import Row, headline_rows, score_rows
from emul.display.text import DASH, number
from emul.terminal.console import table, warn

if TYPE_CHECKING:
    import xarray as xr

    from emul.evaluation.inputs import Inputs
    from emulators.verification.climate import ClimateCard


NAMES = {  # what a score is called in words, where it is of runs of any or only some lengths
    "annual": "annual means",
    "nrmse": "NRMSE",
    "interannual": "interannual variability",
    "nino": "Nino 3.4",
    "trend": "trends",
}
COLUMNS = {  # metric: (heading, power of the units)
    "bias": ("bias", 1),
    "bias_rmse": ("RMSE of the mean", 1),
    "std_ratio": ("variability / truth's", 0),
    "annual_rmse": ("RMSE of annual means", 1),
    "nrmse": ("NRMSE", 0),
    "trend_forecast": ("trend a decade", 1),
    "trend_truth": ("truth's trend", 1),
}


def keep_climate(target: Path, card: ClimateCard, inputs: Inputs) -> None:
    """Write climate.nc, show its headline, and say what the run is too short for."""
    dataset = card.dataset(inputs.attributes)
    if "level" in dataset.coords:
        dataset["level"].attrs.update(inputs.forecast["level"].attrs)
    write_netcdf(target / "climate.nc", dataset)
    for name, why in card.left_out().items():
        inputs.notes.append(f"{NAMES[name]} left out of the climate: {why}.")
        warn(inputs.notes[-1])
    show(dataset, headline_rows(score_rows(dataset[list(inputs.pairs.variables.names)])))


def show(dataset: xr.Dataset, first: Sequence[Row]) -> None:
    """Print one line for each headline variable, in the first region."""
    region = str(dataset["region"].values[0])
    there = [metric for metric in COLUMNS if metric in dataset["metric"].values]
    lines = []
    for row in first:
        cells = [row.series(dataset, metric, region).item() * row.scale(COLUMNS[metric][1]) for metric in there]
        lines.append([row.label, *(number(cell) if np.isfinite(cell) else DASH for cell in cells), row.unit])
    headings = [COLUMNS[metric][0] for metric in there]
    table([f"climate, {region}", *headings, "unit"], lines, headings)
