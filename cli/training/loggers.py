"""Loggers and callbacks of a training: log to files and services, stop on signals, watch processes, report progress.

Each logger is built with the run folder, the step that the training resumes at and that of its last validation, so that
what an interrupted run logged after its checkpoint is dropped. No logger can stop a training.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities import rank_zero_only
from rich.progress import MofNCompleteColumn, TextColumn

from data_pipelines.batches.loader import ShuffledBatches
from data_pipelines.files.atomic import write_text
from data_pipelines.files.checkpoints import CheckpointFolder
from data_pipelines.files.tables import MetricsTable, Place, read_rows
from data_pipelines.jobs.processes import Watch, started_from_outside, within_slurm_step
from data_pipelines.jobs.slurm import requeue
from data_pipelines.reading.threads import DamagedData
from emul.terminal.console import bar, console, warn
from emulators.training.checkpointing import Checkpoints
from emulators.training.plan import Plan


class Named(Logger):
    """Give a logger its name. The config is not logged: the run folder holds it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing."""


class Unstoppable(Named):
    """Build another logger when first needed; warn once it fails, and leave it out from then on."""

    def __init__(self, name: str, make: Callable[[], Logger]) -> None:
        super().__init__(name)
        self._make, self._failed = make, False
        self._logger: Logger | None = None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._attempt(lambda logger: logger.log_metrics(metrics, step))

    @rank_zero_only
    def save(self) -> None:
        if self._logger is not None:
            self._attempt(lambda logger: logger.save())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._logger is not None:
            self._attempt(lambda logger: logger.finalize(status))

    def _attempt(self, work: Callable[[Logger], Any]) -> None:
        if self._failed:
            return
        try:
            if self._logger is None:
                self._logger = self._make()
            work(self._logger)
        except Exception as error:  # a logger may fail in any way
            self._failed = True
            warnings.warn(
                f"logger.{self._name} failed and is left out from now on ({type(error).__name__}: {error}); the "
                "training goes on.",
                stacklevel=4,
            )


class MetricsFile(Named):
    """Log to metrics.csv."""

    def __init__(self, table: MetricsTable) -> None:
        super().__init__("metrics")
        self.table = table

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.table.append(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        self.table.save()


def metrics_file(place: Place) -> Logger:
    """metrics.csv."""
    return MetricsFile(MetricsTable(place.folder / "metrics.csv", place.start, place.validated))


def tensorboard(place: Place) -> Logger:
    """Event files in the run folder's `tensorboard`."""
    return Unstoppable(
        "tensorboard",
        lambda: TensorBoardLogger(place.folder, name="", version="tensorboard", purge_step=place.start + 1),
    )


def mlflow(place: Place, *, experiment: str = "emul", uri: str | None = None) -> Logger:
    """A run in MLflow. uri: of the tracking server; null for a database in the run folder, which needs no network."""
    id_file = place.folder / "mlflow_run.txt"

    def start() -> Logger:
        from pytorch_lightning.loggers import MLFlowLogger

        logger = MLFlowLogger(
            experiment_name=experiment,
            run_name=place.name,
            tracking_uri=uri or f"sqlite:///{(place.folder / 'mlflow.db').resolve()}",
            artifact_location=None if uri else (place.folder / "mlruns").resolve().as_uri(),
            run_id=id_file.read_text().strip() if place.start and id_file.exists() else None,
        )
        write_text(id_file, str(logger.run_id))
        return logger

    return Unstoppable("mlflow", start)


def wandb(place: Place, *, project: str = "emul", entity: str | None = None, offline: bool = True) -> Logger:
    """A run in Weights & Biases. offline: kept in the run folder's `wandb`, to be sent by `wandb sync`."""
    identity = hashlib.sha256(str(place.folder.resolve()).encode()).hexdigest()[:12]

    def start() -> Logger:
        from pytorch_lightning.loggers import WandbLogger

        return WandbLogger(
            name=place.name,
            save_dir=place.folder,
            project=project,
            entity=entity,
            offline=offline,
            id=identity,
            resume=None if offline else "allow",
        )

    return Unstoppable("wandb", start)


class Curves(Named):
    """Draw curves.png, loss and validation score by step, after each validation."""

    def __init__(self, folder: Path) -> None:
        super().__init__("curves")
        self.folder = folder

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        from data_pipelines.pictures.curves import draw_training

        if "score" not in metrics:
            return
        draw_training(read_rows(self.folder / "metrics.csv"), self.folder / "curves.png")


def curves(place: Place) -> Logger:
    """curves.png, from metrics.csv."""
    return Unstoppable("curves", lambda: Curves(place.folder))


PATIENCE = 10.0  # seconds within which several signals are one request: SLURM ends a job by several senders


