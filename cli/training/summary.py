"""Print what is about to be trained: network, data, losses, hardware."""

from __future__ import annotations

import torch
from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_only

from data_pipelines.batches.loader import SequentialBatches, ShuffledBatches
from emul.config.build import build
from emul.terminal import console
from emulators.training.hardware import Hardware
from emulators.training.lightning_module import Training
from emulators.training.plan import Plan


@rank_zero_only
def announce(
    config: DictConfig, module: Training, batches: ShuffledBatches, validation: SequentialBatches, start: int
) -> None:
    """The plan, in numbers, before the first step."""
    plan, world, hardware = module.plan, module.step.world, config.hardware
    samples = len(batches.windows)
    console.header(f"emul train {config.name}", [f"{'from step ' + str(start) if start else 'from scratch'}"])
    console.plan(
        "plan",
        {
            "grid": f"{world.grid!r}, {world.input_channels} channels in, {world.output_channels} out",
            "parameters": parameters(module.step),
            "samples": f"{samples:,} windows of {world.history} + {batches.windows.rollout}",
            **batches.facts(),
            "memory of data": f"at most {(batches.memory_bytes + validation.memory_bytes) / 1e9:.3g} GB",
            "effective batch": f"{plan.batch_size} = {share(plan, build(hardware), batches.batch_size)}",
            "learning rate": f"{config.optimizer.lr:g}, never scaled",
            "steps": f"{plan.steps:,} = {plan.steps * plan.batch_size / samples:.1f} passes over the samples",
            "weight average": plan.ema or "none",
            "hardware": in_words(build(hardware)),
        },
    )


def parameters(module: torch.nn.Module) -> str:
    """How many there are and, where some are frozen, how many are trained."""
    total, trained = (sum(p.numel() for p in module.parameters() if p.requires_grad or frozen) for frozen in (1, 0))
    return f"{total:,}" if trained == total else f"{total:,}, of which {trained:,} are trained"


def share(plan: Plan, hardware: Hardware, portion: int) -> str:
    """How a batch is divided: `2 processes x 2 passes x 2 samples`."""
    return f"{hardware.processes} processes x {plan.accumulate} passes x {portion} samples"


def in_words(hardware: Hardware) -> str:
    """Where a training runs, in one line."""
    extras = {"compiled": hardware.compile, "activations recomputed": hardware.activation_checkpointing}
    return ", ".join(
        [
            f"{hardware.accelerator} x {hardware.devices} x {hardware.nodes} nodes",
            f"strategy {hardware.strategy}",
            f"{torch.get_num_threads()} threads a process",
            f"precision {hardware.precision}",
            *(word for word, holds in extras.items() if holds),
        ]
    )
