"""Compare evaluations of the same truth on what they share: initial times, variables, levels, leads and regions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from emulators.scores.interfaces import Metric
from emulators.statistics.significance import Significance
from emulators.verification.by_init import differences, scores_of

if TYPE_CHECKING:
    import xarray as xr


OF_ONE_FORECAST = ("forecast", "verdict", "number_of_inits", "nan_share", "metrics_left_out")  # attributes
SAME = ("grid", "weights", "averaging", "points_left_out")  # attributes in which evaluations must agree
CLOSE = 1e-5  # of the squared error of persistence: by how much it may differ where the truth is the same


@dataclass(frozen=True)
class StoredEvaluation:
    """Hold the stored scores of one evaluation.

    by_init: statistics of each initial time, None where they were not kept. baselines: (scores, by_init) by name.
    """

    name: str
    folder: Path
    scores: xr.Dataset
    by_init: xr.Dataset | None
    spectra: xr.Dataset | None
    baselines: Mapping[str, tuple[xr.Dataset, xr.Dataset | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Hold evaluations cut to what they share.

    runs: by name, in their order. beside: scores of the baselines of the first. baseline: the run or baseline that
    differences are taken to. judged: differences of each run to it, dimension `source` the run; None where they cannot
    be judged. inits: the number of shared initial times. notes: what was left out, and why.
    """

    runs: dict[str, StoredEvaluation]
    beside: dict[str, xr.Dataset]
    baseline: str
    judged: xr.Dataset | None
    inits: int
    notes: list[str]

    @property
    def reference(self) -> xr.Dataset:
        """The scores of the baseline."""
        return self.runs[self.baseline].scores if self.baseline in self.runs else self.beside[self.baseline]


def compare(
    evaluations: Sequence[StoredEvaluation],
    build_metrics: Callable[[Mapping[str, Any]], Mapping[str, Metric]],
    significance: Significance,
    baseline: str | None = None,
    region: str | None = None,
) -> Comparison:
    """Compare two or more evaluations; raise ValueError with the reason where they cannot be compared.

    build_metrics: builds metrics from their configurations by name, as the scores hold them. baseline: a run or a
    baseline of the first; default, the first. region: in which differences are judged; default, the first.
    """
    entries = {evaluation.name: evaluation for evaluation in evaluations}
    first, *others = entries.values()
    notes: list[str] = []
    for other in others:
        _refuse_other(first, other)
    failed = [name for name, entry in entries.items() if entry.scores.attrs.get("verdict") == "failed"]
    notes += [f"{name} failed the checks of its forecast." for name in failed]
    metrics, metric_notes = _metrics(list(entries.values()), build_metrics)
    entries, baselines, inits, init_notes = _on_shared_inits(entries, metrics)
    entries, baselines, label_notes = _on_shared_labels(entries, baselines, metrics)
    baseline = baseline or first.name
    if baseline not in entries and baseline not in baselines:
        raise ValueError(f"baseline={baseline}: expected one of {', '.join([*entries, *baselines])}.")
    comparison = Comparison(entries, {n: s for n, (s, _) in baselines.items()}, baseline, None, inits, notes)
    reference = entries[baseline].by_init if baseline in entries else baselines[baseline][1]
    regions = first.scores["region"].values.tolist()
    if region is not None and region not in next(iter(entries.values())).scores["region"].values:
        raise ValueError(f"region={region}: expected one that all share, of {', '.join(regions)}.")
    judged, unjudged = _judged(entries, baseline, reference, metrics, region, significance)
    notes.extend([*metric_notes, *init_notes, *label_notes, *unjudged])
    return replace(comparison, judged=judged)


def _refuse_other(first: StoredEvaluation, other: StoredEvaluation) -> None:
    """ValueError where two evaluations measure different things."""
    for key in SAME:
        a, b = (str(entry.scores.attrs.get(key, "unknown")) for entry in (first, other))
        if a != b:
            alike = "with one missing=..." if key == "points_left_out" else "alike"
            raise ValueError(
                f"{first.name} and {other.name} cannot be compared: {key.replace('_', ' ')} is {a} in one and {b} in "
                f"the other; score both {alike}."
            )
    a, b = (str(entry.scores.attrs.get("truth", "unknown")) for entry in (first, other))
    same = _same_persistence(first, other)
    if (a != b and not same) or same is False:
        why = f"{a} and {b}" if a != b else f"{a}, which gives persistence other scores: it has changed in between"
        raise ValueError(f"{first.name} and {other.name} cannot be compared: their truths differ ({why}).")


def _same_persistence(first: StoredEvaluation, other: StoredEvaluation) -> bool | None:
    """True where persistence, which depends on the truth alone, has the same errors at shared initial times; None where
    that is unknown."""
    first_errors, other_errors = (entry.baselines.get("persistence", (None, None))[1] for entry in (first, other))
    return None if first_errors is None or other_errors is None else same_errors(first_errors, other_errors, CLOSE)


