"""`emul train`: from a composed config to outputs/train/<name>/, begun, continued, or found finished."""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from data_pipelines.files import checkpoints
from data_pipelines.files.atomic import remove_unfinished
from data_pipelines.files.locks import lock_or_refuse
from emul.checks.examination import refuse_faults
from emul.config.build import build
from emul.config.folders import folder
from emul.config.hydra_run import run_with_hydra
from emul.jobs.processes import local_rank, rank, started_from_outside
from emul.jobs.slurm import handed_over, requeue_on_notice
from emul.jobs.threads import settle
from emul.terminal import console
from emul.training.assembly import assemble, open_archive
from emul.training.continuation import compare
from emul.training.fit import run
from emul.training.initial_weights import begin, opened
from emul.training.runs import keep_config, keep_result
from emulators.training.hardware import Hardware
from emulators.world import World


def main(arguments: list[str]) -> int:
    """With --dry-run the script of a job of SLURM is printed and nothing is done."""
    dry = "--dry-run" in arguments
    words = [word for word in arguments if word != "--dry-run"]

    def task(config: DictConfig) -> int:
        if not handed_over("train", config, words, dry):
            train(config)
        return 0

    return run_with_hydra("train", words, task)


def train(config: DictConfig) -> Path:
    """Train what `config` describes, from where it stands; the run folder. Bad input is refused before any work."""
    target = folder(config, "train")
    with lock_or_refuse(target) if rank() == 0 else nullcontext():
        return _train(config, target)


def _train(config: DictConfig, target: Path) -> Path:
    if rank() == 0:
        remove_unfinished(target / "checkpoints")
    found = checkpoints.newest(target / "checkpoints")
    saved: dict[str, Any] | None = found[1]["emul"] if found else None
    if found and saved and found[2]:
        console.warn(f"{found[2]} Going on from {found[0].name}, step {saved['step']}.")
    if saved:
        compare(OmegaConf.create(saved["config"]), config, target)
        if saved["finished"]:
            keep_config(target, config)
            keep_result(target, saved)
            console.console().print(
                f"{target} is trained already, {saved['step']} steps; take another name to train anew."
            )
            return target
    refuse_faults(config)
    refuse_absent_gpu(config.hardware.accelerator)
    hardware = build(config.hardware)
    refuse_other_count(hardware)
    requeue_on_notice(hardware.slurm)
    quieten()
    settle(hardware.threads, hardware.devices, local_rank(), hardware.affinity)
    start = None if saved else opened(config.from_checkpoint)
    archive, splits = open_archive(config, World.from_plain(saved["world"]) if saved else None, start)
    module = assemble(config, archive.world)
    if start is not None:
        begin(module, start, config)
    keep_config(target, config)
    run(config, module, archive, splits, target, (found[0], saved) if found and saved else None)
    keep_result(target, {"step": module.validated, "best": module.best, "validation": module.validation})
    if rank() == 0:
        score = f"score {module.validation['score']:.4f}, the best {module.best:.4f}"
        console.console().print(f"Trained: {target}, {score}", soft_wrap=True)
    if rank():  # of several processes that trained together the first goes on alone
        raise SystemExit(0)
    return target


def refuse_other_count(hardware: Hardware) -> None:
    """ValueError where srun or torchrun has started another number of processes than the config shares the batch by."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS") if started_from_outside() else ():
        count = os.environ.get(name)
        if count and int(count) != hardware.processes:
            raise ValueError(
                f"Expected {hardware.processes} processes (hardware.nodes={hardware.nodes} x "
                f"hardware.devices={hardware.devices}), but {count} were started ({name})."
            )


def refuse_absent_gpu(accelerator: str) -> None:
    """ValueError where a GPU is asked for and there is none."""
    if accelerator == "gpu" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ValueError("hardware.accelerator=gpu was asked for, but PyTorch finds no GPU; use hardware=cpu.")


def quieten() -> None:
    """Silence what Lightning says of choices made here on purpose."""
    for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    said = (
        "does not have many workers",
        "`IterableDataset`",
        "GPU available but not used",
        "LeafSpec",
        "in eval mode at the start",
        "The `srun` command is available",
        "`broadcast_buffers` is deprecated",
    )
    for text in (f".*{words}" for words in said):
        warnings.filterwarnings("ignore", text)
