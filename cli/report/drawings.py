"""Draw the maps of an evaluation: errors, mean states, corrections, the opening picture and one case."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.reading.stacking import level_index
from data_pipelines.verification.evaluation_results import EvaluationResults
from data_pipelines.verification.score_rows import SIGMA, Row, display_unit, map_variables, row_label
from emul.config.overrides import plain
from emul.config.times import chosen_inits
from emul.display.text import MINUS, lead_text
from emul.pictures.maps import field_maps, hero
from emul.report.case_page import Case, frame_leads, write_case

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.verification.pairs import Pairs
    from emul.evaluation.inputs import Inputs
    from emulators.variables import VariableSet
    from emulators.verification.climate import ClimateCard
    from emulators.verification.evaluation import Evaluation

DIFFERENCE = f"forecast {MINUS} truth"
Drawn = list[tuple[str, Path]]  # captions and files


class Maps:
    """Draw maps into `folder`, which is emptied first, and collect their captions."""

    def __init__(self, folder: Path, inputs: Inputs) -> None:
        self.folder, self.grid, self.coast = folder, inputs.pairs.grid, coast_of(inputs)
        self.drawn: Drawn = []
        folder.mkdir(parents=True, exist_ok=True)

    def clear(self) -> None:
        """Delete the maps of an earlier evaluation."""
        for stale in self.folder.glob("*.png"):
            stale.unlink()

    def add(self, name: str, caption: str, row: Row, fields: Mapping[str, np.ndarray], difference: str) -> None:
        """Draw fields side by side into `name`.png."""
        file = name.replace(SIGMA, "sigma").replace(" ", "_")
        path = field_maps(self.folder / f"{file}.png", self.grid, fields, row, difference, self.coast)
        self.drawn.append((caption, path))


def climate_maps(folder: Path, card: ClimateCard, inputs: Inputs, results: EvaluationResults) -> Drawn:
    """Maps of the mean state of forecast and truth and of their difference."""
    dataset, maps = card.dataset(), Maps(folder, inputs)
    maps.clear()
    for row in [row for row in results.headline if f"{row.variable}_mean" in dataset][:6]:
        field = row.field(dataset, "_mean")
        forecast, truth = (field.sel(source=source).values for source in ("forecast", "truth"))
        if not np.isnan(forecast).all():
            fields = {"forecast": forecast, "truth": truth, "bias": forecast - truth}
            maps.add(f"{row.label}_mean", f"{row.label}: mean over {dataset.attrs['times']}", row, fields, "bias")
    return maps.drawn


def error_maps(folder: Path, inputs: Inputs, evaluation: Evaluation, results: EvaluationResults) -> Drawn:
    """Maps of the first forecast and of the mean errors of all, at the chosen lead times."""
    errors, pairs, maps = evaluation.maps, inputs.pairs, Maps(folder, inputs)
    maps.clear()
    for place, lead in enumerate(errors.leads):
        inits = np.flatnonzero(pairs.index[:, lead] >= 0)
        if not inits.size:
            continue
        ahead = lead_text(pairs.leads[lead])
        for channel, row in enumerate(rows_of(errors.variables, results.scores)):
            name, what = f"{row.label}_{ahead.replace(' ', '')}", f"{row.label}, {ahead} ahead"
            forecast, truth = fields_at(pairs, row, int(inits[0]), lead)
            fields = {"forecast": forecast, "truth": truth, DIFFERENCE: forecast - truth}
            started = np.datetime_as_string(pairs.inits[inits[0]], "h")
            maps.add(name, f"{what}: forecast from {started} UTC", row, fields, DIFFERENCE)
            fields = {"RMSE": errors.rmse()[place, channel], "mean error": errors.bias()[place, channel]}
            caption = f"{what}: mean over {len(inits)} initial time{'s' if len(inits) > 1 else ''}"
            maps.add(f"{name}_errors", caption, row, fields, "mean error")
    return maps.drawn


def correction_maps(folder: Path, inputs: Inputs, results: EvaluationResults) -> Drawn:
    """Maps of the corrections by constraints, where the forecast stored them; of profiles the lowest level.

    Corrections that are the same everywhere are left out.
    """
    maps, budgets = Maps(folder, inputs), results.budgets
    stored = [] if budgets is None else [f for name, f in budgets.data_vars.items() if str(name).startswith("map_")]
    for field in stored:
        constraint, variable = str(field.attrs["constraint"]), str(field.attrs["variable"])
        dim = f"level_of_{variable}"
        level = float(field[dim].values[-1]) if dim in field.dims else None
        field = field.isel({dim: -1}) if level is not None else field
        row = row_of(variable, str(field.attrs["units"]), level, results.scores)
        fields = {kind: field.sel(statistic=kind).values for kind in ("rms", "mean")}
        if np.ptp(fields["rms"]) > 1e-3 * fields["rms"].max():
            caption = f"Corrections by {constraint} to {row.label} in a timestep: mean over initial and lead times"
            maps.add(f"correction_{constraint}_{variable}_errors", caption, row, fields, "mean")
    return maps.drawn


def draw_hero(path: Path, inputs: Inputs, evaluation: Evaluation, results: EvaluationResults) -> Path | None:
    """The picture for a README: the first field of which maps are drawn, at the longest of their lead times."""
    chosen, pairs = evaluation.maps, inputs.pairs
    leads = [lead for lead in chosen.leads if (pairs.index[:, lead] >= 0).any()]
    if not chosen.variables.size or not leads:
        return None
    row, lead = next(rows_of(chosen.variables, results.scores)), leads[-1]
    init = int(np.flatnonzero(pairs.index[:, lead] >= 0)[0])
    forecast, truth = fields_at(pairs, row, init, lead)
    fields = {f"emulator, {lead_text(pairs.leads[lead])} ahead": forecast, "truth": truth}
    return hero(path, pairs.grid, fields, row, results, coast_of(inputs))


def draw_case(path: Path, inputs: Inputs, results: EvaluationResults) -> Path | None:
    """The page of one case: the initial time that the options name, else the first with the most truth."""
    pairs, options = inputs.pairs, inputs.options.case
    variables = map_variables(pairs.variables, plain(options.fields))
    if not variables.size or not options.frames:
        path.unlink(missing_ok=True)
        return None
    has_truth = pairs.index >= 0
    chosen = chosen_inits(None if options.init is None else [str(options.init)], pairs.inits)
    init = int(has_truth.sum(axis=1).argmax()) if chosen is None else int(np.searchsorted(pairs.inits, chosen[0]))
    fields = [(row, partial(fields_at, pairs, row, init)) for row in rows_of(variables, results.scores)]
    frames = frame_leads(has_truth[init], options.frames)
    case = Case(pairs.inits[init], pairs.grid, pairs.leads, frames, fields, coast_of(inputs))
    return write_case(path, case, results)


def rows_of(variables: VariableSet, scores: xr.Dataset) -> Iterator[Row]:
    """A row for each channel of the variables, in their order."""
    for variable in variables:
        for level in variable.levels or (None,):
            yield row_of(variable.name, variable.units, level, scores)


def row_of(name: str, units: str, level: float | None, scores: xr.Dataset) -> Row:
    """The row of a variable, its level labelled as in the scores."""
    return Row(name, level, row_label(name, level, scores), *display_unit(name, units))


def fields_at(pairs: Pairs, row: Row, init: int, lead: int) -> tuple[np.ndarray, np.ndarray]:
    """Forecast and truth of one row at one initial time and lead time (indices), shape (lat, lon)."""

    def values(field: xr.DataArray) -> np.ndarray:
        if row.level is not None:
            field = field.isel(level=level_index(field["level"].values, [row.level])[0])
        field = field.mean("member") if "member" in field.dims else field
        return field.transpose("latitude", "longitude").values.astype(np.float64)

    forecast = pairs.forecast[row.variable].isel(time=init, prediction_timedelta=lead)
    truth = pairs.truth.dataset[row.variable].isel(time=int(pairs.index[init, lead]))
    return values(forecast), values(truth)


def coast_of(inputs: Inputs) -> np.ndarray | None:
    """The land fraction of the world, or None."""
    land = inputs.world.static_fields
    return None if land is None else np.asarray(land)[0]
