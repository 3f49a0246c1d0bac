"""Fit a training: by gradient steps with Lightning's Trainer, or a closed form at once. Both end with a validation."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy

from emulators.interfaces import Network, optional
from emulators.layers.low_rank import adapters
from emulators.layers.noise import DropoutInNorms, NoiseAsInput, NoiseInNorms
from emulators.state import Window
from emulators.training.checkpointing import Checkpoints, StoreIO
from emulators.training.hardware import Hardware, recompute
from emulators.training.lightning_module import Training, examples, validate
from emulators.training.plan import Plan


@runtime_checkable
class SharedBatches(Protocol):
    """Describe an iterable of batches that several processes share."""

    def divide(self, rank: int, ranks: int, *, pinned: bool = False) -> None:
        """Take the batches of process `rank` of `ranks`; pinned: in page-locked memory, for copies to a GPU."""


def fit(
    training: Training,
    batches: Iterable[Window],
    *,
    validation: Iterable[Window],
    hardware: Hardware | None = None,
    callbacks: Sequence[pl.Callback] = (),
    loggers: Sequence[Logger] = (),
    folder: str | Path | None = None,
    resume: str | Path | None = None,
    plugins: Sequence[Any] = (),
) -> Training:
    """Train to the last step of `training.plan` and validate; the weights are those of `training.forecaster`.

    batches: endless, from the step that the training starts or resumes at. callbacks: of Lightning; a Checkpoints among
    them saves the training. resume: a checkpoint in its store. folder: for loggers of Lightning. plugins: of Lightning.
    """
    hardware = hardware or Hardware()
    checkpoints = next((c for c in callbacks if isinstance(c, Checkpoints)), None) or Checkpoints()
    batches, validation = (OneLoader(b) if isinstance(b, Sequence) else b for b in (batches, validation))
    checkpoints.validation = validation
    if checkpoints not in callbacks:
        callbacks = [*callbacks, checkpoints]
    if checkpoints.store is not None:
        plugins = [*plugins, StoreIO(checkpoints.store)]
    lay_out(training.step.networks, hardware)
    trainer = make_trainer(hardware, training.plan, callbacks, loggers=loggers, folder=folder, plugins=plugins)
    if isinstance(batches, SharedBatches):
        on_gpu = trainer.strategy.root_device.type == "cuda"
        batches.divide(trainer.global_rank, trainer.world_size, pinned=on_gpu)
    trainer.fit(training, batches, validation, ckpt_path=resume)
    if training.validated != training.plan.steps:
        trainer.validate(training, validation, verbose=False)
    training.finished = True
    checkpoints.save(trainer, needed=True)
    return training


def solve(
    training: Training,
    windows: Iterable[Window],
    *,
    validation: Iterable[Window],
    checkpoints: Checkpoints | None = None,
) -> Training:
    """Fit a network in closed form, by one pass over windows of one timestep, and validate it."""
    solve_network = optional(training.step.network, Network, "fit")
    if solve_network is not None:
        solve_network(examples(training.step, windows))
    training.finished = True
    training.reset_average()
    validate(training, validation)
    if checkpoints is not None:
        checkpoints.save_solved(training)
    return training


def fit_climatology(training: Training, windows: Iterable[Window]) -> None:
    """Give network and Step what they measure of the training data, where they do, before the first step."""
    training.step.measure(windows)
    fit_network = optional(training.step.network, Network, "fit_climatology")
    if fit_network is not None:
        fit_network(examples(training.step, windows))
    training.reset_average()


class OneLoader:
    """Hand a list of batches to Lightning, which would take it for a list of loaders."""

    def __init__(self, batches: Sequence[Window]) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Window]:
        return iter(self.batches)


class AfterStep(pl.Callback):
    """Update the weight average and the objective after each optimiser step, before other callbacks see it."""

    def __init__(self) -> None:
        self.step = 0

    def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
        self.step = trainer.global_step

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step != self.step:
            self.step = trainer.global_step
            module.after_step(self.step)


class SavingDDP(DDPStrategy):
    """Data parallel training in which the first process writes checkpoints alone, while the others go on."""

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        if "Trainer.save_checkpoint" not in args:
            super().barrier(*args, **kwargs)


def make_trainer(
    hardware: Hardware,
    plan: Plan,
    callbacks: Sequence[pl.Callback] = (),
    *,
    loggers: Sequence[Logger] = (),
    folder: str | Path | None = None,
    plugins: Sequence[Any] = (),
) -> pl.Trainer:
    """Build a Trainer that does what the plan says and nothing else; the callbacks save and report."""
    return pl.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=strategy(hardware),
        precision=str(hardware.precision),  # type: ignore[arg-type]
        max_steps=plan.steps,
        accumulate_grad_batches=plan.accumulate,
        gradient_clip_val=plan.clip,
        val_check_interval=plan.validate_every * plan.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        logger=list(loggers),
        plugins=list(plugins),
        callbacks=[AfterStep(), *callbacks],
    )


def strategy(hardware: Hardware) -> Any:
    """How the processes share a network. Buffers are tables, the same everywhere, and need no broadcast."""
    if hardware.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=hardware.processes, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    if hardware.processes > 1:
        return SavingDDP(broadcast_buffers=False, gradient_as_bucket_view=True)
    return "auto"


DRAWN = NoiseInNorms | NoiseAsInput | DropoutInNorms  # at each call, for all norms


def lay_out(networks: Iterable[torch.nn.Module], hardware: Hardware) -> None:
    """Compile networks, or let them recompute their activations, as the hardware says."""
    for network in networks:
        if hardware.activation_checkpointing:
            if any(isinstance(module, DRAWN) for module in network.modules()):
                raise ValueError(
                    "Activations computed again would see the noise of a later step; expected hardware."
                    "activation_checkpointing=false with noise=..., got true."
                )
            if any(module.settings.goes_by_lead for module in adapters(network).values()):
                raise ValueError(
                    "Activations computed again would see the adapter of a later step; expected hardware."
                    "activation_checkpointing=false with adapter.leads or adapter.first above 1, got true."
                )
            recompute(network)
        if hardware.compile:
            network.compile()


def silence_lightning() -> None:
    """Silence what Lightning says of choices made here on purpose."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    phrases = (
        "does not have many workers",
        "`IterableDataset`",
        "GPU available but not used",
        "LeafSpec",
        "in eval mode at the start",
        "The `srun` command is available",
        "`broadcast_buffers` is deprecated",
    )
    for text in (f".*{words}" for words in phrases):
        warnings.filterwarnings("ignore", text)
