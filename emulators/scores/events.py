"""Scores of events: did the field exceed a threshold, and how probable was that said to be.

With a, b, c, d the area shares of hits, false alarms, misses and correct rejections of the event "value > threshold",

    CSI = a / (a+b+c)      ETS = (a - r) / (a+b+c - r), r = (a+b)(a+c) / (a+b+c+d)      frequency bias = (a+b) / (a+c)
    recall H = a / (a+c)   precision = a / (a+b)   F1 = 2a / (2a+b+c)   HSS = 2(ad - bc) / ((a+c)(c+d) + (a+b)(b+d))
    SEDI = (ln F - ln H - ln(1-F) + ln(1-H)) / (ln F + ln H + ln(1-F) + ln(1-H)),  F = b / (b+d), both clipped at 1e-6
    Brier = (p - o)^2, p the share of members with the event, o = 1 where it came about;  debiased: - p (1-p) / (M-1)
    RPS = sum over thresholds of (p_below - o_below)^2, "below" being value < threshold

Murphy 1993 and the handbook of Jolliffe & Stephenson 2012, doi 10.1002/9781119960003; SEDI: Ferro & Stephenson 2011,
doi 10.1175/WAF-D-10-05030.1; SEEPS: Rodwell et al. 2010, doi 10.1002/qj.656; WeatherBench-X's forms; economic value:
Richardson 2000, doi 10.1002/qj.49712656313.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

CLIP = 1e-6
COUNTS = ("hits", "false_alarms", "misses", "correct_rejections")


def event(field: Tensor, threshold: Tensor | float) -> Tensor:
    """1 where the field exceeds the threshold, else 0; NaN where either is missing. Shapes broadcast."""
    return torch.where((field + threshold).isnan(), torch.nan, (field > threshold).to(field.dtype))


def below(field: Tensor, threshold: Tensor | float) -> Tensor:
    """1 where the field is less than the threshold, else 0; NaN where either is missing. Shapes broadcast."""
    return torch.where((field + threshold).isnan(), torch.nan, (field < threshold).to(field.dtype))


def gaussian_threshold(mean: Tensor, std: Tensor, quantile: float) -> Tensor:
    """The quantile of a normal distribution."""
    return mean + math.sqrt(2.0) * torch.special.erfinv(torch.tensor(2.0 * quantile - 1.0, dtype=mean.dtype)) * std


def contingency(forecast: Tensor, truth: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Hits, false alarms, misses and correct rejections of events 0 or 1."""
    return forecast * truth, forecast * (1.0 - truth), (1.0 - forecast) * truth, (1.0 - forecast) * (1.0 - truth)


