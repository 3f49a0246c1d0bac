"""What networks have seen: dates of training and choice, ranges of channels; and forecasts whose scores they flatter.

Weather is remembered for some days: a forecast that begins shortly before or after a date that a network was trained on
is of weather that it has partly seen. `Guards` say what is done about forecasts that a run should not be trusted with
for that reason, or because their analyses are unlike those of training, their forcing is known to the future alone, or
they drift from training (`data_pipelines.forecasts.checks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from data_pipelines.conventions.durations import bounds, length
from emulators.world import Scale

if TYPE_CHECKING:
    from data_pipelines.batches.archive import Archive


Period = tuple[str, str]
ROLES = ("train", "validation")
Mode = Literal["mark", "refuse", "ignore"]
Marks = dict[str, list[str]]  # kind of guard -> sentences
KINDS = ("training_dates", "ranges", "future_forcing", "drift")


@dataclass(frozen=True)
class SeenDates:
    """Hold the periods, first and last time, that a network was trained on, and by which its best weights were chosen.

    unknown: names of weights in it of which nobody says when they were trained.
    """

    train: tuple[Period, ...] = ()
    validation: tuple[Period, ...] = ()
    unknown: tuple[str, ...] = ()

    def plain(self) -> dict[str, list[Any]]:
        """Return the dates as lists, for a checkpoint or a manifest."""
        return {
            **{role: [list(period) for period in self.of(role)] for role in ROLES},
            "unknown": list(self.unknown),
        }

    def of(self, role: str) -> tuple[Period, ...]:
        """Return the periods of `train` or `validation`."""
        return self.train if role == "train" else self.validation


def seen_from_plain(plain: Mapping[str, Any] | None) -> SeenDates:
    """Return the dates that `SeenDates.plain` wrote; none from None, as of a checkpoint without them."""
    plain = plain or {}
    train, validation = (tuple((str(first), str(last)) for first, last in plain.get(role, ())) for role in ROLES)
    return SeenDates(train, validation, tuple(plain.get("unknown", ())))


def together(several: Iterable[SeenDates]) -> SeenDates:
    """Return what several networks have seen between them, each period once."""
    parts = list(several)
    train, validation = (tuple(dict.fromkeys(p for part in parts for p in part.of(role))) for role in ROLES)
    return SeenDates(train, validation, tuple(dict.fromkeys(name for part in parts for name in part.unknown)))


def seen_in_splits(archive: Archive, splits: Mapping[str, Sequence[str | int]]) -> SeenDates:
    """Return the first and last times of an archive in its splits for training and validation."""
    periods: dict[str, tuple[Period, ...]] = {}
    for role in ROLES:
        times = archive.times[archive.within(splits[role])] if splits.get(role) else archive.times[:0]
        periods[role] = ((str(times.min()), str(times.max())),) if times.size else ()
    return SeenDates(periods["train"], periods["validation"])


def seen_of_card(card: Mapping[str, Any]) -> SeenDates:
    """Return what the weights of a checkpoint have seen, with those of the networks that its Step holds."""
    return together(
        [seen_from_plain(card.get("seen")), *(seen_of_card(part) for part in card.get("parts", {}).values())]
    )


def seen_of_published(card: Mapping[str, Any] | None, file: str) -> SeenDates:
    """Return the dates that published weights have seen, by their card; unknown where it does not say."""
    if not card or not card.get("train"):
        return SeenDates(unknown=(Path(file).name,))
    return seen_from_plain({role: card.get(role) or () for role in ROLES})


def ranges_seen(now: Mapping[str, Scale], earlier: Mapping[str, Scale], trained: bool = True) -> dict[str, Scale]:
    """Return the scales with the ranges of what weights have seen: `earlier`, before this training, and now.

    trained: False where this training has no step, so that only what was earlier counts.
    """
    scales = {}
    for channel, scale in now.items():
        before = earlier[channel].extent if channel in earlier else ()
        extent = scale.extent if trained else before
        if trained and before and extent:
            pairs = zip(before, extent, (min, max, min, max), strict=True)
            extent = tuple(extreme(a, b) for a, b, extreme in pairs)
        scales[channel] = replace(scale, extent=extent)
    return scales


def overlaps(seen: SeenDates, inits: np.ndarray, longest: np.timedelta64, adjacent: np.timedelta64) -> list[str]:
    """Return a sentence for each way in which forecasts from `inits`, datetime64[s], are of dates seen in training.

    longest: lead time. adjacent: length of time before and after a training in which weather is still remembered.
    """
    inits = inits.astype("datetime64[s]")
    until = inits + longest
    within, near, validated = (np.zeros(inits.size, dtype=bool) for _ in range(3))
    for start, end in (bounds(period) for period in seen.train):
        within |= (inits <= end) & (until >= start)
        near |= (inits <= end + adjacent) & (until + adjacent >= start)
    for start, end in (bounds(period) for period in seen.validation):
        validated |= (inits <= end) & (until >= start)
    sentences, of = [], f"of {inits.size} forecasts are of times"
    if within.any():
        first = inits[within].min().astype("datetime64[h]")
        sentences.append(
            f"{within.sum()} {of} that the run was trained on, the first from {first}: their scores flatter."
        )
    if (near & ~within).any():
        days = adjacent / np.timedelta64(1, "D")
        sentences.append(
            f"{(near & ~within).sum()} {of} within {days:g} days of its training: their scores may flatter."
        )
    if (validated & ~within).any():
        sentences.append(f"{(validated & ~within).sum()} {of} by which its best weights were chosen.")
    if seen.unknown:
        sentences.append(f"Nobody says on which dates {', '.join(seen.unknown)} was trained: forecasts may be of them.")
    return sentences


@dataclass(frozen=True)
class Guards:
    """Say what is done about a forecast that its run should not be trusted with: mark, refuse, or ignore it.

    training_dates: it is of dates that the run was trained on, or within `adjacent` of them. ranges: the analysis it
    starts from is unlike those of training. future_forcing: it reads what is known only after it is made. drift: it
    leaves the values, the area means or the power at small scales of training on its way; refuse: it stops there.
    """

    training_dates: Mode = "mark"
    ranges: Mode = "mark"
    future_forcing: Mode = "mark"
    drift: Mode = "mark"
    adjacent: str = "5d"

    def __post_init__(self) -> None:
        for kind in KINDS:
            if self.mode(kind) not in ("mark", "refuse", "ignore"):
                raise ValueError(f"guards.{kind}: expected mark, refuse or ignore; got '{self.mode(kind)}'.")

    def mode(self, kind: str) -> str:
        """Return what is done about one of KINDS."""
        return str(vars(self)[kind])

    def on_dates(self, seen: SeenDates, inits: np.ndarray, longest: np.timedelta64) -> list[str]:
        """Return a sentence for each way in which forecasts are of dates that the run has seen."""
        return [] if self.training_dates == "ignore" else overlaps(seen, inits, longest, length(self.adjacent))

    def allowed(self, marks: Mapping[str, Sequence[str]]) -> list[str]:
        """Return the sentences that are only marked; ValueError with those whose guard refuses."""
        for kind in KINDS:
            if self.mode(kind) == "refuse" and marks.get(kind):
                raise ValueError(f"{' '.join(marks[kind])} guards.{kind}=mark goes on and says so in the results.")
        return [line for kind in KINDS if self.mode(kind) == "mark" for line in marks.get(kind, ())]
