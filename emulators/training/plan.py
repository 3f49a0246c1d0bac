"""The settings of a training: steps, batch size, validation, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from emulators.training.hardware import refuse_below_one


@dataclass(frozen=True)
class Plan:
    """How long and in what portions.

    steps: optimiser steps. flops: floating-point operations of the whole training, in place of `steps`: as many as they
    pay for, forward and backward, counted at the first; null: `steps` counts. batch_size: samples an optimiser step,
    over all devices and accumulated passes.
    accumulate: passes a step. clip: largest norm of the gradient, null for none. ema: decay of the weight average that
    is validated and used in forecasts, null for none. validate_every: optimiser steps between validations.
    validation_lead, validation_cases: timesteps and initial dates of a validation.
    checkpoint_every, checkpoint_minutes: whichever comes first; null for never. log_every: steps between log lines.
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
        parts = devices * self.accumulate
        if self.batch_size % parts:
            raise ValueError(
                f"training.batch_size must divide by devices x accumulate = {parts}; got {self.batch_size}. "
                f"Take {max(1, round(self.batch_size / parts)) * parts}."
            )
        return self.batch_size // parts
