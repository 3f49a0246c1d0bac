"""Build networks without memory, on the meta device: shapes, sizes, memory of a training; propose one for a World.

The sizes on the planet ship with the package as `model_sizes.json`, which `python -m emul.checks.networks` writes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from data_pipelines.conventions.suggestions import ConfigErrors, Finding
from data_pipelines.files.atomic import bytes_text, write_text
from data_pipelines.options.documentation import paper
from data_pipelines.options.folders import conf_folder, option_files
from emul.config.build import build, build_network, part_paths, resolve_target, sampler_of
from emul.config.saved import plain

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from data_pipelines.inspection.proposals import ProposedModel
    from emulators.grid import Grid
    from emulators.world import World


def world_from_template(config: DictConfig, template: xr.Dataset) -> World:
    """Return the World of a template, with scales of 0 and 1: no shape depends on them."""
    from data_pipelines.batches.world import world_from_dataset
    from emulators.world import Scale

    world = world_from_dataset(template, build(config.variables), history=config.history)
    sets = (world.prognostic, world.diagnostic, world.forcing, world.static)
    return replace(
        world, scales={channel: Scale(0.0, 1.0, 1.0) for channel_set in sets for channel in channel_set.channels}
    )


def with_changes(world: World, intervals: Sequence[int]) -> World:
    """Return the World of a template with changes over further intervals, in timesteps, which a training measures."""
    changes = {interval: 1.0 for interval in intervals if interval > 1}
    return replace(world, scales={name: replace(scale, changes=changes) for name, scale in world.scales.items()})


def template_world(config: DictConfig) -> World:
    """Return the World that a configuration describes, from metadata alone. Raises ValueError where it is invalid."""
    return step_world(config, world_from_template(config, build(config.data).template()))


def step_world(config: DictConfig, world: World) -> World:
    """Return the World of the Step of a configuration, from that of its variables; of a template with all scales."""
    from emulators.world import Scale

    data_world: World = resolve_target(str(config.step._target_)).data_world(world, plain(config.step))
    unscaled = {channel: Scale(0.0, 1.0, 1.0) for channel in data_world.forcing.channels}
    return replace(data_world, scales={**unscaled, **data_world.scales}) if world.scales else data_world


def network_on_meta(node: Any, world: World, noise: Any = None) -> nn.Module:
    """Build a network without memory, its norms moved by `noise`. Raises ValueError where it does not fit the World."""
    import torch

    from emulators.training.flop_counter import ShapesAlone

    nodes = {"model": node, "noise": noise}
    try:
        with torch.device("meta"), ShapesAlone():
            return build_network(nodes, world).to("meta")
    except (RuntimeError, NotImplementedError, TypeError):  # tables made in numpy need a real device
        return build_network(nodes, world).to("meta")


def network_world(config: DictConfig, world: World) -> World:
    """Return the World on which the Step of a configuration wants its network built."""
    kind = resolve_target(str(config.step._target_))
    inner: World = kind.network_world(world, part_paths(config), plain(config.step))
    return inner


def compared_world(config: DictConfig, world: World) -> World:
    """Return the World of the States that the losses of a configuration compare."""
    compared: World = resolve_target(str(config.step._target_)).compared_world(world, plain(config.step))
    return compared


def step_on_meta(config: DictConfig, world: World) -> Any:
    """Build a Step around a network without memory. Raises ValueError or KeyError where it does not fit the World."""

    network = network_on_meta(config.model, network_world(config, world), config.get("noise"))
    kind = resolve_target(str(config.step._target_))
    parts = {name: kind.stand_in(world, plain(config.step)) for name in part_paths(config)}
    return build(config.step, world, network, {}, **sampler_of(config, world), **parts)


def memory_findings(config: DictConfig, world: World, network: nn.Module, activations: float) -> list[Finding]:
    """Find a network or a batch that cannot fit.

    Weights, batches in wait and activations of one pass are a lower bound of what a training takes.
    """
    from data_pipelines.jobs.processes import available_memory, device_of
    from emulators.training.flop_counter import parameter_count

    hardware, plan = build(config.hardware), build(config.training)
    device, samples = device_of(hardware.accelerator), plan.portion(hardware.processes)
    if hardware.slurm is not None and not hardware.slurm.memory:  # the job's memory limit is unknown here
        return []
    channels = world.input_channels * world.history + world.output_channels * build(config.objective, world).longest
    cells = world.grid.size
    batches = 4.0 * samples * channels * cells * (1 if device == "cuda" else 1 + config.loader.ahead)
    stored = 0.0 if hardware.activation_checkpointing else samples * activations
    count, room = parameter_count(network), available_memory(device, hardware)
    copies = 4 + (plan.ema is not None)  # weights, gradients, two moments, and the average
    fixed = 4.0 * copies * count / (hardware.processes if hardware.strategy == "fsdp" else 1)
    if fixed > room:
        got = f"{count:,} parameters, which take {bytes_text(fixed)} with gradients, moments and average"
        fix = "take hardware.strategy=fsdp with more devices, or a smaller model"
        return [Finding("model", f"a network that fits into {bytes_text(room)} of memory", got, fix)]
    if fixed + batches + stored <= room:
        return []
    breakdown = f"weights {bytes_text(fixed)}, batches {bytes_text(batches)}, activations {bytes_text(stored)}"
    got = f"{samples} samples a pass, which take {bytes_text(fixed + batches + stored)} or more ({breakdown})"
    fix = "take a smaller training.batch_size or more training.accumulate; hardware.gigabytes=... sets the limit"
    return [Finding("training.batch_size", f"a batch that fits into {bytes_text(room)} of memory", got, fix)]


POINTS = 64 * 128  # of the sphere, for which operations are told
SHIPPED = Path(__file__).with_name("model_sizes.json")


@dataclass(frozen=True)
class ModelSize:
    """Describe a model on one World.

    paper: author, year and number. parameters: trainable, null where the model does not fit. operations: of a forecast
    step on 64x128 points, in 10^9, counted as in emulators/training/flop_counter.py, null where they cannot be counted.
    states, step, grid, parity: the module's own words on the states it sees, its output, the grids that fit, and what
    it was compared with.
    """

    paper: str
    parameters: int | None
    operations: float | None
    states: str
    step: str
    grid: str
    parity: str


def shipped_sizes() -> dict[str, ModelSize]:
    """Return the sizes of the models in conf/ on the planet, without building one."""
    return {name: ModelSize(**row) for name, row in json.loads(SHIPPED.read_text(encoding="utf-8")).items()}


def measured_sizes(names: Sequence[str], overrides: Sequence[str] = ()) -> dict[str, ModelSize]:
    """Measure models on the World of a training's overrides. Raises ValueError where its data cannot be described."""
    from emul.config.compose import compose

    try:
        world = template_world(compose("train", list(overrides)))
    except (ValueError, OSError, KeyError) as error:
        if isinstance(error, ConfigErrors):
            raise
        raise ValueError(f"The size of a model depends on the data, and these cannot be described: {error}") from error
    return {name: _measured(name, world) for name in names}


