"""Estimate the memory that a training takes at least, and compare it with what a process may use."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from data_pipelines.files.atomic import bytes_text
from emul.checks.networks import parameter_count
from emul.terminal.findings import Finding
from emul.terminal.sentences import system_bytes

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn

    from emulators.training.hardware import Hardware
    from emulators.world import World

CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def device_of(accelerator: str) -> str:
    """Return `cuda` where a GPU is wanted and there is one, else `cpu`."""
    import torch

    return "cuda" if accelerator in ("gpu", "auto") and torch.cuda.is_available() else "cpu"


def available_memory(device: str, hardware: Hardware) -> float:
    """Return the bytes that one process may use: what hardware.gigabytes says, its GPU, or its share of the machine."""
    import torch

    if hardware.gigabytes is not None:
        return 1e9 * hardware.gigabytes
    if device == "cuda":
        return float(torch.cuda.mem_get_info()[0])
    slurm = hardware.slurm
    if slurm is not None and slurm.memory:
        number, unit = re.fullmatch(r"(\d+)([KMGT]?)", str(slurm.memory)).groups()  # type: ignore[union-attr]
        return float(number) * {"K": 1e3, "": 1e6, "M": 1e6, "G": 1e9, "T": 1e12}[unit] / hardware.devices
    limits = [float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))]
    limits += [float(text) for text in map(_read, CGROUPS) if text.isdigit()]
    available = system_bytes("/proc/meminfo", "MemAvailable")
    return min([*limits, *([] if available is None else [available])]) / hardware.devices


def _read(name: str) -> str:
    return Path(name).read_text().strip() if Path(name).is_file() else ""


def memory_findings(config: DictConfig, world: World, network: nn.Module) -> list[Finding]:
    """Find a network or a batch that cannot fit.

    Weights, batches in wait and activations of one pass are a lower bound of what a training takes.
    """
    from emul.config.build import build

    hardware, plan = build(config.hardware), build(config.training)
    device, samples = device_of(hardware.accelerator), plan.portion(hardware.processes)
    if hardware.slurm is not None and not hardware.slurm.memory:  # the job's memory is not known here
        return []
    channels = world.input_channels * world.history + world.output_channels * build(config.objective, world).longest
    cells = world.grid.shape[0] * world.grid.shape[1]
    batches = 4.0 * samples * channels * cells * (1 if device == "cuda" else 1 + config.loader.ahead)
    kept = 0.0 if hardware.activation_checkpointing else samples * activation_bytes(network, world)
    count, room = parameter_count(network), available_memory(device, hardware)
    copies = 4 + (plan.ema is not None)  # weights, gradients, two moments, and the average
    fixed = 4.0 * copies * count / (hardware.processes if hardware.strategy == "fsdp" else 1)
    if fixed > room:
        got = f"{count:,} parameters, which take {bytes_text(fixed)} with gradients, moments and average"
        fix = "take hardware.strategy=fsdp with more devices, or a smaller model"
        return [Finding("model", f"a network that fits into {bytes_text(room)} of memory", got, fix)]
    if fixed + batches + kept <= room:
        return []
    parts = f"weights {bytes_text(fixed)}, batches {bytes_text(batches)}, activations {bytes_text(kept)}"
    got = f"{samples} samples a pass, which take {bytes_text(fixed + batches + kept)} or more ({parts})"
    fix = "take a smaller training.batch_size or more training.accumulate; hardware.gigabytes=... sets the limit"
    return [Finding("training.batch_size", f"a batch that fits into {bytes_text(room)} of memory", got, fix)]


def activation_bytes(network: nn.Module, world: World) -> float:
    """Return the bytes that a forward pass of one sample keeps for the gradient, on the meta device; 0 if unknown."""
    import torch
    from torch import Tensor

    own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes()
        return tensor

    fields = torch.empty(1, world.input_channels, *world.grid.shape, device="meta")
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            output = network(fields, torch.empty(1, dtype=torch.int64, device="meta"))
    except Exception:  # a network may need numbers where there are none
        return 0.0
    del output
    return float(sum(size for storage, size in kept.items() if storage not in own))