def _metrics(
    entries: Sequence[StoredEvaluation], build_metrics: Callable[[Mapping[str, Any]], Mapping[str, Metric]]
) -> tuple[dict[str, Metric], list[str]]:
    """The metrics that all have with the same definition (and climatology, where they need one), built; and notes."""
    definitions = [json.loads(entry.scores.attrs.get("metrics", "{}")) for entry in entries]
    names = [str(name) for name in entries[0].scores["metric"].values]
    shared = [n for n in names if all(n in defined and defined[n] == definitions[0].get(n) for defined in definitions)]
    built = dict(build_metrics({name: definitions[0][name] for name in shared}))
    climatologies = {str(entry.scores.attrs.get("climatology")) for entry in entries}
    notes = []
    if len(climatologies) > 1:
        needing = [name for name, metric in built.items() if metric.needs]
        built = {name: metric for name, metric in built.items() if name not in needing}
        notes += [f"{', '.join(needing)} left out: the climatologies differ."] if needing else []
    all_names = dict.fromkeys(str(n) for entry in entries for n in entry.scores["metric"].values)
    absent = [name for name in all_names if name not in shared]
    notes += [f"{', '.join(absent)} left out: not in all, or defined differently."] if absent else []
    if not built:
        raise ValueError(f"Nothing to compare: {'; '.join(notes) or 'the evaluations share no metric'}.")
    return built, notes


