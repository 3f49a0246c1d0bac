"""Error growth in a report: RMSE by lead on a logarithmic axis, its spread over initial times, doubling times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.verification.score_rows import Row, lead_axis, leads_in_unit
from emul.display.text import DASH, number
from emul.report.charts import line_chart
from emul.report.page import table

if TYPE_CHECKING:
    import xarray as xr


BAND = (10, 90)  # percentiles over initial times
FREE = 0.5  # share of the climatology's error (else of the last) up to which errors grow unhindered
TOLD = (
    "RMSE of each initial time: the median, and the range in which four of five lie. A straight line on the "
    "logarithmic axis is exponential growth; it ends where the climatology's error begins to hold it."
)


def section(by_init: xr.Dataset, others: Mapping[str, xr.Dataset], first: Sequence[Row]) -> str:
    """The part of the report; by_init: of `InitStatistics`; others: Datasets of scores to draw beside."""
    if "squared_error" not in by_init["statistic"].values or by_init.sizes["lead_time"] < 3:
        return ""
    region = str(by_init["region"].values[0])
    unit = lead_axis(by_init["lead_time"].values)[1]
    x = leads_in_unit(unit, by_init["lead_time"].values)
    charts, lines = [], []
    for row in first:
        squares = row_of(by_init, row, region)
        if squares is None:
            continue
        errors = np.sqrt(squares) * row.factor
        beside = {name: _known(dataset, row, region, unit) for name, dataset in others.items()}
        usual = beside.get("climatology")
        charts.append(_figure(row, x, errors, {n: line for n, line in beside.items() if line is not None}, unit))
        mean = np.sqrt(np.nanmean(squares, axis=0)) * row.factor
        lines.append((row.label, [*_lengths(x, mean, usual, unit), _spread(errors)]))
    if not charts:
        return ""
    head = ["", "doubling", "as the climatology", "spread over initial times"]
    return (
        f"<h2 id=growth>Error growth</h2><p class=quiet>{TOLD}</p><div class=charts>{''.join(charts)}</div>"
        f"<p class=quiet>Doubling: from the first lead to {100 * FREE:.0f} % of the climatology's error. Spread: "
        f"standard deviation of RMSE over initial times, of its mean, at the last lead.</p>{table(head, lines)}"
    )


def row_of(by_init: xr.Dataset, row: Row, region: str) -> np.ndarray | None:
    """Mean squared errors (init, lead); what is broken is NaN."""
    if row.variable not in by_init:
        return None
    field = by_init[row.variable].sel(statistic="squared_error", region=region)
    values = (field if row.level is None else field.sel(level=row.level)).values.astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan) if np.isfinite(values).any() else None


def _known(dataset: xr.Dataset, row: Row, region: str, unit: str) -> tuple[np.ndarray, np.ndarray] | None:
    if row.variable not in dataset or "rmse" not in dataset["metric"].values or region not in dataset["region"].values:
        return None
    try:
        values = row.series(dataset, "rmse", region) * row.factor
    except KeyError:  # a curve from elsewhere may lack the level
        return None
    return (leads_in_unit(unit, dataset["lead_time"].values), values) if np.isfinite(values).any() else None


def _figure(
    row: Row, x: np.ndarray, errors: np.ndarray, beside: Mapping[str, tuple[np.ndarray, np.ndarray]], unit: str
) -> str:
    lower, median, upper = _log(np.nanpercentile(errors, (BAND[0], 50, BAND[1]), axis=0))
    lines = {"forecast": (x, median)} | {name: (a, _log(b)) for name, (a, b) in beside.items() if name != "persistence"}
    chart = line_chart(
        lines, f"growth of the RMSE of {row.label}", unit, powers=True, bands={"forecast": (lower, upper)}
    )
    shown = f"{row.label} [{row.unit}]" if row.unit else row.label
    return f"<figure><figcaption>RMSE <small>{shown}</small></figcaption>{chart}</figure>"


def _log(values: np.ndarray) -> np.ndarray:
    return np.log10(np.where(values > 0, values, np.nan))


def _lengths(
    x: np.ndarray, mean: np.ndarray, usual: tuple[np.ndarray, np.ndarray] | None, unit: str
) -> tuple[str, str]:
    """Doubling time by a straight line through the logarithm of the free part, and when the climatology is reached."""
    top = float(np.nanmax(mean)) if usual is None else float(np.nanmean(usual[1]))
    free = np.isfinite(mean) & (mean > 0) & (mean <= FREE * top)
    free &= np.cumprod(free).astype(bool)  # up to the first lead beyond it
    rate = np.polyfit(x[free], np.log2(mean[free]), 1)[0] if free.sum() >= 3 else 0.0
    doubling = f"{number(1 / rate)} {unit}" if rate > 0 else DASH
    if usual is None:
        return doubling, DASH
    beyond = np.flatnonzero(mean >= np.interp(x, *usual))
    if not beyond.size:
        return doubling, f"> {x[-1]:g} {unit}"
    at = int(beyond[0])
    if at == 0:
        return doubling, f"< {x[0]:g} {unit}"
    gap = (mean - np.interp(x, *usual))[at - 1 : at + 1]
    return doubling, f"{number(x[at - 1] + (x[at] - x[at - 1]) * gap[0] / (gap[0] - gap[1]))} {unit}"


def _spread(errors: np.ndarray) -> str:
    last = errors[:, -1][np.isfinite(errors[:, -1])]
    return f"{100 * last.std(ddof=1) / last.mean():.0f} %" if last.size > 1 and last.mean() > 0 else DASH
