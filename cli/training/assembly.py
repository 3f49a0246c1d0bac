"""Assemble a training from a configuration: data, module, batches, loggers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers.logger import Logger

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.loader import Damaged, SequentialBatches, ShuffledBatches
from data_pipelines.batches.scales import scales
from data_pipelines.batches.windows import Windows
from data_pipelines.batches.world import world_from_dataset
from data_pipelines.files import checkpoints
from data_pipelines.files.provenance import revision, versions
from emul.config.build import build, build_all, build_loss_terms
from emul.jobs.processes import rank
from emul.terminal import console
from emul.training.initial_weights import constants
from emul.training.loggers import Place
from emul.training.runs import emulator
from emulators.metrics.rmse import RMSE
from emulators.training.lightning_module import Training
from emulators.training.plan import Plan
from emulators.verification.scorecard import Scorecard
from emulators.world import World


def open_archive(
    config: DictConfig, world: World | None, start: Mapping[str, Any] | None = None
) -> tuple[Archive, Mapping[str, Sequence[str]]]:
    """The data of `config`, made where missing, and its splits; world: default measured over the training split.

    start: what the training starts from, which may come with constants.
    """
    source = build(config.data)
    with console.progress("preparing the data") as report:
        source.prepare(report)
    dataset = source.dataset()
    room = config.loader.gigabytes
    if world is not None:
        return Archive(dataset, world, cache_gigabytes=room), source.splits
    made = world_from_dataset(dataset, build(config.variables), history=config.history)
    archive = Archive(dataset, made, cache_gigabytes=room)
    with console.progress("measuring means and scales") as report:
        stored, known = config.scales, constants(config, start, made)
        stored = stored if isinstance(stored, str) else None
        measured = scales(archive, source.splits["train"], stored=stored, known=known, report=report)
    return archive.on(replace(archive.world, scales=measured)), source.splits


def assemble(config: DictConfig, world: World) -> Training:
    """The Lightning module of `config` on `world`, untrained."""
    plan: Plan = build(config.training)
    step = emulator(config, world)
    learned = getattr(step.network, "learned", None)  # variables to judge by, where all others are given
    scored = world.predicted.select(learned) if learned else world.prognostic
    return Training(
        step,
        build(config.objective, world),
        build_loss_terms(config.loss, world),
        build(config.optimizer),
        build(config.schedule),
        plan,
        seed=config.seed,
        scorecard=lambda: Scorecard(world, scored, {"rmse": RMSE()}, leads=plan.validation_lead),
        card={
            "format": checkpoints.FORMAT,
            "world": world.plain(),
            "config": OmegaConf.to_yaml(config, resolve=True),
            "revision": revision(),
            "versions": versions(),
        },
    )


def training_batches(
    config: DictConfig, module: Training, archive: Archive, period: Sequence[str], start: int
) -> ShuffledBatches:
    """The batches of a training from step `start` on; which process takes which is still to be said."""
    plan, objective, reading = module.plan, module.objective, build(config.loader)
    return ShuffledBatches(
        Windows(archive, period, rollout=objective.longest, stride=reading.stride),
        plan.portion(build(config.hardware).processes),
        seed=config.seed,
        start=start * plan.accumulate,
        rollout=lambda batch: objective.length(batch // plan.accumulate),
        reading=reading,
    )


def validation_batches(
    archive: Archive, period: Sequence[str], plan: Plan, damaged: Damaged = "stop"
) -> SequentialBatches:
    """Windows of the validation split at evenly spread initial dates, each of plan.validation_lead timesteps."""
    windows = Windows(archive, period, rollout=plan.validation_lead)
    stride = max(1, len(windows) // plan.validation_cases)
    spread = Windows(archive, period, rollout=plan.validation_lead, stride=stride)
    return SequentialBatches(spread, min(plan.batch_size, plan.validation_cases), damaged=damaged)


def loggers(config: DictConfig, place: Place) -> list[Logger]:
    """The loggers of `config`; none but in the first process."""
    return list(build_all(config.logger, place).values()) if rank() == 0 else []
