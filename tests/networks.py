"""Networks by their options, on variables of any number of levels, with weights at which nothing is hidden."""

from __future__ import annotations

import importlib

import torch
from omegaconf import OmegaConf

from emulators.variables import Variable, VariableSet
from emulators.world import World
from places import CONF


def channels(count: int, levels: dict[str, int] | None = None) -> VariableSet:
    """`count` channels of one variable, or the variables of `levels`, 0 for a single one."""
    if levels is not None:
        return VariableSet(tuple(Variable(name, "", tuple(range(1, n + 1))) for name, n in levels.items()))
    return VariableSet((Variable("state", "", tuple(range(count))),) if count else ())


def build(file: str, where: World, **changes) -> torch.nn.Module:
    """The network of `conf/model/<file>.yaml` with other options."""
    options = OmegaConf.to_container(OmegaConf.load(CONF / "model" / f"{file}.yaml"))
    options = options.get("model", options)
    module, name = options.pop("_target_").rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(where, **{**options, **changes})


def randomised(net: torch.nn.Module) -> torch.nn.Module:
    """Every parameter away from where it starts, so that nothing is hidden by a zero or a one."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return net.eval()
