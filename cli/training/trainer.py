"""The Trainer of Lightning that a configuration's hardware asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy, ModelParallelStrategy

from emul.jobs.processes import within_slurm_step
from emul.training.checkpointing import PlainCheckpoints
from emulators.training.hardware import Hardware, recompute
from emulators.training.plan import Plan


def made_trainer(
    hardware: Hardware, plan: Plan, folder: Path, loggers: Sequence[Logger], callbacks: Sequence[pl.Callback]
) -> pl.Trainer:
    """A Trainer that does what the plan says and nothing else; checkpoints and progress are the callbacks'."""
    plugins: list[Any] = [PlainCheckpoints()]
    if within_slurm_step():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # who is told to save, and requeues, is `callbacks`
    return pl.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=strategy(hardware),
        precision=str(hardware.precision),  # type: ignore[arg-type]
        max_steps=plan.steps,
        accumulate_grad_batches=plan.accumulate,
        gradient_clip_val=plan.clip,
        val_check_interval=plan.validate_every * plan.accumulate,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=folder,
        logger=list(loggers),
        plugins=plugins,
        callbacks=list(callbacks),
    )


def strategy(hardware: Hardware) -> Any:
    """How the processes share a network. Buffers are tables, the same everywhere, and need no broadcast."""
    if hardware.strategy == "fsdp":
        return ModelParallelStrategy(
            data_parallel_size=hardware.processes, tensor_parallel_size=1, save_distributed_checkpoint=False
        )
    if hardware.processes > 1:
        return DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    return "auto"


def lay_out(network: torch.nn.Module, hardware: Hardware) -> None:
    """Compile a network, or let it recompute its activations, as the hardware's configuration says."""
    if hardware.activation_checkpointing:
        recompute(network)
    if hardware.compile:
        network.compile()
