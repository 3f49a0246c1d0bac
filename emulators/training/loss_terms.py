"""Weighted loss terms, each active over a range of optimiser steps.

    L(n) = sum over losses of  w_k [start_k <= n < end_k] L_k

A boundary from 1 on is a number of optimiser steps, one below 1 a share of the training's: `start: 0.8` is the last
fifth. What counts is a function of the step alone, so that a training that was interrupted goes on exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from emulators.interfaces import Loss, optional
from emulators.state import State


class Term(nn.Module):
    """Multiply a loss by `weight`, from step `start` until before step `end`; None: the end of the training."""

    def __init__(self, loss: Loss, *, weight: float = 1.0, start: float = 0, end: float | None = None) -> None:
        super().__init__()
        if not math.isfinite(weight) or weight < 0:
            raise ValueError(f"The weight of a loss is a finite number of at least 0; got {weight}.")
        for name, bound in (("start", start), ("end", end)):
            if bound is not None and not (0 <= bound < 1 or (isinstance(bound, int) and bound >= 1)):
                raise ValueError(
                    f"{name} is a whole number of optimiser steps, or a share of the training below 1; got {bound}."
                )
        self.loss, self.weight, self.start, self.end = loss, weight, start, end
        self.intervals = optional(loss, Loss, "intervals")

    def forward(self, prediction: State, target: State) -> Tensor:
        return self.weight * self.loss(prediction, target)

    def span(self, steps: int) -> tuple[int, int]:
        """The first step at which it counts, and the first after these, in a training of `steps` steps."""
        return _step(self.start, steps), steps if self.end is None else min(_step(self.end, steps), steps)


def _step(bound: float, steps: int) -> int:
    return int(bound) if bound >= 1 else math.ceil(bound * steps - 1e-9)


def active(terms: Mapping[str, Term], step: int, steps: int) -> dict[str, Term]:
    """The terms that are active at optimiser step `step` of a training of `steps`."""
    spans = {name: term.span(steps) for name, term in terms.items()}
    return {name: term for name, term in terms.items() if spans[name][0] <= step < spans[name][1]}


def refuse_gaps(terms: Mapping[str, Term], steps: int) -> None:
    """Raise ValueError where no loss of positive weight is active at some step."""
    at = 0
    for start, end in sorted(term.span(steps) for term in terms.values() if term.weight):
        if start > at:
            break
        at = max(at, end)
    if at < steps:
        spans = ((name, *term.span(steps)) for name, term in terms.items())
        told = ", ".join(f"{name} over [{start}, {end})" for name, start, end in spans)
        raise ValueError(f"No loss counts at step {at} of {steps}: {told}. Set their start, end and weight anew.")
