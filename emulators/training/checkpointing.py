"""Save a training while it runs: its state after the latest step, and the weights of the best validation score."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import pytorch_lightning as pl
from pytorch_lightning.plugins.io import CheckpointIO

from emulators.state import Window
from emulators.training.lightning_module import Training, validate

LAST = "last.ckpt"


def kept_name(step: int) -> str:
    """The name of the file that keeps the state after a step."""
    return f"step_{step}.ckpt"


class CheckpointStore(Protocol):
    """Write and read checkpoints, dicts of tensors, numbers and strings. A write that fails raises OSError.

    path: names the store in messages.
    """

    @property
    def path(self) -> Path: ...

    def save_last(self, content: dict[str, Any]) -> None:
        """Replace the state of the latest step."""
        ...

    def save_best(self, content: dict[str, Any]) -> None:
        """Replace the weights of the best validation score."""
        ...

    def save_kept(self, content: dict[str, Any], name: str) -> None:
        """Write the state of a step that is kept for good."""
        ...

    def load(self, path: str | Path) -> dict[str, Any]:
        """Read a checkpoint."""
        ...


class TrainingStopped(RuntimeError):
    """Report that a training was asked to stop and has saved its state."""


class StoreIO(CheckpointIO):
    """Let Lightning write and read checkpoints through a CheckpointStore."""

    def __init__(self, store: CheckpointStore) -> None:
        self.store = store

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        if Path(path).name == LAST:
            self.store.save_last(checkpoint)
        else:
            self.store.save_kept(checkpoint, Path(path).name)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        return self.store.load(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Do nothing: the store replaces checkpoints itself."""


class Checkpoints(pl.Callback):
    """Save a training after `every` optimiser steps or `minutes`, and its weights at each best validation score.

    store: where to; None saves nothing. rescue: errors of the data at which the state is saved before they are raised.
    A checkpoint that cannot be written leaves the old one and a warning, and ends only a training that ends anyway. Set
    `is_asked_to_stop` to end the training after the step or validation batch in hand: its state is saved and
    TrainingStopped raised. The first process decides and writes alone, so that nothing is waited for; only a sharded
    network has to be gathered from all.
    """

    def __init__(
        self,
        store: CheckpointStore | None = None,
        *,
        every: int | None = None,
        minutes: float | None = None,
        rescue: tuple[type[Exception], ...] = (),
    ) -> None:
        self.store, self.every, self.minutes, self.rescue = store, every, minutes, rescue
        self.saved_at, self.saved_step, self.seen_step = time.monotonic(), 0, 0
        self.is_asked_to_stop = False
        self.loops: dict[str, Any] = {}
        self.validation: Iterable[Window] | None = None

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.saved_step = self.seen_step = trainer.global_step
        self.validate_if_due(trainer, module)

    def validate_if_due(self, trainer: pl.Trainer, module: Training) -> None:
        """Run the validation that was due at the resumed step; Lightning would skip it."""
        step = trainer.global_step
        if self.validation is None or step == 0 or step % module.plan.validate_every or module.validated == step:
            return
        with trainer.precision_plugin.val_step_context():
            validate(module, self.validation, lambda: self.stop_if_asked(trainer))
        self.on_validation_end(trainer, module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if step == self.seen_step:
            return  # between the passes of a step: no checkpoint holds half a gradient
        self.seen_step = step
        self.loops = copy.deepcopy(loop_states(trainer))
        due = self.every is not None and step % self.every == 0
        late = self.minutes is not None and time.monotonic() - self.saved_at > 60 * self.minutes
        if step in module.plan.keep:
            module.refuse_broken_loss()
            self.write(trainer, kept_name(step))
        stop = self.decide(trainer, self.is_asked_to_stop)
        save = stop or due or self.decide(trainer, late)
        if save or step % module.plan.log_every == 0:
            module.refuse_broken_loss()
        if save:
            self.save(trainer, needed=stop)
        if stop:
            self.leave(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.stop_if_asked(trainer)

    def stop_if_asked(self, trainer: pl.Trainer) -> None:
        """Save and end the training between two batches of a validation."""
        if self.decide(trainer, self.is_asked_to_stop):
            if self.loops:  # else nothing was learnt since the last checkpoint
                self.save(trainer, needed=True)
            self.leave(trainer)

    def on_exception(self, trainer: pl.Trainer, module: Any, exception: BaseException) -> None:
        """Save what was learnt before an error of the data ends the training."""
        if isinstance(exception, self.rescue) and trainer.global_step > self.saved_step:
            self.save(trainer)

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:
        if trainer.is_global_zero or module.is_sharded:
            self.save_if_best(module, writes=trainer.is_global_zero)

    def on_save_checkpoint(self, trainer: pl.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Store the loops as they were after the latest step, also where a validation has begun since."""
        checkpoint["loops"] = self.loops or checkpoint["loops"]

    @staticmethod
    def decide(trainer: pl.Trainer, wish: bool) -> bool:
        """Rank 0 decides; with a sharded network any rank may, since all must take part.

        The other ranks of a whole network notice later that the first has ended.
        """
        if trainer.lightning_module.is_sharded:
            return bool(trainer.strategy.reduce_boolean_decision(wish, all=False))
        return wish and trainer.is_global_zero

    def leave(self, trainer: pl.Trainer) -> None:
        """End the training, whose state is saved."""
        raise TrainingStopped(f"The training was stopped at step {trainer.global_step}; its state is saved.")

    def save_if_best(self, module: Training, writes: bool = True) -> None:
        """Save the weights where the latest validation score is the best so far. writes: whether this rank writes."""
        if not module.validation["score"] < module.best:
            return
        before, module.best = module.best, module.validation["score"]
        content = module.checkpoint_content()
        if not writes or self.store is None:
            return
        try:
            self.store.save_best({"emul": content})
        except OSError as error:
            module.best = before
            self.report(str(error))

    def save_solved(self, module: Training) -> None:
        """Save both checkpoints of a network that was solved in closed form."""
        self.save_if_best(module)
        if self.store is not None:
            self.store.save_last({"emul": module.checkpoint_content()})

    def save(self, trainer: pl.Trainer, needed: bool = False) -> None:
        """Save the state of the latest step. needed: raise OSError where it cannot be written."""
        try:
            self.write(trainer, LAST)
        except OSError as error:
            if needed:
                raise
            self.report(f"{error} The training goes on and tries again later.")
        self.saved_at, self.saved_step = time.monotonic(), trainer.global_step

    def write(self, trainer: pl.Trainer, name: str) -> None:
        """Hand the state of the latest step to the store, which decides where it goes. OSError where it cannot."""
        if self.store is not None and (trainer.is_global_zero or trainer.lightning_module.is_sharded):
            trainer.save_checkpoint(self.store.path / name, weights_only=False)

    def report(self, sentence: str) -> None:
        """Warn of a checkpoint that could not be written."""
        warnings.warn(sentence, stacklevel=2)


def loop_states(trainer: pl.Trainer) -> dict[str, Any]:
    """Where a Trainer's loops are, as its checkpoints store them."""
    return {
        "fit_loop": trainer.fit_loop.state_dict(),
        "validate_loop": trainer.validate_loop.state_dict(),
        "test_loop": trainer.test_loop.state_dict(),
        "predict_loop": trainer.predict_loop.state_dict(),
    }
