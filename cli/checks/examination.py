"""Examine a configuration: collect every finding about its data and parts before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from data_pipelines.conventions.suggestions import ConfigErrors, Finding, refusal
from data_pipelines.options.folders import conf_folder, option_files
from emul.checks.networks import (
    compared_world,
    memory_findings,
    network_on_meta,
    network_world,
    step_on_meta,
    step_world,
    with_changes,
    world_from_template,
)
from emul.config.build import build, build_all, build_loss_term, build_loss_terms, resolve_target, untrusted
from emul.config.saved import config_faults, plain_mapping
from emul.terminal.console import console, warn

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from omegaconf import DictConfig
    from torch import nn

    from data_pipelines.interfaces import Source
    from emulators.world import World

NEED_PACKAGES = ("emul.training.loggers.wandb", "emul.training.loggers.mlflow")
ON_WORLD = ("objective", "loss", "constraint")  # groups whose parts are built on the World
ALONE = (  # groups whose parts need no World
    "metric", "optimizer", "schedule", "training", "loader", "hardware", "writer", "perturbation", "tuning",
    "rehearsal",
)  # fmt: skip


def findings(config: DictConfig) -> list[Finding]:
    """Return every fault of a composed configuration."""
    return examine(config)[0]


def value_findings(config: DictConfig) -> list[Finding]:
    """Return the faults that show without the data: names, types, and values of parts that need no World."""
    if faults := untrusted(config):  # before any part is built
        return faults
    faults = config_faults(config)
    for group in ALONE:
        if group not in _groups(faults):
            faults += part_findings(group, config[group], None)
    if not {"training", "hardware"} & _groups(faults):
        faults += batch_findings(config)
    if not {"tuning", "rehearsal"} & _groups(faults):
        faults += old_data_findings(config)
    return faults + absent_packages(config)


def absent_packages(config: DictConfig) -> list[Finding]:
    """Return the loggers whose package is not installed; the name of such a logger is that of its package."""
    names = [
        name for name, node in (config.get("logger") or {}).items()
        if str(node.get("_target_")) in NEED_PACKAGES and find_spec(name) is None
    ]  # fmt: skip
    return [Finding(f"logger.{name}", f"the package {name}", "none", f"pip install 'emul[{name}]'") for name in names]


def _groups(reported: Iterable[Finding]) -> set[str]:
    """The groups that have a finding."""
    return {finding.key.partition(".")[0].partition("[")[0] for finding in reported}


def refuse_values(config: DictConfig, here: bool) -> None:
    """Raise ConfigErrors for faults that show without the data. here: a missing GPU is one."""
    faults = value_findings(config) or (absent_gpu(config) if here else [])
    if faults:
        raise ConfigErrors(faults)


def refuse_faults(config: DictConfig) -> None:
    """Raise ConfigErrors where there are findings; those that need no data come first and alone."""
    refuse_values(config, here=False)
    console(stderr=True).print("Looking at the data ...", style="quiet")
    faults, facts = examine(config)
    if faults:
        raise ConfigErrors(faults)
    for sentence in facts.warnings:
        warn(sentence)


def _with_what_there_is(finding: Finding, template: xr.Dataset) -> Finding:
    """Name the variables of the data where none was chosen."""
    if finding.key != "variables.prognostic":
        return finding
    from data_pipelines.conventions.suggestions import listing

    return replace(finding, fix=f"{finding.fix}; {listing(template.data_vars)}")


def examine(config: DictConfig) -> tuple[list[Finding], Facts]:
    """Check names and types, then what data and parts need of each other, where the first found no fault."""
    from data_pipelines.inspection.contents import split_findings, variable_findings

    faults, facts = untrusted(config), Facts()
    if faults:  # before any part is built
        return faults, facts
    faults = value_findings(config)
    faulty = _groups(faults)
    if faulty & {"data", "history"}:
        return faults, facts
    source, template = open_source(config.data, faults)
    if source is None or template is None:
        return faults, facts
    of_splits, facts.rows, facts.warnings = split_findings(source.splits, template["time"].values)
    faults += of_splits
    wrong = [] if "variables" in faulty else variable_findings(plain_mapping(config.variables), template)
    faults = [_with_what_there_is(finding, template) for finding in faults] + wrong
    if "variables" in faulty or wrong:
        return faults, facts
    try:
        world = world_from_template(config, template)
    except (ValueError, KeyError) as error:
        return [*faults, refusal("variables", "variables that make a world", error)], facts
    if "step" not in faulty:
        world = step_world(config, world)
    facts.rows["world"] = describe_world(world)
    if not faulty & {"model", "step"}:
        faults += network_findings(config, world, facts)
    compared = world if _groups(faults) & {"model", "step"} else compared_world(config, world)
    for group in ON_WORLD:
        if group not in faulty:
            faults += part_findings(group, config[group], compared if group == "loss" else world)
    if not any(finding.key.startswith("constraint") for finding in faults):
        faults += order_findings(config, world)
    for group, verb in (("loss", "losses"), ("metric", "metrics")):
        if not config[group]:
            faults.append(Finding(group, "at least one part", "none", f"`emul {verb}` lists what there is"))
    faulty = _groups(faults)
    if not {"training", "loss"} & faulty:
        faults += loss_findings(config, compared)
    if not {"model", "step", "objective", "hardware"} & faulty:
        faults += training_findings(config, world)
    if not {"objective", "constraint", "loss"} & faulty:
        faults += interval_findings(config, world, compared)
    if not {"training", "hardware", "objective", "data", "loader"} & faulty:
        faults += _too_short(config, world, source.splits, template["time"].values)
        if facts.network is not None and "training" not in _groups(faults):
            faults += memory_findings(config, world, facts.network, facts.activations)
    return faults, facts


def _too_short(config: DictConfig, world: World, splits: Mapping[str, Any], times: np.ndarray) -> list[Finding]:
    from data_pipelines.inspection.contents import length_findings

    lengths = {"train": build(config.objective, world).longest, "validation": config.training.validation_lead}
    return length_findings(splits, times, world.history, lengths, config.training.batch_size, config.loader.stride)


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
    """Find a model that does not fit the World, or gives another shape; adds to the facts."""
    from emulators.training.flop_counter import parameter_count, runnable, traced_pass

    try:
        inner = network_world(config, world)
        network = network_on_meta(config.model, inner, config.get("noise"))
        if config.get("parametrisation"):
            build(config.parametrisation).sizes(network, config.model)
    except Exception as error:  # a part may refuse in any way
        return [refusal("model", "a model that fits this world", error, _fitting(world))]
    facts.rows["model"] = f"{config.model._target_.rpartition('.')[2]}, {parameter_count(network):,} parameters"
    network = runnable(network, inner)
    try:
        shape, facts.activations = traced_pass(network, inner)
    except ValueError as error:
        return [refusal("model", "a model that fits this world", error)]
    expected = (1, inner.output_channels, *inner.grid.shape)
    if shape not in (None, expected):  # what cannot run without numbers is seen at the first step
        return [Finding("model", f"an output of shape {expected}", str(shape))]
    try:
        step_on_meta(config, world)
    except (ValueError, KeyError, TypeError) as error:
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


def old_data_findings(config: DictConfig) -> list[Finding]:
    """Find a training that needs the data of another run and names none."""
    if config.from_checkpoint or config.continue_from:
        return []
    expected, fix = "a run whose weights and data a training begins with", "from_checkpoint=outputs/train/<name>"
    faults = []
    if config.rehearsal.share and not config.rehearsal.run:
        faults.append(Finding("rehearsal.run", expected, "null, and no from_checkpoint", f"{fix} or rehearsal.run=..."))
    if config.tuning.importance == "fisher":
        faults.append(Finding("tuning.importance", expected, "fisher, and no from_checkpoint", fix))
    return faults


def absent_gpu(config: DictConfig) -> list[Finding]:
    """Find a GPU that is asked for on a machine without one."""
    import torch

    if config.hardware.accelerator != "gpu" or torch.cuda.is_available() or torch.backends.mps.is_available():
        return []
    return [Finding("hardware.accelerator", "a GPU that PyTorch finds", "none", "take hardware=cpu")]


def loss_findings(config: DictConfig, world: World) -> list[Finding]:
    """Find optimiser steps at which no loss is active."""
    from emulators.training.plan import refuse_gaps

    try:
        refuse_gaps(build_loss_terms(config.loss, world), config.training.steps)
    except ValueError as error:
        return [refusal("loss", "a loss at every step", error)]
    return []


def training_findings(config: DictConfig, world: World) -> list[Finding]:
    """Find a network that the objective or the hardware cannot train."""
    objective = build(config.objective, world)
    world = with_changes(world, objective.intervals)
    step = step_on_meta(config, world)
    try:
        objective.begin(step)
    except ValueError as error:
        names = ", ".join(_models_with_interval())
        fix = f"these take it: {names}; or take objective=forecast" if "not told the interval" in str(error) else ""
        return [refusal("objective", "a network that can be trained so", error, fix)]
    if objective.keeps_copies and config.hardware.strategy == "fsdp":
        return [Finding("hardware.strategy", "whole networks, which the objective copies", "fsdp", "take hardware=ddp")]
    if objective.replay and config.rehearsal.share:
        return [Finding("objective.replay", "0 with rehearsal", str(objective.replay.share), "take one of the two")]
    return []


def interval_findings(config: DictConfig, world: World, compared: World) -> list[Finding]:
    """Find constraints and losses that know their law over other intervals than the objective trains on.

    compared: the World of the States that losses compare.
    """
    from emulators.interfaces import Constraint, Loss, refuse_unknown_intervals

    intervals = build(config.objective, world).intervals
    world, compared = with_changes(world, intervals), with_changes(compared, intervals)
    try:
        refuse_unknown_intervals(build_all(config.constraint, world), Constraint, intervals)
        refuse_unknown_intervals(build_loss_terms(config.loss, compared), Loss, intervals)
    except ValueError as error:
        return [refusal("objective.intervals", "steps over which the laws are known", error)]
    return []


def _models_with_interval() -> list[str]:
    """Names of the models that take the interval of a step as an input."""
    from emulators.interfaces import Network, optional

    models = []
    for file in option_files("model").values():
        node: Any = OmegaConf.load(file)
        network: Any = resolve_target(str(node.get("model", node)._target_))
        if "interval" in optional(network, Network, "conditioning"):
            models.append(file.stem)
    return models


def _call_once(node: Any, world: World) -> None:
    """Call a loss on a tiny World with the same variables. Raises what it raises, and ValueError for another shape."""
    import torch

    from emulators.contracts.example_worlds import example_state, tiny_world

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
    nodes = {group: node} if "_target_" in node else {f"{group}.{name}": part for name, part in node.items()}
    faults, builder = [], build_loss_term if group == "loss" else build
    for key, part in nodes.items():
        try:
            builder(part, *args)
            if group == "loss" and world is not None:
                _call_once(part, world)
        except ImportError as error:
            faults.append(refusal(key, f"the package {error.name}", error))
        except Exception as error:  # a part may refuse in any way
            faults.append(refusal(key, "a part that can be built", error))
    return faults


@dataclass
class Facts:
    """Collect what a check learns.

    rows: for the plan. warnings: what is allowed but seldom meant. network: the model as `runnable`
    made it, if it fits. activations: bytes that a pass of one sample keeps for the gradient.
    """

    rows: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    network: nn.Module | None = None
    activations: float = 0.0


def open_source(node: Any, reported: list[Finding]) -> tuple[Source | None, xr.Dataset | None]:
    """Build the data source and its template; adds a finding where either fails."""
    try:
        source = build(node)
        template = source.template()
        if "time" in template.dims:
            return source, template
        reported.append(Finding("data", "fields at several times", f"{[*template.data_vars]} without any"))
    except ImportError as error:
        reported.append(refusal("data", f"the package {error.name}", error))
    except Exception as error:  # a source may refuse in any way
        key = "data.path" if isinstance(error, FileNotFoundError) and "path" in node else "data"
        reported.append(refusal(key, "data that can be opened", error))
    return None, None
