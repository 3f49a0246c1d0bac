"""The report of an evaluation: one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emul import conservation
from emul.charts import line_chart
from emul.scorecard import Row, columns, lead_axis, lead_text, leads_in, number, percent, skill_against
from emul.spectra import CSS as SPECTRA_CSS
from emul.spectra import section

if TYPE_CHECKING:
    import xarray as xr

TITLES = {"rmse": "RMSE", "mse": "MSE", "mae": "Mean absolute error", "bias": "Bias", "acc": "Anomaly correlation"}
TITLES |= {"rmse_by_init": "RMSE, root by init", "acc_by_init": "Anomaly correlation by init"}

CSS = """
:root{color-scheme:light dark;--paper:#fff;--card:#f6f8fa;--ink:#1f2933;--quiet:#5d6b7a;--line:#dde3ea;
--forecast:#2563eb;--persistence:#c2650a;--climatology:#6b7280;--predictability:#059669;
--saturation:#6ee7b7;--good:37,99,235;--bad:217,119,6}
@media(prefers-color-scheme:dark){:root{--paper:#11161c;--card:#1a2129;--ink:#e6ebf0;--quiet:#93a1b0;--line:#2b3540;
--forecast:#6aa5ff;--persistence:#f2a65a;--climatology:#a3adb8;--predictability:#3ecf9e;
--saturation:#1f7a5c;--good:80,140,255;--bad:240,150,60}}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 18px 60px}
h1{font-size:1.7rem;line-height:1.2;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:40px 0 8px}h3{font-size:1rem;margin:18px 0 6px}
p{margin:6px 0;max-width:72ch}.quiet{color:var(--quiet);font-size:.9rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(145px,1fr));gap:10px;margin:18px 0}
.facts div{background:var(--card);border-radius:10px;padding:10px 14px;min-width:0}
.facts b{display:block;font-size:1.15rem;overflow-wrap:anywhere}.facts span{color:var(--quiet);font-size:.82rem}
.note{border-left:4px solid rgb(var(--bad));background:var(--card);padding:8px 14px;
border-radius:0 8px 8px 0;margin:8px 0}
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:10px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:7px 11px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tr:last-child>*{border-bottom:0}thead th{color:var(--quiet);font-weight:600;font-size:.85rem}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
th[scope=row]{font-weight:600}th small,td small{display:block;color:var(--quiet);font-weight:400;font-size:.76rem}
td .skill{display:block;font-size:.78rem;border-radius:5px;padding:0 6px;margin-top:2px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.85rem;color:var(--quiet);margin:8px 0}
.legend i{display:inline-block;width:22px;border-top:3px solid;vertical-align:middle;margin-right:6px}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,270px),1fr));gap:12px}
figure{margin:0;background:var(--card);border-radius:10px;padding:10px 12px}
figcaption{font-size:.85rem;font-weight:600}figcaption small{color:var(--quiet);font-weight:400}
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--quiet)}
svg .rule{stroke:var(--line)}svg .mark{stroke:var(--quiet);stroke-dasharray:2 3}
svg polyline{fill:none;stroke-width:2.2;stroke-linejoin:round}
"""
LIMITS = (
    "Predictability is the error of an identical twin that starts almost alike: the limit of every forecast. "
    "Saturation is by what two states of the same season differ."
)
LINES = {"forecast": "", "persistence": "7 4", "climatology": "2 4", "predictability": "9 3 2 3", "saturation": "1 5"}
CSS += "".join(
    f"svg polyline.{name}{{stroke:var(--{name});stroke-dasharray:{dash or 'none'}}}"
    f"svg circle.{name}{{fill:var(--{name})}}.legend .{name}{{border-color:var(--{name})}}"
    for name, dash in LINES.items()
)
CSS += """
details{border-bottom:1px solid var(--line);padding:4px 0 10px}summary{cursor:pointer;font-weight:600;padding:8px 0}
.maps{display:grid;gap:14px}.maps .two img{max-width:min(100%,43rem)}
img{max-width:100%;height:auto;display:block;margin:0 auto}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;font-size:.9rem}dt{color:var(--quiet)}
dd{margin:0;overflow-wrap:anywhere}@media(max-width:560px){dl{grid-template-columns:1fr}dd{margin-bottom:8px}
main{padding:20px 12px 40px}th,td{padding:6px 8px}}
"""
CSS += SPECTRA_CSS


def write_report(
    path: Path,
    title: str,
    scores: xr.Dataset,
    baselines: xr.Dataset | None,
    *,
    every: Sequence[Row],
    first: Sequence[Row],
    others: Mapping[str, xr.Dataset],
    maps: Sequence[tuple[str, Path]],
    spectra: xr.Dataset | None,
    budgets: xr.Dataset | None,
    beside: Mapping[str, xr.Dataset],
    facts: Mapping[str, str],
    provenance: Mapping[str, str],
    notes: Sequence[str],
) -> Path:
    """Write the report.

    every, first: all rows, and those of the headline table. others: Datasets of scores to draw beside. maps: (caption,
    PNG). spectra: the group of scores.nc. budgets: of the forecast; beside: those of other forecasts. facts: the tiles
    at the top. provenance: the list at the end. notes: what a reader must know.
    """
    region = str(scores["region"].values[0])
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p class=quiet>How good these forecasts are, by lead and region. Headline region: {escape(region)}.</p>",
        *(f"<p class=note>{escape(note)}</p>" for note in notes),
        "<div class=facts>"
        + "".join(f"<div><span>{escape(k)}</span><b>{escape(v)}</b></div>" for k, v in facts.items())
        + "</div>",
        _headline(scores, baselines, first, region),
        _curves(scores, others, every, first, region),
        _regions(scores, baselines, first),
        "" if spectra is None else section(spectra, first),
        "" if budgets is None else conservation.section(budgets, beside),
        _maps(maps),
        _provenance(scores, provenance),
    ]
    more = conservation.styles([name for name in dict.fromkeys([*others, *beside]) if name not in LINES])
    page = (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}{more}</style><main>{''.join(body)}</main></html>"
    )
    path.write_text(page, encoding="utf-8")
    return path


def _skill(value: float, against: str) -> str:
    """One coloured line of a cell: blue where the forecast is better than the baseline, orange where worse."""
    if not np.isfinite(value):
        return ""
    colour, depth = ("--good" if value > 0 else "--bad"), min(0.6, 0.08 + 0.6 * abs(value))
    style = f"background:rgba(var({colour}),{depth:.2f})"
    return f'<span class=skill style="{style}">{escape(percent(value))} {against}</span>'


def _table(head: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    top = "".join(f"<th scope=col>{name}</th>" for name in head)
    rows = "".join(
        f"<tr><th scope=row>{name}</th>{''.join(f'<td>{c}</td>' for c in cells)}</tr>" for name, cells in lines
    )
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>"


def _headline(scores: xr.Dataset, baselines: xr.Dataset | None, first: Sequence[Row], region: str) -> str:
    """RMSE at the usual leads with skill against each baseline."""
    if "rmse" not in scores["metric"].values:
        return ""
    leads = columns(scores["lead_time"].values)
    sources = [] if baselines is None else [str(s) for s in baselines["source"].values]
    lines = []
    for row in first:
        values = row.series(scores, "rmse", region)
        skills = {s: skill_against(row, scores, baselines, s, region=region) for s in sources}
        cells = [
            number(values[i] * row.scale(1))
            + "".join(_skill(f[i], s[0].upper()) for s, f in skills.items() if f is not None)
            for i in leads
        ]
        lines.append((f"{escape(row.label)}<small>{escape(row.unit)}</small>", cells))
    head = ["RMSE", *(lead_text(scores["lead_time"].values[i]) for i in leads)]
    told = " and ".join(f"{s[0].upper()} = {s}" for s in sources)
    explained = (
        f" Below each: skill, 1 \N{MINUS SIGN} RMSE / RMSE of the baseline ({told}); "
        "blue is better than it, orange worse."
        if sources
        else ""
    )
    return f"<h2>Score card</h2><p class=quiet>RMSE by lead time.{explained}</p>{_table(head, lines)}"


def _curves(
    scores: xr.Dataset, others: Mapping[str, xr.Dataset], every: Sequence[Row], first: Sequence[Row], region: str
) -> str:
    """The headline's RMSE by lead, then every score of every variable and level, a fold a variable."""
    names = [str(name) for name in scores["metric"].values]
    legend = "".join(f"<span><i class={name}></i>{name}</span>" for name in ["forecast", *others])
    charts = "".join(_figure(row, names[0], scores, others, region) for row in first)
    told = f"<p class=quiet>{LIMITS}</p>" if "saturation" in others else ""
    folds = [f"<h2>By lead time</h2>{told}<div class=legend>{legend}</div><div class=charts>{charts}</div>"]
    for variable in dict.fromkeys(row.variable for row in every):
        charts = "".join(
            _figure(row, name, scores, others, region) for row in every if row.variable == variable for name in names
        )
        told = f"{variable.replace('_', ' ')}: every score"
        folds.append(f"<details><summary>{escape(told)}</summary><div class=charts>{charts}</div></details>")
    return "".join(folds)


