"""Assemble a training from a configuration: data, initial weights, module, batches, loggers; print the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.loader import SequentialBatches, ShuffledBatches, spread_batches
from data_pipelines.batches.rehearsal import RehearsedBatches, ReplayedBatches
from data_pipelines.batches.scales import scales
from data_pipelines.batches.seen import (
    SeenDates,
    ranges_seen,
    seen_in_splits,
    seen_of_card,
    seen_of_published,
    together,
)
from data_pipelines.batches.windows import Windows
from data_pipelines.batches.world import meaning_differences, meaning_of, world_from_dataset
from data_pipelines.conventions.attributes import assumptions
from data_pipelines.conventions.durations import duration_text
from data_pipelines.conventions.suggestions import ConfigErrors, Finding
from data_pipelines.files import checkpoints
from data_pipelines.files.checkpoints import load_weights, published_scales
from data_pipelines.files.fingerprints import fingerprint
from data_pipelines.files.identity import absolute_places, listed, revision, versions
from data_pipelines.files.tables import Place
from data_pipelines.jobs.processes import rank
from data_pipelines.opening.published import card_of
from emul.checks.networks import compared_world, network_world, step_world
from emul.config.build import build, build_all, build_loss_terms, build_network, target_module
from emul.config.saved import saved_config, saved_plain, saved_text
from emul.terminal.console import console, header, progress, show_rows, warn
from emul.training.continuation import Resumed, refuse_other_data
from emul.training.runs import build_step, merged_weights, open_run, part_cards
from emulators.contracts.example_worlds import tiny_world
from emulators.interfaces import Network, optional
from emulators.layers.low_rank import with_adapter_names
from emulators.state import Window
from emulators.steps.small_scales import carried_by, learned_degree
from emulators.steps.step import Step
from emulators.training.flop_counter import parameter_text
from emulators.training.lightning_module import Training
from emulators.training.published_weights import converted, fill
from emulators.training.transfer import Trained, account, mixed_scales, transferred
from emulators.world import World


@dataclass(frozen=True)
class Inputs:
    """Hold a training, its data, and the batches read once through: for validation, and of the training split.

    old: the data that are rehearsed, and the period of them; None for none.
    """

    training: Training
    archive: Archive
    splits: Mapping[str, Sequence[str]]
    validation: SequentialBatches
    in_order: SequentialBatches
    old: tuple[Archive, Sequence[str]] | None


def prepare(config: DictConfig, target: Path, resumed: Resumed | None) -> Inputs:
    """Open the data of `config` and assemble its training, with the weights that `from_checkpoint` names."""
    start = None if resumed else load_weights(config.from_checkpoint)
    world = World.from_plain(resumed.state["world"]) if resumed else None
    if places := absolute_places(saved_plain(config.data)):
        OmegaConf.update(config, "places", {"run": str(target.resolve()), **places}, force_add=True)
    archive, splits = open_archive(config, world, start)
    data: dict[str, Any] = {**fingerprint(build(config.data).path, archive.dataset)}
    is_measured = config.tuning.importance == "fisher" and start is not None
    old = old_data(config, archive.world) if config.rehearsal.share or is_measured else None
    if config.rehearsal.share and old is not None:
        data["rehearsed"] = str(fingerprint(None, old[0].dataset)["times_digest"])
    if resumed and not resumed.changed:
        refuse_other_data(resumed, data, target)
    parts = resumed.state.get("parts", {}) if resumed else None
    training, reading = build_training(config, archive.world, data, parts), build(config.loader)
    if start is not None and (card := card_of(config.from_checkpoint)):
        training.metadata["published"] = card
    seen = [_seen(config, archive, splits, resumed.state if resumed else start)]
    if config.rehearsal.share and old is not None:
        seen.append(seen_in_splits(old[0], {"train": old[1]}))
    training.metadata["seen"] = together(seen).plain()
    if start is not None:
        fill_network(training, start, config)
    if is_measured and old is not None:
        samples = spread_batches(*old, training.objective.longest, config.tuning.importance_samples, 1)
        with progress("measuring how much each weight matters") as report:
            training.measure_importance(reported(samples, report))
    plan = training.plan
    spread = plan.validation_lead, plan.validation_cases, plan.batch_size
    validation = spread_batches(archive, splits["validation"], *spread, damaged=reading.damaged)
    windows = Windows(archive, splits["train"], stride=reading.stride)
    in_order = SequentialBatches(windows, plan.batch_size, damaged=reading.damaged)
    return Inputs(training, archive, splits, validation, in_order, old if config.rehearsal.share else None)


def _seen(
    config: DictConfig, archive: Archive, splits: Mapping[str, Sequence[str]], before: Mapping[str, Any] | None
) -> SeenDates:
    """The dates that a training sees, with those that the weights have seen that it begins from."""
    of_splits = seen_in_splits(archive, splits) if config.training.steps != 0 else SeenDates()
    if before is None:
        return of_splits
    card = before.get("emul", before if "world" in before else None)
    if card is not None:
        return together([seen_of_card(card), of_splits])
    return together([seen_of_published(card_of(config.from_checkpoint), str(config.from_checkpoint)), of_splits])


def open_archive(
    config: DictConfig, world: World | None, start: Mapping[str, Any] | None = None
) -> tuple[Archive, Mapping[str, Sequence[str]]]:
    """The data of `config`, made where missing, and its splits; world: default measured over the training split.

    start: what the training starts from, which may come with constants.
    """
    source = build(config.data)
    with progress("preparing the data") as report:
        source.prepare(report)
    dataset = source.dataset()
    for line in assumptions(dataset):
        warn(line)
    room = config.loader.gigabytes
    if world is not None:
        return Archive(dataset, world, cache_gigabytes=room), source.splits
    data_world = step_world(config, world_from_dataset(dataset, build(config.variables), history=config.history))
    archive = Archive(dataset, data_world, cache_gigabytes=room)
    with progress("measuring means and scales") as report:
        stored, published = config.scales, published_scales(config.scales, start, data_world, config.transfer.scales)
        stored = stored if isinstance(stored, str) else None
        intervals = build(config.objective, data_world).intervals
        measured = scales(
            archive, source.splits["train"], stored=stored, overrides=published, intervals=intervals, report=report
        )
    old = World.from_plain(start["emul"]["world"]) if start is not None and "emul" in start else None
    if start is not None:
        earlier = {} if old is None else old.scales
        if config.transfer.scales == "mixed" and earlier:
            measured = mixed_scales(earlier, measured)
        measured = ranges_seen(measured, earlier, trained=config.training.steps != 0)
    learned = None if old is None or config.transfer.small_scales == "network" else learned_degree(old, data_world)
    return archive.with_world(replace(archive.world, scales=measured, learned=learned)), source.splits


def old_data(config: DictConfig, world: World) -> tuple[Archive, Sequence[str]]:
    """Open the data that the weights come from, as a training on `world` reads them; and the period they learned from.

    Raises ValueError where they are of another grid, or lack a variable.
    """
    run = open_run(config.rehearsal.run or config.from_checkpoint)
    source = build(run.config.data)
    if run.world.timestep != world.timestep:
        lengths = " and ".join(duration_text(side.timestep) for side in (world, run.world))
        raise ValueError(f"Data with steps of one length can be rehearsed; got {lengths} of {run.folder}.")
    with progress(f"preparing the data of {run.folder.name}") as report:
        source.prepare(report)
    return Archive(source.dataset(), world, cache_gigabytes=config.loader.gigabytes), source.splits["train"]


def reported(windows: SequentialBatches, report: Callable[[str, float], None]) -> Iterator[Window]:
    """Yield the batches; `report` gets the number that have passed."""
    for number, window in enumerate(windows, start=1):
        yield window
        report(f"{number} of {len(windows)} batches", number / len(windows))


def build_training(
    config: DictConfig, world: World, data: Mapping[str, Any] | None = None, parts: Mapping[str, Any] | None = None
) -> Training:
    """The Lightning module of `config` on `world`, untrained. data: the fingerprint of its data.

    parts: cards of the trained Steps that its Step holds; None: of the runs that `config` names.
    """
    cards = part_cards(config, world) if parts is None else parts
    return Training(
        build_step(config, world, cards),
        build(config.objective, world),
        build_loss_terms(config.loss, compared_world(config, world)),
        build(config.optimizer),
        build(config.schedule),
        build(config.training),
        seed=config.seed,
        tuning=build(config.tuning),
        metadata={
            "format": checkpoints.FORMAT,
            "world": world.plain(),
            "config": saved_text(config),
            "data": dict(data or {}),
            "parts": {name: {k: v for k, v in card.items() if k != "weights"} for name, card in cards.items()},
            "revision": revision(),
            "versions": versions(),
        },
    )


def training_batches(
    config: DictConfig,
    module: Training,
    archive: Archive,
    period: Sequence[str],
    start: int,
    old: tuple[Archive, Sequence[str]] | None = None,
) -> ShuffledBatches:
    """The batches of a training from step `start` on; which process takes which is still to be said.

    old: data that are rehearsed, and the period of them.
    """
    plan, objective, reading = module.plan, module.objective, build(config.loader)
    new, *rehearsed = (
        Windows(*data, rollout=objective.longest, stride=reading.stride) for data in ((archive, period), old) if data
    )
    batches: Any = partial(RehearsedBatches, old=rehearsed[0], share=config.rehearsal.share) if old else ShuffledBatches
    if objective.replay:
        batches = partial(ReplayedBatches, replay=objective.replay, samples=plan.batch_size, length=objective.length)
    return batches(
        new,
        plan.portion(build(config.hardware).processes),
        seed=config.seed,
        start=start * plan.accumulate,
        rollout=lambda batch: objective.length(batch // plan.accumulate),
        reading=reading,
    )


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
    plan, world, hardware = module.plan, module.step.world, build(config.hardware)
    samples = len(batches.windows)
    header(f"emul train {config.name}", [f"{'from step ' + str(start) if start else 'from scratch'}"])
    show_rows(
        "plan",
        {
            "grid": f"{world.grid!r}, {world.input_channels} channels in, {world.output_channels} out",
            "parameters": parameter_text(module.step),
            "samples": f"{samples:,} windows of {world.history} + {batches.windows.rollout}",
            **batches.facts(),
            "memory of data": f"at most {(batches.memory_bytes + validation.memory_bytes) / 1e9:.3g} GB",
            "effective batch": plan.division(module.step, hardware.processes),
            "learning rate": f"{config.optimizer.lr:g}, never scaled",
            "steps": f"{plan.steps:,} = {plan.steps * plan.batch_size / samples:.1f} passes over the samples",
            "weight average": plan.ema or "none",
            "hardware": f"{hardware.description}, {torch.get_num_threads()} threads a process",
        },
    )


def fill_network(module: Training, content: Mapping[str, Any], config: DictConfig) -> None:
    """Fill an untrained network, and its average, with the weights; ConfigErrors where they are of another.

    A network may name `additions`, parts that these weights may lack.
    """
    if "emul" in content:
        _fill_from_checkpoint(module.step, content["emul"], config)
    else:
        _fill_from_published(module.step.network, content, config)
    module.begin()
    console().print(f"starting from {config.from_checkpoint}", soft_wrap=True, highlight=False)
    _warn_of_measured(config, content, module.step.world)


def _warn_of_measured(config: DictConfig, content: Mapping[str, Any], world: World) -> None:
    """Warn of channels that are normalised by statistics of these data, not those the network was trained with."""
    if isinstance(config.scales, str) or config.transfer.scales != "old":
        return
    published = published_scales(config.scales, content, world)
    provided = {*published.get("mean", ())} & {*published.get("std", ())}
    if measured := [name for name in world.available.channels if name not in provided]:
        more = f" and {len(measured) - 5} others" if len(measured) > 5 else ""
        warn(
            f"mean and standard deviation of {', '.join(measured[:5])}{more} were measured here, as neither the "
            "weights nor `scales` tell them; a network that was trained with others forecasts badly."
        )


def _fill_from_checkpoint(step: Step, card: Mapping[str, Any], config: DictConfig) -> None:
    """Fill the Step with what the checkpoint has for its channels and grid, by name, and print what became of it."""
    world, before = World.from_plain(card["world"]), saved_config(card["config"], str(config.from_checkpoint))
    if faults := meaning_differences(meaning_of(before.step, world), meaning_of(config.step, step.world)):
        raise _refused(config, "a run whose numbers mean the same", listed(faults))
    if world.timestep != step.world.timestep:
        now, then = (duration_text(side.timestep) for side in (step.world, world))
        warn(f"{config.from_checkpoint} was trained for steps of {then}, these are of {now}: changes are scaled anew.")
    old, new = (_trained(side, where) for side, where in ((before, world), (config, step.world)))
    weights = merged_weights(before, world, card)
    network_weights = {n.removeprefix("network."): value for n, value in weights.items() if n.startswith("network.")}
    rest = {name: value for name, value in weights.items() if not name.startswith(("network.", "small_scales."))}
    network = new.build(new.world) if config.get("adapter") else step.network  # under names without adapters
    options = {"fresh": config.transfer.fresh, "additions": optional(step.network, Network, "additions")}
    try:
        state, fates = transferred(network_weights, old, new, network, probe=tiny_world(world).grid, **options)
        fill(network, state)
    except ValueError as error:
        raise _refused(config, "weights of the same network", str(error)) from error
    state = with_adapter_names(rest | {f"network.{name}": value for name, value in state.items()}, step)
    fill(step, {name: value for name, value in step.state_dict().items() if ".parametrizations." in name} | state)
    rows = account(fates, old, new, network_weights, network)
    rows |= carried_by(step.small_scales, config.transfer.small_scales, world, step.world)
    show_rows(f"weights of {config.from_checkpoint}", rows)


def _trained(config: DictConfig, world: World) -> Trained:
    """How the network of a configuration is built, and its channels in its own order."""
    inner, step = network_world(config, world), config.step
    return Trained(inner, lambda where: build_network(config, where), step.get("reads"), step.get("writes"))


def _fill_from_published(network: torch.nn.Module, content: Mapping[str, Any], config: DictConfig) -> None:
    """Fill the network with the first of the file's state dicts that fits; else report the largest one's fault."""
    module = target_module(str(config.model._target_))
    faults = []
    for theirs in checkpoints.state_dicts(content):
        try:
            fill(network, converted(theirs, module), optional(network, Network, "additions"))
            return
        except (ValueError, KeyError, IndexError) as error:  # names that a conversion looks for may be absent
            reason = str(error) if isinstance(error, ValueError) else f"it lacks the names of {config.model._target_}"
            faults.append((len(theirs), reason))
    raise _refused(config, "weights of the network that `model` describes", max(faults)[1] if faults else "no tensors")


def _refused(config: DictConfig, expected: str, got: str) -> ConfigErrors:
    fix = "set model as it was where it was trained, or name what shall begin anew: transfer.fresh=[pattern]"
    return ConfigErrors([Finding("from_checkpoint", expected, got.rstrip("."), fix)])
