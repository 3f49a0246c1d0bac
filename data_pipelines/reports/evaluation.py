"""What an evaluation scores, and what it writes: score files, pictures, a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.conventions.durations import chosen_inits, lead_times
from data_pipelines.display.text import lead_text
from data_pipelines.files.netcdf import stored_form, write_netcdf
from data_pipelines.verification.absences import Absence, empty_scores, sentences
from data_pipelines.verification.pairs import Pairs
from data_pipelines.verification.score_files import EvaluationResults
from data_pipelines.verification.score_rows import headline_leads, map_variables
from data_pipelines.verification.sides import Inputs
from emulators.statistics.area_means import land_fraction as land_share
from emulators.statistics.significance import Significance
from emulators.variables import VariableSet
from emulators.verification.climate_dataset import climate_dataset
from emulators.verification.evaluation import Evaluation
from emulators.verification.spectra import LeadSpectra

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.reports.case import CaseView
    from emulators.verification.climate import ClimateCard


MOST_FIELDS, MOST_LEADS = 10, 6  # of which spectra are computed by default, and monthly fields kept


def evaluation_of(inputs: Inputs) -> Evaluation:
    """Empty sums of all that the options ask for; what cannot be had is added to the notes."""
    options, pairs = inputs.options, inputs.pairs
    evaluation = Evaluation(
        inputs.world,
        pairs.variables,
        inputs.metrics,
        pairs.leads,
        references=inputs.baselines,
        regions=options["regions"],
        missing=options["missing"],
        climate=bool(options["climate"]),
        monthly=map_variables(pairs.variables, None, MOST_FIELDS),
        maps=_maps(inputs),
        spectra=_spectra(inputs),
        inits=pairs.inits if options["significance"]["level"] is not None else None,
        megabytes=options["significance"]["megabytes"],
    )
    skipped = evaluation.forecast.regions.skipped
    inputs.absences.extend(Absence("region", name, why) for name, why in skipped.items())
    return evaluation


def _maps(inputs: Inputs) -> tuple[VariableSet, list[int]]:
    """The channels and the lead numbers of the maps."""
    leads, wanted = inputs.pairs.leads, lead_times(inputs.options["maps"]["leads"])
    positions = [] if wanted is None else [int(np.flatnonzero(leads == n)[0]) for n in wanted if (leads == n).any()]
    variables = map_variables(inputs.pairs.variables, inputs.options["maps"]["fields"])
    return variables, sorted(set(positions)) or [len(leads) // 2]


def _spectra(inputs: Inputs) -> LeadSpectra | None:
    """Empty sums of the spectra that the options ask for; default: the first fields and leads of the score card."""
    options, pairs = inputs.options["spectra"], inputs.pairs
    fields, wanted = options["fields"], lead_times(options["leads"])
    leads = (
        pairs.leads[headline_leads(pairs.leads, MOST_LEADS)] if wanted is None else np.intersect1d(pairs.leads, wanted)
    )
    if not leads.size or (fields is not None and not len(fields)):
        return None
    variables = map_variables(pairs.variables, fields, MOST_FIELDS)
    more = {name: options[name] for name in ("threshold", "chaosbench")}
    try:
        return LeadSpectra(inputs.world, variables, list(leads), **more)
    except ValueError as error:
        inputs.notes.append(f"No spectra: {error}")
        return None


def write_scores(
    target: Path, inputs: Inputs, evaluation: Evaluation, warn: Callable[[str], None]
) -> EvaluationResults:
    """Write scores.nc, baselines.nc, histograms.nc and climate.nc; the results without differences.

    warn: called with a sentence on each thing that is left out.
    """
    scores = evaluation.scores(inputs.attributes)
    card = evaluation.forecast
    spoilt = {name: card.spoilt(name) for name in card.scored}
    empty = empty_scores(spoilt, inputs.pairs, inputs.options["missing"] == "none")
    for sentence in sentences(empty):
        warn(sentence)
    inputs.absences.extend(empty)
    attributes = {
        "left_out": "; ".join(f"{absence.name}: {absence.reason}" for absence in inputs.absences) or "nothing"
    }
    scores.attrs.update({**attributes, **inputs.described})
    baselines = evaluation.baseline_scores({**inputs.attributes, **attributes})
    spectra = evaluation.spectra.dataset({"grid": scores.attrs["grid"]}) if evaluation.spectra is not None else None
    histograms = evaluation.forecast.histograms(inputs.attributes)
    _describe_levels(inputs, scores, baselines, spectra, histograms)
    title = inputs.described.get("title", f"Scores of {inputs.name}")
    write_netcdf(target / "scores.nc", stored_form(scores, title), {} if spectra is None else {"spectra": spectra})
    if baselines is not None:
        write_netcdf(target / "baselines.nc", stored_form(baselines, f"{title}: baselines on the same dates"))
    if histograms is not None:
        write_netcdf(target / "histograms.nc", stored_form(histograms, f"{title}: ranks and reliability"))
    climate = None if evaluation.climate is None else _write_climate(target, evaluation.climate, inputs, warn)
    scored = {name: other.scores for name, other in inputs.beside.items() if other.scores is not None}
    return EvaluationResults(
        inputs.name,
        scores,
        baselines,
        further_scores={**inputs.limits, **scored},
        spectra=spectra,
        histograms=histograms,
        budgets=inputs.budgets,
        further_budgets={name: other.budgets for name, other in inputs.beside.items() if other.budgets is not None},
        climate=climate,
    )


def _describe_levels(inputs: Inputs, *datasets: xr.Dataset | None) -> None:
    """Give the levels of scores the attributes of those of the forecast."""
    for dataset in datasets:
        if dataset is not None and "level" in dataset.coords:
            dataset["level"].attrs.update(inputs.forecast["level"].attrs)


def write_differences(
    target: Path, inputs: Inputs, evaluation: Evaluation
) -> tuple[xr.Dataset | None, xr.Dataset | None]:
    """Write by_init.nc and differences.nc; the forecast's statistics by initial time, and the differences."""
    by_init = evaluation.statistics_by_init(inputs.attributes)
    for stale in ("by_init.nc", "differences.nc"):
        (target / stale).unlink(missing_ok=True)
    if not by_init:
        return None, None
    _describe_levels(inputs, *by_init.values())
    title = f"Area means of {inputs.name} and of its baselines, by initial time"
    stored = {name: stored_form(dataset, title) for name, dataset in by_init.items()}
    write_netcdf(target / "by_init.nc", stored.pop("forecast"), stored, deflate=True)
    options = inputs.options["significance"]
    significance = Significance(options["level"], options["least"], options["false_discovery"])
    differences = evaluation.differences(by_init, significance)
    if differences is not None:
        _describe_levels(inputs, differences)
        write_netcdf(
            target / "differences.nc", stored_form(differences, f"Differences of {inputs.name} to its baselines")
        )
    return by_init["forecast"], differences


