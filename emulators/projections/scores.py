"""Score projections as ClimateBench does, and show how far the score is luck of the members that are the truth.

With y the mean of M members, <> the mean over the sphere (cosine of latitude) and an overbar that over the period,

    NRMSE_s = sqrt <(overbar p - overbar y)^2> / |<overbar y>|,
    NRMSE_g = sqrt overbar (<p> - <y>)^2 / |<overbar y>|,    total = NRMSE_s + 5 NRMSE_g

(Watson-Parris et al. 2022, doi 10.1029/2021MS002954). Internal variability leaves in y a variance that falls as 1 / M:
with few members even the forced response itself would not score zero, and which of two emulators wins can be luck
(Lütjens et al. 2025, arXiv 2408.05288). Scores against the means of members drawn without replacement show both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

PENALTY = 5.0  # weight of the global score in the total
INTERVAL = (5.0, 95.0)  # percentiles of the draws that tables and pictures show


@dataclass(frozen=True)
class Score:
    """Hold the three scores; of several draws each is an array."""

    spatial: np.ndarray
    globe: np.ndarray
    total: np.ndarray


def nrmse(prediction: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> Score:
    """Score maps of the years of the period. prediction, truth: (year, lat, lon). weights: (lat, 1), mean 1."""
    return _scored(*_parts(prediction, weights), *_parts(truth, weights), weights)


def _parts(maps: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean over the years (..., lat, lon), and the area mean of every year (..., year)."""
    maps = np.asarray(maps, dtype=np.float64)
    return maps.mean(axis=-3), (maps * weights).mean(axis=(-2, -1))


def _scored(
    pattern: np.ndarray, series: np.ndarray, true_pattern: np.ndarray, true_series: np.ndarray, weights: np.ndarray
) -> Score:
    size = np.abs(true_series.mean(axis=-1))
    spatial = np.sqrt(((pattern - true_pattern) ** 2 * weights).mean(axis=(-2, -1))) / size
    globe = np.sqrt(((series - true_series) ** 2).mean(axis=-1)) / size
    return Score(spatial, globe, spatial + PENALTY * globe)


@dataclass(frozen=True)
class MemberStudy:
    """Hold total scores against means of few members.

    counts: numbers of members averaged. totals: {emulator: {members: (draw,)}}. floor: {members: the NRMSE_s that the
    forced response itself would be expected to have}.
    """

    counts: tuple[int, ...]
    totals: Mapping[str, Mapping[int, np.ndarray]]
    floor: Mapping[int, float]

    def wins(self, first: str, second: str, members: int) -> float:
        """Return the share of the draws in which `first` scores lower than `second`."""
        return float((self.totals[first][members] < self.totals[second][members]).mean())

    def members_needed(self, first: str, second: str, certainty: float = 0.95) -> int | None:
        """Return the least number of members from which on the same emulator wins in this share of the draws.

        None where no number that was drawn suffices.
        """
        drawn = [count for count in self.counts if self.totals[first][count].size > 1]
        ahead = {count: self.wins(first, second, count) for count in drawn}
        behind = {count: self.wins(second, first, count) for count in drawn}
        for wins in (ahead, behind):
            enough = [count for count in drawn if all(wins[more] >= certainty for more in drawn if more >= count)]
            if enough:
                return enough[0]
        return None

    def pairs(self) -> list[tuple[str, str]]:
        """Return all pairs of emulators."""
        return list(combinations(self.totals, 2))


def member_study(
    projections: Mapping[str, np.ndarray], members: np.ndarray, weights: np.ndarray, draws: int = 500, seed: int = 0
) -> MemberStudy:
    """Score projections against means of 1 to half of the members, drawn without replacement, and of all of them.

    projections: {emulator: (year, lat, lon)}. members: (member, year, lat, lon). weights: (lat, 1), mean 1. draws: for
    each number. Means of more than half share most of their members, so that their spread would say nothing.
    """
    patterns, series = _parts(members, weights)
    projected = {name: _parts(maps, weights) for name, maps in projections.items()}
    count = len(members)
    counts = (*range(1, count // 2 + 1), count)
    random = np.random.default_rng(seed)
    totals: dict[str, dict[int, np.ndarray]] = {name: {} for name in projections}
    for number in counts:
        subsets = [random.permutation(count)[:number] for _ in range(draws if number < count else 1)]
        share = np.zeros((len(subsets), count))
        np.put_along_axis(share, np.array(subsets), 1.0 / number, axis=1)
        truth = [np.tensordot(share, patterns, axes=1), share @ series]
        for name, (pattern, line) in projected.items():
            totals[name][number] = _scored(pattern, line, truth[0], truth[1], weights).total
    return MemberStudy(counts, totals, _floor(patterns, series, weights, counts))


def _floor(patterns: np.ndarray, series: np.ndarray, weights: np.ndarray, counts: tuple[int, ...]) -> dict[int, float]:
    """The expected NRMSE_s of the forced response, by the variance between the members; NaN for a single one."""
    variance = (patterns.var(axis=0, ddof=1) * weights).mean() if len(patterns) > 1 else np.nan
    return {number: float(np.sqrt(variance / number) / np.abs(series.mean())) for number in counts}
