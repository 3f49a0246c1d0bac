"""Draw the maps of a report: errors, corrections, the opening picture and single cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.reading.stacking import level_index
from data_pipelines.verification.score_rows import SIGMA, Row, display_unit, map_variables, row_label
from emul.display.text import lead_text
from emul.evaluation.inputs import chosen_inits, plain
from emul.pictures import maps
from emul.report.case_page import frames_of, write_case

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.verification.pairs import Pairs
    from emul.evaluation.inputs import Inputs
    from emulators.variables import Variable
    from emulators.verification.climate import ClimateCard
    from emulators.verification.evaluation import Evaluation


def climate_maps(folder: Path, card: ClimateCard, inputs: Inputs, first: Sequence[Row]) -> list[tuple[str, Path]]:
    """Maps of the mean state of forecast and truth and of their difference; captions and files."""
    from emul.pictures import maps

    dataset = card.dataset()
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.png"):
        stale.unlink()
    land, drawn = inputs.world.static_fields, []
    for row in [row for row in first if f"{row.variable}_mean" in dataset][:6]:
        field = dataset[f"{row.variable}_mean"]
        field = field if row.level is None else field.sel(level=row.level)
        forecast, truth = (field.sel(source=source).values for source in ("forecast", "truth"))
        if np.isnan(forecast).all():
            continue
        fields = {"forecast": forecast, "truth": truth, "bias": forecast - truth}
        path = folder / f"{row.label.replace(' ', '_')}_mean.png"
        coast = None if land is None else np.asarray(land)[0]
        path = maps.field_maps(path, inputs.pairs.grid, fields, row, "bias", coast)
        drawn.append((f"{row.label}: mean over {dataset.attrs['times']}", path))
    return drawn


def draw_maps(folder: Path, inputs: Inputs, evaluation: Evaluation, scores: xr.Dataset) -> list[tuple[str, Path]]:
    """Maps of the first forecast and of its mean errors; captions and files."""
    for stale in folder.glob("*.png"):
        stale.unlink()
    chosen, drawn = evaluation.maps, []
    for place, lead in enumerate(chosen.leads):
        there = np.flatnonzero(inputs.pairs.index[:, lead] >= 0)
        if not there.size:
            continue
        lines = [(v, level) for v in chosen.variables for level in (v.levels or (None,))]
        for channel, (variable, level) in enumerate(lines):
            row = _row(variable, level, scores)
            drawn.append(_case_map(folder, inputs, row, int(there[0]), lead))
            errors = {"RMSE": chosen.rmse()[place, channel], "mean error": chosen.bias()[place, channel]}
            ahead = lead_text(inputs.pairs.leads[lead])
            path = maps.field_maps(
                folder / f"{_file_name(row, ahead)}_errors.png",
                inputs.pairs.grid,
                errors,
                row,
                "mean error",
                _coast(inputs),
            )
            drawn.append(
                (
                    f"{row.label}, {ahead} ahead: mean over {len(there)} initial time{'s' if len(there) > 1 else ''}",
                    path,
                )
            )
    return drawn


def _case_map(folder: Path, inputs: Inputs, row: Row, init: int, lead: int) -> tuple[str, Path]:
    """Forecast, truth and their difference for one initial time and lead (indices)."""
    forecast, truth = fields_at(inputs.pairs, row.variable, row.level, init, lead)
    ahead = lead_text(inputs.pairs.leads[lead])
    difference = "forecast \N{MINUS SIGN} truth"
    path = maps.field_maps(
        folder / f"{_file_name(row, ahead)}.png",
        inputs.pairs.grid,
        {"forecast": forecast, "truth": truth, difference: forecast - truth},
        row,
        difference,
        _coast(inputs),
    )
    return f"{row.label}, {ahead} ahead: forecast from {np.datetime_as_string(inputs.pairs.inits[init], 'h')} UTC", path


def draw_corrections(folder: Path, inputs: Inputs, scores: xr.Dataset) -> list[tuple[str, Path]]:
    """Maps of what constraints changed, where the forecast kept them; of profiles the lowest level. Captions, files.

    What is changed everywhere alike makes no map.
    """
    drawn, budgets = [], inputs.budgets
    for name in budgets.data_vars if budgets is not None else ():
        if not str(name).startswith("map_") or budgets is None:
            continue
        field = budgets[name]
        constraint, variable = str(field.attrs["constraint"]), str(field.attrs["variable"])
        dim = f"level_of_{variable}"
        level = float(field[dim].values[-1]) if dim in field.dims else None
        field = field.isel({dim: -1}) if level is not None else field
        factor, unit = display_unit(variable, str(field.attrs["units"]))
        row = Row(variable, level, row_label(variable, level, scores), factor, unit)
        drawings = {kind: field.sel(statistic=kind).values for kind in ("rms", "mean")}
        if np.ptp(drawings["rms"]) <= 1e-3 * drawings["rms"].max():
            continue
        path = folder / f"correction_{constraint}_{variable}_errors.png"
        drawn.append(
            (
                f"What {constraint} changes of {row.label} in a timestep: mean over initial times and leads",
                maps.field_maps(path, inputs.pairs.grid, drawings, row, "mean", _coast(inputs)),
            )
        )
    return drawn


def draw_hero(
    path: Path,
    inputs: Inputs,
    evaluation: Evaluation,
    scores: xr.Dataset,
    others: Mapping[str, xr.Dataset],
    first: Sequence[Row],
) -> Path | None:
    """The picture for a README: the first field of which maps are drawn, at the longest of their leads."""
    chosen, pairs = evaluation.maps, inputs.pairs
    leads = [lead for lead in chosen.leads if (pairs.index[:, lead] >= 0).any()]
    if not chosen.variables.size or not leads:
        return None
    variable, lead = chosen.variables.variables[0], leads[-1]
    row = _row(variable, variable.levels[0] if variable.levels else None, scores)
    init = int(np.flatnonzero(pairs.index[:, lead] >= 0)[0])
    fields = fields_at(pairs, row.variable, row.level, init, lead)
    return maps.hero(path, pairs.grid, *fields, row, pairs.leads[lead], scores, others, first, _coast(inputs))


def draw_case(path: Path, inputs: Inputs, evaluation: Evaluation, scores: xr.Dataset) -> Path | None:
    """The page of one case: the initial time that the options name, else the first whose truth is there throughout."""
    pairs, options = inputs.pairs, inputs.options.case
    variables = map_variables(pairs.variables, plain(options.fields))
    if not variables.size or not options.frames:
        path.unlink(missing_ok=True)
        return None
    there = pairs.index >= 0
    chosen = chosen_inits(None if options.init is None else [str(options.init)], pairs.inits)
    init = int(there.sum(axis=1).argmax()) if chosen is None else int(np.searchsorted(pairs.inits, chosen[0]))

    def at(row: Row) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
        return lambda lead: fields_at(pairs, row.variable, row.level, init, lead)

    lines = [_row(variable, level, scores) for variable in variables for level in (variable.levels or (None,))]
    frames = frames_of(there[init], options.frames)
    fields = [(row, at(row)) for row in lines]
    kept = evaluation.by_init["forecast"].dataset() if "forecast" in evaluation.by_init else None
    return write_case(
        path, inputs.name, pairs.inits[init], pairs.grid, pairs.leads, fields, frames, _coast(inputs), kept
    )


def _row(variable: Variable, level: float | None, scores: xr.Dataset) -> Row:
    factor, unit = display_unit(variable.name, variable.units)
    return Row(variable.name, level, row_label(variable.name, level, scores), factor, unit)


def fields_at(pairs: Pairs, variable: str, level: float | None, init: int, lead: int) -> tuple[np.ndarray, np.ndarray]:
    """Forecast and truth of one variable and level at one initial time and lead (indices), shape (lat, lon)."""
    forecast = pairs.forecast[variable].isel(time=init, prediction_timedelta=lead)
    truth = pairs.truth.dataset[variable].isel(time=int(pairs.index[init, lead]))
    found = []
    for field in (forecast, truth):
        if level is not None:
            field = field.isel(level=level_index(field["level"].values, [level])[0])
        field = field.mean("member") if "member" in field.dims else field
        found.append(field.transpose("latitude", "longitude").values.astype(np.float64))
    return found[0], found[1]


def _coast(inputs: Inputs) -> np.ndarray | None:
    land = inputs.world.static_fields
    return None if land is None else land[0]


def _file_name(row: Row, ahead: str) -> str:
    return f"{row.label}_{ahead.replace(' ', '')}".replace(SIGMA, "sigma").replace(" ", "_")
