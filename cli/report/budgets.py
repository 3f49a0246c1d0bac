"""Budgets in an evaluation: the part of the report that says whether forecasts conserve, by lead and by year."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.verification.score_rows import headline_leads, lead_axis, leads_in_unit
from emul.display.text import MINUS, lead_text, percent
from emul.report.charts import line_chart

if TYPE_CHECKING:
    import xarray as xr


PALETTE = ("#db2777", "#7c3aed", "#0d9488", "#b45309", "#64748b")  # of runs drawn beside
DASHES = ("6 3", "3 3", "9 3 2 3", "1 4", "5 2")
CHARTS = {  # quantity: (what a chart says, its unit, factor, logarithmic)
    "air_drift": ("Mass of all air", "relative to the start", 1.0, False),
    "dry_air_drift": ("Mass of dry air", "relative to the start", 1.0, False),
    "moisture_residual": ("Water made in a timestep", "kg m\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT TWO}, rms", 1.0, True),
    "moisture_residual_relative": ("Water made in a timestep", "share of precipitation, rms", 1.0, True),
    "energy_residual": ("Energy made", "W m\N{SUPERSCRIPT MINUS}\N{SUPERSCRIPT TWO}, rms", 1.0, True),
}
LEGIBLE = {
    "1": "relative",
    "1 year-1": "a year",
    "kg m-2": "kg/m\N{SUPERSCRIPT TWO}",
    "kg m-2 year-1": "kg/m\N{SUPERSCRIPT TWO} a year",
    "W m-2": "W/m\N{SUPERSCRIPT TWO}",
}
TOLD = (
    "What forecasts make out of nothing: global means over each initial time. Drifts are means over initial times and "
    "may go either way; what is made in a timestep is shown by its size, on a logarithmic axis: where a law holds, "
    "what is left is the rounding of stored numbers."
)


def styles(names: list[str]) -> str:
    """CSS of the lines that are drawn beside, by name."""
    rules = []
    for number, name in enumerate(names):
        colour, dash = PALETTE[number % len(PALETTE)], DASHES[number % len(DASHES)]
        rules.append(
            f"svg polyline.{name}{{stroke:{colour};stroke-dasharray:{dash}}}svg circle.{name}{{fill:{colour}}}"
            f".legend .{name}{{border-color:{colour}}}"
        )
    return "".join(rules)


def section(budgets: xr.Dataset, beside: Mapping[str, xr.Dataset]) -> str:
    """The part of the report; beside: budgets of other forecasts by name."""
    sources = {"forecast": budgets.sel(source="forecast"), **{k: v.sel(source="forecast") for k, v in beside.items()}}
    if "truth" in budgets["source"].values:
        sources["truth"] = budgets.sel(source="truth")
    names = [name for name in CHARTS if any(name in known for known in sources.values())]
    left_out = f"<p class=quiet>Left out: {escape(budgets.attrs['left_out'])}</p>" if budgets.attrs["left_out"] else ""
    shares = _shares(budgets)
    if not names and not shares:
        return ""
    drawn = [name for name, known in sources.items() if any(_finite(known, quantity) for quantity in names)]
    legend = "".join(f"<span><i class={name}></i>{name}</span>" for name in drawn)
    charts = "".join(_figure(name, sources) for name in names)
    return (
        f"<h2 id=conservation>Does it conserve?</h2><p class=quiet>{TOLD}</p><div class=legend>{legend}</div>"
        f"<div class=charts>{charts}</div>{_drifts(names, {name: sources[name] for name in drawn})}{shares}{left_out}"
    )


def _finite(known: xr.Dataset, name: str) -> bool:
    return name in known and bool(np.isfinite(known[name].values).any())


def _rms(values: np.ndarray) -> np.ndarray:
    """Over initial times, by lead; values (time, lead)."""
    counted = np.isfinite(values).sum(0)
    return np.sqrt(np.divide(np.nansum(values**2, 0), counted, out=np.full(len(counted), np.nan), where=counted > 0))


def _mean(values: np.ndarray) -> np.ndarray:
    counted = np.isfinite(values).sum(0)
    return np.divide(np.nansum(values, 0), counted, out=np.full(len(counted), np.nan), where=counted > 0)


def _figure(name: str, sources: Mapping[str, xr.Dataset]) -> str:
    what, unit, factor, logarithmic = CHARTS[name]
    axis = lead_axis(next(iter(sources.values()))["lead_time"].values)[1]
    lines = {}
    for source, known in sources.items():
        if _finite(known, name):
            values = factor * known[name].values
            y = np.log10(np.maximum(_rms(values), 1e-30)) if logarithmic else _mean(values)
            lines[source] = (leads_in_unit(axis, known["lead_time"].values), y)
    chart = line_chart(lines, f"{what} by lead time", axis, None if logarithmic else 0.0, powers=logarithmic)
    return f"<figure><figcaption>{what} <small>[{unit}]</small></figcaption>{chart}</figure>" if chart else ""


def _drifts(names: list[str], sources: Mapping[str, xr.Dataset]) -> str:
    """Root mean square over all, and drift per year, a column a source."""
    lines = []
    for name in names:
        known = next(known for known in sources.values() if name in known)
        units = [
            known[name].attrs["units"],
            known[f"{name}_per_year"].attrs["units"] if _has_trend(known, name) else "",
        ]
        small = "; trend: ".join(filter(None, (LEGIBLE.get(unit, unit) for unit in units)))
        told = f"{escape(known[name].attrs['long_name'])}<small>{escape(small)}</small>"
        cells = "".join(f"<td>{_cell(known, name)}</td>" for known in sources.values())
        lines.append(f"<tr><th scope=row>{told}</th>{cells}</tr>")
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in ["rms over leads and initial times", *sources])
    told = (
        "Below each: its trend by a least-squares line over all leads (of what was made in all, for what adds up), "
        "mean \N{PLUS-MINUS SIGN} standard deviation over initial times. A trend of short forecasts is not a climate's."
    )
    return (
        f"<h3>Drift per year</h3><p class=quiet>{told}</p><div class=wide><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _has_trend(known: xr.Dataset, name: str) -> bool:
    return _finite(known, f"{name}_per_year")


def _cell(known: xr.Dataset, name: str) -> str:
    if not _finite(known, name):
        return "\N{EN DASH}"
    size = _number(np.sqrt(np.nanmean(known[name].values ** 2)))
    if not _has_trend(known, name):
        return size
    values = known[f"{name}_per_year"].values
    values = values[np.isfinite(values)]
    spread = f" \N{PLUS-MINUS SIGN} {_number(values.std(ddof=1))}" if values.size > 1 else ""
    return f"{size}<small>{_number(values.mean())}{spread}</small>"


def _number(value: float) -> str:
    """Two digits: `0.27`, `120`, `9.2e-11`."""
    text = f"{value:.2g}" if not 10 <= abs(value) < 1e5 else f"{value:.0f}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS)


def _shares(budgets: xr.Dataset) -> str:
    """What share of the raw tendency each constraint changed, by lead."""
    if "share_changed" not in budgets:
        return ""
    leads = headline_leads(budgets["lead_time"].values)
    lines = []
    for name in budgets["correction"].values:
        shares = budgets["share_changed"].sel(correction=name).values[leads]
        cells = "".join(f"<td>{_share(share)}</td>" for share in shares)
        constraint, _, variable = str(name).partition(": ")
        told = f"{escape(constraint)}<small>{escape(variable.replace('_', ' '))}</small>"
        lines.append(f"<tr><th scope=row>{told}</th>{cells}</tr>")
    head = "".join(
        f"<th scope=col>{text}</th>" for text in ["", *(lead_text(budgets["lead_time"].values[i]) for i in leads)]
    )
    told = (
        "How much of what the network said each constraint changed in a timestep: rms of the change over rms of the "
        "raw tendency (of the raw value, where a variable is diagnostic)."
    )
    return (
        f"<h3>What the constraints changed</h3><p class=quiet>{told}</p><div class=wide><table><thead><tr>{head}</tr>"
        f"</thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _share(share: float) -> str:
    """A share in percent; powers of ten where it is small."""
    if not np.isfinite(share) or share == 0.0:
        return "0" if share == 0.0 else "\N{EN DASH}"
    return percent(share).lstrip("+") if share >= 0.1 else f"{100 * share:.2g} %".replace("-", MINUS)