class Preempted(SystemExit):
    """End the process with the code of the signal: the training was asked to stop and has saved its state."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class InterruptibleCheckpoints(Checkpoints):
    """Save a training, and end it when the process receives SIGTERM, SIGUSR1 (the notice of a time limit) or Ctrl-C.

    A second Ctrl-C, or another signal after PATIENCE seconds, ends the process at once. requeues: whether a job of
    SLURM then goes back to the queue. signals: whether handlers are installed; without them an interrupt is Python's.
    """

    def __init__(self, folder: Path, plan: Plan, *, requeues: bool = False, signals: bool = True) -> None:
        super().__init__(
            CheckpointFolder(folder),
            every=plan.checkpoint_every,
            minutes=plan.checkpoint_minutes,
            rescue=(DamagedData,),
        )
        self.requeues, self.signalled, self.asked_at = requeues, 0, 0.0
        self.signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1) if signals else ()

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        for number in self.signals:
            signal.signal(number, self.ask)
        super().on_train_start(trainer, module)

    def ask(self, number: int, frame: Any) -> None:
        """Handle a signal: ask the training to stop, or end the process where it was asked before."""
        if not self.signalled:
            self.signalled, self.asked_at, self.is_asked_to_stop = number, time.monotonic(), True
        elif number == signal.SIGINT or time.monotonic() - self.asked_at > PATIENCE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def leave(self, trainer: pl.Trainer) -> None:
        number = self.signalled or signal.SIGTERM
        for child in child_processes(trainer):
            child.send_signal(number)
        if trainer.is_global_zero:
            console().print(f"Stopped at step {trainer.global_step} as asked; the same command goes on from there.")
            if self.requeues and number != signal.SIGINT and requeue():
                console().print("The job is back in the queue.")
        raise Preempted(number)

    def report(self, sentence: str) -> None:
        warn(sentence)


class ProcessWatch(pl.Callback):
    """Watch the other processes of a training, end it when one of them dies, and say why."""

    def __init__(self, checkpoints: InterruptibleCheckpoints, folder: Path) -> None:
        self.checkpoints = checkpoints
        self.advice = f"the last checkpoint is in {folder}: run the command again."
        self.watch: Watch | None = None

    def setup(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        if trainer.world_size == 1 or started_from_outside() or self.watch is not None:
            return
        self.watch = Watch(child_processes(trainer), self.advice)
        self.watch.start()

    def explain(self, error: RuntimeError) -> BaseException:
        """The error that ends this process: as asked, where the first was told to stop; else with the cause named."""
        if self.checkpoints.signalled:
            return Preempted(self.checkpoints.signalled)
        if "onnection" not in str(error) and "NCCL" not in str(error) and "gloo" not in str(error):
            return error
        cause = (self.watch.cause() if self.watch else None) or "the connection to another process is lost"
        return ConnectionError(f"The training stops because {cause}; {self.advice}")

    def stop(self) -> None:
        """Stop watching."""
        if self.watch is not None:
            self.watch.over.set()


def child_processes(trainer: pl.Trainer) -> Any:
    """The processes that Lightning has started from this one."""
    return getattr(trainer.strategy.launcher, "procs", ())


def environment() -> list[Any]:
    """Lightning's plugin within a step of SLURM: processes are srun's, and requeueing is InterruptibleCheckpoints'."""
    return [SLURMEnvironment(auto_requeue=False)] if within_slurm_step() else []


BAR_COLUMNS = 64  # of a terminal, which name, bar, steps and times take


def fitting_text(texts: Sequence[str], width: int | None) -> str:
    """Join texts, the most important first, leaving out those at the end that exceed a width."""
    line = ""
    for text in filter(None, texts):
        longer = f"{line}  {text}" if line else text
        if line and width is not None and len(longer) > width:
            break
        line = longer
    return line


class ProgressLogger(pl.Callback):
    """Report loss, learning rate, samples a second and the share of time waited for data, to terminal and loggers."""

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
        texts = [
            f"loss {numbers['loss']:.4f}",
            f"score {module.validation['score']:.3f}" if module.validation else "",
            f"skipped {self.batches.skipped}" if self.batches.skipped else "",
            f"lr {numbers['lr']:.1e}",
            f"{numbers['samples_per_second']:.0f} samples/s",
            f"wait {numbers['loader_wait']:.0%}",
        ]
        line = fitting_text(texts, console().width - BAR_COLUMNS if console().is_terminal else None)
        self.progress.update(self.task, completed=step, numbers=line)
        if not console().is_terminal and (time.monotonic() - self.printed > 15 or step >= module.plan.steps):
            self.printed = time.monotonic()
            console().print(f"step {step} of {module.plan.steps}  {line}", highlight=False)
        self._mark(step)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        self._mark(trainer.global_step)

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:
        self.progress.stop()
        if trainer.is_global_zero:
            console().print(self.batches.pace(), style="quiet", highlight=False)

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        self.progress.stop()
