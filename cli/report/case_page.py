"""Write the page of one case: forecast, truth and their difference on maps that step through the lead times."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.inspection.map_sampling import MapSampling, map_sampling
from data_pipelines.verification.evaluation_results import EvaluationResults
from data_pipelines.verification.score_rows import Row, lead_axis, squared_errors
from emul.display.text import MINUS, lead_text, number
from emul.pictures.figures import field_limits
from emul.report.charts import line_chart
from emul.report.html import NOTHING, Html, join, tag
from emul.report.page import Section, case_script, document, legend
from emulators.grid import LatLonGrid

WIDTH = 440  # pixels of a map
QUALITY = 78  # of WebP
COLOURS = ("viridis", "RdBu_r")  # of maps, see `field_limits`
KINDS = {"f": "forecast", "t": "truth", "d": f"forecast {MINUS} truth"}


@dataclass(frozen=True)
class Case:
    """Hold one forecast and its truth.

    init: initial time. leads: all lead times; frames: indices of those to show. fields: rows, and a function that gives
    forecast and truth (lat, lon) of each at a lead time (index). coast: land fraction.
    """

    init: np.datetime64
    grid: LatLonGrid
    leads: np.ndarray
    frames: Sequence[int]
    fields: Sequence[tuple[Row, Callable[[int], tuple[np.ndarray, np.ndarray]]]]
    coast: np.ndarray | None = None


def frame_leads(has_truth: np.ndarray, most: int) -> list[int]:
    """Lead times (indices) of the frames: those with a truth, at most so many, evenly."""
    leads = np.flatnonzero(has_truth)
    return [int(leads[i]) for i in dict.fromkeys(np.linspace(0, len(leads) - 1, min(most, len(leads))).astype(int))]


def write_case(path: Path, case: Case, results: EvaluationResults) -> Path:
    """Write the page; the evaluation gives the errors of this case among all."""
    sampling = map_sampling(case.grid, WIDTH)
    coast = sampling.coasts(case.coast)
    frames: dict[str, list[str]] = {}
    sections = []
    for place, (row, fields_at) in enumerate(case.fields):
        drawn, bars = _frames([fields_at(lead) for lead in case.frames], row, sampling, coast)
        frames |= {f"{place}{kind}": images for kind, images in drawn.items()}
        maps = []
        for kind, images in drawn.items():
            alt = f"{row.label}: {KINDS[kind]}"
            image = tag("img", data_frames=f"{place}{kind}", src=images[len(images) // 2], alt=alt)
            maps.append(tag("figure", tag("figcaption", KINDS[kind]), image))
        title = join(row.label, " ", tag("small", f"[{row.unit}]", class_="quiet")) if row.unit else row.label
        body = join(tag("div", *maps, class_="triplet"), bars, _errors(results, row, case.init))
        sections.append(Section("", title, body))
    times = [f"{lead_text(case.leads[lead])} ahead" for lead in case.frames]
    started = np.datetime_as_string(case.init, "h").replace("T", " ")
    data = json.dumps({"LEADS": times, "FRAMES": frames}).replace("<", "\\u003c")
    return document(
        path,
        f"{results.name}: one case",
        f"One case: the forecast from {started} UTC, the truth at the same times, and their difference. The space bar "
        "plays, the arrow keys step.",
        sections,
        heading=results.name,
        lead=_controls(times),
        script=f"const {{LEADS,FRAMES}}={data};{case_script()}",
        rules="".join(map(_gradient, COLOURS)),
    )


def _controls(times: Sequence[str]) -> Html:
    middle = len(times) // 2
    slider = {"type": "range", "min": 0, "max": len(times) - 1, "value": middle, "aria_label": "lead time"}
    return tag(
        "div",
        tag("button", "Play", id="play", class_="only-screen"),
        tag("input", id="lead", class_="only-screen", **slider),
        tag("output", times[middle], id="output"),
        class_="controls",
    )


def _frames(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], row: Row, sampling: MapSampling, coast: np.ndarray
) -> tuple[dict[str, list[str]], Html]:
    """The maps of each kind by lead time on one scale of colours, and the bars that explain it."""
    fields: dict[str, list[np.ndarray]] = {
        "f": [forecast * row.factor for forecast, _ in pairs],
        "t": [truth * row.factor for _, truth in pairs],
        "d": [(forecast - truth) * row.factor for forecast, truth in pairs],
    }
    shared = field_limits([*fields["f"], *fields["t"]])
    scales = {"f": shared, "t": shared, "d": field_limits(fields["d"], centred=True)}
    drawn = {kind: [_image(field, scales[kind], sampling, coast) for field in fields[kind]] for kind in fields}
    return drawn, tag("div", _bar(shared), _bar(scales["d"]), class_="bars")


def _image(values: np.ndarray, scale: tuple[float, float, str], sampling: MapSampling, coast: np.ndarray) -> str:
    """A map as a data address of a WebP image."""
    from matplotlib import colormaps
    from PIL import Image

    low, high, colours = scale
    pixels = sampling.values(values)
    fractions = np.clip((pixels - low) / (high - low), 0.0, 1.0)
    image = (255 * colormaps[colours](np.nan_to_num(fractions))).astype(np.uint8)
    image[np.isnan(pixels)] = (150, 150, 150, 255)
    image[coast] = (40, 48, 56, 255)
    image[~sampling.inside] = 0
    file = io.BytesIO()
    Image.fromarray(image).save(file, "webp", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _bar(scale: tuple[float, float, str]) -> Html:
    low, high = (number(limit).replace("-", MINUS) for limit in scale[:2])
    return tag("div", low, tag("i", class_=f"colours-{scale[2]}"), high, class_="bar")


def _gradient(colours: str) -> str:
    """The CSS of a bar in these colours of matplotlib."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    stops = ",".join(to_hex(colormaps[colours](share)) for share in np.linspace(0, 1, 9))
    return f".bar .colours-{colours}{{background:linear-gradient(90deg,{stops})}}"


def _errors(results: EvaluationResults, row: Row, init: np.datetime64) -> Html:
    """RMSE of this case by lead time among those of all."""
    by_init = results.by_init
    if by_init is None or "squared_error" not in by_init["statistic"].values:
        return NOTHING
    region = str(by_init["region"].values[0])
    squares = squared_errors(by_init, row, region)
    at = np.flatnonzero(by_init["time"].values.astype("datetime64[s]") == init)
    if squares is None or not at.size:
        return NOTHING
    errors = np.sqrt(squares) * row.factor
    x, unit = lead_axis(by_init["lead_time"].values)
    low, median, high = np.nanpercentile(errors, (10, 50, 90), axis=0)
    lines: dict[str, Any] = {"all": (x, median), "forecast": (x, errors[at[0]])}
    chart = line_chart(f"RMSE of {row.label}", lines, unit, bands={"all": (low, high)})
    names = {"forecast": "this case", "all": "all cases: median and central 80 %"}
    return tag("figure", tag("figcaption", f"RMSE, {region}"), legend(names, names), chart, class_="growth")
