"""The report of an evaluation: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.verification.score_rows import (
    Row,
    headline_leads,
    lead_axis,
    leads_in_unit,
    relative_difference,
    significance,
)
from emul.display.palette import LINES
from emul.display.text import lead_text, number
from emul.report.budgets import section as budget_section
from emul.report.budgets import styles as budget_styles
from emul.report.charts import line_chart
from emul.report.page import contents, definitions, document, key, part_of_cell, table, tiles
from emul.report.spectra import CSS as SPECTRA_CSS
from emul.report.spectra import section

if TYPE_CHECKING:
    import xarray as xr


TITLES = {"rmse": "RMSE", "mse": "MSE", "mae": "Mean absolute error", "bias": "Bias", "acc": "Anomaly correlation"}


TITLES |= {"rmse_by_init": "RMSE, root by init", "acc_by_init": "Anomaly correlation by init"}


FEET = "Bars at the foot: leads at which the forecast differs significantly from the source of that colour."
LIMITS = (
    "Predictability is the error of an identical twin that starts almost alike: the limit of every forecast. "
    "Saturation is by what two states of the same season differ."
)


def write_report(
    path: Path,
    title: str,
    scores: xr.Dataset,
    baselines: xr.Dataset | None,
    *,
    judged: xr.Dataset | None,
    every: Sequence[Row],
    first: Sequence[Row],
    others: Mapping[str, xr.Dataset],
    maps: Sequence[tuple[str, Path]],
    spectra: xr.Dataset | None,
    budgets: xr.Dataset | None,
    beside: Mapping[str, xr.Dataset],
    further: Sequence[str],
    case: Path | None,
    facts: Mapping[str, str],
    provenance: Mapping[str, str],
    notes: Sequence[str],
) -> Path:
    """Write the report.

    judged: differences to the baselines. every, first: all rows, and those of the headline table. others: Datasets of
    scores to draw beside. maps: (caption, PNG). spectra: the group of scores.nc. budgets: of the forecast; beside:
    those of other forecasts. further: sections made elsewhere. case: the page of one case, beside this one. facts: the
    tiles at the top. provenance: the list at the end. notes: what a reader must know.
    """
    region = str(scores["region"].values[0])
    parts = [
        _headline(scores, baselines, judged, first, region),
        _curves(scores, others, judged, every, first, region),
        _regions(scores, baselines, judged, first),
        *further,
        "" if spectra is None else section(spectra, first),
        "" if budgets is None else budget_section(budgets, beside),
        _maps(maps),
        _provenance(scores, judged, provenance),
    ]
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=quiet>How good these forecasts are, by lead and region. Headline region: {escape(region)}.</p>",
        contents(parts),
        *(f"<p class=note>{escape(note)}</p>" for note in notes),
        tiles(facts),
        "" if case is None else f'<p class=only-screen><a href="{case.name}">One case, lead by lead</a></p>',
        *parts,
    ]
    more = budget_styles([name for name in dict.fromkeys([*others, *beside]) if name not in LINES])
    path.write_text(document(title, body, SPECTRA_CSS + more), encoding="utf-8")
    return path


def _headline(
    scores: xr.Dataset, baselines: xr.Dataset | None, judged: xr.Dataset | None, first: Sequence[Row], region: str
) -> str:
    """RMSE at the usual leads with the difference to each baseline."""
    if "rmse" not in scores["metric"].values:
        return ""
    leads = headline_leads(scores["lead_time"].values)
    sources = [] if baselines is None else [str(s) for s in baselines["source"].values]
    lines = [(_named(row), _cells(row, scores, baselines, judged, sources, leads, region)) for row in first]
    head = ["RMSE", *(lead_text(scores["lead_time"].values[i]) for i in leads)]
    told = " and ".join(f"<b>{escape(_letters(sources)[s])}</b> {escape(s.replace('_', ' '))}" for s in sources)
    explained = f" Below each its difference in percent to {told}." if sources else ""
    colours = key(judged is not None) if sources else ""
    return (
        f"<h2 id=score-card>Score card</h2><p class=quiet>RMSE by lead time.{explained}</p>{colours}"
        f"{table(head, lines)}{_judged(judged)}"
    )


def _judged(judged: xr.Dataset | None) -> str:
    """How differences were judged."""
    if judged is None:
        return ""
    told = f"Significance: {judged.attrs['significance']}; blocks of {judged.attrs['block_length']}."
    return f"<p class=quiet>{escape(told)}</p>"


def _letters(sources: Sequence[str]) -> dict[str, str]:
    """The shortest beginnings by which the sources can be told apart."""
    size = next(n for n in range(1, 99) if len({s[:n] for s in sources}) == len(sources))
    return {s: s[:size].capitalize() for s in sources}


def _named(row: Row) -> str:
    return f"{escape(row.label)}<small>{escape(row.unit)}</small>"


def _cells(
    row: Row,
    scores: xr.Dataset,
    baselines: xr.Dataset | None,
    judged: xr.Dataset | None,
    sources: Sequence[str],
    leads: Sequence[int],
    region: str,
) -> list[str]:
    """RMSE at each of the leads, and a coloured line a baseline."""
    values = row.series(scores, "rmse", region) * row.scale(1)
    found = {s: relative_difference(row, scores, baselines, s, region=region) for s in sources}
    sure = {s: significance(row, judged, s, region=region) for s in sources}
    letters = _letters(sources) if sources else {}

    def parts(lead: int) -> str:
        return "".join(
            part_of_cell(f[lead], sure[s][lead] if sure[s] else None, letters[s])
            for s, f in found.items()
            if f is not None
        )

    return [number(values[lead]) + parts(lead) for lead in leads]


def _curves(
    scores: xr.Dataset,
    others: Mapping[str, xr.Dataset],
    judged: xr.Dataset | None,
    every: Sequence[Row],
    first: Sequence[Row],
    region: str,
) -> str:
    """The headline's RMSE by lead, then every score of every variable and level, a fold a variable."""
    names = [str(name) for name in scores["metric"].values]
    legend = "".join(f"<span><i class={name}></i>{escape(name)}</span>" for name in ["forecast", *others])
    charts = "".join(_figure(row, names[0], scores, others, judged, region) for row in first)
    told = f"<p class=quiet>{LIMITS}</p>" if "saturation" in others else ""
    told += f"<p class=quiet>{FEET}</p>" if judged is not None else ""
    folds = [
        f"<h2 id=lead-time>By lead time</h2>{told}<div class=legend>{legend}</div><div class=charts>{charts}</div>"
    ]
    for variable in dict.fromkeys(row.variable for row in every):
        charts = "".join(
            _figure(row, name, scores, others, judged, region)
            for row in every
            if row.variable == variable
            for name in names
        )
        told = f"{variable.replace('_', ' ')}: every score"
        folds.append(f"<details><summary>{escape(told)}</summary><div class=charts>{charts}</div></details>")
    return "".join(folds)