NAMES = {  # what a score is called in words, where it is of runs of any or only some lengths
    "annual": "annual means",
    "nrmse": "NRMSE",
    "interannual": "interannual variability",
    "cycle": "annual cycle",
    "return": "return levels",
    "nino": "Nino 3.4",
    "trend": "trends",
    "scales": "variance by time scale",
    "patterns": "leading patterns",
    "transports": "poleward transports",
    "precipitation": "the distribution of precipitation",
}


def _write_climate(target: Path, card: ClimateCard, inputs: Inputs, warn: Callable[[str], None]) -> xr.Dataset:
    """Write climate.nc, and say what the run is too short for."""
    dataset = climate_dataset(card, inputs.attributes)
    _describe_levels(inputs, dataset)
    write_netcdf(target / "climate.nc", stored_form(dataset, f"Climate of {inputs.name}"))
    for name, why in card.left_out().items():
        inputs.notes.append(f"{NAMES[name]} left out of the climate: {why}.")
        warn(inputs.notes[-1])
    return dataset


def draw(
    target: Path,
    inputs: Inputs,
    evaluation: Evaluation,
    results: EvaluationResults,
    attempt: Callable[..., Any],
) -> None:
    """Draw the pictures and write the report.

    attempt: called with what is made, the function that makes it and its arguments; returns its result or None.
    """
    from data_pipelines.pictures.maps import land_fraction
    from data_pipelines.reports.climate import climate_maps
    from data_pipelines.reports.drawings import (
        Maps,
        correction_maps,
        draw_hero,
        draw_scores,
        ensemble_maps,
        error_maps,
        rows_of,
    )
    from data_pipelines.reports.report import ReportContext, provenance_of, write_report

    draw_scores(target, results, attempt)
    pairs, errors, case = inputs.pairs, evaluation.maps, inputs.options["case"]
    simulated = str(pairs.truth.dataset.attrs.get("title", "")).startswith("emul ")
    coast = land_share(inputs.world)
    if coast is None and inputs.options["coastlines"] and not simulated:
        coast = land_fraction(pairs.grid)
    attempt("hero.png", draw_hero, target / "hero.png", pairs, errors, results, coast)
    maps = Maps(target / "maps", pairs.grid, coast)
    attempt("the maps", error_maps, maps, pairs, errors, results)
    rows, shown = [*rows_of(errors.variables, results.scores)], inputs.options["ensemble"]
    attempt("the maps of members", ensemble_maps, maps, pairs, errors, rows, shown)
    page = target / "case.html"
    view = attempt("case.html", _draw_case, page, pairs, case, results, coast, inputs.is_own)
    attempt("the maps of corrections", correction_maps, maps, results)
    drawn = maps.drawn
    if results.climate is not None:
        climate = Maps(target / "climate", pairs.grid, coast)
        attempt("the climate's maps", climate_maps, climate, results.climate, results)
        drawn = [*drawn, *climate.drawn]
    scores = results.scores
    notes = [*inputs.notes, *sentences(inputs.absences)]
    content = _facts(inputs, scores), provenance_of(scores, inputs.limits), notes, drawn
    context = ReportContext(*content, view if case["embedded"] else None, page if view else None)
    attempt("report.html", write_report, target / "report.html", results, context)


def _draw_case(
    path: Path, pairs: Pairs, options: Any, results: EvaluationResults, coast: Any, from_truth: bool
) -> CaseView | None:
    """The page of the case that the options name."""
    from data_pipelines.reports.case import draw_case

    inits = chosen_inits(options["init"], pairs.inits, "case.init")
    init = None if inits is None else inits[0]
    return draw_case(path, pairs, options["fields"], init, options["frames"], results, coast, from_truth)


def _facts(inputs: Inputs, scores: xr.Dataset) -> dict[str, str]:
    """The tiles at the top of the report."""
    pairs = inputs.pairs
    return {
        "initial times": str(len(pairs.inits)),
        "from": np.datetime_as_string(pairs.inits[0], "D"),
        "to": np.datetime_as_string(pairs.inits[-1], "D"),
        "longest lead": lead_text(pairs.leads[-1]),
        "grid": str(pairs.grid).split(" (")[0].replace("_", " "),
        "checks of the forecast": str(scores.attrs.get("verdict", "")),
    }
