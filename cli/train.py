"""`emul train`: from a composed config to outputs/train/<name>/, begun, continued, or found finished."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from data_pipelines import checkpoints
from data_pipelines.archive import Archive
from data_pipelines.loader import Batches, InOrder
from data_pipelines.provenance import revision, versions
from data_pipelines.statistics import scales
from data_pipelines.windows import Windows
from data_pipelines.worlds import world as world_of
from emul import console
from emul.build import part, run_with_hydra, terms
from emul.callbacks import Checkpoints, MetricsFile, Pace, PlainCheckpoints
from emul.check import refuse_faults
from emul.process import settle
from emul.runs import emulator, folder
from emulators.metrics.rmse import RMSE
from emulators.training import Plan, Training, fit
from emulators.verification import Scorecard
from emulators.world import World

# What may change between the start of a training and its continuation: where it runs, and what does not touch a weight.
FREE = {
    "output", "hardware", "forecast", "eval", "writer", "metric", "training.checkpoint_every",
    "training.checkpoint_minutes", "training.log_every",
}  # fmt: skip


def main(arguments: list[str]) -> int:
    return run_with_hydra("train", arguments, lambda config: train(config) and 0)


def train(config: DictConfig) -> Path:
    """Train what `config` describes, from where it stands; the run folder. Bad input is refused before any work."""
    target = folder(config, "train")
    last = target / "checkpoints" / "last.ckpt"
    saved = checkpoints.load(last)["emul"] if last.exists() else None
    if saved:
        refuse_other_config(OmegaConf.create(saved["config"]), config, target)
        if saved["finished"]:
            keep_config(target, config)
            console.console().print(
                f"{target} is trained already, {saved['step']} steps; take another name to train anew."
            )
            return target
    refuse_faults(config)
    refuse_absent_gpu(config.hardware.accelerator)
    quieten()
    settle(config.hardware.threads)
    archive, splits = open_archive(config, World.from_plain(saved["world"]) if saved else None)
    module = assemble(config, archive.world)
    keep_config(target, config)
    run(config, module, archive, splits, target, saved)
    if getattr(rank_zero_only, "rank", 0):  # of several processes that trained together the first goes on alone
        raise SystemExit(0)
    return target


def refuse_other_config(before: DictConfig, now: DictConfig, target: Path) -> None:
    """ValueError where a continuation would not be the same training."""
    old, new = (dict(_leaves(OmegaConf.to_container(c, resolve=True))) for c in (before, now))
    keys = [
        k for k in {**old, **new} if old.get(k) != new.get(k) and not any((k + ".").startswith(f + ".") for f in FREE)
    ]
    if keys:
        listed = "; ".join(f"{key} was {old.get(key)}, is {new.get(key)}" for key in keys[:5])
        raise ValueError(
            f"{target} holds a training with another config ({listed}). Choose another name=..., or remove the folder."
        )


def refuse_absent_gpu(accelerator: str) -> None:
    """ValueError where a GPU is asked for and there is none."""
    if accelerator == "gpu" and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise ValueError("hardware.accelerator=gpu was asked for, but PyTorch finds no GPU; use hardware=cpu.")


def keep_config(target: Path, config: DictConfig) -> None:
    """The config.yaml of a run folder, which forecast and eval read; touched only where it differs."""
    file, text = target / "config.yaml", OmegaConf.to_yaml(config, resolve=True)
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    target.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(file)


def _leaves(node: Any, prefix: str = "") -> list[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        return [leaf for key, value in node.items() for leaf in _leaves(value, f"{prefix}{key}.")]
    return [(prefix[:-1], node)]


def quieten() -> None:
    """Silence what Lightning says of choices made here on purpose."""
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    said = (
        "does not have many workers",
        "`IterableDataset`",
        "GPU available but not used",
        "LeafSpec",
        "in eval mode at the start",
    )
    for text in (f".*{words}" for words in said):
        warnings.filterwarnings("ignore", text)


def open_archive(config: DictConfig, world: World | None) -> tuple[Archive, Mapping[str, Sequence[str]]]:
    """The data of `config`, made where missing, and its splits; world: default measured over the training split."""
    source = part(config.data)
    with console.progress("preparing the data") as report:
        source.prepare(report)
    dataset = source.dataset()
    if world is not None:
        return Archive(dataset, world), source.splits
    archive = Archive(dataset, world_of(dataset, part(config.variables), history=config.history))
    with console.progress("measuring means and scales") as report:
        measured = scales(archive, source.splits["train"], report=report)
    return archive.on(replace(archive.world, scales=measured)), source.splits


def assemble(config: DictConfig, world: World) -> Training:
    """The Lightning module of `config` on `world`, untrained."""
    plan: Plan = part(config.training)
    return Training(
        emulator(config, world),
        part(config.objective, world),
        terms(config.loss, world),
        part(config.optimizer),
        part(config.schedule),
        plan,
        seed=config.seed,
        scorecard=lambda: Scorecard(world, world.prognostic, {"rmse": RMSE()}, leads=plan.validation_lead),
        card={
            "format": checkpoints.FORMAT,
            "world": world.plain(),
            "config": OmegaConf.to_yaml(config, resolve=True),
            "revision": revision(),
            "versions": versions(),
        },
    )


def run(
    config: DictConfig,
    module: Training,
    archive: Archive,
    splits: Mapping[str, Sequence[str]],
    target: Path,
    saved: dict[str, Any] | None,
) -> None:
    """Descend to the plan's last step, or solve at once; checkpoints and logs land in `target`."""
    plan, hardware = module.plan, part(config.hardware)
    network, start = module.step.network, saved["step"] if saved else 0
    keeper = Checkpoints(target / "checkpoints", every=plan.checkpoint_every, minutes=plan.checkpoint_minutes)
    validation = validation_batches(archive, splits["validation"], plan)
    if hasattr(network, "fit") or not any(p.requires_grad for p in network.parameters()):
        solve(module, archive, splits["train"], validation)
        keeper.keep(module)
        return
    objective = module.objective
    batches = Batches(
        Windows(archive, splits["train"], rollout=objective.longest),
        plan.portion(hardware.devices * hardware.nodes),
        seed=config.seed,
        start=start * plan.accumulate,
        rollout=lambda batch: objective.length(batch // plan.accumulate),
    )
    announce(config, module, batches, start)
    if hardware.compile:
        network.compile()
    trainer = pl.Trainer(
        accelerator=hardware.accelerator,
        devices=hardware.devices,
        num_nodes=hardware.nodes,
        strategy=hardware.strategy,
        precision=hardware.precision,
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
        default_root_dir=target,
        logger=loggers(target, start),
        plugins=[PlainCheckpoints()],
        callbacks=[keeper, Pace(batches, plan.batch_size)],
    )
    batches.rank, batches.ranks = trainer.global_rank, trainer.world_size
    trainer.fit(module, batches, validation, ckpt_path=target / "checkpoints" / "last.ckpt" if saved else None)
    if module.validated != plan.steps:
        trainer.validate(module, validation, verbose=False)
    module.finished = True
    keeper.save(trainer)


def validation_batches(archive: Archive, period: Sequence[str], plan: Plan) -> InOrder:
    """Windows of the validation split at evenly spread initial dates, each of plan.validation_lead timesteps."""
    windows = Windows(archive, period, rollout=plan.validation_lead)
    stride = max(1, len(windows) // plan.validation_cases)
    spread = Windows(archive, period, rollout=plan.validation_lead, stride=stride)
    return InOrder(spread, min(plan.batch_size, plan.validation_cases))


def solve(module: Training, archive: Archive, period: Sequence[str], validation: InOrder) -> None:
    """Closed-form networks: one pass over the training split, then one validation."""
    if hasattr(module.step.network, "fit"):
        fit(module.step, InOrder(Windows(archive, period), module.plan.batch_size))
    module.finished = True
    if module.averages is not None:
        module.averages.load_state_dict(module.step.state_dict())
    validate(module, validation)


def validate(module: Training, batches: InOrder) -> None:
    """One validation outside of Lightning's loop."""
    module.on_validation_epoch_start()
    with torch.inference_mode():
        for number, window in enumerate(batches):
            module.validation_step(window.to(module.device), number)
    module.on_validation_epoch_end()


def loggers(target: Path, start: int) -> list[Logger]:
    """metrics.csv and TensorBoard, both rid of what an interrupted run logged after the step it goes on from."""
    return [
        MetricsFile(target / "metrics.csv", start),
        TensorBoardLogger(target, name="", version="tensorboard", purge_step=start + 1),
    ]


@rank_zero_only
def announce(config: DictConfig, module: Training, batches: Batches, start: int) -> None:
    """The plan, in numbers, before the first step."""
    plan, world, hardware = module.plan, module.step.world, config.hardware
    samples = len(batches.windows)
    console.header(f"emul train {config.name}", [f"{'from step ' + str(start) if start else 'from scratch'}"])
    console.plan(
        "plan",
        {
            "grid": f"{world.grid!r}, {world.input_channels} channels in, {world.output_channels} out",
            "parameters": f"{sum(p.numel() for p in module.step.parameters()):,}",
            "samples": f"{samples:,} windows of {world.history} + {batches.windows.rollout}",
            "effective batch": f"{plan.batch_size}, in parts of {batches.batch_size}",
            "learning rate": f"{config.optimizer.lr:g}, never scaled",
            "steps": f"{plan.steps:,} = {plan.steps * plan.batch_size / samples:.1f} passes over the samples",
            "weight average": plan.ema or "none",
            "hardware": f"{hardware.accelerator} x {hardware.devices}, {torch.get_num_threads()} threads, "
            f"precision {hardware.precision}",
        },
    )
