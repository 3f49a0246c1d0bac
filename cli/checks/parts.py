"""Findings about the parts of a configuration: network, constraints, losses, training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from emul.checks.data import Facts
from emul.checks.networks import network_on_meta, parameter_count, with_changes
from emul.config.build import build, build_all, build_loss_term, build_loss_terms, resolve_target
from emul.config.folders import conf_folder, option_files
from emul.terminal.findings import Finding, refusal

if TYPE_CHECKING:
    import numpy as np
    from omegaconf import DictConfig

    from emulators.world import World


# Models of few demands, offered where another does not fit; what follows the name is for worlds of few rows.
SIMPLE_MODELS: tuple[tuple[str, dict[str, Any]], ...] = (("unet", {"channels": [48]}), ("linear", {"bands": 1}))


def describe_world(world: World) -> str:
    from data_pipelines.conventions.durations import duration_text

    channels = f"{world.input_channels} channels in, {world.output_channels} out"
    return f"{world.grid}, every {duration_text(world.timestep)}, {channels}"


def _fitting(world: World) -> str:
    """Suggest simple models that fit a world which the chosen one does not."""
    fit = []
    for name, narrow in SIMPLE_MODELS:
        for keys in ({}, narrow):
            node = OmegaConf.load(conf_folder() / "model" / f"{name}.yaml")
            node.update(keys)
            try:
                network_on_meta(node, world)
            except Exception:  # a part may refuse in any way
                continue
            words = [f"'model.{key}={value}'".replace(" ", "") for key, value in keys.items()]
            fit.append(" ".join([f"model={name}", *words]))
            break
    return f"what fits: {', or '.join(fit)}" if fit else ""


def network_findings(config: DictConfig, world: World, facts: Facts) -> list[Finding]:
    import torch

    try:
        network = network_on_meta(config.model, world)
    except Exception as error:  # a part may refuse in any way
        return [refusal("model", "a model that fits this world", error, _fitting(world))]
    facts.rows["model"] = f"{config.model._target_.rpartition('.')[2]}, {parameter_count(network):,} parameters"
    fields = torch.empty(1, world.input_channels, *world.grid.shape, device="meta")
    try:
        with torch.no_grad():
            shape = tuple(network(fields, torch.empty(1, dtype=torch.int64, device="meta")).shape)
    except ValueError as error:
        return [refusal("model", "a model that fits this world", error)]
    except Exception:  # what cannot run without numbers is seen at the first step
        shape = (1, world.output_channels, *world.grid.shape)
    expected = (1, world.output_channels, *world.grid.shape)
    if shape != expected:
        return [Finding("model", f"an output of shape {expected}", str(shape))]
    try:
        build(config.step, world, network, {})
    except (ValueError, KeyError) as error:
        return [refusal("step", "a step that fits this world", error)]
    facts.network = network
    return []


def order_findings(config: DictConfig, world: World) -> list[Finding]:
    """Find a constraint that would break the law of an earlier one."""
    from emulators.steps.step import refuse_disorder

    try:
        refuse_disorder(build_all(config.constraint, world))
    except ValueError as error:
        return [refusal("constraint", "an order in which every law holds in the end", error)]
    return []


def batch_findings(config: DictConfig) -> list[Finding]:
    """Find a batch that devices and passes cannot share evenly."""
    hardware = build(config.hardware)
    try:
        build(config.training).portion(hardware.devices * hardware.nodes)
    except ValueError as error:
        return [refusal("training.batch_size", "a batch that divides evenly", error)]
    return []


def absent_gpu(config: DictConfig) -> list[Finding]:
    """Find a GPU that is asked for on a machine without one."""
    import torch

    if config.hardware.accelerator != "gpu" or torch.cuda.is_available() or torch.backends.mps.is_available():
        return []
    return [Finding("hardware.accelerator", "a GPU that PyTorch finds", "none", "take hardware=cpu")]


def loss_findings(config: DictConfig, world: World) -> list[Finding]:
    """Find optimiser steps at which no loss is active."""
    from emulators.training.loss_terms import refuse_gaps

    try:
        refuse_gaps(build_loss_terms(config.loss, world), config.training.steps)
    except ValueError as error:
        return [refusal("loss", "a loss at every step", error)]
    return []


def training_findings(config: DictConfig, world: World) -> list[Finding]:
    """Find a network that the objective or the hardware cannot train."""
    objective = build(config.objective, world)
    world = with_changes(world, objective.intervals)
    step = build(config.step, world, network_on_meta(config.model, world), {})
    try:
        objective.begin(step)
    except ValueError as error:
        names = ", ".join(_models_with_interval())
        fix = f"these take it: {names}; or take objective=forecast" if "not told the interval" in str(error) else ""
        return [refusal("objective", "a network that can be trained so", error, fix)]
    if objective.keeps_copies and config.hardware.strategy == "fsdp":
        fix = "take hardware=ddp, or another objective"
        return [Finding("hardware.strategy", "whole networks, of which the objective keeps copies", "fsdp", fix)]
    return []


def interval_findings(config: DictConfig, world: World) -> list[Finding]:
    """Find constraints and losses that know their law over other intervals than the objective trains on."""
    from emulators.interfaces import Constraint, Loss, refuse_unknown_intervals

    intervals = build(config.objective, world).intervals
    world = with_changes(world, intervals)
    try:
        refuse_unknown_intervals(build_all(config.constraint, world), Constraint, intervals)
        refuse_unknown_intervals(build_loss_terms(config.loss, world), Loss, intervals)
    except ValueError as error:
        return [refusal("objective.intervals", "steps over which the laws are known", error)]
    return []


def _models_with_interval() -> list[str]:
    """Names of the models that take the interval of a step as an input."""
    from emulators.interfaces import Network, optional

    found = []
    for file in option_files("model").values():
        node: Any = OmegaConf.load(file)
        network: Any = resolve_target(str(node.get("model", node)._target_))
        if "interval" in optional(network, Network, "conditioning"):
            found.append(file.stem)
    return found


def length_findings(config: DictConfig, world: World, splits: Mapping[str, Any], times: np.ndarray) -> list[Finding]:
    """Find splits that are shorter than one example, and a batch larger than the training split."""
    from data_pipelines.conventions.periods import bounds

    found = []
    lengths = {"train": build(config.objective, world).longest, "validation": config.training.validation_lead}
    batch, stride = config.training.batch_size, config.loader.stride
    for name, rollout in lengths.items():
        start, end = bounds(splits[name])
        held, needed = int(((times >= start) & (times <= end)).sum()), world.history + rollout
        if held < needed:
            expected = f"at least {needed} times, {world.history} known and {rollout} forecast"
            found.append(Finding(f"data.splits.{name}", expected, f"{held}", "lengthen it, or shorten the rollout"))
        elif name == "train" and batch > (windows := (held - needed) // stride + 1):
            expected = f"at most the {windows} windows of data.splits.train"
            found.append(
                Finding("training.batch_size", expected, f"{batch}", "take less, or a longer data.splits.train")
            )
    return found


def _call_once(node: Any, world: World) -> None:
    """Call a loss on a tiny World with the same variables. Raises what it raises, and ValueError for another shape."""
    import torch

    from emul.checks.example_worlds import example_state, tiny_world

    tiny = tiny_world(world)
    states = (example_state(tiny, tiny.predicted, seed, dtype=torch.float32) for seed in (1, 2))
    with torch.no_grad():
        shape = tuple(build_loss_term(node, tiny)(*states).shape)
    if shape != (2,):
        raise ValueError(f"Expected one number for each of 2 cases, shape (2,); got {shape}.")


def part_findings(group: str, node: Any, world: World | None) -> list[Finding]:
    """Build each part of a group, and find those that cannot be built."""
    if node is None:
        return []
    args = () if world is None else (world,)
    nodes = {group: node} if "_target_" in node else {f"{group}.{name}": one for name, one in node.items()}
    found, builder = [], build_loss_term if group == "loss" else build
    for key, one in nodes.items():
        try:
            builder(one, *args)
            if group == "loss" and world is not None:
                _call_once(one, world)
        except ImportError as error:
            found.append(refusal(key, f"the package {error.name}", error))
        except Exception as error:  # a part may refuse in any way
            found.append(refusal(key, "a part that can be built", error))
    return found
