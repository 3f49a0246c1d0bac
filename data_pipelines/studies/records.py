"""Write the fits, the prediction and the report of a scaling study.

prediction.json         what the laws say of the held-out run; never written again once it has begun
fits.json               every law with intervals, the frontier, IsoFLOP curves, the law of annealing
report.html             all of it with pictures, one file that needs no other
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.display.text import number
from data_pipelines.files.fingerprints import read_json, write_json
from data_pipelines.files.tables import read_rows
from data_pipelines.pictures.curves import draw_curves, draw_frontier, draw_isoflop, draw_residuals
from data_pipelines.reports.page import Html, Section, definitions, document, image, join, quiet, table
from data_pipelines.studies import widths
from data_pipelines.studies.points import FOLDERS, SCORES, point, run_folder, write_points
from emulators.scaling.analysis import HEADLINE, Analysis, drawn_of, ladder_of, saturating_of
from emulators.scaling.annealing import LossCurve, annealing_intervals, fit_annealing, smoothed
from emulators.scaling.fitting import Fit
from emulators.scaling.laws import Runs
from emulators.scaling.study import PlannedRun, Study

COLUMNS = ("width", "seed", "steps", "size", "samples", "passes", "operations")
WARNING = (
    "A law is a summary of what was run. Beyond that it does not know of a floor that only larger networks show, of "
    "data that repeat, of a learning rate that is no longer the best, of another grid, other variables or longer "
    "rollouts."
)


def loss_curves(study: Path, runs: Sequence[PlannedRun], schedule: Any) -> dict[int, dict[str, LossCurve]]:
    """The smoothed losses of the runs of every width, branches with their trunk before them.

    schedule: from (run) to its rates, (step,), as a share of the peak.
    """
    curves: dict[int, dict[str, LossCurve]] = {}
    for run in runs:
        if run.kind == "held_out":
            continue
        rows = [row for row in read_rows(run_folder(study, run) / "metrics.csv") if "loss" in row]
        if run.kind == "branch":
            trunk = study / FOLDERS["trunk"] / "train" / run.trunk
            before = [row for row in read_rows(trunk / "metrics.csv") if "loss" in row and row["step"] <= run.start]
            rows = before + rows
        if len(rows) < 5:
            continue
        steps, loss = (np.array([row[name] for row in rows], dtype=float) for name in ("step", "loss"))
        rates = schedule(run)
        steps, loss = smoothed(steps, loss, skip=int(np.argmax(rates)) + 1)
        curves.setdefault(run.width, {})[run.name] = LossCurve(rates, np.minimum(steps, len(rates)), loss)
    return curves


def annealing_laws(curves: Mapping[int, Mapping[str, LossCurve]]) -> dict[str, dict[str, Any]]:
    """The law of annealing of every width that has curves enough: its error, and parameters with their intervals."""
    laws = {}
    for width, by_name in curves.items():
        runs = [*by_name.values()]
        if sum(len(curve.loss) for curve in runs) > 9:
            law = fit_annealing(runs)
            ends = annealing_intervals(runs, law)
            parameters = {name: [float(value), *ends[name]] for name, value in law.parameters.items()}
            laws[str(width)] = {"parameters": parameters, "error": float(law.error)}
    return laws


def fit_rows(fit: Fit, prediction: Sequence[float]) -> dict[str, Any]:
    """One fit as plain values: parameters and the prediction of the held-out run, each value, lower and upper end."""
    return {
        "parameters": {name: list(values) for name, values in fit.parameter_intervals().items()},
        "objective": fit.objective,
        "noise": fit.noise,
        "runs": len(fit.runs),
        "prediction": list(prediction),
    }


def write_prediction(study: Path, laws: Mapping[str, Any], run: PlannedRun) -> dict[str, Any]:
    """Write prediction.json, until the held-out run begins: then the prediction that was made is kept.

    Returns the one that stands. ValueError where the held-out run has begun and nothing was predicted.
    """
    path = study / "prediction.json"
    if run_folder(study, run).is_dir():
        if path.is_file() and (stored := read_json(path)).get("run") == run.name:
            return dict(stored)
        raise ValueError(
            f"{run.name} has begun already, so that nothing said now would be a prediction; remove "
            f"{study / FOLDERS['held_out']} to train it again after the laws have spoken."
        )
    prediction = {
        "run": run.name,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "beyond": laws["beyond"],
        "surest": laws["surest"],
        "by_fit": {name: fit["prediction"] for name, fit in laws["fits"].items()},
    }
    write_json(path, prediction)
    return prediction


def summary(
    analysis: Analysis, rows: Sequence[Mapping[str, Any]], held_out: Runs, annealing: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """All that fits.json holds."""
    frontier, compute = analysis.frontier, np.array([row["operations"] for row in rows], dtype=float)
    headlines = tuple(SCORES.values())
    names = [name for name in rows[0] if name.startswith(("score_", *headlines))]
    scores = {name: np.array([row.get(name, math.nan) for row in rows], dtype=float) for name in names}
    score = np.array([row["score"] for row in rows], dtype=float)
    predictions = analysis.predictions(held_out)
    return {
        "fits": {name: fit_rows(fit, predictions[name]) for name, fit in analysis.fits.items()},
        "backtests": {name: vars(found) for name, found in analysis.backtests.items()},
        "compared": {name: vars(found) for name, found in analysis.compared.items()},
        "surest": analysis.surest,
        "left_out": dict(analysis.left_out),
        "ranking": analysis.ranking,
        "drawn": {name: drawn_of(analysis.fits[name]) for name in analysis.ranking},
        "split": analysis.split,
        "exponents": dict(analysis.exponents),
        "beyond": float(held_out.compute[0] / compute.max()),
        "largest": float(compute.max()),
        "frontier": {name: np.asarray(values).tolist() for name, values in vars(frontier).items()},
        "isoflop": [
            {**vars(fit.parabola), "bias": fit.bias, "sizes": fit.size.tolist(), "losses": fit.loss.tolist()}
            for fit in analysis.isoflop
        ],
        "annealing": dict(annealing),
        "saturating": {
            name: {k: list(v) for k, v in fit.parameter_intervals().items()}
            for name, fit in saturating_of(compute, scores).items()
        },
        "ladders": {
            name: {k: list(v) for k, v in ladder_of(score, values).parameter_intervals().items()}
            for name, values in scores.items()
            if name.startswith(headlines) and np.isfinite(values).all() and len(values) > 5
        },
    }


def held_out_verdict(study: Path, metric: str, run: PlannedRun, facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the held-out run gave, beside every prediction; None where it is not trained or nothing was predicted."""
    path, row = study / "prediction.json", point(study, run, facts)
    if row is None or not path.is_file():
        return None
    measured, prediction = float(row[metric]), read_json(path)
    verdicts = {name: bool(low <= measured <= high) for name, (_, low, high) in prediction["by_fit"].items()}
    return {"measured": measured, "held": verdicts, "surest": HEADLINE, **prediction}