def _measured(name: str, world: World) -> ModelSize:
    from emulators.grid import equiangular_grid
    from emulators.grids.catalogue import named_grid
    from emulators.interfaces import NetworkModule, optional
    from emulators.training.flop_counter import parameter_count

    file: Any = OmegaConf.load(option_files("model")[name])
    node = file.get("model", file)  # of those that set other groups too
    module = import_module(node["_target_"].rpartition(".")[0])
    example_grid = optional(module, NetworkModule, "EXAMPLE_GRID")
    grid = named_grid(example_grid) if example_grid else equiangular_grid(64)
    if example_grid and world.grid.kind != grid.kind:
        world = replace(world, grid=grid, static_fields=None)
    try:
        parameters = parameter_count(network_on_meta(node, world))
    except ValueError:
        parameters = None
    about = optional(module, NetworkModule, "ABOUT")
    details = {key: str(about.get(key, "")) for key in ("states", "step", "grid", "parity")}
    return ModelSize(paper(name, str(node["_target_"])), parameters, operations(node, world, grid), **details)


def operations(node: DictConfig, world: World, grid: Grid) -> float | None:
    """Return 10^9 operations of one forward pass on a grid; None where it needs numbers.

    Of a grid of other than 64x128 points, the operations are counted for so many points.
    """
    from emulators.training.flop_counter import forward_operations

    finer = replace(world, grid=grid, static_fields=None)
    try:
        total = forward_operations(network_on_meta(node, finer), finer)
    except Exception:  # a model may not fit this grid
        return None
    return None if total is None else float(f"{total / 1e9 * POINTS / grid.size:.3g}") or None


