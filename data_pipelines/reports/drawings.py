"""Draw the maps of an evaluation (errors, corrections, members, the opening picture), and plumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_pipelines.conventions.attributes import horizontal, level_index
from data_pipelines.display.palette import LINES
from data_pipelines.display.text import MINUS, lead_text, metric_title, moment
from data_pipelines.inspection.picture_fields import Raster
from data_pipelines.pictures import curves, scorecards
from data_pipelines.pictures.figures import figure_style, label_leads, new_figure, panels, save_figure
from data_pipelines.pictures.maps import field_maps, hero, map_scales
from data_pipelines.verification.score_rows import SIGMA, Row, display_unit, lead_axis, row_label
from emulators.grid import unit_vectors

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.verification.pairs import Pairs
    from data_pipelines.verification.score_files import EvaluationResults
    from emulators.grid import Grid
    from emulators.variables import VariableSet
    from emulators.verification.evaluation import ErrorMaps

DIFFERENCE = f"forecast {MINUS} truth"
Drawn = list[tuple[str, Path]]  # captions and files


def call(what: str, make: Callable[..., Any], *arguments: Any) -> Any:
    """Make a picture or page; the default of `attempt` in these functions. what: its name."""
    return make(*arguments)


def draw_scores(folder: Path, results: EvaluationResults, attempt: Callable[..., Any] = call) -> None:
    """Draw scorecard.png and curves.png of the leading metric. attempt(what, make, *arguments) makes each."""
    metric = next(iter(results.shown_metrics), None)
    if metric is None:
        return
    score, name = results.score(metric), results.shown_name
    title = f"{name}: {metric_title(metric)} against the baselines, {results.regions[0]}"
    path = folder / "scorecard.png"
    attempt("scorecard.png", scorecards.scorecard, path, results, results.rows[:60], title, metric)
    title = f"{name}: {metric_title(metric)} by lead time, {score.region}"
    lines, rows = curves.evaluation_curves(results), results.headline[:9]
    attempt("curves.png", curves.curves, folder / "curves.png", lines, rows, score, title)


class Picture(NamedTuple):
    """Hold fields (lat, lon) by name that are drawn into one file, and their caption.

    ahead: the lead time, for the file's name.
    """

    ahead: str
    caption: str
    fields: Mapping[str, np.ndarray]


class Maps:
    """Draw maps into `folder` and collect their captions. coast: land fraction, of which the half is a line."""

    def __init__(self, folder: Path, grid: Grid, coast: np.ndarray | None) -> None:
        self.raster = Raster(grid)
        self.folder, self.grid, self.coast = folder, self.raster.grid, None if coast is None else self.raster(coast)
        self.drawn: Drawn = []
        folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Delete the maps of an earlier evaluation."""
        for stale in self.folder.glob("*.png"):
            stale.unlink()

    def draw(self, row: Row, suffix: str, pictures: Sequence[Picture], difference: str | None = None) -> None:
        """Draw pictures of one row on the same scales; fields called `difference` have a scale of their own."""
        scales = map_scales([picture.fields for picture in pictures], row, difference) if pictures else {}
        for ahead, caption, fields in pictures:
            name = f"{row.label}{'_' if ahead else ''}{ahead.replace(' ', '')}{suffix}"
            title = f"{row.title}, {caption}"
            shown = {label: self.raster(field) for label, field in fields.items()}
            path = field_maps(self.path(name), self.grid, shown, row, scales, title, self.coast)
            self.drawn.append((title, path))

    def path(self, name: str) -> Path:
        """The file of a picture."""
        return self.folder / f"{name.replace(SIGMA, 'sigma').replace(' ', '_')}.png"


def drawn_leads(pairs: Pairs, errors: ErrorMaps) -> list[tuple[int, int, np.ndarray]]:
    """Place in `errors`, lead (index) and initial times (indices) of each lead time of maps that has a truth."""
    entries = [(place, lead, np.flatnonzero(pairs.index[:, lead] >= 0)) for place, lead in enumerate(errors.leads)]
    return [entry for entry in entries if entry[2].size]


def error_maps(maps: Maps, pairs: Pairs, errors: ErrorMaps, results: EvaluationResults) -> None:
    """Maps of the first forecast and of the mean errors of all at the lead times of `errors`, those of a row alike."""
    maps.clear()
    for channel, row in enumerate(rows_of(errors.variables, results.scores)):
        first, mean = list[Picture](), list[Picture]()
        for place, lead, inits in drawn_leads(pairs, errors):
            ahead, init = lead_text(pairs.leads[lead]), int(inits[0])
            forecast, truth = fields_at(pairs, row, init, lead)
            valid = moment(pairs.inits[init] + pairs.leads[lead])
            fields = {"forecast": forecast, "truth": truth, DIFFERENCE: forecast - truth}
            first.append(Picture(ahead, f"{ahead} ahead, valid {valid}", fields))
            fields = {"RMSE": errors.rmse()[place, channel], "mean error": errors.bias()[place, channel]}
            times = f"{len(inits)} initial time{'s' if len(inits) > 1 else ''}"
            mean.append(Picture(ahead, f"{ahead} ahead: errors of {times}", fields))
        maps.draw(row, "", first, DIFFERENCE)
        maps.draw(row, "_errors", mean, "mean error")