def _figure(row: Row, metric: str, scores: xr.Dataset, others: Mapping[str, xr.Dataset], region: str) -> str:
    """One chart with its caption; empty where there is nothing to draw."""
    exponent = json.loads(scores.attrs["exponent"])[metric]
    chart = _chart(row, metric, exponent, scores, others, region)
    unit = {1: f"[{row.unit}]", 2: f"[({row.unit})\N{SUPERSCRIPT TWO}]"}.get(exponent, "") if row.unit else ""
    caption = f"{TITLES.get(metric, metric)} <small>{escape(f'{row.label} {unit}'.strip())}</small>"
    return f"<figure><figcaption>{caption}</figcaption>{chart}</figure>" if chart else ""


def _chart(
    row: Row, metric: str, exponent: int, scores: xr.Dataset, others: Mapping[str, xr.Dataset], region: str
) -> str:
    lines = {}
    unit = lead_axis(scores["lead_time"].values)[1]
    for name, dataset in {"forecast": scores, **others}.items():
        if row.variable in dataset and metric in dataset["metric"].values and region in dataset["region"].values:
            x = leads_in(unit, dataset["lead_time"].values)
            try:
                lines[name] = (x, row.series(dataset, metric, region) * row.scale(exponent))
            except KeyError:  # a curve from elsewhere may lack the level
                continue
    mark = 0.0 if metric == "bias" else None
    return line_chart(lines, f"{metric} of {row.label} by lead time", unit, mark)