def write_sizes() -> None:
    """Write the table that ships with the package."""
    names = [path.stem for path in sorted((conf_folder() / "model").glob("*.yaml"))]
    rows = {name: asdict(size) for name, size in measured_sizes(names).items()}
    write_text(SHIPPED, json.dumps(rows, indent=1) + "\n")


LEAST_STEPS, MOST_STEPS, PASSES = 1000, 50_000, 30  # optimiser steps, and passes over the training times
EFFICIENCY = 0.2  # of a training, against a product of matrices
ON_SPHERE: tuple[dict[str, Any], ...] = tuple(
    {"embed": embed, "layers": layers} for embed, layers in ((384, 8), (256, 8), (128, 6), (64, 4), (32, 3))
)
ON_AREA: tuple[dict[str, Any], ...] = tuple(
    {"channels": channels} for channels in ([128, 256, 512, 1024], [64, 128, 256], [32, 64, 128], [32, 64], [32])
)


def propose_model(
    config: DictConfig, world: World, times: int, name: str | None, hours: float, on_gpu: bool
) -> ProposedModel:
    """Return the proposal for a World with so many training times and the machine in use.

    Of a few sizes, largest first, the first one is taken whose weights, batches and activations fit into half of the
    memory, that has no more parameters than there are values to learn from, and whose training ends in the time
    allowed: 3 x operations x batch x steps / speed, as a backward pass costs two forward passes. The speed is a share
    of what a product of matrices reaches here.

    name: a model of the user's choice; null: an SFNO on the whole sphere, a U-Net on an area. hours: that the training
    may take. Raises ValueError where the model fits neither the World nor the memory.
    """
    from data_pipelines.inspection.proposals import ProposedModel
    from data_pipelines.jobs.processes import available_memory
    from emulators.training.flop_counter import forward_operations, matrix_speed, parameter_count, traced_pass

    config = copy.deepcopy(config)
    if name is None and len(world.grid.shape) == 1:
        raise ValueError(
            f"No model is proposed for {world.grid}; name one that takes any points, such as model=graphcast, or "
            "regrid the data: `emul data regrid`."
        )
    name = name or ("unet" if world.grid.kind == "limited_area" else "sfno")
    windows = times - world.history - build(config.objective, world).longest + 1
    device = "cuda" if on_gpu else "cpu"
    config.hardware.accelerator = "gpu" if on_gpu else "cpu"
    config.hardware.gigabytes = available_memory(device, build(config.hardware)) / 2e9
    speed = EFFICIENCY * matrix_speed(device)
    batches = [batch for batch in (8, 4, 2, 1) if batch <= max(windows, 1)]
    values = times * world.output_channels * world.grid.size
    sizes = {"sfno": ON_SPHERE, "unet": ON_AREA}.get(name, ({},))
    for options in sizes:
        node: Any = OmegaConf.load(option_files("model")[name])
        node = OmegaConf.merge(node.get("model", node), options)
        try:
            network = network_on_meta(node, world)
        except ValueError:
            if options is sizes[-1]:
                raise
            continue
        activations = traced_pass(network, world)[1]
        batch = next((size for size in batches if _fits(config, world, network, activations, size)), None)
        count = parameter_count(network)
        operations = forward_operations(network, world) or 2.0 * count * world.grid.size
        least = 3 * operations * LEAST_STEPS * (batch or 1) / speed
        if options is sizes[-1] or (batch is not None and count <= values and least <= 3600 * hours):
            break
    if batch is None:
        raise ValueError(f"model={name} does not fit into half of the memory here, not even one example; take another.")
    a_step = 3 * operations * batch / speed
    steps = int(min(max(PASSES * windows / batch, LEAST_STEPS), MOST_STEPS, max(3600 * hours / a_step, LEAST_STEPS)))
    steps = steps // 100 * 100
    why = f"{count:,} parameters, for {values:,} values to learn from"
    cost = f"{steps * batch / max(windows, 1):.3g} passes over the training times, {_minutes(steps * a_step)} here"
    return ProposedModel(name, options, batch, steps, why, cost)


def _minutes(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds > 90 else "about a minute or less"


def _fits(config: DictConfig, world: World, network: nn.Module, activations: float, batch: int) -> bool:
    config.training.batch_size = batch
    return not memory_findings(config, world, network, activations)


if __name__ == "__main__":
    write_sizes()