def write_page(
    folder: Path,
    name: str,
    study: Study,
    rows: Sequence[Mapping[str, Any]],
    laws: Mapping[str, Any],
    curves: Mapping[int, Mapping[str, LossCurve]],
    held_out: Mapping[str, Any] | None,
    verdict: Mapping[str, Any] | None,
) -> Path:
    """Write report.html, its pictures and the points into the folder of a study.

    held_out, verdict: the point of the held-out run and what became of its prediction, if it is trained.
    """
    everything = [*rows, *([] if held_out is None else [held_out])]
    write_points(folder, everything)
    stored = read_json(folder / "prediction.json")
    prediction = stored["by_fit"][stored.get("surest", HEADLINE)]
    metric, headline = study.metric, laws["fits"][HEADLINE]["parameters"]
    pictures = {
        "curves": draw_curves(folder / "curves.png", curves, laws["annealing"]) if curves else None,
        "isoflop": draw_isoflop(folder / "isoflop.png", laws["isoflop"], laws["frontier"], metric)
        if laws["isoflop"]
        else None,
        "frontier": draw_frontier(
            folder / "frontier.png", rows, laws, metric, held_out, (laws["beyond"] * laws["largest"], prediction)
        ),
        "residuals": draw_residuals(folder / "residuals.png", rows, laws["drawn"][laws["surest"]], metric),
    }
    facts = {
        "runs": str(len(rows)),
        "N by C": _power(laws["exponents"][laws["split"]]["size"]),
        "D by C": _power(laws["exponents"][laws["split"]]["data"]),
        "floor E, chinchilla": number(headline["E"][0]),
        "surest law": laws["surest"],
        "law of the frontier": laws["split"],
        "held-out run": _verdict_word(verdict),
    }
    sections = [
        Section("fits", "Exponents by fit", join(_fits(laws), _exponents(laws))),
        Section("held-out", "The held-out run", _held_out(laws, verdict)),
        Section("frontier", "Frontier, best size and data", _picture(pictures["frontier"], "frontier")),
        Section("isoflop", "Equal operations", join(_picture(pictures["isoflop"], "isoflop"), _parabolas(laws))),
        Section("curves", "Loss curves", join(_picture(pictures["curves"], "curves"), _annealing(laws))),
        Section("residuals", "Residuals", _picture(pictures["residuals"], "residuals")),
        Section("scores", "Scores by lead and variable", _saturating(laws)),
        Section("runs", "Runs", _runs(everything, metric)),
    ]
    if (over_width := widths.section(folder)) is not None:
        sections.insert(-1, Section("width", "Learning rates over width", over_width))
    notes = [f"{law} is left out: {why}." for law, why in laws["left_out"].items()]
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
    return "as predicted" if verdict["held"][verdict["surest"]] else "not as predicted"


def _picture(path: Path | None, caption: str) -> Html:
    return quiet("Too few runs for this picture.") if path is None else image(path, caption)


