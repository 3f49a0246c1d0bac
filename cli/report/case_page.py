"""The page of one case: forecast, truth and their difference on maps that move through the leads."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emul.display.score_rows import Row, lead_axis, lead_text, leads_in, number
from emul.pictures.figures import _limits, _signed
from emul.report.charts import line_chart
from emul.report.error_growth import row_of
from emul.report.page import document
from emulators.grid import LatLonGrid

if TYPE_CHECKING:
    import xarray as xr


WIDTH = 440  # pixels of a map
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


class Sampling(NamedTuple):
    """How a map is drawn from a grid: the four points around each pixel with their weights; where there is map."""

    points: np.ndarray
    weight: np.ndarray
    inside: np.ndarray

    def of(self, field: np.ndarray) -> np.ndarray:
        """Values at the pixels, shape (y, x)."""
        return (field.ravel()[self.points] * self.weight).sum(axis=0)


def sampling(grid: LatLonGrid, width: int = WIDTH) -> Sampling:
    """An equal-area map (Mollweide, the 180th meridian in its middle) of the sphere, or plain degrees of a part of it;
    bilinear between the points of the grid."""
    if grid.is_cyclic and np.ptp(grid.latitude) > 90:
        y, x = np.mgrid[1 : -1 : width // 2 * 1j, -1 : 1 : width * 1j]
        inside = x**2 + y**2 <= 1.0
        theta = np.arcsin(y)
        latitude = np.degrees(np.arcsin(np.clip((2 * theta + np.sin(2 * theta)) / np.pi, -1, 1)))
        longitude = 180.0 + 180.0 * np.clip(x / np.maximum(np.cos(theta), 1e-9), -1, 1)
    else:
        east = grid.longitude[0] + np.concatenate([[0.0], np.cumsum(np.mod(np.diff(grid.longitude), 360.0))])
        shape = np.ptp(grid.latitude) / np.ptp(east) / max(np.cos(np.deg2rad(grid.latitude.mean())), 0.1)
        latitude, longitude = np.meshgrid(
            np.linspace(grid.latitude[0], grid.latitude[-1], max(8, min(int(width * shape), 2 * width))),
            np.linspace(east[0], east[-1], width),
            indexing="ij",
        )
        inside = np.ones(latitude.shape, dtype=bool)
    return _around(grid, latitude, longitude, inside)


def _around(grid: LatLonGrid, latitude: np.ndarray, longitude: np.ndarray, inside: np.ndarray) -> Sampling:
    """The four points around each place."""
    rows = np.interp(-latitude, -grid.latitude, np.arange(grid.shape[0]))
    steps = np.mod(longitude - grid.longitude[0], 360.0)
    east = np.concatenate([[0.0], np.cumsum(np.mod(np.diff(grid.longitude), 360.0))])
    if grid.is_cyclic:
        columns = np.interp(steps, np.append(east, 360.0), np.arange(grid.shape[1] + 1))
    else:
        columns = np.interp(steps, east, np.arange(grid.shape[1]))
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down, right = rows - top, columns - left
    last = grid.shape[0] - 1
    index, weight = [], []
    for i, a in ((top, 1 - down), (np.minimum(top + 1, last), down)):
        for j, b in ((left % grid.shape[1], 1 - right), ((left + 1) % grid.shape[1], right)):
            index.append(i * grid.shape[1] + j)
            weight.append(a * b)
    return Sampling(np.stack(index), np.stack(weight), inside)


def _coast(land: np.ndarray | None, where: Sampling) -> np.ndarray:
    """True at the pixels of coasts, where the land fraction passes one half."""
    edge = np.zeros(where.inside.shape, dtype=bool)
    if land is not None:
        ground = where.of(land) > 0.5
        edge[:, 1:] |= ground[:, 1:] != ground[:, :-1]
        edge[1:] |= ground[1:] != ground[:-1]
    return edge & where.inside


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
    edge = _coast(coast, where)
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
    x = leads_in(unit, by_init["lead_time"].values)
    low, median, high = np.nanpercentile(errors, (10, 50, 90), axis=0)
    lines: dict[str, Any] = {"all": (x, median), "forecast": (x, errors[at[0]])}
    chart = line_chart(lines, f"RMSE of {row.label}", unit, bands={"all": (low, high)}, titles={"all": "all cases"})
    legend = (
        "<div class=legend><span><i class=forecast></i>this case</span>"
        "<span><i class=all></i>all cases: median, and four of five</span></div>"
    )
    return f"<figure class=growth><figcaption>RMSE, {escape(region)}</figcaption>{legend}{chart}</figure>"
