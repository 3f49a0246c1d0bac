"""Show whether forecasts conserve mass, water and energy, by lead time and by year."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.verification.evaluation_results import EvaluationResults
from data_pipelines.verification.score_rows import headline_leads, lead_axis, leads_in_unit
from emul.display.text import DASH, MINUS, lead_text, percent
from emul.report.charts import line_chart
from emul.report.html import NOTHING, Html, join, tag
from emul.report.page import Section, charts, figure, legend, quiet, table, with_small

if TYPE_CHECKING:
    import xarray as xr


CHARTS = {  # quantity: (title, unit, logarithmic)
    "air_drift": ("Mass of all air", "relative to the start", False),
    "dry_air_drift": ("Mass of dry air", "relative to the start", False),
    "moisture_residual": ("Water created in a timestep", "kg m\u207b\u00b2, rms", True),
    "moisture_residual_relative": ("Water created in a timestep", "fraction of precipitation, rms", True),
    "energy_residual": ("Energy created", "W m\u207b\u00b2, rms", True),
}
UNITS = {
    "1": "relative",
    "1 year-1": "per year",
    "kg m-2": "kg/m²",
    "kg m-2 year-1": "kg/m² per year",
    "W m-2": "W/m²",
}
EXPLAINED = (
    "Conservation errors of the forecasts: global means for each initial time. Drifts are means over initial times and "
    "may have either sign; residuals of a timestep are shown by their size, on a logarithmic axis. Where a law holds, "
    "only the rounding of stored numbers remains."
)
TRENDS = (
    "Below each: its trend by a least-squares line over all lead times (for residuals, of their running sum), mean ± "
    "standard deviation over initial times. The trend of short forecasts is not that of a climate run."
)
CORRECTIONS = (
    "Size of each constraint's correction in a timestep: rms of the change divided by the rms of the raw tendency (of "
    "the raw value, where a variable is diagnostic)."
)


def budget_section(results: EvaluationResults) -> Section:
    """The section on conservation, empty where no budgets were computed."""
    budgets, title = results.budgets, "Does it conserve?"
    if budgets is None:
        return Section("conservation", title, NOTHING)
    further = {name: dataset.sel(source="forecast") for name, dataset in results.further_budgets.items()}
    sources = {"forecast": budgets.sel(source="forecast"), **further}
    if "truth" in budgets["source"].values:
        sources["truth"] = budgets.sel(source="truth")
    names = [name for name in CHARTS if any(name in dataset for dataset in sources.values())]
    sources = {name: d for name, d in sources.items() if any(_is_finite(d, quantity) for quantity in names)}
    corrections = _corrections(budgets)
    if not names and not corrections:
        return Section("conservation", title, NOTHING)
    body = [
        quiet(EXPLAINED),
        legend(sources),
        charts(_figure(name, sources) for name in names),
        tag("h3", "Drift per year"),
        quiet(TRENDS),
        _trends(names, sources),
        corrections,
        quiet("Left out: ", budgets.attrs["left_out"]) if budgets.attrs["left_out"] else "",
    ]
    return Section("conservation", title, join(*body))


def _is_finite(dataset: xr.Dataset, name: str) -> bool:
    return name in dataset and bool(np.isfinite(dataset[name].values).any())


def _figure(name: str, sources: Mapping[str, xr.Dataset]) -> Html:
    title, small, logarithmic = CHARTS[name]
    lines, unit = {}, ""
    for source, dataset in sources.items():
        if _is_finite(dataset, name):
            leads = dataset["lead_time"].values
            unit = unit or lead_axis(leads)[1]
            field = dataset[name]
            y = ((field**2).mean("time") ** 0.5).clip(min=1e-30) if logarithmic else field.mean("time")
            lines[source] = (leads_in_unit(unit, leads), y.values)
    chart = line_chart(f"{title} by lead time", lines, unit, mark=None if logarithmic else 0.0, log_y=logarithmic)
    return figure(title, chart, f"[{small}]")


def _trends(names: Sequence[str], sources: Mapping[str, xr.Dataset]) -> Html:
    """Root mean square over all values, and trend per year; a column for each source."""
    lines = []
    for name in names:
        dataset = next(dataset for dataset in sources.values() if name in dataset)
        trend = f"{name}_per_year"
        units = [dataset[one].attrs["units"] for one in (name, trend) if one == name or _is_finite(dataset, trend)]
        unit = "; trend: ".join(UNITS.get(unit, unit) for unit in units)
        cells = [_trend(dataset, name) for dataset in sources.values()]
        lines.append((with_small(dataset[name].attrs["long_name"], unit), cells))
    return table(["rms over lead times and initial times", *sources], lines)


def _trend(dataset: xr.Dataset, name: str) -> object:
    if not _is_finite(dataset, name):
        return DASH
    size = _number(float(np.sqrt((dataset[name] ** 2).mean())))
    if not _is_finite(dataset, f"{name}_per_year"):
        return size
    trends = dataset[f"{name}_per_year"].values
    trends = trends[np.isfinite(trends)]
    spread = f" ± {_number(trends.std(ddof=1))}" if trends.size > 1 else ""
    return with_small(size, f"{_number(trends.mean())}{spread}")


def _number(value: float) -> str:
    """Two digits: `0.27`, `120`, `9.2e-11`."""
    text = f"{value:.2g}" if not 10 <= abs(value) < 1e5 else f"{value:.0f}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS)


def _corrections(budgets: xr.Dataset) -> Html:
    """Corrections of each constraint relative to the raw tendency, by lead time."""
    if "share_changed" not in budgets:
        return NOTHING
    leads = headline_leads(budgets["lead_time"].values)
    lines = []
    for name in budgets["correction"].values:
        constraint, _, variable = str(name).partition(": ")
        shares = budgets["share_changed"].sel(correction=name).values[leads]
        lines.append((with_small(constraint, variable.replace("_", " ")), [_share(share) for share in shares]))
    head = ["", *(lead_text(budgets["lead_time"].values[i]) for i in leads)]
    return join(tag("h3", "Corrections by the constraints"), quiet(CORRECTIONS), table(head, lines))


def _share(share: float) -> str:
    """A fraction in percent; powers of ten where it is small."""
    if not np.isfinite(share) or share == 0.0:
        return "0" if share == 0.0 else DASH
    return percent(share).lstrip("+") if share >= 0.1 else f"{100 * share:.2g} %".replace("-", MINUS)
