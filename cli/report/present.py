"""What a reader sees of an evaluation: the card in the terminal, pictures and the report. None of it may stop eval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape

from data_pipelines.inspection.predictability import experiment_summary
from data_pipelines.verification.score_files import write_table
from data_pipelines.verification.score_rows import Row, headline_rows, score_rows
from emul.display.text import lead_text
from emul.pictures import curves, scorecards
from emul.report import ensembles, error_growth
from emul.report.drawings import climate_maps, draw_case, draw_corrections, draw_hero, draw_maps
from emul.report.report import write_report
from emul.report.terminal_card import _others, show
from emul.terminal.console import attempt, console

if TYPE_CHECKING:
    import xarray as xr

    from emul.evaluation.inputs import Inputs
    from emulators.verification.evaluation import Evaluation


def present(
    target: Path,
    inputs: Inputs,
    evaluation: Evaluation,
    scores: xr.Dataset,
    baselines: xr.Dataset | None,
    judged: xr.Dataset | None,
    spectra: xr.Dataset | None,
) -> None:
    """Card, pictures and report of what is in `target`; whatever fails is reported and left out."""
    every = score_rows(scores)
    first = headline_rows(every)
    region = str(scores["region"].values[0])
    attempt("the score card", show, scores, baselines, judged, first, region)
    attempt("scores.csv", write_table, target / "scores.csv", scores, baselines)
    if inputs.options.pictures:
        attempt("the pictures", draw, target, inputs, evaluation, scores, baselines, judged, spectra, every, first)
    what = "scores, pictures and report" if inputs.options.pictures else "scores"
    console().print(f"{what} are in [key]{escape(str(target))}[/]", soft_wrap=True)


def draw(
    target: Path,
    inputs: Inputs,
    evaluation: Evaluation,
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
    attempt(
        "scorecard.png", scorecards.scorecard, target / "scorecard.png", scores, baselines, judged, every[:60], title
    )
    title = f"{inputs.name}: RMSE by lead time, {region}"
    attempt("curves.png", curves.curves, target / "curves.png", scores, others, first[:9], title)
    attempt("hero.png", draw_hero, target / "hero.png", inputs, evaluation, scores, others, first)
    maps = attempt("the maps", draw_maps, target / "maps", inputs, evaluation, scores) or []
    case = attempt("case.html", draw_case, target / "case.html", inputs, evaluation, scores)
    maps += attempt("the maps of corrections", draw_corrections, target / "maps", inputs, scores) or []
    if evaluation.climate is not None:
        maps += attempt("the climate's maps", climate_maps, target / "climate", evaluation.climate, inputs, first) or []
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
        further=_further(inputs, evaluation, others, first),
        facts=_facts(inputs, scores),
        provenance=_provenance(inputs, scores),
        notes=[*inputs.notes, *_broken(scores)],
    )


def _further(
    inputs: Inputs, evaluation: Evaluation, others: Mapping[str, xr.Dataset], first: Sequence[Row]
) -> list[str]:
    """Sections of the report beside the score card: error growth; ranks and reliability of ensembles."""
    kept = evaluation.by_init["forecast"].dataset() if "forecast" in evaluation.by_init else None
    histograms = evaluation.forecast.histograms(inputs.attributes)
    made = [
        attempt("the growth of errors", error_growth.section, kept, others, first) if kept is not None else "",
        attempt("the histograms", ensembles.section, histograms, first) if histograms is not None else "",
    ]
    return [part for part in made if part]


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
            f"RMSE of identical twins, {experiment_summary(known)}: the limit that a perfect forecast can reach. "
            f"Saturation: \N{SQUARE ROOT}2 x the standard deviation of the stored data about their climatology. Truth: "
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