def correction_maps(maps: Maps, results: EvaluationResults) -> None:
    """Maps of the corrections by constraints, where the forecast stored them; of profiles the lowest level.

    Corrections that are the same everywhere are left out.
    """
    budgets = results.budgets
    stored = [] if budgets is None else [f for name, f in budgets.data_vars.items() if str(name).startswith("map_")]
    for field in stored:
        constraint, variable = str(field.attrs["constraint"]), str(field.attrs["variable"])
        dim = f"level_of_{variable}"
        level = float(field[dim].values[-1]) if dim in field.dims else None
        field = field.isel({dim: -1}) if level is not None else field
        row = row_of(variable, str(field.attrs["units"]), level, results.scores)
        fields = {kind: field.sel(statistic=kind).values for kind in ("rms", "mean")}
        if np.ptp(fields["rms"]) > 1e-3 * fields["rms"].max():
            caption = f"corrections by {constraint} in a timestep: mean over initial and lead times"
            maps.draw(row, f"_correction_{constraint}_errors", [Picture("", caption, fields)], "mean")


def draw_hero(
    path: Path, pairs: Pairs, errors: ErrorMaps, results: EvaluationResults, coast: np.ndarray | None = None
) -> Path | None:
    """The picture for a README: the first field of which maps are drawn, at the longest of their lead times."""
    leads = [lead for lead in errors.leads if (pairs.index[:, lead] >= 0).any()]
    if not errors.variables.size or not leads:
        return None
    row, lead = next(rows_of(errors.variables, results.scores)), leads[-1]
    init = int(np.flatnonzero(pairs.index[:, lead] >= 0)[0])
    forecast, truth = fields_at(pairs, row, init, lead)
    valid = moment(pairs.inits[init] + pairs.leads[lead])
    fields = {f"emulator, {lead_text(pairs.leads[lead])} ahead": forecast, f"truth, {valid}": truth}
    raster = Raster(pairs.grid)
    fields = {name: raster(field) for name, field in fields.items()}
    return hero(path, raster.grid, fields, row, results, None if coast is None else raster(coast))


def rows_of(variables: VariableSet, scores: xr.Dataset) -> Iterator[Row]:
    """A row for each channel of the variables, in their order."""
    for variable in variables:
        for level in variable.levels or (None,):
            yield row_of(variable.name, variable.units, level, scores)


def row_of(name: str, units: str, level: float | None, scores: xr.Dataset) -> Row:
    """The row of a variable, its level labelled as in the scores."""
    return Row(name, level, row_label(name, level, scores), *display_unit(name, units))


START = -1  # in place of a lead: the state from which a forecast starts


def fields_at(pairs: Pairs, row: Row, init: int, lead: int) -> tuple[np.ndarray, np.ndarray]:
    """Forecast and truth of one row at one initial time and lead time (indices), of the grid's shape.

    lead: START gives the truth at the initial time as both.
    """

    def values(field: xr.DataArray) -> np.ndarray:
        if row.level is not None:
            field = field.isel(level=level_index(field["level"].values, [row.level])[0])
        field = field.mean("member") if "member" in field.dims else field
        return field.compute().transpose(*horizontal(pairs.truth.dataset)).values.astype(np.float64)

    at = pairs.truth.find(pairs.inits[[init]])[0] if lead == START else pairs.index[init, lead]
    truth = values(pairs.truth.dataset[row.variable].isel(time=int(at)))
    if lead == START:
        return truth, truth
    return values(pairs.forecast[row.variable].isel(time=init, prediction_timedelta=lead)), truth


def plumes(
    path: Path, leads: np.ndarray, members: np.ndarray, truth: np.ndarray, places: Sequence[str], row: Row, start: str
) -> Path:
    """A panel for each place: every member, their mean, and the truth by lead time.

    members: (member, lead, place), truth: (lead, place), in stored units. start: the initial time.
    """
    x, unit = lead_axis(leads)
    columns = min(2, len(places))
    with figure_style():
        height = 2.3 * -(-len(places) // columns) + 0.7
        figure = new_figure(3.6 * columns, height, f"{row.title}: members of the forecast from {start}")
        for place, axis in enumerate(panels(figure, len(places), columns, sharex=True)):
            lines = members[..., place] * row.factor
            axis.plot(x, lines.T, color=LINES["forecast"].colour, linewidth=0.8, alpha=0.4)
            axis.plot(x, lines.mean(axis=0), color=LINES["forecast"].colour, linewidth=2.0, label="mean of the members")
            axis.plot(x, truth[:, place] * row.factor, label="truth", **LINES["truth"].for_matplotlib())
            axis.set_title(places[place])
            axis.margins(x=0.01)
        label_leads(figure, x, unit)
        handles, names = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=8.5)
        return save_figure(figure, path)


