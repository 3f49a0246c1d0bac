"""Baselines of an evaluation: forecasts that anyone has, or those of another store, on the same initial times."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from data_pipelines.conventions.periods import bounds
from data_pipelines.opening.forecasts import open_forecast
from data_pipelines.verification.baselines import Known, OtherForecast, SampledYears
from data_pipelines.verification.score_files import read_budgets, read_scores
from emulators.state import State

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.verification.pairs import Pair, Pairs
    from data_pipelines.verification.truth import Normals


SAMPLED = "probabilistic_climatology"
NAMES = ("persistence", "climatology", SAMPLED)
FILES = ("forecast.zarr", "forecast.nc")
Normal = Mapping[str, Tensor]


@dataclass(frozen=True)
class Baseline:
    """metrics: what it is scored by. forecasts: of a pair, given its normal fields: forecasts, and of which rows."""

    metrics: Mapping[str, Any]
    forecasts: Callable[[Pair, Normal], Iterator[Known]]


def named(entries: Sequence[Any]) -> dict[str, str | None]:
    """By name the store of each entry, None for those that need none; ValueError for what is neither."""
    found: dict[str, str | None] = {}
    for entry in entries:
        for name, path in ({entry: None} if isinstance(entry, str) else dict(entry)).items():
            known = name in NAMES if path is None else re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", str(name))
            if not known or (path is not None and name in (*RESERVED, SAMPLED)):
                raise ValueError(
                    f"baselines: expected some of {', '.join(NAMES)}, or other forecasts by a name of their own, such "
                    f"as {{hres: hres.zarr}}; got {name}{'' if path is None else f': {path}'}."
                )
            found[str(name)] = None if path is None else str(path)
    return found


def baselines(
    entries: Sequence[Any],
    pairs: Pairs,
    metrics: Mapping[str, Any],
    climatology: Normals | None,
    years: tuple[int, int] | None,
    megabytes: float,
    strict: bool = True,
) -> tuple[dict[str, Baseline], list[str]]:
    """The baselines asked for by name, and what a reader must know of them.

    years: first and last that a probabilistic climatology samples. strict: ValueError where the truth lacks them, in
    place of a note.
    """
    found: dict[str, Baseline] = {}
    notes: list[str] = []
    single = {name: metric for name, metric in metrics.items() if metric.members < 2}
    absolute = {name: metric for name, metric in single.items() if not metric.needs}
    for name, path in named(entries).items():
        if path is not None:
            other = OtherForecast(open_forecast(_store(path)), pairs, f"The baseline {name} ({path})")
            found[name] = Baseline(metrics, _of_pair(other))
            notes += _lacking(name, other, pairs)
        elif name == "persistence" and single:
            found[name] = Baseline(single, _persistence)
            if (pairs.starts < 0).any():
                missing = int((pairs.starts < 0).sum())
                notes.append(f"Persistence lacks the truth at {missing} of {len(pairs.inits)} initial times.")
        elif name == "climatology" and absolute and climatology is not None:
            found[name] = Baseline(absolute, _climatology)
        elif name == SAMPLED and years is None:
            notes.append(f"{SAMPLED} left out: no training period is known; give sampled_years=[1990,2019].")
        elif name == SAMPLED and years is not None:
            try:
                sampled = SampledYears(pairs, years, megabytes)
            except ValueError as error:
                if strict:
                    raise
                notes.append(f"{SAMPLED} left out: {error}")
                continue
            found[name] = Baseline(metrics, _of_pair(sampled))
            if sampled.left_out:
                some = ", ".join(map(str, sampled.left_out[:4])) + (", ..." if len(sampled.left_out) > 4 else "")
                notes.append(
                    f"{SAMPLED} has {len(sampled.years)} members; {some} are the forecast's own or lack a field."
                )
    return found, notes


def sampled_years(asked: Any, splits: Mapping[str, Any]) -> tuple[int, int] | None:
    """First and last year asked for, else those of the training period."""
    if asked is None and splits.get("train") is None:
        return None
    period = bounds([str(year) for year in (splits["train"] if asked is None else asked)])
    first, last = (int(time.astype("datetime64[Y]").astype(int)) + 1970 for time in period)
    return first, last


def _of_pair(source: SampledYears | OtherForecast) -> Callable[[Pair, Normal], Iterator[Known]]:
    return lambda pair, normal: source(pair)


def _persistence(pair: Pair, normal: Normal) -> Iterator[Known]:
    if pair.start is not None:
        yield pair.start, np.flatnonzero(pair.known)


def _climatology(pair: Pair, normal: Normal) -> Iterator[Known]:
    yield State(normal["mean"], pair.target.variables, pair.target.time), np.arange(len(pair.inits))


def _store(path: str) -> Path | str:
    """The store in the folder of a forecast, or what is named itself."""
    inside = [Path(path) / name for name in FILES if "://" not in path and (Path(path) / name).exists()]
    return inside[0] if inside else path


def _lacking(name: str, other: OtherForecast, pairs: Pairs) -> list[str]:
    found = []
    if other.lacking:
        found.append(f"{name} lacks {other.lacking} of the {pairs.total} pairs of initial time and lead.")
    if other.absent:
        found.append(f"{name} lacks {', '.join(other.absent[:8])}{' and more' if len(other.absent) > 8 else ''}.")
    return found


RESERVED = ("forecast", "truth", "persistence", "climatology", "predictability", "saturation")  # lines of the report


@dataclass(frozen=True)
class Beside:
    """Another forecast, as far as `emul forecast` scored it and kept account of its budgets."""

    scores: xr.Dataset | None
    budgets: xr.Dataset | None


def forecasts_beside(chosen: Mapping[Any, Any]) -> dict[str, Beside]:
    """By name what is known of forecasts; chosen: name -> folder. ValueError, FileNotFoundError where nothing is."""
    return {str(name): _opened(str(name), Path(folder)) for name, folder in chosen.items()}


def _opened(name: str, folder: Path) -> Beside:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name) or name in RESERVED:
        raise ValueError(f"beside: a name is of letters and digits, none of {', '.join(RESERVED)}; got '{name}'.")
    scores = read_scores(folder / "scores.nc") if (folder / "scores.nc").is_file() else None
    budgets = read_budgets(folder)
    if scores is None and budgets is None:
        raise FileNotFoundError(
            f"beside.{name}: no scores.nc and no budgets.nc in {folder}; give a folder of `emul forecast`."
        )
    return Beside(scores, budgets)