def _figure(
    row: Row,
    metric: str,
    scores: xr.Dataset,
    others: Mapping[str, xr.Dataset],
    judged: xr.Dataset | None,
    region: str,
) -> str:
    """One chart with its caption; empty where there is nothing to draw."""
    exponent = json.loads(scores.attrs["exponent"])[metric]
    unit = lead_axis(scores["lead_time"].values)[1]
    lines = lines_of({"forecast": scores, **others}, row, metric, exponent, region, unit)
    feet = {name: np.array([one is True for one in significance(row, judged, name, metric, region)]) for name in others}
    mark = 0.0 if metric == "bias" else None
    chart = line_chart(
        lines,
        f"{metric} of {row.label} by lead time",
        unit,
        mark,
        feet={name: flags for name, flags in feet.items() if flags.any() and "forecast" in lines},
    )
    return f"<figure><figcaption>{caption(metric, exponent, row)}</figcaption>{chart}</figure>" if chart else ""


def caption(metric: str, exponent: int, row: Row) -> str:
    """`RMSE temperature 850 hPa [K]`, as HTML."""
    unit = {1: f"[{row.unit}]", 2: f"[({row.unit})\N{SUPERSCRIPT TWO}]"}.get(exponent, "") if row.unit else ""
    return f"{TITLES.get(metric, escape(metric))} <small>{escape(f'{row.label} {unit}'.strip())}</small>"


def lines_of(
    datasets: Mapping[str, xr.Dataset], row: Row, metric: str, exponent: int, region: str, unit: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(lead times in `unit`, scores as shown) of each dataset that has them."""
    lines = {}
    for name, dataset in datasets.items():
        if row.variable in dataset and metric in dataset["metric"].values and region in dataset["region"].values:
            x = leads_in_unit(unit, dataset["lead_time"].values)
            try:
                lines[name] = (x, row.series(dataset, metric, region) * row.scale(exponent))
            except KeyError:  # a curve from elsewhere may lack the level
                continue
    return lines


def _regions(scores: xr.Dataset, baselines: xr.Dataset | None, judged: xr.Dataset | None, first: Sequence[Row]) -> str:
    """RMSE and the difference to the first baseline in every region at one lead."""
    names = scores["region"].values.tolist()
    if len(names) < 2 or "rmse" not in scores["metric"].values:
        return ""
    leads = headline_leads(scores["lead_time"].values)
    lead = leads[len(leads) // 2]
    sources = [] if baselines is None else [str(baselines["source"].values[0])]
    lines = [
        (_named(row), [_cells(row, scores, baselines, judged, sources, [lead], region)[0] for region in names])
        for row in first
    ]
    told = lead_text(scores["lead_time"].values[lead])
    against = f"<p class=quiet>Differences to {escape(sources[0])}.</p>" if sources else ""
    return f"<h2 id=regions>By region, {told} ahead</h2>{against}{table(['RMSE', *map(escape, names)], lines)}"


def _maps(maps: Sequence[tuple[str, Path]]) -> str:
    if not maps:
        return ""
    shown = []
    for caption, path in maps:
        kind = "two" if path.stem.endswith("_errors") else "three"
        data = base64.b64encode(path.read_bytes()).decode()
        shown.append(
            f"<figure class={kind}><figcaption>{escape(caption)}</figcaption>"
            f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}"></figure>'
        )
    return f"<h2 id=maps>Maps</h2><div class=maps>{''.join(shown)}</div>"


def _provenance(scores: xr.Dataset, judged: xr.Dataset | None, provenance: Mapping[str, Any]) -> str:
    metrics = {
        TITLES.get(name, name): text
        for name, _, text in (d.partition(" = ") for d in scores.attrs["definitions"].split("; "))
    }
    how = {} if judged is None else {"significance": judged.attrs["significance"]}
    listed = definitions({**provenance, **how, **metrics})
    return f"<h2 id=provenance>Where these numbers come from</h2>{listed}"