def ensemble_maps(
    maps: Maps, pairs: Pairs, errors: ErrorMaps, rows: Sequence[Row], shown_of_members: Mapping[str, Any]
) -> None:
    """Draw spread beside error, stamp maps, probability maps and plumes; nothing for a single forecast.

    Spread and error are means over initial times at the lead times of `errors`, whose channels are `rows`. The others
    are of the first initial time. shown_of_members: `stamps`, members beside the truth; `exceeded`, the share of the
    globe below an event in the truth, for maps of its probability; `places` of plumes, (latitude, longitude).
    """
    if pairs.members < 2:
        return
    drawn, stamps, share = drawn_leads(pairs, errors), shown_of_members["stamps"], shown_of_members["exceeded"]
    for channel, row in enumerate(rows):
        spread, stamped, probable = list[Picture](), list[Picture](), list[Picture]()
        for number, lead, inits in drawn:
            ahead = lead_text(pairs.leads[lead])
            shown = {"RMSE of the mean": errors.rmse()[number, channel], "spread": errors.spread()[number, channel]}
            spread.append(Picture(ahead, f"{ahead} ahead: error of the mean and spread of the members", shown))
            if stamps or share:
                members, truth = member_fields(pairs, row, int(inits[0]), [lead])
            if share:
                probable.append(probabilities(ahead, members[:, 0], truth[0], row, share, pairs.grid.weights))
            if stamps:
                shown = {f"member {n}": field for n, field in enumerate(members[:stamps, 0], start=1)}
                valid = moment(pairs.inits[inits[0]] + pairs.leads[lead])
                caption = f"{ahead} ahead, valid {valid}: members of the first forecast"
                stamped.append(Picture(ahead, caption, {"truth": truth[0], **shown}))
        maps.draw(row, "_spread_errors", spread)
        maps.draw(row, "_stamps", stamped)
        maps.draw(replace(row, factor=100.0, unit="% of members"), "_probability_errors", probable)
    if shown_of_members["places"]:
        draw_plumes(maps, pairs, rows, shown_of_members["places"])


def probabilities(
    ahead: str, members: np.ndarray, truth: np.ndarray, row: Row, share: float, area: np.ndarray
) -> Picture:
    """The share of members above what a share of the globe does not exceed in the truth, and where the truth does."""
    order = np.argsort(truth, axis=None)
    below = np.cumsum(area.ravel()[order]) / area.sum()
    limit = float(truth.ravel()[order][min(int(np.searchsorted(below, share)), truth.size - 1)])
    caption = f"{ahead} ahead: above {limit * row.factor:.4g} {row.unit}".rstrip()
    shown = {"probability": (members > limit).mean(axis=0), "truth": (truth > limit).astype(float)}
    return Picture(ahead, caption, shown)


def draw_plumes(maps: Maps, pairs: Pairs, rows: Sequence[Row], places: Sequence[Sequence[float]]) -> None:
    """Draw the members at the grid points nearest to places, from the first initial time with a truth."""
    latitude, longitude = pairs.grid.points
    points = unit_vectors(latitude, longitude)
    at = [int((points @ unit_vectors(np.array(y), np.array(x))).argmax()) for y, x in places]
    names = [_place_text(float(latitude[i]), float(longitude[i])) for i in at]
    init = int((pairs.index >= 0).any(axis=1).argmax())
    leads = [int(lead) for lead in np.flatnonzero(pairs.index[init] >= 0)]
    rank = len(pairs.grid.shape)
    for row in rows if len(leads) > 1 else ():
        members, truth = (f.reshape(*f.shape[:-rank], -1)[..., at] for f in member_fields(pairs, row, init, leads))
        start = moment(pairs.inits[init])
        path = plumes(maps.path(f"{row.label}_plumes"), pairs.leads[leads], members, truth, names, row, start)
        maps.drawn.append((f"{row.label}: members from {start} at places", path))


def _place_text(latitude: float, longitude: float) -> str:
    """`39.4°S 146°E`."""
    return f"{abs(latitude):.3g}\N{DEGREE SIGN}{'S' if latitude < 0 else 'N'} {longitude:.3g}\N{DEGREE SIGN}E"


def member_fields(pairs: Pairs, row: Row, init: int, leads: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Members (member, lead, *grid) and truth (lead, *grid) of a row at one initial time and leads (indices)."""

    def at_level(field: xr.DataArray) -> xr.DataArray:
        index = None if row.level is None else level_index(field["level"].values, [row.level])[0]
        return field if index is None else field.isel(level=index)

    order = horizontal(pairs.truth.dataset)
    forecast = pairs.forecast[row.variable].isel(time=init, prediction_timedelta=list(leads))
    members = at_level(forecast).compute().transpose("member", "prediction_timedelta", *order)
    truth = pairs.truth.dataset[row.variable].isel(time=[int(pairs.index[init, lead]) for lead in leads])
    fields = (members, at_level(truth).compute().transpose("time", *order))
    return fields[0].values.astype(np.float64), fields[1].values.astype(np.float64)