def csi(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Critical success index; 1 is perfect."""
    return a / (a + b + c)


def ets(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Equitable threat score: 0 for chance, 1 is perfect."""
    chance = (a + b) * (a + c) / (a + b + c + d)
    return (a - chance) / (a + b + c - chance)


def frequency_bias(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The number of forecasts of the event over the number of times it occurs; 1 is perfect."""
    return (a + b) / (a + c)


def recall(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Share of the events that were forecast (probability of detection)."""
    return a / (a + c)


def precision(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Share of the forecast events that came about."""
    return a / (a + b)


def f1(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Harmonic mean of recall and precision."""
    return 2.0 * a / (2.0 * a + b + c)


def hss(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Heidke skill score: 0 for chance, 1 is perfect."""
    return 2.0 * (a * d - b * c) / ((a + c) * (c + d) + (a + b) * (b + d))


def sedi(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """Symmetric extremal dependence index: keeps telling forecasts apart as events grow rare."""
    hit, false = ((count / whole).clamp(CLIP, 1.0 - CLIP) for count, whole in ((a, a + c), (b, b + d)))
    logs = false.log(), hit.log(), torch.log1p(-false), torch.log1p(-hit)
    return (logs[0] - logs[1] - logs[2] + logs[3]) / sum(logs)


TABLE_SCORES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "csi": csi, "ets": ets, "frequency_bias": frequency_bias, "recall": recall, "precision": precision, "f1": f1,
    "hss": hss, "sedi": sedi,
}  # fmt: skip


def brier(members: Tensor, truth: Tensor) -> Tensor:
    """Brier score of events 0 or 1: (member, ...), (...) -> (...); 0 is perfect."""
    return (members.mean(dim=0) - truth).square()


def debiased_brier(members: Tensor, truth: Tensor) -> Tensor:
    """Brier score less what a finite ensemble adds to it; at least 2 members."""
    if members.shape[0] < 2:
        raise ValueError(f"A debiased Brier score needs at least 2 members; got {members.shape[0]}.")
    return brier(members, truth) - members.var(dim=0, correction=1) / members.shape[0]


def rps(members: Tensor, target: Tensor, thresholds: Sequence[Tensor | float]) -> Tensor:
    """Ranked probability score over rising thresholds: (member, ...), (...) -> (...); 0 is perfect."""
    squares = [(below(members, t).mean(dim=0) - below(target, t)).square() for t in thresholds]
    return torch.stack(squares).sum(dim=0)


def economic_value(hits: Tensor, alarms: Tensor, frequency: Tensor, ratio: float) -> Tensor:
    """Relative economic value at the best of several decision rules (first axis): (rule, ...), (...) -> (...).

    hits, alarms: shares of hits, and of all alarms. ratio: cost over loss. NaN where the event never or always occurs.
    """
    climate = frequency.clamp(max=ratio)
    expense = ratio * alarms + frequency - hits
    return ((climate - expense) / (climate - ratio * frequency)).amax(dim=0)


def seeps(forecast: Tensor, truth: Tensor, dry: float, heavy: Tensor, dry_share: Tensor) -> Tensor:
    """Stable equitable error in probability space of precipitation; 0 is perfect, 1 what a constant forecast scores.

    dry: the most that counts as dry. heavy: the least that counts as heavy, at the valid time. dry_share: p1, how
    often it is dry. All in one unit, in shapes that broadcast.
    """
    p, zero = dry_share, torch.zeros_like(dry_share)
    error = (  # by category of the forecast, then of the truth: dry, light, heavy
        (zero, 1.0 / (1.0 - p), 4.0 / (1.0 - p)),
        (1.0 / p, zero, 3.0 / (1.0 - p)),
        (1.0 / p + 3.0 / (2.0 + p), 3.0 / (2.0 + p), zero),
    )
    shares = [_categories(field, dry, heavy) for field in (forecast, truth)]
    total = sum(f * o * e for f, row in zip(shares[0], error, strict=True) for o, e in zip(shares[1], row, strict=True))
    return 0.5 * total + 0.0 * (forecast + truth + heavy)  # NaN where anything is missing


def _categories(field: Tensor, dry: float, heavy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    is_dry, is_heavy = field <= dry, field >= heavy
    return is_dry.to(field), (~is_dry & ~is_heavy).to(field), (~is_dry & is_heavy).to(field)


@dataclass(frozen=True)
class Threshold:
    """Define the threshold of an event: a climatological quantile of the valid time, or an amount in the field's units.

    gaussian: the quantile of the normal distribution with the climatology's mean and standard deviation.
    """

    quantile: float | None
    amount: float | None = None
    gaussian: bool = False

    def __post_init__(self) -> None:
        if (self.quantile is None) == (self.amount is None):
            raise ValueError(f"An event needs a quantile or a threshold; got {self.quantile} and {self.amount}.")
        if self.quantile is not None and not 0.0 < self.quantile < 1.0:
            raise ValueError(f"A quantile lies between 0 and 1; got {self.quantile}.")

    @property
    def needs(self) -> tuple[str, ...]:
        """The climatological fields that `field` reads."""
        if self.quantile is None:
            return ()
        return ("mean", "std") if self.gaussian else (f"quantile_{self.quantile:g}",)

    def field(self, climatology: Mapping[str, Tensor]) -> Tensor | float:
        """The threshold at each point."""
        if self.amount is not None:
            return self.amount
        if self.gaussian:
            assert self.quantile is not None
            return gaussian_threshold(climatology["mean"], climatology["std"], self.quantile)
        return climatology[self.needs[0]]

    def __str__(self) -> str:
        if self.quantile is None:
            return f"above {self.amount:g}"
        return f"above the {'Gaussian ' if self.gaussian else ''}quantile {self.quantile:g} of the climatology"
