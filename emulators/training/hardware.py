"""Hardware: what a job runs on, and how a network is laid out on it.

None of it changes what is learnt: the batch is shared over processes and passes, the learning rate is never scaled.
Activation checkpointing (Chen et al. 2016, arXiv 1604.06174) recomputes a stage's activations in the backward pass;
sharding (Zhao et al. 2023, arXiv 2304.11277) spreads parameters, gradients and moments over the processes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

TIME, MEMORY = r"(\d+-)?\d+(:\d+){0,2}", r"\d+[KMGT]?"  # as sbatch reads them


@dataclass(frozen=True)
class Slurm:
    """Hold what a job requests from SLURM; None leaves an option to the cluster.

    time: limit, as in 12:00:00 or 2-00:00:00. cpus_per_task: cores a process. gpus: GPUs a node, null for none on the
    processor and one a process on GPUs; gpu_type: as in h100. memory: a node, as in 64G. notice: seconds before the
    limit at which the job is told to save. requeue: whether a job that was told to save goes back to the queue.
    setup: shell lines before the start, as `module load cuda`. options: further options of sbatch by name.
    """

    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    time: str | None = None
    cpus_per_task: int | None = None
    gpus: int | None = None
    gpu_type: str | None = None
    memory: str | None = None
    notice: int = 120
    requeue: bool = True
    setup: tuple[str, ...] | list[str] = ()
    options: dict[str, str | int] | None = None

    def __post_init__(self) -> None:
        refuse_below_one("hardware.slurm", cpus_per_task=self.cpus_per_task, notice=self.notice)
        times, memories = (self.time, TIME, "12:00:00 or 2-00:00:00"), (self.memory, MEMORY, "64G")
        for name, (text, shape, example) in {"time": times, "memory": memories}.items():
            if text is not None and not re.fullmatch(shape, str(text)):
                raise ValueError(f"hardware.slurm.{name} is written as in {example}; got {text}.")


@dataclass(frozen=True)
class Hardware:
    """Describe what a training or a forecast runs on.

    devices: processes a node, each with a GPU of its own or a share of the cores. strategy: `ddp` keeps the network
    whole in each process, `fsdp` shards it. precision: `16-mixed` (fp16) is for GPUs without bfloat16. threads: CPU
    threads a process, null for its share of the cores. affinity: whether a process keeps to its share of the cores.
    compile: by torch. activation_checkpointing: memory for time. gigabytes: memory of a process, null for what is free.
    slurm: what to ask of SLURM, null to run here.
    """

    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"
    devices: int = 1
    nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["32", 32, "bf16-mixed", "16-mixed"] = "32"
    threads: int | None = None
    affinity: bool = False
    compile: bool = False
    activation_checkpointing: bool = False
    gigabytes: float | None = None
    slurm: Slurm | None = None

    def __post_init__(self) -> None:
        refuse_below_one("hardware", devices=self.devices, nodes=self.nodes, threads=self.threads)
        if self.gigabytes is not None and not self.gigabytes > 0:
            raise ValueError(f"hardware.gigabytes must be positive, or null for what is free; got {self.gigabytes}.")
        if self.precision == "16-mixed" and self.accelerator == "cpu":
            raise ValueError("hardware.precision=16-mixed needs a GPU; on the processor take bf16-mixed.")
        if self.strategy == "fsdp" and self.compile and self.accelerator == "cpu":
            raise ValueError("hardware.compile=true with strategy=fsdp needs a GPU.")
        if not isinstance(self.slurm, Slurm | None):
            raise ValueError(f"hardware.slurm: expected a job, got {self.slurm}; take hardware=slurm, and its keys.")

    @property
    def processes(self) -> int:
        """Processes over all nodes."""
        return self.devices * self.nodes

    @property
    def description(self) -> str:
        """Where a training runs, in one line."""
        extras = {"compiled": self.compile, "activations recomputed": self.activation_checkpointing}
        where = f"{self.accelerator} x {self.devices} x {self.nodes} nodes"
        settings = [where, f"strategy {self.strategy}", f"precision {self.precision}"]
        return ", ".join([*settings, *(word for word, holds in extras.items() if holds)])


def refuse_below_one(group: str, **counts: int | None) -> None:
    """Raise ValueError naming every count that is below 1; None is allowed."""
    low = {name: count for name, count in counts.items() if count is not None and count < 1}
    if low:
        names = " and ".join(f"{group}.{name}" for name in low)
        raise ValueError(f"{names} must be at least 1; got {' and '.join(map(str, low.values()))}.")


def stages(network: nn.Module) -> Iterator[nn.Module]:
    """The outermost members of the lists and sequences of a network that are made of several parts, in order."""
    for child in network.children():
        if isinstance(child, nn.ModuleList | nn.Sequential):
            yield from (member for member in child if any(True for _ in member.children()))
        else:
            yield from stages(child)


def recompute(network: nn.Module) -> int:
    """Make each stage forget its activations and compute them anew in the backward pass; the number of stages."""
    recomputed = list(stages(network)) or [network]
    for stage in recomputed:
        stage.forward = partial(checkpoint, stage.forward, use_reentrant=False)  # type: ignore[method-assign]
    return len(recomputed)


def shard(network: nn.Module, mesh: Any) -> None:
    """Spread the parameters of each stage, and of the rest, over the processes of `mesh`."""
    from torch.distributed.fsdp import fully_shard

    for stage in stages(network):
        fully_shard(stage, mesh=mesh)
    fully_shard(network, mesh=mesh)


def local_tensors(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """This process's shards of tensors that may be sharded."""
    from torch.distributed.tensor import DTensor

    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that may be sharded, gathered; all processes have to ask for it together."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def seconds_of(text: str) -> float:
    """Return the seconds of a time limit as SLURM writes it, D-HH:MM:SS, HH:MM:SS, MM:SS or minutes."""
    days, _, rest = text.rpartition("-")
    numbers = [int(number) for number in rest.split(":")]
    if days:
        numbers = [*numbers, 0, 0][:3]
    elif len(numbers) == 1:
        numbers = [0, numbers[0], 0]
    elif len(numbers) == 2:
        numbers = [0, *numbers]
    hours, minutes, seconds = numbers
    return int(days or 0) * 86400.0 + hours * 3600.0 + minutes * 60.0 + seconds
