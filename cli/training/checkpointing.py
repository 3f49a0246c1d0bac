"""What accompanies a training: checkpoints, the file of metrics, the line of progress."""

from __future__ import annotations

import copy
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.plugins.io import CheckpointIO

from data_pipelines.files import checkpoints
from data_pipelines.reading.damaged_data import DamagedData
from emul.jobs.slurm import requeue
from emul.terminal.console import console, warn
from emulators.training.lightning_module import Training

PATIENCE = 10.0  # seconds within which several signals are one request: SLURM ends a job by several senders


class Preempted(SystemExit):
    """A training was asked to stop and has saved its state; the process ends with the code of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class PlainCheckpoints(CheckpointIO):
    """Lightning's checkpoints through `data_pipelines.files.checkpoints`: atomic, and loaded with weights_only=True."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        checkpoints.save(path, checkpoint)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        return checkpoints.load(path)

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


class Checkpoints(pl.Callback):
    """Keeps last.ckpt (everything needed to go on), the one before it, and best.ckpt (weights of the best score).

    SIGTERM, SIGUSR1 (the notice of a time limit) and Ctrl-C save after the step or the validation batch in hand and
    raise Preempted; a second Ctrl-C, or another signal after PATIENCE, ends the process at once. The first process
    decides and writes by itself, so that nothing is waited for; only a sharded network has to be gathered from all. A
    checkpoint that cannot be written leaves the old one, is told, and ends nothing but a training that was to end
    anyway. requeues: whether a job of SLURM then goes back to the queue.
    """

    def __init__(self, folder: Path, *, every: int | None, minutes: float | None, requeues: bool = False) -> None:
        self.folder, self.every, self.minutes, self.requeues = folder, every, minutes, requeues
        self.saved_at, self.saved_step, self.signalled = time.monotonic(), 0, 0
        self.seen_step, self.asked_at = 0, 0.0
        self.loops: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.saved_step = self.seen_step = trainer.global_step
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self.ask)
        self.catch_up(trainer, module)

    @staticmethod
    def catch_up(trainer: pl.Trainer, module: Any) -> None:
        """Make the validation that was due at the step gone on from and is not done: Lightning passes it over."""
        step, validation = trainer.global_step, trainer.fit_loop.epoch_loop.val_loop
        if step == 0 or step % module.plan.validate_every or module.validated == step:
            return
        validation.restarting, trainer.validating = False, True
        validation.run()
        trainer.training = True

    def ask(self, number: int, frame: Any) -> None:
        if not self.signalled:
            self.signalled, self.asked_at = number, time.monotonic()
        elif number == signal.SIGINT or time.monotonic() - self.asked_at > PATIENCE:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step == self.seen_step:
            return  # amid the passes of a step: half a gradient is in no checkpoint
        self.seen_step = step
        self.loops = copy.deepcopy(trainer._checkpoint_connector._get_loops_state_dict())
        due = self.every is not None and step % self.every == 0
        late = self.minutes is not None and time.monotonic() - self.saved_at > 60 * self.minutes
        stop = self.decided(trainer, bool(self.signalled))
        save = stop or due or self.decided(trainer, late)
        if save or step % module.plan.log_every == 0:
            module.refuse_broken_loss()
        if save:
            self.save(trainer, needed=stop)
        if stop:
            self.leave(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self.decided(trainer, bool(self.signalled)):
            if self.loops:  # else nothing was learnt since the last checkpoint
                self.save(trainer, needed=True)
            self.leave(trainer)

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        """Data that cannot be read end a training, but cost nothing that was learnt."""
        if isinstance(exception, DamagedData) and trainer.global_step > self.saved_step:
            self.save(trainer, needed=False)

    @staticmethod
    def decided(trainer: pl.Trainer, wish: bool) -> bool:
        """What the first process wishes; any of them, where all have to take part in a checkpoint.

        The others then learn of it when the first is gone, which is the same to them.
        """
        if trainer.lightning_module.is_sharded:
            return bool(trainer.strategy.reduce_boolean_decision(wish, all=False))
        return wish and trainer.is_global_zero

    def leave(self, trainer: pl.Trainer) -> None:
        """End this training, its state saved."""
        number = self.signalled or signal.SIGTERM
        for child in getattr(trainer.strategy.launcher, "procs", ()):
            child.send_signal(number)
        if trainer.is_global_zero:
            console().print(f"Stopped at step {trainer.global_step} as asked; the same command goes on from there.")
            if self.requeues and number != signal.SIGINT and requeue():
                console().print("The job is back in the queue.")
        raise Preempted(number)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.is_global_zero or module.is_sharded:
            self.keep_best(module, writes=trainer.is_global_zero)

    def keep_best(self, module: Training, writes: bool = True) -> None:
        if not module.validation["score"] < module.best:
            return
        before, module.best = module.best, module.validation["score"]
        content = module.portable()
        if not writes:
            return
        try:
            checkpoints.save(self.folder / "best.ckpt", {"emul": content})
        except OSError as error:
            module.best = before
            warn(str(error))

    def keep(self, module: Training) -> None:
        """Both checkpoints of a network that was solved, not descended."""
        self.keep_best(module)
        checkpoints.save(self.folder / "last.ckpt", {"emul": module.portable()})

    def save(self, trainer: pl.Trainer, needed: bool = False) -> None:
        """Write last.ckpt and keep the one before. needed: whether the training ends where it cannot be written."""
        try:
            self.write(trainer)
        except OSError as error:
            if needed:
                raise
            warn(f"{error} The training goes on and tries again later.")
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step

    def write(self, trainer: pl.Trainer) -> None:
        if not (trainer.is_global_zero or trainer.lightning_module.is_sharded):
            return
        content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        content["loops"] = self.loops or content["loops"]
        if trainer.is_global_zero:
            checkpoints.save(self.folder / "last.ckpt", content, keep_previous=True)
