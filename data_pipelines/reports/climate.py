"""Show the climate of forecasts beside that of the truth: the table of its scores, and maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.display.text import DASH, number
from data_pipelines.reports.drawings import Maps, Picture
from data_pipelines.verification.score_rows import Row

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.verification.score_files import EvaluationResults


SCORES = {  # metric: (heading, power of the units)
    "bias": ("bias", 1),
    "bias_rmse": ("RMSE of the mean", 1),
    "std_ratio": ("variability / truth's", 0),
    "annual_rmse": ("RMSE of annual means", 1),
    "bias_over_noise": ("bias / noise", 0),
    "cycle_ratio": ("season / truth's", 0),
    "return10_rmse": ("RMSE of 10-year maxima", 1),
    "nrmse": ("NRMSE", 0),
    "trend_forecast": ("trend a decade", 1),
    "trend_truth": ("truth's trend", 1),
}


def climate_lines(dataset: xr.Dataset, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the headings of SCORES that there are, and a line for each row: its label, its scores and its unit.

    dataset: of climate.nc, of which the first region is taken.
    """
    region = str(dataset["region"].values[0])
    metrics = [metric for metric in SCORES if metric in dataset["metric"].values]
    lines = []
    for row in [row for row in rows if row.is_in(dataset)]:
        cells = [row.series(dataset, metric, region).item() * row.scale(SCORES[metric][1]) for metric in metrics]
        lines.append([row.label, *(number(cell) if np.isfinite(cell) else DASH for cell in cells), row.unit])
    return [SCORES[metric][0] for metric in metrics], lines


def climate_maps(maps: Maps, dataset: xr.Dataset, results: EvaluationResults) -> None:
    """Maps of the mean state, the season and the extremes of forecast and truth, and of their difference.

    dataset: of climate.nc.
    """
    maps.clear()
    kinds = {
        "_mean": (f"mean over {dataset.attrs['times']}", 6),
        "_cycle": ("amplitude of the annual cycle", 3),
        "_return10": ("what a year exceeds once in ten", 3),
    }
    for suffix, (title, most) in kinds.items():
        for row in [row for row in results.headline if f"{row.variable}{suffix}" in dataset][:most]:
            field = row.field(dataset, suffix)
            forecast, truth = (field.sel(source=source).values for source in ("forecast", "truth"))
            if not np.isnan(forecast).all():
                fields = {"forecast": forecast, "truth": truth, "bias": forecast - truth}
                maps.draw(row, suffix, [Picture("", title, fields)], "bias")
