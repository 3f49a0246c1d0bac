"""What a reader sees of an evaluation: the card in the terminal, pictures and the report. None of it may stop eval."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape
from rich.table import Table

from data_pipelines.pairs import level_index
from data_pipelines.predictability import experiment
from data_pipelines.scores import write_table
from emul import ensembles, growth, pictures
from emul.case import frames_of, write_case
from emul.climate import climate_maps
from emul.console import console, warn
from emul.inputs import chosen_inits, plain
from emul.report import write_report
from emul.scorecard import (
    SIGMA,
    Row,
    columns,
    difference_to,
    headline,
    label,
    lead_text,
    map_variables,
    number,
    percent,
    rows,
    shown_unit,
    sure_of,
)

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.pairs import Pairs
    from emul.eval import Cards
    from emul.inputs import Inputs
    from emulators.variables import Variable


def present(
    target: Path,
    inputs: Inputs,
    cards: Cards,
    scores: xr.Dataset,
    baselines: xr.Dataset | None,
    judged: xr.Dataset | None,
    spectra: xr.Dataset | None,
) -> None:
    """Card, pictures and report of what is in `target`; whatever fails is reported and left out."""
    every = rows(scores)
    first = headline(every)
    region = str(scores["region"].values[0])
    attempt("the score card", show, scores, baselines, judged, first, region)
    attempt("scores.csv", write_table, target / "scores.csv", scores, baselines)
    if inputs.options.pictures:
        attempt("the pictures", draw, target, inputs, cards, scores, baselines, judged, spectra, every, first)
    what = "scores, pictures and report" if inputs.options.pictures else "scores"
    console().print(f"{what} are in [key]{escape(str(target))}[/]", soft_wrap=True)


def draw(
    target: Path,
    inputs: Inputs,
    cards: Cards,
    scores: xr.Dataset,
    baselines: xr.Dataset | None,
    judged: xr.Dataset | None,
    spectra: xr.Dataset | None,
    every: list[Row],
    first: list[Row],
) -> None:
    """The pictures and the report."""
    order = [row.variable for row in first]
    every.sort(key=lambda row: order.index(row.variable) if row.variable in order else len(order))
    region = str(scores["region"].values[0])
    others = attempt("the curves beside the forecast's", _others, baselines, inputs.limits) or {}
    title = f"{inputs.name}: RMSE against the baselines, {region}"
    attempt("scorecard.png", pictures.scorecard, target / "scorecard.png", scores, baselines, judged, every[:60], title)
    title = f"{inputs.name}: RMSE by lead time, {region}"
    attempt("curves.png", pictures.curves, target / "curves.png", scores, others, first[:9], title)
    attempt("hero.png", draw_hero, target / "hero.png", inputs, cards, scores, others, first)
    maps = attempt("the maps", draw_maps, target / "maps", inputs, cards, scores) or []
    case = attempt("case.html", draw_case, target / "case.html", inputs, cards, scores)
    maps += attempt("the maps of corrections", draw_corrections, target / "maps", inputs, scores) or []
    if cards.climate is not None:
        maps += attempt("the climate's maps", climate_maps, target / "climate", cards.climate, inputs, first) or []
    attempt(
        "report.html",
        write_report,
        target / "report.html",
        inputs.name,
        scores,
        baselines,
        judged=judged,
        every=every,
        first=first,
        others=others | {name: known.scores for name, known in inputs.beside.items() if known.scores is not None},
        maps=maps,
        spectra=spectra,
        budgets=inputs.budgets,
        beside={name: known.budgets for name, known in inputs.beside.items() if known.budgets is not None},
        case=case,
        further=_further(inputs, cards, others, first),
        facts=_facts(inputs, scores),
        provenance=_provenance(inputs, scores),
        notes=[*inputs.notes, *_broken(scores)],
    )


def _further(inputs: Inputs, cards: Cards, others: Mapping[str, xr.Dataset], first: Sequence[Row]) -> list[str]:
    """Sections of the report beside the score card: error growth; ranks and reliability of ensembles."""
    kept = cards.by_init["forecast"].dataset() if "forecast" in cards.by_init else None
    histograms = cards.forecast.histograms(inputs.attributes)
    made = [
        attempt("the growth of errors", growth.section, kept, others, first) if kept is not None else "",
        attempt("the histograms", ensembles.section, histograms, first) if histograms is not None else "",
    ]
    return [part for part in made if part]


def attempt(what: str, make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """make(*args, **kwargs), or None and a warning."""
    try:
        return make(*args, **kwargs)
    except Exception as error:  # a picture may fail in any way; the scores are on disk
        warn(f"{what} could not be made ({type(error).__name__}: {error}); the scores are not touched by this.")
        return None


def show(
    scores: xr.Dataset, baselines: xr.Dataset | None, judged: xr.Dataset | None, first: Sequence[Row], region: str
) -> None:
    """The score card in the terminal: RMSE, below it the difference to baselines in percent, green where better."""
    if "rmse" not in scores["metric"].values:
        return
    leads = columns(scores["lead_time"].values)
    sources = [] if baselines is None else [str(s) for s in baselines["source"].values]
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    table.add_column(f"RMSE, {region}", no_wrap=True)
    for i in leads:
        table.add_column(lead_text(scores["lead_time"].values[i]), justify="right", no_wrap=True)
    for row in first:
        values = row.series(scores, "rmse", region) * row.scale(1)
        found = [
            (d, sure_of(row, judged, source, region=region))
            for source in sources
            if (d := difference_to(row, scores, baselines, source, region=region)) is not None
        ]
        parts = [" ".join(_coloured(d[i], sure[i] if sure else None) for d, sure in found) for i in leads]
        cells = ["\n".join(filter(None, [number(values[i]), part])) for i, part in zip(leads, parts, strict=True)]
        table.add_row(f"{escape(row.label)}\n[quiet]{escape(row.unit)}[/]", *cells)
    console().print(table)
    if sources:
        told = " and ".join(sources)
        sure = "" if judged is None else f"; ~ not significant at {judged.attrs['level']} %"
        console().print(f"[quiet]below each RMSE: its difference to {told}{sure}[/]")


def _coloured(difference: float, sure: bool | None) -> str:
    if not np.isfinite(difference):
        return percent(difference)
    if sure is False:
        return f"[quiet]~{percent(difference)}[/]"
    return f"[{'good' if difference < 0 else 'bad'}]{percent(difference)}[/]"


def _others(baselines: xr.Dataset | None, limits: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Scores to draw beside the forecast's: the baselines, and the limits where they are known."""
    found = {}
    if baselines is not None:
        found = {str(source): baselines.sel(source=source) for source in baselines["source"].values}
    return {**found, **limits}