def _regions(scores: xr.Dataset, baselines: xr.Dataset | None, first: Sequence[Row]) -> str:
    """RMSE and skill against persistence in every region at one lead."""
    names = scores["region"].values.tolist()
    if len(names) < 2 or "rmse" not in scores["metric"].values:
        return ""
    leads = columns(scores["lead_time"].values)
    lead = leads[len(leads) // 2]
    lines = []
    for row in first:
        cells = []
        for region in names:
            found = skill_against(row, scores, baselines, "persistence", region=region)
            cells.append(
                number(row.series(scores, "rmse", region)[lead] * row.scale(1))
                + ("" if found is None else _skill(found[lead], "P"))
            )
        lines.append((f"{escape(row.label)}<small>{escape(row.unit)}</small>", cells))
    told = lead_text(scores["lead_time"].values[lead])
    return f"<h2>By region, {told} ahead</h2>{_table(['RMSE', *map(escape, names)], lines)}"


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
    return f"<h2>Maps</h2><div class=maps>{''.join(shown)}</div>"


def _provenance(scores: xr.Dataset, provenance: Mapping[str, Any]) -> str:
    metrics = {
        TITLES.get(name, name): text
        for name, _, text in (d.partition(" = ") for d in scores.attrs["definitions"].split("; "))
    }
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>" for k, v in {**provenance, **metrics}.items())
    return f"<h2>Where these numbers come from</h2><dl>{listed}</dl>"
