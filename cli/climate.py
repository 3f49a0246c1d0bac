"""The climate of forecasts as a file, a table and maps: climate.nc, and climate/ with the pictures of an evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.writers import write_netcdf
from emul.console import table, warn
from emul.scorecard import DASH, Row, headline, number, rows

if TYPE_CHECKING:
    import xarray as xr

    from emul.inputs import Inputs
    from emulators.climate_verification import ClimateCard

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
    show(dataset, headline(rows(dataset[list(inputs.pairs.variables.names)])))


def show(dataset: xr.Dataset, first: Sequence[Row]) -> None:
    """A line a headline variable, of the first region."""
    region = str(dataset["region"].values[0])
    there = [metric for metric in COLUMNS if metric in dataset["metric"].values]
    lines = []
    for row in first:
        cells = [row.series(dataset, metric, region).item() * row.scale(COLUMNS[metric][1]) for metric in there]
        lines.append([row.label, *(number(cell) if np.isfinite(cell) else DASH for cell in cells), row.unit])
    headings = [COLUMNS[metric][0] for metric in there]
    table([f"climate, {region}", *headings, "unit"], lines, headings)


def climate_maps(folder: Path, card: ClimateCard, inputs: Inputs, first: Sequence[Row]) -> list[tuple[str, Path]]:
    """Maps of the mean state of forecast and truth and of their difference; captions and files."""
    from emul import pictures

    dataset = card.dataset()
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.png"):
        stale.unlink()
    land, drawn = inputs.world.static_fields, []
    for row in [row for row in first if f"{row.variable}_mean" in dataset][:6]:
        field = dataset[f"{row.variable}_mean"]
        field = field if row.level is None else field.sel(level=row.level)
        forecast, truth = (field.sel(source=source).values for source in ("forecast", "truth"))
        if np.isnan(forecast).all():
            continue
        fields = {"forecast": forecast, "truth": truth, "bias": forecast - truth}
        path = folder / f"{row.label.replace(' ', '_')}_mean.png"
        coast = None if land is None else np.asarray(land)[0]
        path = pictures.field_maps(path, inputs.pairs.grid, fields, row, "bias", coast)
        drawn.append((f"{row.label}: mean over {dataset.attrs['times']}", path))
    return drawn
