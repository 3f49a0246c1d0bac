"""The settings of a training: steps, batch size, validation, checkpoints, and which losses count at which step.

Weighted loss terms, each active over a range of optimiser steps.

    L(n) = sum over losses of  w_k [start_k <= n < end_k] L_k

A boundary from 1 on is a number of optimiser steps, one below 1 a share of the training's: `start: 0.8` is the last
fifth. What counts is a function of the step alone, so that a training that was interrupted goes on exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from emulators.interfaces import Loss, optional
from emulators.state import State
from emulators.training.hardware import refuse_below_one


@dataclass(frozen=True)
class Plan:
    """Set how long to train and in what portions.

    steps: optimiser steps. flops: floating-point operations of the whole training, in place of `steps`: as many as they
    pay for, forward and backward, counted at the first; null: `steps` counts. batch_size: samples an optimiser step,
    over all devices and accumulated passes.
    accumulate: passes a step. clip: largest norm of the gradient, null for none. ema: decay of the weight average that
    is validated and used in forecasts, null for none. validate_every: optimiser steps between validations.
    validation_lead, validation_cases: timesteps and initial dates of a validation.
    checkpoint_every, checkpoint_minutes: whichever comes first; null for never. log_every: steps between log lines.
    keep: optimiser steps after which the state is kept for good, for trainings that branch off there.
    broken: what becomes of a step whose gradient is not finite: `stop` the training, or `skip` the step, ten in a row
    at most. On a GPU `skip` waits for the device once a step; `stop` looks at log lines and before checkpoints.
    """

    steps: int = 1000
    flops: float | None = None
    batch_size: int = 8
    accumulate: int = 1
    clip: float | None = 1.0
    ema: float | None = 0.99
    validate_every: int = 250
    validation_lead: int = 4
    validation_cases: int = 32
    checkpoint_every: int | None = None
    checkpoint_minutes: float | None = 5.0
    log_every: int = 10
    keep: Sequence[int] = ()
    broken: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        refuse_below_one(
            "training",
            batch_size=self.batch_size,
            accumulate=self.accumulate,
            validate_every=self.validate_every,
            validation_lead=self.validation_lead,
            validation_cases=self.validation_cases,
            log_every=self.log_every,
            checkpoint_every=self.checkpoint_every,
        )
        if invalid := [step for step in self.keep if not 1 <= step <= self.steps]:
            raise ValueError(
                f"training.keep: expected steps from 1 to training.steps={self.steps}; got {invalid[0]}. Leave it out."
            )
        if self.steps < 0:
            raise ValueError(f"training.steps must not be negative; got {self.steps}.")
        if self.flops is not None and not self.flops > 0:
            raise ValueError(f"training.flops is a positive number, or null; got {self.flops}.")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"training.clip is a positive norm, or null for none; got {self.clip}.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"training.ema is a decay between 0 and 1, or null; got {self.ema}.")

    def portion(self, devices: int) -> int:
        """Samples of one pass on one device."""
        portions = devices * self.accumulate
        if self.batch_size % portions:
            raise ValueError(
                f"training.batch_size must divide by devices x accumulate = {portions}; got {self.batch_size}. "
                f"Take {max(1, round(self.batch_size / portions)) * portions}."
            )
        return self.batch_size // portions

    def division(self, module: nn.Module, devices: int) -> str:
        """How a batch is divided, in words. Batch norms take the means of a portion, so that other divisions differ."""
        portions = f"{devices} processes x {self.accumulate} passes x {self.portion(devices)} samples"
        normed = any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())
        divided = normed and self.portion(devices) < self.batch_size
        note = f"; batch norms take means of {self.portion(devices)}, not of {self.batch_size}" if divided else ""
        return f"{self.batch_size} = {portions}{note}"


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
        listing = ", ".join(f"{name} over [{start}, {end})" for name, start, end in spans)
        raise ValueError(f"No loss counts at step {at} of {steps}: {listing}. Set their start, end and weight anew.")
