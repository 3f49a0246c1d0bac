"""Show error growth: RMSE by lead time on a logarithmic axis, its spread over initial times, doubling times."""

from __future__ import annotations

import numpy as np

from data_pipelines.verification.error_growth import FREE, crossing, doubling_time, relative_spread, squared_errors
from data_pipelines.verification.evaluation_results import EvaluationResults
from data_pipelines.verification.score_rows import Row, lead_axis
from emul.display.text import DASH, number
from emul.report.charts import line_chart
from emul.report.html import NOTHING, Html, join
from emul.report.page import Section, charts, figure, quiet, score_caption, table

BAND = (10, 50, 90)  # percentiles over initial times
EXPLAINED = (
    "RMSE of each initial time: the median, and the range of the central 80 %. A straight line on the logarithmic axis "
    "is exponential growth; it ends where the errors approach those of the climatology."
)


def growth_section(results: EvaluationResults) -> Section:
    """The section on error growth, empty for fewer than three lead times."""
    title, by_init = "Error growth", results.by_init
    if by_init is None or "squared_error" not in by_init["statistic"].values or by_init.sizes["lead_time"] < 3:
        return Section("growth", title, NOTHING)
    region = str(by_init["region"].values[0])
    x, unit = lead_axis(by_init["lead_time"].values)
    figures, lines = [], []
    for row in results.headline:
        squares = squared_errors(by_init, row, region)
        if squares is None:
            continue
        rmse = results.score("rmse", region) if "rmse" in results.metrics else None
        others = {
            name: curve
            for name, dataset in results.curves.items()
            if rmse and name != "forecast" and (curve := row.curve(dataset, rmse, unit)) is not None
        }
        errors = np.sqrt(squares) * row.factor
        figures.append(_chart(row, x, errors, others, unit))
        mean = np.sqrt(np.nanmean(squares, axis=0)) * row.factor
        lines.append((row.label, [*_times(x, mean, others.get("climatology"), unit), _spread(errors[:, -1])]))
    if not figures:
        return Section("growth", title, NOTHING)
    below = (
        f"Doubling: from the first lead time to {100 * FREE:.0f} % of the climatology's error. Spread: standard "
        "deviation of the RMSE over initial times divided by its mean, at the last lead time."
    )
    head = ["", "doubling", "reaches the climatology", "spread over initial times"]
    return Section("growth", title, join(quiet(EXPLAINED), charts(figures), quiet(below), table(head, lines)))


def _chart(
    row: Row, x: np.ndarray, errors: np.ndarray, others: dict[str, tuple[np.ndarray, np.ndarray]], unit: str
) -> Html:
    lower, median, upper = np.nanpercentile(errors, BAND, axis=0)
    lines = {"forecast": (x, median), **{name: line for name, line in others.items() if name != "persistence"}}
    bands = {"forecast": (lower, upper)}
    chart = line_chart(f"growth of the RMSE of {row.label}", lines, unit, log_y=True, bands=bands)
    caption, small = score_caption(row, "rmse", 1)
    return figure(caption, chart, small)


def _times(
    x: np.ndarray, mean: np.ndarray, climatology: tuple[np.ndarray, np.ndarray] | None, unit: str
) -> tuple[str, str]:
    """Doubling time, and the lead time at which the climatology's error is reached."""
    saturation = float(np.nanmax(mean) if climatology is None else np.nanmean(climatology[1]))
    doubling = doubling_time(x, mean, saturation)
    doubles = DASH if np.isnan(doubling) else f"{number(doubling)} {unit}"
    if climatology is None:
        return doubles, DASH
    lead = crossing(x, mean, np.interp(x, *climatology))
    if np.isinf(lead):
        return doubles, f"> {x[-1]:g} {unit}" if lead > 0 else f"< {x[0]:g} {unit}"
    return doubles, f"{number(lead)} {unit}"


def _spread(errors: np.ndarray) -> str:
    spread = relative_spread(errors)
    return DASH if np.isnan(spread) else f"{100 * spread:.0f} %"
