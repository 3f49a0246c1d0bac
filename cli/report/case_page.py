"""The page of one case: forecast, truth and their difference on maps that move through the leads."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.inspection.map_sampling import Sampling, coast_pixels, sampling
from data_pipelines.verification.score_rows import Row, lead_axis, leads_in_unit
from emul.display.text import lead_text, number
from emul.pictures.figures import _limits, _signed
from emul.report.charts import line_chart
from emul.report.error_growth import row_of
from emul.report.page import document
from emulators.grid import LatLonGrid

if TYPE_CHECKING:
    import xarray as xr


QUALITY = 78  # of WebP


FORECAST, TRUTH, DIFFERENCE = "forecast", "truth", "forecast \N{MINUS SIGN} truth"


STYLES = """.controls{position:sticky;top:0;z-index:2;display:flex;flex-wrap:wrap;gap:8px 14px;align-items:center;
background:var(--paper);padding:10px 0;border-bottom:1px solid var(--line)}
.controls button{font:inherit;font-weight:600;border:0;border-radius:8px;padding:6px 16px;min-width:6.4em;
background:var(--accent);color:var(--paper);cursor:pointer}.controls input{flex:1 1 160px;accent-color:var(--accent)}
.controls output{min-width:5em;font-variant-numeric:tabular-nums;font-weight:600}
.triplet{display:grid;grid-template-columns:repeat(3,1fr);gap:10px;margin:8px 0 4px}
.triplet figure{padding:8px}.triplet img{width:100%}
@media(max-width:600px){.triplet{grid-template-columns:1fr 1fr}.triplet figure:last-child{grid-column:1/-1}}
.bar{display:flex;gap:8px;align-items:center;font-size:.78rem;color:var(--quiet);margin:2px 0}
.bar i{flex:1;height:9px;border-radius:5px;max-width:320px}.bars{display:grid;grid-template-columns:2fr 1fr;gap:10px}
.growth{max-width:420px}svg polyline.all{stroke:var(--quiet);stroke-dasharray:3 3}svg .band.all{fill:var(--quiet)}
.legend .all{border-color:var(--quiet)}"""


SCRIPT = """const play=document.getElementById("play"),slide=document.getElementById("lead"),
told=document.getElementById("told");let timer=null;
function show(n){slide.value=n;told.textContent=LEADS[n];
document.querySelectorAll("img[data-frames]").forEach(i=>{i.src=FRAMES[i.dataset.frames][n]})}
function stop(){clearInterval(timer);timer=null;play.textContent="Play"}
function start(){timer=setInterval(()=>show((+slide.value+1)%LEADS.length),450);play.textContent="Pause"}
play.onclick=()=>timer?stop():start();slide.oninput=()=>{stop();show(+slide.value)};
addEventListener("keydown",e=>{if(e.target!==document.body)return;
if(e.key===" "){e.preventDefault();play.click()}
const s={ArrowRight:1,ArrowLeft:-1}[e.key];if(s){stop();show((+slide.value+s+LEADS.length)%LEADS.length)}});
addEventListener("beforeprint",stop);show(+slide.value);"""


def picture(values: np.ndarray, limits: tuple[float, float], colours: str, where: Sampling, coast: np.ndarray) -> str:
    """A map as the address of a WebP inside the page."""
    from matplotlib import colormaps
    from PIL import Image

    low, high = limits
    pixels = where.of(values)
    shares = np.clip((pixels - low) / (high - low), 0.0, 1.0)
    image = (255 * colormaps[colours](np.nan_to_num(shares))).astype(np.uint8)
    image[np.isnan(pixels)] = (150, 150, 150, 255)
    image[coast] = (40, 48, 56, 255)
    image[~where.inside] = 0
    file = io.BytesIO()
    Image.fromarray(image).save(file, "webp", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def frames_of(there: np.ndarray, most: int) -> list[int]:
    """Leads (indices) of the frames: those with a truth, at most so many, evenly."""
    have = np.flatnonzero(there)
    return have[np.unique(np.linspace(0, have.size - 1, min(most, have.size)).round().astype(int))].tolist()


def write_case(
    path: Path,
    title: str,
    init: np.datetime64,
    grid: LatLonGrid,
    leads: np.ndarray,
    fields: Sequence[tuple[Row, Callable[[int], tuple[np.ndarray, np.ndarray]]]],
    chosen: Sequence[int],
    coast: np.ndarray | None,
    by_init: xr.Dataset | None,
) -> Path:
    """Write the page.

    fields: rows, and what gives forecast and truth (lat, lon) of each at a lead. chosen: the leads of the frames.
    by_init: of `InitStatistics`, for the errors of this case among all.
    """
    where = sampling(grid)
    edge = coast_pixels(coast, where)
    frames: dict[str, list[str]] = {}
    middle = len(chosen) // 2
    parts = []
    for number_, (row, at) in enumerate(fields):
        pairs = [at(lead) for lead in chosen]
        made, bars = _frames(pairs, row, where, edge)
        frames |= {f"{number_}{kind}": drawn for kind, drawn in zip("ftd", made.values(), strict=True)}
        shown = "".join(
            f'<figure><figcaption>{name}</figcaption><img data-frames="{number_}{kind}" src="{drawn[middle]}" '
            f'alt="{escape(row.label)}: {name}"></figure>'
            for (name, drawn), kind in zip(made.items(), "ftd", strict=True)
        )
        unit = f" <small class=quiet>[{escape(row.unit)}]</small>" if row.unit else ""
        growth = "" if by_init is None else _errors(by_init, row, init)
        parts.append(f"<h2>{escape(row.label)}{unit}</h2><div class=triplet>{shown}</div>{bars}{growth}")
    times = [f"{lead_text(leads[lead])} ahead" for lead in chosen]
    started = np.datetime_as_string(init, "h").replace("T", " ")
    body = [
        f"<h1>{escape(title)}</h1><p class=quiet>One case: the forecast from {started} UTC, the truth of the same "
        "times, and what lies between them. Space plays, arrows step.</p>",
        "<div class=controls><button id=play class=only-screen>Play</button>"
        f"<input id=lead class=only-screen type=range min=0 max={len(chosen) - 1} value={middle} "
        f'aria-label="lead time"><output id=told>{times[middle]}</output></div>',
        *parts,
    ]
    script = f"const LEADS={json.dumps(times)},FRAMES={json.dumps(frames)};{SCRIPT}"
    path.write_text(document(f"{title}: one case", body, STYLES, script), encoding="utf-8")
    return path


def _frames(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], row: Row, where: Sampling, edge: np.ndarray
) -> tuple[Mapping[str, list[str]], str]:
    """The maps of each kind by lead on one scale of colours, and the bars that explain it."""
    both = np.concatenate([field.ravel() for pair in pairs for field in pair]) * row.factor
    apart = np.concatenate([(forecast - truth).ravel() for forecast, truth in pairs]) * row.factor
    limits, error = _limits(both, centred=_signed(both)), _limits(apart, centred=True)
    colours = "RdBu_r" if limits[0] == -limits[1] else "viridis"
    made: dict[str, list[str]] = {FORECAST: [], TRUTH: [], DIFFERENCE: []}
    for forecast, truth in pairs:
        made[FORECAST].append(picture(forecast * row.factor, limits, colours, where, edge))
        made[TRUTH].append(picture(truth * row.factor, limits, colours, where, edge))
        made[DIFFERENCE].append(picture((forecast - truth) * row.factor, error, "RdBu_r", where, edge))
    return made, f"<div class=bars>{_bar(limits, colours)}{_bar(error, 'RdBu_r')}</div>"


def _bar(limits: tuple[float, float], colours: str) -> str:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    stops = ",".join(to_hex(colormaps[colours](share)) for share in np.linspace(0, 1, 9))
    low, high = (number(limit).replace("-", "\N{MINUS SIGN}") for limit in limits)
    return f'<div class=bar>{low}<i style="background:linear-gradient(90deg,{stops})"></i>{high}</div>'


def _errors(by_init: xr.Dataset, row: Row, init: np.datetime64) -> str:
    """RMSE of this case by lead among those of all."""
    if "squared_error" not in by_init["statistic"].values:
        return ""
    region = str(by_init["region"].values[0])
    squares = row_of(by_init, row, region)
    at = np.flatnonzero(by_init["time"].values.astype("datetime64[s]") == init)
    if squares is None or not at.size:
        return ""
    errors = np.sqrt(squares) * row.factor
    unit = lead_axis(by_init["lead_time"].values)[1]
    x = leads_in_unit(unit, by_init["lead_time"].values)
    low, median, high = np.nanpercentile(errors, (10, 50, 90), axis=0)
    lines: dict[str, Any] = {"all": (x, median), "forecast": (x, errors[at[0]])}
    chart = line_chart(lines, f"RMSE of {row.label}", unit, bands={"all": (low, high)}, titles={"all": "all cases"})
    legend = (
        "<div class=legend><span><i class=forecast></i>this case</span>"
        "<span><i class=all></i>all cases: median, and four of five</span></div>"
    )
    return f"<figure class=growth><figcaption>RMSE, {escape(region)}</figcaption>{legend}{chart}</figure>"
