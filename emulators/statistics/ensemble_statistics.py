"""Statistics of the members of an ensemble that merge: of thousands of members none needs to be kept.

    n = n_a + n_b,   d = mean_b - mean_a,   mean = mean_a + d n_b / n,   M2 = M2_a + M2_b + d^2 n_a n_b / n

(Chan, Golub & LeVeque 1983, doi 10.1080/00031305.1983.10483115). Quantiles come from a t-digest at every point
(Dunning & Ertl 2019, arXiv 1902.04023): sorted centroids, member k of n at q = (k + 1/2) / n in cell

    floor(C (1/2 + asin(2 q - 1) / pi))

of C, so that cells are small in the tails. Up to C members every member is its own centroid and quantiles are exact
(type 7 of Hyndman & Fan 1996, doi 10.1080/00031305.1996.10473566), and no weights are kept. Groups of members that are
merged in the same order give the same bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from emulators.variables import Variable, VariableSet

Arrays = dict[str, np.ndarray]
MOMENTS = {"": "mean", "_standard_deviation": "standard deviation", "_minimum": "minimum", "_maximum": "maximum"}


@dataclass(frozen=True)
class Event:
    """Describe an event: channel number `channel` is above (sign 1) or below (sign -1) `threshold`."""

    name: str
    text: str
    channel: int
    sign: int
    threshold: float


class EnsembleStatistics:
    """Compute mean, standard deviation (M - 1), extremes, quantiles and probabilities of events of predicted fields.

    variables: those of the members. quantiles: levels within 0..1. events: `channel > value` or `channel < value` by
    name, in the units of the data. cells: of the t-digest.
    """

    def __init__(
        self,
        variables: VariableSet,
        *,
        quantiles: Sequence[float] = (),
        events: Mapping[str, str] | None = None,
        cells: int = 200,
    ) -> None:
        if cells < 2 or not all(0.0 <= q <= 1.0 for q in quantiles):
            raise ValueError(
                f"Expected quantiles within 0..1 and 2 cells or more; got {list(quantiles)}, cells={cells}."
            )
        self.quantiles, self.cells = tuple(float(q) for q in quantiles), cells
        self.events = [event_of(name, text, variables) for name, text in (events or {}).items()]
        suffixes = [*MOMENTS, *(f"_quantile_{q:g}" for q in self.quantiles)]
        several = tuple(Variable(v.name + suffix, v.units, v.levels) for suffix in suffixes for v in variables)
        chances = tuple(Variable(f"probability_of_{event.name}", "1") for event in self.events)
        self.variables = VariableSet(several + chances)

    def partial(self, members: np.ndarray) -> Arrays:
        """Return the sums of a group of members, (member, ..., channel, lat, lon)."""
        count, mean = len(members), members.mean(axis=0, dtype=np.float64)
        sums: Arrays = {"count": np.array(count), "mean": mean}
        sums["m2"] = np.square(members - mean).sum(axis=0)
        sums["minimum"], sums["maximum"] = members.min(axis=0), members.max(axis=0)
        occurrences = [
            members[..., event.channel, :, :] * event.sign > event.threshold * event.sign for event in self.events
        ]
        if occurrences:
            sums["events"] = np.stack([occurred.sum(axis=0, dtype=np.int32) for occurred in occurrences], axis=-3)
        if self.quantiles:
            sums |= self._digest(np.sort(members, axis=0), np.ones(members.shape, np.float32))
        return sums

    def merged(self, first: Arrays, second: Arrays) -> Arrays:
        """Return the sums of two groups of members together."""
        a, b = int(first["count"]), int(second["count"])
        step = second["mean"] - first["mean"]
        sums: Arrays = {"count": np.array(a + b), "mean": first["mean"] + step * (b / (a + b))}
        sums["m2"] = first["m2"] + second["m2"] + np.square(step) * (a * b / (a + b))
        sums["minimum"] = np.minimum(first["minimum"], second["minimum"])
        sums["maximum"] = np.maximum(first["maximum"], second["maximum"])
        if self.events:
            sums["events"] = first["events"] + second["events"]
        if self.quantiles:
            centroids = np.concatenate([first["centroids"], second["centroids"]])
            weights = np.concatenate([_weights(first), _weights(second)])
            order = np.argsort(centroids, axis=0, kind="stable")
            sums |= self._digest(np.take_along_axis(centroids, order, 0), np.take_along_axis(weights, order, 0))
        return sums

    def fields(self, sums: Arrays) -> np.ndarray:
        """Return the statistics, float32 (..., channel of `variables`, lat, lon)."""
        count = int(sums["count"])
        spread = np.sqrt(sums["m2"] / (count - 1)) if count > 1 else np.full_like(sums["m2"], np.nan)
        statistics = [sums["mean"], spread, sums["minimum"], sums["maximum"]]
        statistics += [self._quantile(sums, level) for level in self.quantiles]
        statistics += [sums["events"] / count] if self.events else []
        return np.concatenate(statistics, axis=-3).astype(np.float32)

    def _digest(self, centroids: np.ndarray, weights: np.ndarray) -> Arrays:
        """Return sorted centroids and, unless all are 1, their weights, in `cells` cells at most.

        Empty cells, of weight 0, come last.
        """
        if len(centroids) <= self.cells and (weights == 1).all():
            return {"centroids": centroids}
        total = weights.sum(axis=0, dtype=np.float64)
        middle = (weights.cumsum(axis=0, dtype=np.float64) - weights / 2) / total
        cell = np.clip((self.cells * (0.5 + np.arcsin(2 * middle - 1) / np.pi)).astype(np.int64), 0, self.cells - 1)
        points = np.arange(total.size).reshape(total.shape)
        place = (cell * total.size + points).reshape(-1)
        size, shape = self.cells * total.size, (self.cells, *total.shape)
        weight = np.bincount(place, weights.reshape(-1), size).reshape(shape)
        value = np.bincount(
            place, (weights * np.where(weights > 0, centroids, 0.0).astype(np.float64)).reshape(-1), size
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            value = np.where(weight > 0, value.reshape(shape) / weight, np.inf)
        order = np.argsort(value, axis=0, kind="stable")
        centroids, weights = (np.take_along_axis(array, order, 0).astype(np.float32) for array in (value, weight))
        return {"centroids": centroids, "weights": weights}

    def _quantile(self, sums: Arrays, level: float) -> np.ndarray:
        """Return a quantile, linear between the ranks of the middles of centroids, (...), NaN where a member is NaN."""
        if level in (0.0, 1.0):
            return sums["maximum" if level else "minimum"]
        centroids, weights = sums["centroids"].astype(np.float64), _weights(sums).astype(np.float64)
        ranks = weights.cumsum(axis=0) - (weights + 1) / 2  # of the members, from 0
        highest, rank = int(sums["count"]) - 1, level * (int(sums["count"]) - 1)
        after = ((ranks < rank) & (weights > 0)).sum(axis=0)
        ends = np.zeros_like(ranks[:1]), np.full_like(ranks[:1], highest)  # of the least and the greatest member
        knots = np.concatenate([ends[0], np.where(weights > 0, ranks, highest), ends[1]])
        within = np.where(weights > 0, centroids, sums["maximum"])
        values = np.concatenate([sums["minimum"][None], within, sums["maximum"][None]])
        left, right = (np.take_along_axis(knots, (after + n)[None], 0)[0] for n in (0, 1))
        low, high = (np.take_along_axis(values, (after + n)[None], 0)[0] for n in (0, 1))
        share = np.where(right > left, (rank - left) / np.where(right > left, right - left, 1.0), 1.0)
        quantile = low + np.clip(share, 0.0, 1.0) * (high - low)
        return np.where(np.isnan(sums["mean"]), np.nan, quantile)


def _weights(sums: Arrays) -> np.ndarray:
    """Return the weights of centroids, float32: 1 where none are kept."""
    return sums["weights"] if "weights" in sums else np.ones(sums["centroids"].shape, np.float32)


def event_of(name: str, text: str, variables: VariableSet) -> Event:
    """Read `2m_temperature > 303.15`; ValueError says what is wrong."""
    match = re.fullmatch(r"\s*(\S+)\s*([<>])\s*([-+\d.eE]+)\s*", str(text))
    if match is None or match[1] not in variables.channels:
        raise ValueError(
            f"events.{name}: expected <channel> > <value> or <channel> < <value>, the channel one of "
            f"{', '.join(variables.channels[:8])}{', ...' if len(variables.channels) > 8 else ''}; got '{text}'."
        )
    sign = 1 if match[2] == ">" else -1
    return Event(name, str(text), variables.channels.index(match[1]), sign, float(match[3]))
