"""Tell what one process may take of its machine: a device, and memory."""

from __future__ import annotations

import os
import re
from pathlib import Path

import torch

from data_pipelines.conventions.suggestions import system_bytes
from data_pipelines.jobs.processes import local_rank, process_count
from emulators.training.hardware import Hardware

CGROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def device_of(accelerator: str) -> str:
    """Return `cuda` where a GPU is wanted and there is one, else `cpu`."""
    return "cuda" if accelerator in ("gpu", "auto") and torch.cuda.is_available() else "cpu"


def device_of_process(name: str, chosen: Hardware | None) -> str:
    """Return the device of this process, one of several on a node with several GPUs. ValueError where it has no GPU.

    name: such as cpu or cuda; `auto`: as the hardware `chosen` says, else a GPU where there is one.
    """
    if chosen and name == "auto":
        name = {"cpu": "cpu", "gpu": "cuda"}.get(chosen.accelerator, "auto")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.is_available() and process_count(chosen or Hardware()) > 1:
        return f"cuda:{local_rank() % torch.cuda.device_count()}"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name} was asked for, but PyTorch finds no GPU; use device=auto or device=cpu.")
    return name


def available_memory(device: str, hardware: Hardware) -> float:
    """Return the bytes that one process may use: what hardware.gigabytes says, its GPU, or its share of the machine."""
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
