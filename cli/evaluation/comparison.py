"""What `emul eval compare` compares: evaluations of the same truth and grid, brought to what they share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from data_pipelines.verification.score_files import along, read_by_init, read_scores, read_spectra, same_errors
from emul.config.build import build_all
from emulators.statistics.bootstrap import Bootstrap
from emulators.verification.by_init import differences, scores_of

if TYPE_CHECKING:
    import xarray as xr


SAME = ("grid", "weights", "averaging", "points_left_out")  # attributes in which evaluations must agree
CLOSE = 1e-5  # of the squared error of persistence: by how much it may differ where the truth is the same


@dataclass(frozen=True)
class Entry:
    """One evaluation. by_init: what each initial time added; baselines: (scores, by_init) of its baselines by name."""

    name: str
    folder: Path
    scores: xr.Dataset
    by_init: xr.Dataset | None
    spectra: xr.Dataset | None
    baselines: Mapping[str, tuple[xr.Dataset, xr.Dataset | None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """Evaluations on what they share.

    runs: by name, in the order given. beside: scores of the baselines of the first. baseline: what differences are
    taken to. judged: differences of each run to it, dimension `source` the run; None where they cannot be judged.
    inits: how many. notes: what was left out, and why.
    """

    runs: dict[str, Entry]
    beside: dict[str, xr.Dataset]
    baseline: str
    judged: xr.Dataset | None
    inits: int
    notes: list[str]

    @property
    def reference(self) -> xr.Dataset:
        """The scores of the baseline."""
        return self.runs[self.baseline].scores if self.baseline in self.runs else self.beside[self.baseline]


def compared(
    words: Sequence[str], output: Path, baseline: str | None, region: str | None, bootstrap: Bootstrap
) -> Comparison:
    """Open and match evaluations; ValueError or FileNotFoundError says what cannot be compared."""
    if len(words) < 2:
        raise ValueError("Nothing to compare: give two or more evaluations, `emul eval compare a b`.")
    entries = _named([_folder(word, output) for word in words])
    first, *others = entries.values()
    notes: list[str] = []
    for other in others:
        _refuse_other(first, other)
    metrics, told = _metrics(list(entries.values()))
    entries, beside, inits, more = _on_shared_inits(entries, metrics)
    entries, beside, less = _on_shared_labels(entries, beside, metrics)
    baseline = baseline or first.name
    if baseline not in entries and baseline not in beside:
        raise ValueError(f"baseline={baseline}: expected one of {', '.join([*entries, *beside])}.")
    comparison = Comparison(entries, {n: s for n, (s, _) in beside.items()}, baseline, None, inits, notes)
    reference = entries[baseline].by_init if baseline in entries else beside[baseline][1]
    regions = first.scores["region"].values.tolist()
    if region is not None and region not in next(iter(entries.values())).scores["region"].values:
        raise ValueError(f"region={region}: expected one that all share, of {', '.join(regions)}.")
    judged, unjudged = _judged(entries, baseline, reference, metrics, region, bootstrap)
    notes.extend([*told, *more, *less, *unjudged])
    return replace(comparison, judged=judged)


def _folder(word: str, output: Path) -> Path:
    """The folder of an evaluation by its path, its name, or the run that it scored."""
    for candidate in (Path(word), output / "eval" / Path(word).name):
        if (candidate / "scores.nc").is_file() and "forecast" not in candidate.parts[-2:-1]:
            return candidate
    raise FileNotFoundError(
        f"No evaluation called '{word}': expected a folder with scores.nc, or {output / 'eval' / Path(word).name}; "
        "make it with `emul eval`."
    )


def _named(folders: Sequence[Path]) -> dict[str, Entry]:
    names = [folder.resolve().name for folder in folders]
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"An evaluation is named twice: {', '.join(map(str, folders))}.")
    if len(set(names)) < len(names):  # folders of the same name in different places
        names = ["/".join(folder.resolve().parts[-3:]) for folder in folders]
    return {name: _opened(name, folder) for name, folder in zip(names, folders, strict=True)}


def _opened(name: str, folder: Path) -> Entry:
    scores, by_init = read_scores(folder / "scores.nc"), read_by_init(folder / "by_init.nc")
    baselines: dict[str, tuple[xr.Dataset, xr.Dataset | None]] = {}
    if (folder / "baselines.nc").is_file():
        stored = read_scores(folder / "baselines.nc")
        baselines = {str(s): (stored.sel(source=s, drop=True), by_init.get(str(s))) for s in stored["source"].values}
    return Entry(name, folder, scores, by_init.get("forecast"), read_spectra(folder / "scores.nc"), baselines)


def _refuse_other(first: Entry, other: Entry) -> None:
    """ValueError where two evaluations measure different things."""
    for key in SAME:
        a, b = (str(entry.scores.attrs.get(key, "unknown")) for entry in (first, other))
        if a != b:
            raise ValueError(
                f"{first.name} and {other.name} cannot be compared: {key.replace('_', ' ')} is {a} in one and {b} in "
                "the other; score both alike."
            )
    a, b = (str(entry.scores.attrs.get("truth", "unknown")) for entry in (first, other))
    same = _same_persistence(first, other)
    if (a != b and not same) or same is False:
        why = f"{a} and {b}" if a != b else f"{a}, which gives persistence other scores: it has changed in between"
        raise ValueError(f"{first.name} and {other.name} cannot be compared: their truths differ ({why}).")


def _same_persistence(first: Entry, other: Entry) -> bool | None:
    """Whether persistence, which is made of the truth alone, has the same errors at the initial times that both have;
    None where that is unknown."""
    mine, theirs = (entry.baselines.get("persistence", (None, None))[1] for entry in (first, other))
    return None if mine is None or theirs is None else same_errors(mine, theirs, CLOSE)


def _metrics(entries: Sequence[Entry]) -> tuple[dict[str, Any], list[str]]:
    """The metrics that all have with the same definition (and climatology, where they need one), built; and notes."""
    found = [json.loads(entry.scores.attrs.get("metrics", "{}")) for entry in entries]
    names = [str(name) for name in entries[0].scores["metric"].values]
    shared = [n for n in names if all(n in one and one[n] == found[0].get(n) for one in found)]
    built = build_all(OmegaConf.create({name: found[0][name] for name in shared}))
    climatologies = {str(entry.scores.attrs.get("climatology")) for entry in entries}
    notes = []
    if len(climatologies) > 1:
        needing = [name for name, metric in built.items() if metric.needs]
        built = {name: metric for name, metric in built.items() if name not in needing}
        notes += [f"{', '.join(needing)} left out: the climatologies differ."] if needing else []
    every = dict.fromkeys(str(n) for entry in entries for n in entry.scores["metric"].values)
    absent = [name for name in every if name not in shared]
    notes += [f"{', '.join(absent)} left out: not in all, or defined differently."] if absent else []
    if not built:
        raise ValueError(f"Nothing to compare: {'; '.join(notes) or 'the evaluations share no metric'}.")
    return built, notes


def _on_shared_inits(
    entries: dict[str, Entry], metrics: Mapping[str, Any]
) -> tuple[dict[str, Entry], dict[str, tuple[xr.Dataset, xr.Dataset | None]], int, list[str]]:
    """Entries and the baselines of the first on the initial times that all have."""
    first = next(iter(entries.values()))
    spoken = {str(entry.scores.attrs.get("inits_used")) for entry in entries.values()}
    counts = {tuple(entry.scores["inits"].values) for entry in entries.values()}
    if len(spoken) == len(counts) == 1 and first.scores.attrs.get("inits_used"):
        return entries, dict(first.baselines), int(first.scores["inits"].max()), []
    without = [entry.name for entry in entries.values() if entry.by_init is None]
    if without:
        raise ValueError(
            f"The initial times differ, and {', '.join(without)} kept no statistics of each (by_init.nc); score them "
            "again with significance.resamples above 0, or all on the same inits=."
        )
    times = [entry.by_init["time"].values for entry in entries.values() if entry.by_init is not None]
    shared = reduce(np.intersect1d, times)
    if not shared.size:
        raise ValueError(f"{', '.join(entries)} share no initial time; score them on the same inits=.")
    notes = [
        f"{name}: {len(own) - shared.size} of {len(own)} initial times are not in all and were left out."
        for name, own in zip(entries, times, strict=True)
        if len(own) > shared.size
    ]
    if any(entry.spectra is not None for entry in entries.values()):
        notes.append("Spectra are those of all initial times of each evaluation.")

    def cut(by_init: xr.Dataset, like: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
        some = by_init.sel(time=shared)
        return scores_of(some, metrics).assign_attrs(like.attrs), some

    made = {}
    for name, entry in entries.items():
        assert entry.by_init is not None
        scores, some = cut(entry.by_init, entry.scores)
        made[name] = replace(entry, scores=scores, by_init=some)
    there = {n: (s, b) for n, (s, b) in first.baselines.items() if b is not None and np.isin(shared, b["time"]).all()}
    return made, {n: cut(b, s) for n, (s, b) in there.items() if b is not None}, int(shared.size), notes


def _on_shared_labels(
    entries: dict[str, Entry], beside: dict[str, tuple[xr.Dataset, xr.Dataset | None]], metrics: Mapping[str, Any]
) -> tuple[dict[str, Entry], dict[str, tuple[xr.Dataset, xr.Dataset | None]], list[str]]:
    """Entries cut to the variables, levels, leads and regions that all have, and what was left out."""
    every = [entry.scores for entry in entries.values()]
    variables = [name for name in every[0].data_vars if all(name in scores for scores in every)]
    if not variables:
        raise ValueError(f"{', '.join(entries)} share no variable.")
    dims = [dim for dim in ("region", "lead_time", "level") if all(dim in scores.coords for scores in every)]
    shared = {dim: reduce(np.intersect1d, [scores[dim].values for scores in every]) for dim in dims}
    notes = []
    absent = dict.fromkeys(str(n) for scores in every for n in scores.data_vars if n not in variables)
    notes += [f"Variables left out, since not all have them: {', '.join(absent)}."] if absent else []
    for dim, kept in shared.items():
        if not kept.size:
            raise ValueError(f"{', '.join(entries)} share no {dim.replace('_', ' ')}.")
        gone = max(len(scores[dim]) for scores in every) - kept.size
        words = {"lead_time": "lead times", "region": "regions", "level": "levels"}[dim]
        notes += [f"{gone} {words} left out, since not all have them."] if gone else []
    order = {dim: every[0][dim].values[np.isin(every[0][dim].values, kept)] for dim, kept in shared.items()}

    def cut(dataset: xr.Dataset) -> xr.Dataset:
        there = {dim: kept for dim, kept in order.items() if dim in dataset.dims}
        names = [name for name in variables if name in dataset]
        chosen = dataset[names].sel({dim: kept[np.isin(kept, dataset[dim].values)] for dim, kept in there.items()})
        if "metric" in dataset.dims:
            chosen = chosen.sel(metric=[name for name in metrics if name in dataset["metric"].values])
        return chosen.assign_attrs(dataset.attrs)

    def cut_or_none(dataset: xr.Dataset | None) -> xr.Dataset | None:
        return None if dataset is None else cut(dataset)

    made = {n: replace(e, scores=cut(e.scores), by_init=cut_or_none(e.by_init)) for n, e in entries.items()}
    return made, {n: (cut(s), cut_or_none(b)) for n, (s, b) in beside.items()}, notes


def _judged(
    entries: Mapping[str, Entry],
    baseline: str,
    reference: xr.Dataset | None,
    metrics: Mapping[str, Any],
    region: str | None,
    bootstrap: Bootstrap,
) -> tuple[xr.Dataset | None, list[str]]:
    """Differences of each run to the baseline in one region, dimension `source` the run."""
    without = [entry.name for entry in entries.values() if entry.by_init is None]
    if reference is None or without:
        who = ", ".join(without) or baseline
        return None, [f"Significance is not known: no statistics of each initial time (by_init.nc) of {who}."]
    where = [region or str(reference["region"].values[0])]
    found = {}
    for name, entry in entries.items():
        if name != baseline and entry.by_init is not None:
            one = differences(
                entry.by_init.sel(region=where), {baseline: reference.sel(region=where)}, metrics, bootstrap
            )
            assert one is not None
            found[name] = one.sel(source=baseline, drop=True)
    if not found:
        return None, []
    joined = along(found, "source")
    lengths = np.concatenate([joined[name].sel(estimate="block_length").values.ravel() for name in joined.data_vars])
    lengths = lengths[lengths > 0]
    spread = f"{lengths.min():g} to {lengths.max():g} initial times" if lengths.size else "none: too few initial times"
    joined.attrs = {**next(iter(found.values())).attrs, "block_length": spread, "baseline": baseline}
    return joined, []
