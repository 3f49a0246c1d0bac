"""Build networks without memory, on the meta device, to count parameters and check shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from emul.config.build import build

if TYPE_CHECKING:
    import xarray as xr
    from omegaconf import DictConfig
    from torch import nn

    from emulators.world import World


def world_from_template(config: DictConfig, template: xr.Dataset) -> World:
    """Return the World of a template, with scales of 0 and 1: no shape depends on them."""
    from data_pipelines.batches.world import world_from_dataset
    from emulators.world import Scale

    made = world_from_dataset(template, build(config.variables), history=config.history)
    sets = (made.prognostic, made.diagnostic, made.forcing, made.static)
    return replace(made, scales={channel: Scale(0.0, 1.0, 1.0) for one in sets for channel in one.channels})


def with_changes(world: World, intervals: Sequence[int]) -> World:
    """Return the World of a template with changes over further intervals, in timesteps, which a training measures."""
    changes = {interval: 1.0 for interval in intervals if interval > 1}
    return replace(world, scales={name: replace(scale, changes=changes) for name, scale in world.scales.items()})


def template_world(config: DictConfig) -> World:
    """Return the World that a configuration describes, from metadata alone. Raises ValueError where it is invalid."""
    return world_from_template(config, build(config.data).template())


def network_on_meta(node: Any, world: World) -> nn.Module:
    """Build a network without memory. Raises ValueError where it does not fit the World."""
    import torch

    try:
        with torch.device("meta"):
            return build(node, world).to("meta")
    except (RuntimeError, NotImplementedError, TypeError):  # tables made in numpy need a real device
        return build(node, world).to("meta")


def parameter_count(network: nn.Module) -> int:
    """Count trainable parameters; a complex one counts two."""
    return sum(p.numel() * (2 if p.is_complex() else 1) for p in network.parameters() if p.requires_grad)
