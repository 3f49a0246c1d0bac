"""Assemble a training from a configuration: data, module, batches, loggers; and print what is about to be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.loader import Damaged, SequentialBatches, ShuffledBatches
from data_pipelines.batches.scales import scales
from data_pipelines.batches.windows import Windows
from data_pipelines.batches.world import world_from_dataset
from data_pipelines.conventions.attributes import assumptions
from data_pipelines.files import checkpoints
from data_pipelines.files.fingerprints import fingerprint
from data_pipelines.files.provenance import revision, versions
from emul.config.build import build, build_all, build_loss_terms
from emul.config.places import absolute_places
from emul.jobs.processes import rank
from emul.terminal import console
from emul.training.continuation import Resumed, refuse_other_data
from emul.training.initial_weights import fill_network, load_weights, published_scales
from emul.training.loggers import Place
from emul.training.runs import build_step
from emul.trust.secrets import saved_plain, saved_text
from emulators.training.hardware import Hardware
from emulators.training.lightning_module import Training
from emulators.training.plan import Plan
from emulators.world import World


@dataclass(frozen=True)
class Inputs:
    """A training, its data, and the batches that are read once through: for validation, and of the training split."""

    training: Training
    archive: Archive
    splits: Mapping[str, Sequence[str]]
    validation: SequentialBatches
    in_order: SequentialBatches


def prepare(config: DictConfig, target: Path, resumed: Resumed | None) -> Inputs:
    """Open the data of `config` and assemble its training, with the weights that `from_checkpoint` names."""
    start = None if resumed else load_weights(config.from_checkpoint)
    world = World.from_plain(resumed.state["world"]) if resumed else None
    if places := absolute_places(saved_plain(config.data)):
        OmegaConf.update(config, "places", {"run": str(target.resolve()), **places}, force_add=True)
    archive, splits = open_archive(config, world, start)
    data = fingerprint(build(config.data).path, archive.dataset)
    if resumed and not resumed.changed:
        refuse_other_data(resumed, data, target)
    training, reading = build_training(config, archive.world, data), build(config.loader)
    if start is not None:
        fill_network(training, start, config)
    validation = validation_batches(archive, splits["validation"], training.plan, reading.damaged)
    windows = Windows(archive, splits["train"], stride=reading.stride)
    in_order = SequentialBatches(windows, training.plan.batch_size, damaged=reading.damaged)
    return Inputs(training, archive, splits, validation, in_order)


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
    for line in assumptions(dataset):
        console.warn(line)
    room = config.loader.gigabytes
    if world is not None:
        return Archive(dataset, world, cache_gigabytes=room), source.splits
    made = world_from_dataset(dataset, build(config.variables), history=config.history)
    archive = Archive(dataset, made, cache_gigabytes=room)
    with console.progress("measuring means and scales") as report:
        stored, known = config.scales, published_scales(config, start, made)
        stored = stored if isinstance(stored, str) else None
        intervals = build(config.objective, made).intervals
        measured = scales(
            archive, source.splits["train"], stored=stored, known=known, intervals=intervals, report=report
        )
    return archive.with_world(replace(archive.world, scales=measured)), source.splits


def build_training(config: DictConfig, world: World, data: Mapping[str, Any] | None = None) -> Training:
    """The Lightning module of `config` on `world`, untrained. data: the fingerprint of its data."""
    return Training(
        build_step(config, world),
        build(config.objective, world),
        build_loss_terms(config.loss, world),
        build(config.optimizer),
        build(config.schedule),
        build(config.training),
        seed=config.seed,
        metadata={
            "format": checkpoints.FORMAT,
            "world": world.plain(),
            "config": saved_text(config),
            "data": dict(data or {}),
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


def loggers(config: DictConfig, target: Path, resumed: Resumed | None) -> list[Logger]:
    """The loggers of `config`, in the first process only."""
    step, validated = (resumed.state["step"], resumed.state["validated"]) if resumed else (0, -1)
    place = Place(target, str(config.name), step, validated)
    return list(build_all(config.logger, place).values()) if rank() == 0 else []


@rank_zero_only
def print_plan(
    config: DictConfig, module: Training, batches: ShuffledBatches, validation: SequentialBatches, start: int
) -> None:
    """The plan, in numbers, before the first step."""
    plan, world, hardware = module.plan, module.step.world, config.hardware
    samples = len(batches.windows)
    console.header(f"emul train {config.name}", [f"{'from step ' + str(start) if start else 'from scratch'}"])
    console.show_rows(
        "plan",
        {
            "grid": f"{world.grid!r}, {world.input_channels} channels in, {world.output_channels} out",
            "parameters": parameters(module.step),
            "samples": f"{samples:,} windows of {world.history} + {batches.windows.rollout}",
            **batches.facts(),
            "memory of data": f"at most {(batches.memory_bytes + validation.memory_bytes) / 1e9:.3g} GB",
            "effective batch": f"{plan.batch_size} = {share(plan, build(hardware), batches.batch_size)}",
            "learning rate": f"{config.optimizer.lr:g}, never scaled",
            "steps": f"{plan.steps:,} = {plan.steps * plan.batch_size / samples:.1f} passes over the samples",
            "weight average": plan.ema or "none",
            "hardware": in_words(build(hardware)),
        },
    )


def parameters(module: torch.nn.Module) -> str:
    """How many there are and, where some are frozen, how many are trained."""
    total, trained = (sum(p.numel() for p in module.parameters() if p.requires_grad or frozen) for frozen in (1, 0))
    return f"{total:,}" if trained == total else f"{total:,}, of which {trained:,} are trained"


def share(plan: Plan, hardware: Hardware, portion: int) -> str:
    """How a batch is divided: `2 processes x 2 passes x 2 samples`."""
    return f"{hardware.processes} processes x {plan.accumulate} passes x {portion} samples"


def in_words(hardware: Hardware) -> str:
    """Where a training runs, in one line."""
    extras = {"compiled": hardware.compile, "activations recomputed": hardware.activation_checkpointing}
    return ", ".join(
        [
            f"{hardware.accelerator} x {hardware.devices} x {hardware.nodes} nodes",
            f"strategy {hardware.strategy}",
            f"{torch.get_num_threads()} threads a process",
            f"precision {hardware.precision}",
            *(word for word, holds in extras.items() if holds),
        ]
    )
