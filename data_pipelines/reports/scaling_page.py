"""Write the report of a scaling study: one HTML file that needs no other."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.display.text import number
from data_pipelines.files.fingerprints import read_json
from data_pipelines.pictures.curves import draw_curves, draw_frontier, draw_isoflop, draw_residuals
from data_pipelines.reports.page import Html, Section, definitions, document, join, quiet, table, tag
from emulators.scaling.analysis import HEADLINE
from emulators.scaling.annealing import LossCurve
from emulators.scaling.study import Study

COLUMNS = ("width", "seed", "steps", "size", "samples", "passes", "operations")
WARNING = (
    "A law is a summary of what was run. Beyond that it does not know of a floor that only larger networks show, of "
    "data that repeat, of a learning rate that is no longer the best, of another grid, other variables or longer "
    "rollouts."
)


def write_page(
    folder: Path,
    name: str,
    study: Study,
    rows: Sequence[Mapping[str, Any]],
    told: Mapping[str, Any],
    curves: Mapping[int, Mapping[str, LossCurve]],
    held_out: Mapping[str, Any] | None,
    verdict: Mapping[str, Any] | None,
) -> Path:
    """Write report.html and its pictures into the folder of a study. verdict: of the held-out run, if it is trained."""
    prediction = read_json(folder / "prediction.json")["by_fit"][HEADLINE]
    metric, headline = study.metric, told["fits"][HEADLINE]["parameters"]
    pictures = {
        "curves": draw_curves(folder / "curves.png", curves, told["annealing"]) if curves else None,
        "isoflop": draw_isoflop(folder / "isoflop.png", told["isoflop"], told["frontier"], metric)
        if told["isoflop"]
        else None,
        "frontier": draw_frontier(
            folder / "frontier.png", rows, told, metric, held_out, (told["beyond"] * told["largest"], prediction)
        ),
        "residuals": draw_residuals(folder / "residuals.png", rows, told["headline"]["values"], metric),
    }
    facts = {
        "runs": str(len(rows)),
        "N by C": f"C^{told['size_exponent']:.2f}",
        "D by C": f"C^{told['data_exponent']:.2f}",
        "floor E": number(headline["E"][0]),
        "held-out run": _verdict_word(verdict),
    }
    sections = [
        Section("fits", "Exponents by fit", _fits(told)),
        Section("held-out", "The held-out run", _held_out(told, verdict)),
        Section("frontier", "Frontier, best size and data", _image(pictures["frontier"], "frontier")),
        Section("isoflop", "Equal operations", join(_image(pictures["isoflop"], "isoflop"), _parabolas(told))),
        Section("curves", "Loss curves", join(_image(pictures["curves"], "curves"), _annealing(told))),
        Section("residuals", "Residuals", _image(pictures["residuals"], "residuals")),
        Section("scores", "Scores by lead and variable", _saturating(told)),
        Section("runs", "Runs", _runs(rows, metric)),
    ]
    notes = [f"{law} is left out: {why}." for law, why in told["left_out"].items()]
    return document(
        folder / "report.html",
        f"Scaling study {name}",
        f"How {metric} falls with size N, data D and operations C, counted as they run. {WARNING}",
        sections,
        notes=notes,
        facts=facts,
    )


def _verdict_word(verdict: Mapping[str, Any] | None) -> str:
    if verdict is None:
        return "not trained yet"
    return "as predicted" if verdict["held"][HEADLINE] else "not as predicted"


def _image(path: Path | None, caption: str) -> Html:
    if path is None:
        return quiet("Too few runs for this picture.")
    data = base64.b64encode(path.read_bytes()).decode()
    image = tag("img", alt=caption, src=f"data:image/png;base64,{data}")
    return tag("div", tag("figure", image, class_="three", tabindex=0), class_="maps")


def _spread(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{number(values[0])} ({number(values[1])} to {number(values[2])})"


def _fits(told: Mapping[str, Any]) -> Html:
    names = list(dict.fromkeys(p for fit in told["fits"].values() for p in fit["parameters"]))
    head = ["fit", *names, "noise of a run"]
    lines = [
        (name, [*(_spread(fit["parameters"].get(p)) for p in names), f"{fit['noise']:.2%}"])
        for name, fit in told["fits"].items()
    ]
    explained = quiet(
        "Values with 95 % intervals of a bootstrap over runs, those of one trunk together. Squares: least squares of "
        "logarithms, whose intervals are calibrated. Robust: Huber's loss, as published. Projection: solves for E, A "
        "and B within a search over the exponents."
    )
    return join(explained, table(head, lines))


def _held_out(told: Mapping[str, Any], verdict: Mapping[str, Any] | None) -> Html:
    if verdict is None:
        lines = [(name, [_spread(fit["prediction"]), ""]) for name, fit in told["fits"].items()]
        return join(quiet("Predicted; not trained yet."), table(["fit", "prediction, 90 %", "held"], lines))
    lines = [(name, [_spread(v), "yes" if verdict["held"][name] else "no"]) for name, v in verdict["by_fit"].items()]
    text = (
        f"{verdict['run']} made {verdict['measured']:.4g}, {verdict['beyond']:.2g} times beyond the largest run of the "
        f"fit. Predicted {verdict['made']}, before it was trained:"
    )
    return join(quiet(text), table(["fit", "prediction, 90 %", "held"], lines))


def _parabolas(told: Mapping[str, Any]) -> Html:
    lines = [
        (
            f"{parabola['compute']:.3g}",
            [f"{parabola['size']:.3g}" if parabola["inside"] else "outside the sizes", f"{parabola['bias']:.2f}"],
        )
        for parabola in told["isoflop"]
    ]
    text = (
        "Runs are interpolated along durations, never extrapolated. A parabola is biased where the exponents differ or "
        "the sizes lie off its centre: the last column is what it would make of the best size of the law itself."
    )
    return join(quiet(text), table(["operations", "size at the minimum", "bias, factor"], lines)) if lines else quiet()


def _annealing(told: Mapping[str, Any]) -> Html:
    lines = [
        (width, [*(number(law[k]) for k in ("floor", "factor", "exponent", "gain", "memory")), f"{law['error']:.2%}"])
        for width, law in told["annealing"].items()
    ]
    return table(["width", "L0", "A", "alpha", "C", "lambda", "error"], lines) if lines else quiet()


def _saturating(told: Mapping[str, Any]) -> Html:
    head = ["score", "floor E", "B", "beta"]
    lines = [(name, [_spread(law[k]) for k in ("E", "B", "beta")]) for name, law in told["saturating"].items()]
    text = "E + B C^-beta through the runs on the frontier, by score; score_n is at the n-th timestep."
    frontier = join(quiet(text), table(head, lines)) if lines else quiet("Too few runs on the frontier.")
    steps = [(name, [_spread(law[k]) for k in ("E", "B", "beta")]) for name, law in told["ladders"].items()]
    return join(frontier, quiet("Ladder: headline = E + B score^beta."), table(head, steps)) if steps else frontier


def _runs(rows: Sequence[Mapping[str, Any]], metric: str) -> Html:
    lines = [(row["run"], [*(f"{row[name]:.4g}" for name in COLUMNS), f"{row[metric]:.4f}"]) for row in rows]
    legend = definitions(
        {
            "size": "parameters that count, as study.inside says",
            "samples": "initial states seen, repeats included",
            "passes": "over the training split",
            "operations": "of the whole run, forward and backward, counted",
        }
    )
    return join(table(["run", *COLUMNS, metric], lines), legend)
