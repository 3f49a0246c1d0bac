"""Initial weights of a training: published ones, or those of another run, and the scales that come with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from data_pipelines.conventions.durations import duration_text
from data_pipelines.files import checkpoints, published_files
from data_pipelines.files.identity import differences
from emul.config.build import target_module
from emul.terminal.console import console, warn
from emul.terminal.findings import ConfigErrors, Finding
from emul.trust.saved import saved_config
from emulators.interfaces import Network, optional
from emulators.steps.step import Step
from emulators.training.lightning_module import Training
from emulators.training.published_weights import converted, fill
from emulators.world import World


def load_weights(path: str | None) -> dict[str, Any] | None:
    """Read the file that `from_checkpoint` names: published weights, a checkpoint of emul, or a run folder."""
    if path is None:
        return None
    file = Path(path)
    if file.is_dir():
        file = next((f for name in ("best", "last") if (f := file / "checkpoints" / f"{name}.ckpt").is_file()), file)
        return checkpoints.load(file)
    return published_files.content(file)


def published_scales(config: DictConfig, content: Mapping[str, Any] | None, world: World) -> published_files.Constants:
    """Scales that need not be measured: from the files that `scales` names, else from the weights' own file."""
    if isinstance(config.scales, DictConfig):
        return published_files.constants_of_files({str(kind): str(path) for kind, path in config.scales.items()}, world)
    if content is None or config.scales is not None:
        return {}
    if "emul" not in content:
        return published_files.constants(content, world)
    scales = content["emul"]["world"]["scales"]
    kinds = (*published_files.KINDS, "changes")
    return {kind: {name: v[i] for name, v in scales.items() if len(v) > i} for i, kind in enumerate(kinds)}


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
    if isinstance(config.scales, str):
        return
    known = published_scales(config, content, world)
    told = {*known.get("mean", ())} & {*known.get("std", ())}
    if measured := [name for name in (world.predicted + world.forcing).channels if name not in told]:
        more = f" and {len(measured) - 5} others" if len(measured) > 5 else ""
        warn(
            f"mean and standard deviation of {', '.join(measured[:5])}{more} were measured here, as neither the "
            "weights nor `scales` tell them; a network that was trained with others forecasts badly."
        )


def _fill_from_checkpoint(step: Step, card: Mapping[str, Any], config: DictConfig) -> None:
    additions = optional(step.network, Network, "additions")
    try:
        fill(step, card["weights"], [f"network.{part}" for part in additions])
    except ValueError as error:
        raise _refused(config, "weights of the same network", str(error)) from error
    other = World.from_plain(card["world"])
    before = saved_config(card["config"], str(config.from_checkpoint))
    if faults := meaning_differences(told_of(before, other), told_of(config, step.world), bool(additions)):
        raise _refused(
            config, "a run whose channels, timestep and output are those of this training", "; ".join(faults)
        )
    if not other.grid.same_as(step.world.grid):
        warn(f"{config.from_checkpoint} was trained on {other.grid!r}, this is {step.world.grid!r}.")


def told_of(config: DictConfig, world: World) -> dict[str, Any]:
    """What the numbers that a network reads and writes mean: timestep, output, channels by name, and their units."""
    step = config.step
    past = world.prognostic.channels * world.history
    return {
        "step.output": str(step.get("output", "residual")),
        "timestep": duration_text(world.timestep),
        "history": str(world.history),
        "vertical coordinate": world.vertical.kind,
        "units": {variable.name: variable.units for variables in world.by_role.values() for variable in variables},
        "channels read": tuple(step.get("reads") or (*past, *world.forcing.channels, *world.static.channels)),
        "channels written": tuple(step.get("writes") or world.predicted.channels),
    }


def meaning_differences(before: Mapping[str, Any], now: Mapping[str, Any], may_add: bool) -> list[str]:
    """List what differs of `told_of`. may_add: channels that came between or after those from before are none."""
    found = []
    for key, old in before.items():
        new = now[key]
        if isinstance(old, dict):
            found += differences({key: old}, {key: {name: new.get(name, old[name]) for name in old}})
            continue
        if isinstance(old, tuple):
            rest = tuple(name for name in new if name in old) if may_add else new
            if rest == old:
                continue
            place = next((n for n, pair in enumerate(zip(old, rest, strict=False)) if pair[0] != pair[1]), len(old))
            old, new = (f"{', '.join(some[place : place + 3]) or 'nothing more'}" for some in (old, rest))
            key = f"{key} from number {place + 1} on"
        if old != new:
            found.append(f"{key} was {old}, is {new}")
    return found


def _fill_from_published(network: torch.nn.Module, content: Mapping[str, Any], config: DictConfig) -> None:
    """Fill the network with the first of the file's state dicts that fits; else report the largest one's fault."""
    module = target_module(str(config.model._target_))
    faults = []
    for theirs in published_files.state_dicts(content):
        try:
            fill(network, converted(theirs, module), optional(network, Network, "additions"))
            return
        except (ValueError, KeyError, IndexError) as error:  # names that a conversion looks for may be absent
            said = str(error) if isinstance(error, ValueError) else f"it lacks the names of {config.model._target_}"
            faults.append((len(theirs), said))
    raise _refused(config, "weights of the network that `model` describes", max(faults)[1] if faults else "no tensors")


def _refused(config: DictConfig, expected: str, got: str) -> ConfigErrors:
    fix = "set model, variables (in the order of its channels) and grid as they were where it was trained"
    return ConfigErrors([Finding("from_checkpoint", expected, got.rstrip("."), fix)])
