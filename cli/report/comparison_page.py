"""The page of a comparison: a table of runs, a score card each, their curves and spectra together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.verification.score_rows import (
    Row,
    headline_leads,
    headline_rows,
    lead_axis,
    relative_difference,
    score_rows,
    significance,
)
from emul.display.text import lead_text, number, percent
from emul.pictures.curves import run_curves
from emul.pictures.scorecards import run_scorecards
from emul.report.charts import line_chart
from emul.report.page import contents, definitions, document, key, part_of_cell, run_rules, shade, table, tiles
from emul.report.report import TITLES, caption, lines_of
from emul.report.spectra import CSS as SPECTRA_CSS
from emul.report.spectra import has_row, of_row, spectral_chart
from emul.terminal.console import attempt
from emulators.verification.comparison import Comparison

if TYPE_CHECKING:
    import xarray as xr


TABLES = 5  # leads of which the table is shown
STYLES = """.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,460px),1fr));gap:16px}
.cards td,.cards th{padding:2px 5px;font-size:.8rem}.cards thead th{min-width:0;white-space:nowrap}
.cards .wide{background:var(--card)}
.cards th:first-child{background:var(--card);font-weight:400}.cards td{border:1px solid var(--card);text-align:center}
.best{font-weight:700}
.best::after{content:"\\2605";font-size:.7em;vertical-align:.3em;margin-left:2px;color:var(--accent)}
.runs .legend{gap:2px 16px}td.run{text-align:left}"""


def present(target: Path, found: Comparison, metric: str, region: str) -> None:
    """scorecards.png, curves.png and compare.html in `target`; whatever fails is reported and left out."""
    every = score_rows(found.reference)
    first = headline_rows(every)
    datasets = {name: entry.scores for name, entry in found.runs.items()}
    title = f"{TITLES.get(metric, metric)} against {found.baseline}, {region}"
    attempt("scorecards.png", _cards_picture, target / "scorecards.png", found, metric, region, first, title)
    attempt("curves.png", run_curves, target / "curves.png", datasets, found.beside, first[:9], metric, region)
    attempt("compare.html", _write, target / "compare.html", found, metric, region, every, first)


def _cards_picture(
    path: Path, found: Comparison, metric: str, region: str, first: Sequence[Row], title: str
) -> Path | None:
    runs = {name: entry.scores for name, entry in found.runs.items() if name != found.baseline}
    against = found.reference.expand_dims(source=[found.baseline])
    return run_scorecards(path, runs, against, found.judged, first, metric, region, title) if runs else None


def _write(path: Path, found: Comparison, metric: str, region: str, every: list[Row], first: list[Row]) -> Path:
    names = list(found.runs)
    parts = [
        _tables(found, metric, region, first),
        _cards(found, metric, region, every),
        _curves(found, metric, region, first),
        _spectra(found, first),
        _provenance(found),
    ]
    told = ", ".join(names) if len(names) < 5 else f"{len(names)} forecasts"
    times = found.reference["lead_time"].values
    facts = {
        "forecasts": str(len(names)),
        "initial times shared": str(found.inits),
        "differences to": found.baseline,
        "longest lead": lead_text(times[-1]),
        "region": region,
        "grid": str(next(iter(found.runs.values())).scores.attrs["grid"]).split(" (")[0],
    }
    body = [
        f"<h1>{escape(told)}</h1><p class=quiet>The same truth, grid and initial times.</p>",
        contents(parts),
        *(f"<p class=note>{escape(note)}</p>" for note in found.notes),
        tiles(facts),
        *parts,
    ]
    page = document(" · ".join(names)[:80], body, SPECTRA_CSS + STYLES + run_rules(names))
    path.write_text(page, encoding="utf-8")
    return path


def _tables(found: Comparison, metric: str, region: str, first: Sequence[Row]) -> str:
    """A table a lead: a line a run, the best on top; a column a headline variable."""
    times = found.reference["lead_time"].values
    leads = headline_leads(times, most=TABLES)
    middle = leads[len(leads) // 2]
    shown = []
    for lead in leads:
        made = _table(found, metric, region, first, lead)
        told = f"{lead_text(times[lead])} ahead"
        shown.append(f"<details{' open' if lead == middle else ''}><summary>{told}</summary>{made}</details>")
    explained = (
        f"{TITLES.get(metric, metric)}, below it the difference to {found.baseline} in percent; a star marks the best "
        "of a column. The runs are ordered by their mean difference."
    )
    sure = "" if found.judged is None else _significance(found.judged)
    return (
        f"<h2 id=table>Table</h2><p class=quiet>{escape(explained)}</p>{key(found.judged is not None)}"
        f"{''.join(shown)}{sure}"
    )


def _significance(judged: xr.Dataset) -> str:
    told = f"Significance: {judged.attrs['significance']}; blocks of {judged.attrs['block_length']}."
    return f"<p class=quiet>{escape(told)}</p>"


def _table(found: Comparison, metric: str, region: str, first: Sequence[Row], lead: int) -> str:
    against = found.reference.expand_dims(source=[found.baseline])
    attrs = found.reference.attrs
    exponent, perfect = json.loads(attrs["exponent"])[metric], json.loads(attrs["perfect"])[metric]
    names = list(found.runs)
    values = np.array([[row.series(found.runs[n].scores, metric, region)[lead] for row in first] for n in names])
    loss = values if np.isnan(perfect) else np.abs(values - perfect)
    best = [int(np.nanargmin(column)) if np.isfinite(column).any() else -1 for column in loss.T]
    changes = np.full(values.shape, np.nan)
    for i, name in enumerate(names):
        for j, row in enumerate(first):
            change = relative_difference(row, found.runs[name].scores, against, found.baseline, metric, region)
            changes[i, j] = np.nan if change is None else change[lead]
    mean = np.array([np.nanmean(line) if np.isfinite(line).any() else np.inf for line in changes])
    lines = []
    for i in np.argsort(mean, kind="stable"):
        cells = []
        for j, row in enumerate(first):
            shown = number(values[i, j] * row.scale(exponent))
            marked = f"<span class=best>{shown}</span>" if best[j] == i else shown
            sure = significance(row, found.judged, names[i], metric, region)
            part = "" if names[i] == found.baseline else part_of_cell(changes[i, j], sure[lead] if sure else None)
            cells.append(marked + part)
        mine = "<small>the baseline</small>" if names[i] == found.baseline else ""
        overall = "" if names[i] == found.baseline else escape(percent(float(mean[i])))
        lines.append((f"{escape(names[i])}{mine}", [*cells, overall]))
    head = ["", *(f"{escape(row.label)}<small>{escape(row.unit)}</small>" for row in first), "mean<small>%</small>"]
    return table(head, lines)


def _cards(found: Comparison, metric: str, region: str, every: Sequence[Row]) -> str:
    """A score card a run: a line a variable and level, a column a lead."""
    times = found.reference["lead_time"].values
    leads = headline_leads(times, most=7)
    against = found.reference.expand_dims(source=[found.baseline])
    cards = []
    for name, entry in found.runs.items():
        if name == found.baseline:
            continue
        lines = []
        for row in every:
            change = relative_difference(row, entry.scores, against, found.baseline, metric, region)
            if change is None or not np.isfinite(change[leads]).any():
                continue
            sure = significance(row, found.judged, name, metric, region)
            cells = [
                f'<td class="{shade(change[i], sure[i] if sure else None)}">{escape(percent(change[i])[:-2])}</td>'
                for i in leads
            ]
            lines.append((escape(row.label), cells))
        made = table(["%", *(lead_text(times[i]) for i in leads)], lines)
        cards.append(f"<div><h3>{escape(name)}</h3>{made}</div>")
    if not cards:
        return ""
    told = f"Differences of {TITLES.get(metric, metric)} to {found.baseline} in percent, {region}."
    return (
        f"<h2 id=cards>Score cards</h2><p class=quiet>{escape(told)}</p>{key(found.judged is not None)}"
        f"<div class=cards>{''.join(cards)}</div>"
    )


def _curves(found: Comparison, metric: str, region: str, first: Sequence[Row]) -> str:
    """Every run in one chart a headline variable."""
    names = list(found.runs)
    classes = {name: f"r{n}" for n, name in enumerate(names)}
    beside = [name for name in ("persistence", "climatology") if name in found.beside]
    unit = lead_axis(found.reference["lead_time"].values)[1]
    exponent = json.loads(found.reference.attrs["exponent"])[metric]
    figures = []
    for row in first:
        datasets: dict[str, xr.Dataset] = {classes[name]: found.runs[name].scores for name in names}
        lines = lines_of(datasets | {name: found.beside[name] for name in beside}, row, metric, exponent, region, unit)
        titles = {classes[name]: name for name in names}
        mark = 0.0 if metric == "bias" else None
        chart = line_chart(lines, f"{metric} of {row.label} by lead time", unit, mark, titles=titles)
        figures.append(f"<figure><figcaption>{caption(metric, exponent, row)}</figcaption>{chart}</figure>")
    return f"<h2 id=curves>By lead time</h2>{_legend(classes, beside)}<div class=charts>{''.join(figures)}</div>"


def _legend(classes: dict[str, str], beside: Sequence[str]) -> str:
    known = classes | {name: name for name in beside}
    spans = "".join(f"<span><i class={kind}></i>{escape(name)}</span>" for name, kind in known.items())
    return f"<div class=legend>{spans}</div>"


def _spectra(found: Comparison, first: Sequence[Row]) -> str:
    """Spectra of all runs at the last lead that all have, and their effective resolution."""
    known = {name: entry.spectra for name, entry in found.runs.items() if entry.spectra is not None}
    if not known:
        return ""
    shared = sorted(set.intersection(*(set(one["lead_time"].values.tolist()) for one in known.values())))
    shown = [row for row in first if all(row.variable in one and has_row(one, row) for one in known.values())]
    if not shared or not shown:
        return ""
    lead = np.timedelta64(shared[-1], "ns")
    classes = {name: f"r{n}" for n, name in enumerate(found.runs) if name in known}
    charts, lines = [], []
    for row in shown:
        drawn = []
        for name, one in known.items():
            power = of_row(one, row.variable, row).sel(lead_time=lead) * row.factor**2
            drawn.append((classes[name], 1.0, name, power.sel(source="forecast").values[1:]))
        truth = power.sel(source="truth").values[1:]
        degrees = one["total_wavenumber"].values[1:]
        chart = spectral_chart(f"spectra of {row.label}", degrees, [*drawn, ("truth", 1.0, "truth", truth)], True)
        charts.append(f"<figure><figcaption>{escape(row.label)}</figcaption>{chart}</figure>")
    for name, one in known.items():
        cells = []
        for row in shown:
            metres = float(of_row(one, f"{row.variable}_effective_resolution", row).sel(lead_time=lead))
            cells.append(
                f"{metres / 1e3:.0f}" if np.isfinite(metres) else "none" if np.isinf(metres) else number(metres)
            )
        lines.append((escape(name), cells))
    told = f"Power by total wavenumber, {lead_text(lead)} ahead; what falls below the truth (dashed) is blurred."
    resolution = table(["km", *(escape(row.label) for row in shown)], lines)
    legend = _legend(classes, []).replace("</div>", "<span><i class=truth></i>truth</span></div>")
    return (
        f"<h2 id=spectra>Spectra</h2><p class=quiet>{told}</p>{legend}<div class=charts>{''.join(charts)}</div>"
        f"<h3>Effective resolution, {lead_text(lead)} ahead</h3>{resolution}"
    )


def _provenance(found: Comparison) -> str:
    """What each run is, and what all share."""
    keys = ("forecast", "verdict", "revision", "created")
    lines = []
    for name, entry in found.runs.items():
        cells = [f"<td class=run>{escape(str(entry.scores.attrs.get(key, '')))[:60]}</td>" for key in keys]
        lines.append((escape(name), cells))
    attrs = found.reference.attrs
    shared = {
        name.replace("_", " "): str(attrs[name])
        for name in ("truth", "climatology", "grid", "weights", "averaging", "points_left_out", "definitions")
        if name in attrs
    }
    if found.judged is not None:
        shared["significance"] = found.judged.attrs["significance"]
    listed = definitions(shared)
    return f"<h2 id=provenance>Where these numbers come from</h2>{table(['', *keys], lines)}{listed}"
