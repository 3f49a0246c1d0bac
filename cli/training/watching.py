"""Watch the other processes of a training and stop it when one of them dies."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl

from emul.jobs.processes import Watch, started_from_outside
from emul.training.checkpointing import Checkpoints, Preempted


class Together(pl.Callback):
    """Watches over the processes that train together, and finds words for what becomes of them."""

    def __init__(self, keeper: Checkpoints) -> None:
        self.keeper = keeper
        self.watch: Watch | None = None

    def setup(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        if trainer.world_size == 1 or started_from_outside() or self.watch is not None:
            return
        children = getattr(trainer.strategy.launcher, "procs", ())
        self.watch = Watch(children, f"the last checkpoint stands in {self.keeper.folder}: run the command again.")
        self.watch.start()

    def explained(self, error: RuntimeError) -> BaseException:
        """The end of this process: as asked, where the first was told to stop; else with the cause named."""
        if self.keeper.signalled:
            return Preempted(self.keeper.signalled)
        if "onnection" not in str(error) and "NCCL" not in str(error) and "gloo" not in str(error):
            return error
        gone = (self.watch.cause() if self.watch else None) or "the connection to another process is lost"
        stands = f"the last checkpoint stands in {self.keeper.folder}: run the command again."
        return ConnectionError(f"The training stops because {gone}; {stands}")

    def over(self) -> None:
        """Stop watching."""
        if self.watch is not None:
            self.watch.over.set()
