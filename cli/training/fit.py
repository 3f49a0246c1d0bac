"""Run a training: fit by gradient steps, or solve in closed form, and validate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.loader import SequentialBatches, ShuffledBatches
from data_pipelines.batches.windows import Windows
from emul.config.build import build
from emul.terminal import console
from emul.training.assembly import loggers, training_batches, validation_batches
from emul.training.checkpointing import Checkpoints
from emul.training.loggers import Place
from emul.training.progress import Pace
from emul.training.summary import announce
from emul.training.trainer import lay_out, made_trainer
from emul.training.watching import Together
from emulators.state import Window
from emulators.training.flop_counter import affordable
from emulators.training.lightning_module import Training, examples
from emulators.training.loss_terms import refuse_gaps


def run(
    config: DictConfig,
    module: Training,
    archive: Archive,
    splits: Mapping[str, Sequence[str]],
    target: Path,
    found: tuple[Path, dict[str, Any]] | None,
) -> None:
    """Descend to the plan's last step, or solve at once; checkpoints and logs land in `target`."""
    plan, hardware = module.plan, build(config.hardware)
    path, saved = found or (None, {"step": 0, "validated": -1})
    network = module.step.network
    keeper = Checkpoints(
        target / "checkpoints",
        every=plan.checkpoint_every,
        minutes=plan.checkpoint_minutes,
        requeues=hardware.slurm is not None and hardware.slurm.requeue,
    )
    reading = build(config.loader)
    validation = validation_batches(archive, splits["validation"], plan, reading.damaged)
    windows = Windows(archive, splits["train"], stride=reading.stride)
    in_order = SequentialBatches(windows, plan.batch_size, damaged=reading.damaged)
    if hasattr(network, "fit") or not any(p.requires_grad for p in network.parameters()):
        solve(module, in_order, validation)
        keeper.keep(module)
        return
    fit_climatology = getattr(network, "fit_climatology", None)
    if found is None and callable(fit_climatology):
        with console.progress("fitting the climatology") as report:
            fit_climatology(examples(module.step, reported(in_order, report)))
        if module.averages is not None:
            module.averages.load_state_dict(module.step.state_dict())
    batches = training_batches(config, module, archive, splits["train"], saved["step"])
    if plan.flops is not None:
        module.plan = plan = replace(plan, steps=affordable(module, batches.batch, hardware.processes))
        refuse_gaps(module.losses, plan.steps)
    announce(config, module, batches, validation, saved["step"])
    lay_out(network, hardware)
    place = Place(target, str(config.name), saved["step"], saved.get("validated", -1))
    together = Together(keeper)
    callbacks = [together, keeper, Pace(batches, plan.batch_size)]
    trainer = made_trainer(hardware, plan, target, loggers(config, place), callbacks)
    batches.rank, batches.ranks = trainer.global_rank, trainer.world_size
    batches.pinned = trainer.strategy.root_device.type == "cuda"
    descend(trainer, module, batches, validation, path, together)


def descend(
    trainer: pl.Trainer,
    module: Training,
    batches: ShuffledBatches,
    validation: SequentialBatches,
    path: Path | None,
    together: Together,
) -> None:
    """Train to the last step, validate, save. Where another process is gone, this one ends and says so."""
    try:
        trainer.fit(module, batches, validation, ckpt_path=path)
        if module.validated != module.plan.steps:
            trainer.validate(module, validation, verbose=False)
        module.finished = True
        together.keeper.save(trainer, needed=True)
    except RuntimeError as error:
        raise together.explained(error) from error
    finally:
        together.over()


def reported(windows: SequentialBatches, report: Callable[[str, float], None]) -> Iterator[Window]:
    """The batches, counted as they go by."""
    for number, window in enumerate(windows, start=1):
        yield window
        report(f"{number} of {len(windows)} batches", number / len(windows))


def solve(module: Training, windows: SequentialBatches, validation: SequentialBatches) -> None:
    """Closed-form networks: one pass over the training split, then one validation."""
    network: Any = module.step.network
    if hasattr(network, "fit"):
        network.fit(examples(module.step, windows))
    module.finished = True
    if module.averages is not None:
        module.averages.load_state_dict(module.step.state_dict())
    validate(module, validation)


def validate(module: Training, batches: SequentialBatches) -> None:
    """One validation outside of Lightning's loop."""
    module.on_validation_epoch_start()
    with torch.inference_mode():
        for number, window in enumerate(batches):
            module.validation_step(window.to(module.device), number)
    module.on_validation_epoch_end()
