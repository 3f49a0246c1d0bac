"""What accompanies a training: checkpoints, the file of metrics, the line of progress."""

from __future__ import annotations

import csv
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.utilities import rank_zero_only
from rich.progress import MofNCompleteColumn, TextColumn

from data_pipelines import checkpoints
from data_pipelines.loader import Batches
from emul.console import bar, console
from emulators.training import Training


class Preempted(SystemExit):
    """A training was asked to stop and has saved its state; the process ends with the code of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class PlainCheckpoints(CheckpointIO):
    """Lightning's checkpoints through `data_pipelines.checkpoints`: atomic, and loaded with weights_only=True."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        checkpoints.save(path, checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        return checkpoints.load(path)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoints(pl.Callback):
    """Keeps last.ckpt (everything needed to go on) and best.ckpt (weights of the best validation score).

    SIGTERM and Ctrl-C save after the step in hand and raise Preempted; a second one ends the process at once. A loss
    that is not finite ends the training, and the sound checkpoint before it stays.
    """

    def __init__(self, folder: Path, *, every: int | None, minutes: float | None) -> None:
        self.folder, self.every, self.minutes = folder, every, minutes
        self.saved_at, self.saved_step, self.signalled = time.monotonic(), 0, 0

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.saved_step = trainer.global_step
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.ask)

    def ask(self, number: int, frame: Any) -> None:
        self.signalled = number
        signal.signal(number, signal.SIG_DFL)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step == self.saved_step:
            return
        due = self.every is not None and step % self.every == 0
        late = self.minutes is not None and time.monotonic() - self.saved_at > 60 * self.minutes
        agree = trainer.strategy.reduce_boolean_decision  # clocks and signals differ from process to process
        stop = agree(bool(self.signalled), all=False)
        save = stop or due or agree(late, all=False)
        if save or step % module.plan.log_every == 0:
            module.refuse_broken_loss()
        if save:
            self.save(trainer)
        if stop:
            console().print(f"Stopped at step {step} as asked; the same command goes on from there.")
            raise Preempted(self.signalled or signal.SIGTERM)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.is_global_zero:
            self.keep_best(module)

    def keep_best(self, module: Training) -> None:
        if module.validation["score"] < module.best:
            module.best = module.validation["score"]
            checkpoints.save(self.folder / "best.ckpt", {"emul": module.portable()})

    def keep(self, module: Training) -> None:
        """Both checkpoints of a network that was solved, not descended."""
        self.keep_best(module)
        checkpoints.save(self.folder / "last.ckpt", {"emul": module.portable()})

    def save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.folder / "last.ckpt")
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step


class MetricsFile(Logger):
    """metrics.csv: one row a log line, columns as they come; rows after the step a run resumes from are dropped."""

    def __init__(self, path: Path, resumed_at: int) -> None:
        super().__init__()
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            with open(path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= resumed_at]

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the run folder holds the config."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        known = set().union(*self.rows[-1:]) if self.rows else set()
        self.rows.append(row)
        if set(row) <= known and self.path.exists():
            with open(self.path, "a", newline="") as file:
                csv.DictWriter(file, self._columns()).writerow(row)
        else:
            self.save()

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @rank_zero_only
    def save(self) -> None:
        partial = self.path.with_suffix(".partial")
        with open(partial, "w", newline="") as file:
            writer = csv.DictWriter(file, self._columns())
            writer.writeheader()
            writer.writerows(self.rows)
        partial.replace(self.path)


class Pace(pl.Callback):
    """The progress line and the log: loss, learning rate, samples per second, share of time waited for data."""

    def __init__(self, batches: Batches, samples: int) -> None:
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

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        self.progress.stop()