def draw_maps(folder: Path, inputs: Inputs, cards: Cards, scores: xr.Dataset) -> list[tuple[str, Path]]:
    """Maps of the first forecast and of its mean errors; captions and files."""
    for stale in folder.glob("*.png"):
        stale.unlink()
    chosen, drawn = cards.maps, []
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
            path = pictures.field_maps(
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
    path = pictures.field_maps(
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
        factor, unit = shown_unit(variable, str(field.attrs["units"]))
        row = Row(variable, level, label(variable, level, scores), factor, unit)
        maps = {kind: field.sel(statistic=kind).values for kind in ("rms", "mean")}
        if np.ptp(maps["rms"]) <= 1e-3 * maps["rms"].max():
            continue
        path = folder / f"correction_{constraint}_{variable}_errors.png"
        drawn.append(
            (
                f"What {constraint} changes of {row.label} in a timestep: mean over initial times and leads",
                pictures.field_maps(path, inputs.pairs.grid, maps, row, "mean", _coast(inputs)),
            )
        )
    return drawn


def draw_hero(
    path: Path, inputs: Inputs, cards: Cards, scores: xr.Dataset, others: Mapping[str, xr.Dataset], first: Sequence[Row]
) -> Path | None:
    """The picture for a README: the first field of which maps are drawn, at the longest of their leads."""
    chosen, pairs = cards.maps, inputs.pairs
    leads = [lead for lead in chosen.leads if (pairs.index[:, lead] >= 0).any()]
    if not chosen.variables.size or not leads:
        return None
    variable, lead = chosen.variables.variables[0], leads[-1]
    row = _row(variable, variable.levels[0] if variable.levels else None, scores)
    init = int(np.flatnonzero(pairs.index[:, lead] >= 0)[0])
    fields = fields_at(pairs, row.variable, row.level, init, lead)
    return pictures.hero(path, pairs.grid, *fields, row, pairs.leads[lead], scores, others, first, _coast(inputs))


def draw_case(path: Path, inputs: Inputs, cards: Cards, scores: xr.Dataset) -> Path | None:
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
    kept = cards.by_init["forecast"].dataset() if "forecast" in cards.by_init else None
    return write_case(
        path, inputs.name, pairs.inits[init], pairs.grid, pairs.leads, fields, frames, _coast(inputs), kept
    )


def _row(variable: Variable, level: float | None, scores: xr.Dataset) -> Row:
    factor, unit = shown_unit(variable.name, variable.units)
    return Row(variable.name, level, label(variable.name, level, scores), factor, unit)


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


def _facts(inputs: Inputs, scores: xr.Dataset) -> dict[str, str]:
    """The tiles at the top of the report."""
    pairs = inputs.pairs
    rows_, columns_ = pairs.grid.shape
    return {
        "initial times": str(len(pairs.inits)),
        "from": np.datetime_as_string(pairs.inits[0], "D"),
        "to": np.datetime_as_string(pairs.inits[-1], "D"),
        "longest lead": lead_text(pairs.leads[-1]),
        "grid (longitude x latitude)": f"{columns_} \N{MULTIPLICATION SIGN} {rows_}",
        "checks of the forecast": str(scores.attrs.get("verdict", "")),
    }


def _provenance(inputs: Inputs, scores: xr.Dataset) -> dict[str, str]:
    """What another needs to make these numbers again, or to compare theirs with them."""
    told = (
        "forecast",
        "truth",
        "climatology",
        "inits_used",
        "inits_skipped",
        "pairs",
        "grid",
        "weights",
        "averaging",
        "points_left_out",
    )
    listed = {name.replace("_", " "): str(scores.attrs[name]) for name in told}
    if "saturation" in inputs.limits:
        known = inputs.limits["predictability"].attrs
        listed["predictability"] = (
            f"RMSE of identical twins, {experiment(known)}: the limit that a perfect forecast can reach. Saturation: "
            f"\N{SQUARE ROOT}2 x the standard deviation of the stored data about their climatology. Truth: "
            f"{known['truth']}"
        )
    listed["missing values"] = f"{100 * scores.attrs['nan_share']:.3g} % of all points"
    for name in ("metrics_left_out", "regions_left_out"):
        if name in scores.attrs:
            listed[name.replace("_", " ")] = str(scores.attrs[name])
    listed |= {"made": f"{scores.attrs['created']}, revision {scores.attrs['revision']}"}
    return listed | {"versions": str(scores.attrs["versions"])}


def _broken(scores: xr.Dataset) -> list[str]:
    """A warning where scores are missing because the forecast holds NaN."""
    bad = [str(name) for name, field in scores.data_vars.items() if np.isnan(field).all()]
    return [f"No score for {', '.join(bad)}: missing values where none may be."] if bad else []
