"""Report the progress of a training to the terminal and the loggers."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities import rank_zero_only
from rich.progress import MofNCompleteColumn, TextColumn

from data_pipelines.batches.loader import ShuffledBatches
from emul.terminal.console import bar, console


class Pace(pl.Callback):
    """The progress line and the log: loss, learning rate, samples per second, share of time waited for data."""

    def __init__(self, batches: ShuffledBatches, samples: int) -> None:
        self.batches, self.samples = batches, samples
        self.progress = bar(MofNCompleteColumn(), TextColumn("{task.fields[numbers]}", style="quiet"))

    @rank_zero_only
    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.task = self.progress.add_task(
            "training", total=module.plan.steps, completed=trainer.global_step, numbers=""
        )
        self.progress.start()
        self._mark(trainer.global_step)
        self.printed = time.monotonic()

    def _mark(self, step: int) -> None:
        self.at, self.step, self.waited = time.monotonic(), step, self.batches.waited

    @rank_zero_only
    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step % module.plan.log_every or step == self.step:
            return
        seconds = max(time.monotonic() - self.at, 1e-9)
        numbers = {
            **{name: float(value) for name, value in module.parts.items()},
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "samples_per_second": (step - self.step) * self.samples / seconds,
            "loader_wait": (self.batches.waited - self.waited) / seconds,
        }
        module.record(numbers)
        line = (
            f"loss {numbers['loss']:.4f}  lr {numbers['lr']:.1e}  {numbers['samples_per_second']:.0f} samples/s  "
            f"wait {numbers['loader_wait']:.0%}"
            + (f"  skipped {self.batches.skipped}" if self.batches.skipped else "")
            + (f"  score {module.validation['score']:.3f}" if module.validation else "")
        )
        self.progress.update(self.task, completed=step, numbers=line)
        if not console().is_terminal and (time.monotonic() - self.printed > 15 or step >= module.plan.steps):
            self.printed = time.monotonic()
            console().print(f"step {step} of {module.plan.steps}  {line}", highlight=False)
        self._mark(step)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        if hasattr(self, "at"):
            self._mark(trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.progress.stop()
        if trainer.is_global_zero:
            console().print(self.batches.pace(), style="quiet", highlight=False)

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        self.progress.stop()