def _on_shared_inits(
    entries: dict[str, StoredEvaluation], metrics: Mapping[str, Any]
) -> tuple[dict[str, StoredEvaluation], dict[str, tuple[xr.Dataset, xr.Dataset | None]], int, list[str]]:
    """Entries and the baselines of the first on the initial times that all have."""
    first = next(iter(entries.values()))
    spellings = {str(entry.scores.attrs.get("inits_used")) for entry in entries.values()}
    counts = {tuple(entry.scores["inits"].values) for entry in entries.values()}
    if len(spellings) == len(counts) == 1 and first.scores.attrs.get("inits_used"):
        return entries, dict(first.baselines), int(first.scores["inits"].max()), []
    without = [entry.name for entry in entries.values() if entry.by_init is None]
    if without:
        raise ValueError(
            f"The initial times differ, and {', '.join(without)} kept no statistics of each (by_init.nc); score them "
            "again with a significance.level, or all on the same inits=."
        )
    times = [entry.by_init["time"].values for entry in entries.values() if entry.by_init is not None]
    shared = reduce(np.intersect1d, times)
    if not shared.size:
        raise ValueError(f"{', '.join(entries)} share no initial time; score them on the same inits=.")
    notes = [
        f"{name}: {len(inits) - shared.size} of {len(inits)} initial times are not in all and were left out."
        for name, inits in zip(entries, times, strict=True)
        if len(inits) > shared.size
    ]
    if any(entry.spectra is not None for entry in entries.values()):
        notes.append("Spectra are those of all initial times of each evaluation.")

    def cut(by_init: xr.Dataset, like: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
        subset = by_init.sel(time=shared)
        scores = scores_of(subset, metrics).assign_attrs(like.attrs)
        for name in scores.coords:
            scores[name].attrs.update(like[name].attrs if name in like.coords else {})
        return scores, subset

    cut_entries = {}
    for name, entry in entries.items():
        assert entry.by_init is not None
        scores, subset = cut(entry.by_init, entry.scores)
        cut_entries[name] = replace(entry, scores=scores, by_init=subset)
    complete = {
        n: (s, b) for n, (s, b) in first.baselines.items() if b is not None and np.isin(shared, b["time"]).all()
    }
    return cut_entries, {n: cut(b, s) for n, (s, b) in complete.items() if b is not None}, int(shared.size), notes


def _on_shared_labels(
    entries: dict[str, StoredEvaluation],
    beside: dict[str, tuple[xr.Dataset, xr.Dataset | None]],
    metrics: Mapping[str, Any],
) -> tuple[dict[str, StoredEvaluation], dict[str, tuple[xr.Dataset, xr.Dataset | None]], list[str]]:
    """Entries cut to the variables, levels, leads and regions that all have, and what was left out."""
    datasets = [entry.scores for entry in entries.values()]
    variables = [name for name in datasets[0].data_vars if all(name in scores for scores in datasets)]
    if not variables:
        raise ValueError(f"{', '.join(entries)} share no variable.")
    dims = [dim for dim in ("region", "lead_time", "level") if all(dim in scores.coords for scores in datasets)]
    shared = {dim: reduce(np.intersect1d, [scores[dim].values for scores in datasets]) for dim in dims}
    notes = []
    absent = dict.fromkeys(str(n) for scores in datasets for n in scores.data_vars if n not in variables)
    notes += [f"Variables left out, since not all have them: {', '.join(absent)}."] if absent else []
    for dim, labels in shared.items():
        if not labels.size:
            raise ValueError(f"{', '.join(entries)} share no {dim.replace('_', ' ')}.")
        dropped = max(len(scores[dim]) for scores in datasets) - labels.size
        words = {"lead_time": "lead times", "region": "regions", "level": "levels"}[dim]
        notes += [f"{dropped} {words} left out, since not all have them."] if dropped else []
    order = {dim: datasets[0][dim].values[np.isin(datasets[0][dim].values, labels)] for dim, labels in shared.items()}

    def cut(dataset: xr.Dataset) -> xr.Dataset:
        indexers = {dim: labels for dim, labels in order.items() if dim in dataset.dims}
        names = [name for name in variables if name in dataset]
        subset = dataset[names].sel(
            {dim: labels[np.isin(labels, dataset[dim].values)] for dim, labels in indexers.items()}
        )
        if "metric" in dataset.dims:
            subset = subset.sel(metric=[name for name in metrics if name in dataset["metric"].values])
        return subset.assign_attrs(dataset.attrs)

    def cut_or_none(dataset: xr.Dataset | None) -> xr.Dataset | None:
        return None if dataset is None else cut(dataset)

    cut_entries = {n: replace(e, scores=cut(e.scores), by_init=cut_or_none(e.by_init)) for n, e in entries.items()}
    return cut_entries, {n: (cut(s), cut_or_none(b)) for n, (s, b) in beside.items()}, notes


def _judged(
    entries: Mapping[str, StoredEvaluation],
    baseline: str,
    reference: xr.Dataset | None,
    metrics: Mapping[str, Any],
    region: str | None,
    significance: Significance,
) -> tuple[xr.Dataset | None, list[str]]:
    """Differences of each run to the baseline in one region, dimension `source` the run."""
    without = [entry.name for entry in entries.values() if entry.by_init is None]
    if reference is None or without:
        missing = ", ".join(without) or baseline
        return None, [f"Significance is not known: no statistics of each initial time (by_init.nc) of {missing}."]
    where = [region or str(reference["region"].values[0])]
    by_run = {}
    for name, entry in entries.items():
        if name != baseline and entry.by_init is not None:
            difference = differences(
                entry.by_init.sel(region=where), {baseline: reference.sel(region=where)}, metrics, significance
            )
            assert difference is not None
            by_run[name] = difference.sel(source=baseline, drop=True)
    if not by_run:
        return None, []
    joined = along(by_run, "source")
    joined.attrs = {**next(iter(by_run.values())).attrs, "baseline": baseline}
    return joined, []


def side_by_side(parts: Mapping[str, xr.Dataset], like: xr.Dataset) -> xr.Dataset | None:
    """Scores of several sources in one Dataset, dimension `source` first, metrics as in `like`, then those of ensembles
    that `like` has not; None for no source."""
    import xarray as xr

    if not parts:
        return None
    datasets = [like, *parts.values()]
    metrics = list(dict.fromkeys(str(metric) for dataset in datasets for metric in dataset["metric"].values))
    aligned = [dataset.drop_vars("inits").reindex(metric=metrics) for dataset in parts.values()]
    source = xr.DataArray(list(parts), dims="source", name="source")
    joined = xr.concat(aligned, dim=source, combine_attrs="override")
    counts = np.stack([dataset["inits"].values for dataset in parts.values()])
    joined = joined.assign_coords(inits=(("source", "lead_time"), counts))
    joined.attrs = {name: value for name, value in like.attrs.items() if name not in OF_ONE_FORECAST}
    for name in ("perfect", "exponent"):
        definitions = [json.loads(dataset.attrs[name]) for dataset in reversed(datasets) if name in dataset.attrs]
        joined.attrs[name] = json.dumps(
            {metric: value for definition in definitions for metric, value in definition.items()}
        )
    if "level" in joined.coords:
        joined["level"].attrs.update(like["level"].attrs)
    return joined


def along(parts: Mapping[str, xr.Dataset], dim: str) -> xr.Dataset:
    """Datasets of the same shape along a new first dimension `dim`, labelled by name; no attributes."""
    import xarray as xr

    return xr.concat(
        list(parts.values()), dim=xr.DataArray(list(parts), dims=dim, name=dim), combine_attrs="drop", join="outer"
    )


def same_errors(first: xr.Dataset, second: xr.Dataset, tolerance: float) -> bool | None:
    """True where the squared errors in two by_init.nc agree wherever both have them; None where they share none."""
    import xarray as xr

    if not all("squared_error" in dataset["statistic"].values for dataset in (first, second)):
        return None
    a, b = xr.align(first.sel(statistic="squared_error"), second.sel(statistic="squared_error"), join="inner")
    shared = [name for name in a.data_vars if name in b]
    if not shared or not all(a.sizes.values()):
        return None
    return all(np.allclose(a[name], b[name], rtol=tolerance, equal_nan=True) for name in shared)
