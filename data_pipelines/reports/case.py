"""Show one case: forecast, truth and difference, moving through the lead times."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.display.text import MINUS, lead_text, moment, number
from data_pipelines.inspection.picture_fields import MapSampling, Raster, map_sampling
from data_pipelines.pictures.figures import Scale, field_scale
from data_pipelines.reports.charts import line_chart
from data_pipelines.reports.drawings import DIFFERENCE, START, fields_at, rows_of
from data_pipelines.reports.page import NOTHING, Html, Section, case_script, document, join, legend, tag
from data_pipelines.verification.score_rows import Row, lead_axis, map_variables, squared_errors

if TYPE_CHECKING:
    from data_pipelines.verification.pairs import Pairs
    from data_pipelines.verification.score_files import EvaluationResults
    from emulators.grid import LatLonGrid

WIDTH = 440  # pixels of a map
QUALITY = 78  # of WebP
COLOURS = ("viridis", "RdBu_r")  # of maps, see `field_scale`
KINDS = {"f": "forecast", "t": "truth", "d": DIFFERENCE}


def draw_case(
    path: Path,
    pairs: Pairs,
    fields: Sequence[Any] | None,
    init: np.datetime64 | None,
    frames: int,
    results: EvaluationResults,
    coast: np.ndarray | None = None,
    from_truth: bool = False,
) -> CaseView | None:
    """Write the page of one case at `init`, by default the first initial time with the most truth; what it shows.

    fields: names of variables or {name: levels}, None for a usual choice. frames: lead times at most. Without fields or
    frames the page of an earlier evaluation is removed. from_truth: the forecast starts from the truth, which is then
    the first frame.
    """
    variables = map_variables(pairs.variables, fields)
    if not variables.size or not frames:
        path.unlink(missing_ok=True)
        return None
    has_truth = pairs.index >= 0
    place = int(has_truth.sum(axis=1).argmax()) if init is None else int(np.searchsorted(pairs.inits, init))
    raster = Raster(pairs.grid)

    def shown_at(row: Row, lead: int) -> tuple[np.ndarray, np.ndarray]:
        forecast, truth = fields_at(pairs, row, place, lead)
        return raster(forecast), raster(truth)

    fields_of_rows = [(row, partial(shown_at, row)) for row in rows_of(variables, results.scores)]
    coast = None if coast is None else raster(coast)
    drawn_leads = frame_leads(has_truth[place], frames)
    start = int(pairs.truth.find(pairs.inits[[place]])[0])
    if from_truth and start >= 0 and pairs.leads[0] > np.timedelta64(0):
        drawn_leads = [START, *drawn_leads]
    case = Case(pairs.inits[place], raster.grid, pairs.leads, drawn_leads, fields_of_rows, coast)
    view = case_view(case, results)
    write_case(path, view, results)
    return view


@dataclass(frozen=True)
class Case:
    """Hold one forecast and its truth.

    init: initial time. leads: all lead times; frames: indices of those to show, or START. fields: rows, and a function
    that gives forecast and truth (lat, lon) of each at a lead time (index). coast: land fraction.
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


@dataclass(frozen=True)
class CaseView:
    """Hold the parts of a page, or of a section of a report, that shows one case.

    sections: headings and bodies. data: texts and images by lead time, for the script. rules: CSS.
    """

    introduction: str
    controls: Html
    sections: Sequence[tuple[object, Html]]
    data: str
    rules: str

    def script(self, keys: bool) -> str:
        """The script that plays the maps. keys: so do the space bar and the arrow keys, anywhere on the page."""
        return f"const KEYS={str(keys).lower()},{{LEADS,FRAMES}}={self.data};{case_script()}"


def write_case(path: Path, view: CaseView, results: EvaluationResults) -> Path:
    """Write the page of one case."""
    return document(
        path,
        f"{results.name}: one case",
        f"{view.introduction} The space bar plays, the arrow keys step.",
        [Section("", title, body) for title, body in view.sections],
        heading=results.name,
        lead=view.controls,
        script=view.script(keys=True),
        rules=view.rules,
    )


