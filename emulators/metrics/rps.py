"""Ranked probability score: sum over thresholds of (p - o)^2, p the share of members below one, o whether the truth is.

The thresholds are climatological quantiles of the valid time, in rising order; "below" is strict, as in WeatherBench 2
(Rasp et al. 2024, arXiv 2308.15560). Epstein 1969, doi 10.1175/1520-0450(1969)008<0985:ASSFPF>2.0.CO;2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from emulators.scores.events import Threshold, rps
from emulators.scores.interfaces import Metric


class RPS(Metric):
    """Compute the ranked probability score.

    quantiles: those of the climatology at the valid time, ascending; gaussian: computed from its mean and standard
    deviation.
    """

    members = 1

    def __init__(self, *, quantiles: Sequence[float], gaussian: bool = False) -> None:
        if len(quantiles) < 1 or any(a >= b for a, b in pairwise(quantiles)):
            raise ValueError(f"RPS needs quantiles in rising order; got {list(quantiles)}.")
        self.thresholds = [Threshold(quantile, None, gaussian) for quantile in quantiles]
        self.needs = tuple(dict.fromkeys(needed for threshold in self.thresholds for needed in threshold.needs))
        self.name = f"rps {', '.join(map(str, self.thresholds))}"
        self.definition = f"ranked probability score at quantiles {', '.join(f'{q:g}' for q in quantiles)}"

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return pointwise terms, each of the shape of `target`."""
        return {self.name: rps(prediction, target, [t.field(climatology) for t in self.thresholds])}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score from the means of the terms."""
        return means[self.name]
