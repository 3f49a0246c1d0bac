"""Initial weights of a training: published ones, or those of another run, and the scales that come with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from data_pipelines.files import checkpoints, published_files
from emul.config.build import target_module
from emul.terminal.console import console, warn
from emul.terminal.findings import ConfigErrors, Finding
from emulators.interfaces import Network, optional
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


def _fill_from_checkpoint(step: torch.nn.Module, card: Mapping[str, Any], config: DictConfig) -> None:
    try:
        fill(step, card["weights"], [f"network.{part}" for part in optional(step.network, Network, "additions")])
    except ValueError as error:
        raise _refused(config, "weights of the same network", str(error)) from error


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
    fix = "set model, variables (in the order of the published channels) and grid as they were where it was trained"
    return ConfigErrors([Finding("from_checkpoint", expected, got.rstrip("."), fix)])