def case_view(case: Case, results: EvaluationResults) -> CaseView:
    """Draw the maps of one case; the evaluation gives its errors among those of all."""
    sampling = map_sampling(case.grid, WIDTH)
    coast = sampling.coasts(case.coast)
    frames: dict[str, list[str]] = {}
    sections = []
    for place, (row, at) in enumerate(case.fields):
        images_of_kind, bars = _frames([at(lead) for lead in case.frames], row, sampling, coast)
        frames |= {f"{place}{kind}": images for kind, images in images_of_kind.items()}
        maps = []
        for kind, images in images_of_kind.items():
            alt = f"{row.label}: {KINDS[kind]}"
            image = tag("img", data_frames=f"{place}{kind}", src=images[0], alt=alt)
            maps.append(tag("figure", tag("figcaption", KINDS[kind]), image))
        title = join(row.label, " ", tag("small", f"[{row.unit}]", class_="quiet")) if row.unit else row.label
        body = join(tag("div", *maps, class_="triplet"), bars, _errors(results, row, case.init))
        sections.append((title, body))
    times = [_frame_text(case, lead) for lead in case.frames]
    caption = f"One case: the forecast from {moment(case.init)}, the truth at the same times, and their difference."
    data = json.dumps({"LEADS": times, "FRAMES": frames}).replace("<", "\\u003c")
    return CaseView(caption, _controls(times), sections, data, "".join(map(_gradient, COLOURS)))


def _frame_text(case: Case, lead: int) -> str:
    """`18 h ahead, valid 2004-07-04 18 UTC`."""
    if lead == START:
        return f"0 h, the initial state of {moment(case.init)}"
    return f"{lead_text(case.leads[lead])} ahead, valid {moment(case.init + case.leads[lead])}"


def _controls(times: Sequence[str]) -> Html:
    slider = {"type": "range", "min": 0, "max": len(times) - 1, "value": 0, "aria_label": "lead time"}
    return tag(
        "div",
        tag("button", "Play", id="play", type="button", class_="only-screen"),
        tag("input", id="lead", class_="only-screen", **slider),
        tag("output", times[0], id="output", for_="lead"),
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
    shared = field_scale([*fields["f"], *fields["t"]])
    scales = {"f": shared, "t": shared, "d": field_scale(fields["d"], centred=True)}
    images = {kind: [_image(field, scales[kind], sampling, coast) for field in fields[kind]] for kind in fields}
    return images, tag("div", _bar(shared), _bar(scales["d"]), class_="bars")


def _image(values: np.ndarray, scale: Scale, sampling: MapSampling, coast: np.ndarray) -> str:
    """A map as a data address of a WebP image."""
    from matplotlib import colormaps
    from PIL import Image

    pixels = sampling.values(values)
    fractions = np.clip((pixels - scale.low) / (scale.high - scale.low), 0.0, 1.0)
    image = (255 * colormaps[scale.colours](np.nan_to_num(fractions))).astype(np.uint8)
    image[np.isnan(pixels)] = (150, 150, 150, 255)
    image[sampling.outline()] = (130, 138, 146, 255)
    image[coast] = (40, 48, 56, 255)
    image[~sampling.inside] = 0
    file = io.BytesIO()
    Image.fromarray(image).save(file, "webp", quality=QUALITY, method=4)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _bar(scale: Scale) -> Html:
    low, high = (number(limit).replace("-", MINUS) for limit in scale[:2])
    return tag("div", low, tag("i", class_=f"colours-{scale.colours}"), high, class_="bar")


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
    names, bands = {"forecast": "this case", "all": "all cases: median and central 80 %"}, {"all": (low, high)}
    if len(errors) == 1:  # it is all there is
        lines, names, bands = {"forecast": lines["forecast"]}, {"forecast": "this case"}, {}
    chart = line_chart(f"RMSE of {row.label}", lines, unit, bands=bands)
    return tag("figure", tag("figcaption", f"RMSE, {region}"), legend(names, names), chart, class_="growth")