def _spread(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{number(values[0])} ({number(values[1])} to {number(values[2])})"


def _fits(laws: Mapping[str, Any]) -> Html:
    names = list(dict.fromkeys(p for fit in laws["fits"].values() for p in fit["parameters"]))
    head = ["fit", *names, "noise of a run"]
    lines = [
        (name, [*(_spread(fit["parameters"].get(p)) for p in names), f"{fit['noise']:.2%}"])
        for name, fit in laws["fits"].items()
    ]
    explained = quiet(
        "Values with 95 % intervals of a bootstrap over runs, those of one trunk together. Squares: least squares of "
        "logarithms, whose intervals are calibrated. Robust: Huber's loss, as published. Projection: solves for E, A "
        "and B within a search over the exponents."
    )
    return join(explained, table(head, lines))


def _power(values: Sequence[float] | None) -> str:
    return "no best size" if values is None else f"C^{values[0]:.2f} ({values[1]:.2f} to {values[2]:.2f})"


def _exponents(laws: Mapping[str, Any]) -> Html:
    text = (
        "Best size N and data D over operations C, within those measured, with 95 % intervals: of laws over their "
        "replicates, of minima and envelope over runs drawn anew about the surest law. Empty: no best size within 30 "
        "times of the sizes, or fewer than three minima within the sizes run."
    )
    lines = [
        (way, ["" if values[name] is None else _power(values[name]) for name in ("size", "data")])
        for way, values in laws["exponents"].items()
    ]
    return join(quiet(text), table(["by", "N", "D"], lines))


def _held_out(laws: Mapping[str, Any], verdict: Mapping[str, Any] | None) -> Html:
    fits = {name: fit["prediction"] for name, fit in laws["fits"].items()} if verdict is None else verdict["by_fit"]
    lines = []
    for name, prediction in fits.items():
        missed = [_missed(laws[tests].get(name)) for tests in ("compared", "backtests")]
        held = "" if verdict is None else ("yes" if verdict["held"][name] else "no")
        lines.append((name, [*missed, _spread(prediction), held]))
    text = "Predicted; not trained yet." if verdict is None else (
        f"{verdict['run']} made {verdict['measured']:.4g}, {verdict['beyond']:.2g} times beyond the largest run of the "
        f"fit. Predicted {verdict['made']}, before it was trained, most surely by {verdict['surest']}."
    )  # fmt: skip
    how = (
        "Error: of the study's largest run, predicted from runs so many times smaller. From the same runs for all, "
        f"{laws['surest']} missed by least. From as far as each law can, an error beyond 90 % widens what it predicts."
    )
    head = ["fit", "error, same runs", "error, furthest", "prediction, 90 %", "held"]
    return join(quiet(f"{text} {how}"), table(head, lines))


def _missed(tried: Mapping[str, Any] | None) -> str:
    return "" if tried is None else f"{np.expm1(tried['error']):+.1%} at {tried['factor']:.1f} times"


def _parabolas(laws: Mapping[str, Any]) -> Html:
    lines = [
        (
            f"{parabola['compute']:.3g}",
            [f"{parabola['size']:.3g}" if parabola["inside"] else "outside the sizes", f"{parabola['bias']:.2f}"],
        )
        for parabola in laws["isoflop"]
    ]
    text = (
        "Runs are interpolated along durations, never extrapolated. A parabola is biased where the exponents differ or "
        "the sizes lie off its centre: the last column is what it would make of the best size of the law itself."
    )
    return join(quiet(text), table(["operations", "size at the minimum", "bias, factor"], lines)) if lines else quiet()


def _annealing(laws: Mapping[str, Any]) -> Html:
    lines = [
        (width, [*(_spread(values) for values in law["parameters"].values()), f"{law['error']:.2%}"])
        for width, law in laws["annealing"].items()
    ]
    return table(["width", "L0", "A", "alpha", "C", "lambda", "error"], lines) if lines else quiet()


def _saturating(laws: Mapping[str, Any]) -> Html:
    head = ["score", "floor E", "B", "beta"]
    lines = [(name, [_spread(law[k]) for k in ("E", "B", "beta")]) for name, law in laws["saturating"].items()]
    text = "E + B C^-beta through the runs on the frontier, by score; score_n is at the n-th timestep."
    frontier = join(quiet(text), table(head, lines)) if lines else quiet("Too few runs on the frontier.")
    steps = [(name, [_spread(law[k]) for k in ("E", "B", "beta")]) for name, law in laws["ladders"].items()]
    return join(frontier, quiet("Ladder: headline = E + B score^beta."), table(head, steps)) if steps else frontier


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['run']} (held out)" if row["kind"] == "held_out" else str(row["run"])


def _runs(rows: Sequence[Mapping[str, Any]], metric: str) -> Html:
    lines = [(_name(row), [*(f"{row[name]:.4g}" for name in COLUMNS), f"{row[metric]:.4f}"]) for row in rows]
    legend = definitions(
        {
            "size": "parameters that count, as study.inside says",
            "samples": "initial states seen, repeats included",
            "passes": "over the training split",
            "operations": "of the whole run, forward and backward, counted",
        }
    )
    return join(table(["run", *COLUMNS, metric], lines), legend)
