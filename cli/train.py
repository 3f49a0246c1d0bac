"""`emul train`: from a composed config to outputs/train/<name>/, begun, continued, or found finished."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only

from data_pipelines import checkpoints
from data_pipelines.archive import Archive
from data_pipelines.loader import Batches, Damaged, InOrder
from data_pipelines.provenance import revision, versions
from data_pipelines.statistics import scales
from data_pipelines.windows import Windows
from data_pipelines.worlds import world as world_of
from emul import console
from emul.build import part, parts, run_with_hydra, terms
from emul.callbacks import Checkpoints, Pace, Together
from emul.check import refuse_faults
from emul.continuation import compare
from emul.locks import sole
from emul.loggers import Place
from emul.process import settle
from emul.ranks import local_rank, rank, started_from_outside
from emul.runs import emulator, folder
from emul.slurm import handed_over, requeue_on_notice
from emul.start import begin, constants, opened
from emul.trainer import lay_out, made_trainer
from emulators.hardware import Hardware
from emulators.metrics.rmse import RMSE
from emulators.operations import affordable
from emulators.state import Window
from emulators.terms import refuse_gaps
from emulators.training import Plan, Training, examples
from emulators.verification import Scorecard
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
    with sole(target) if rank() == 0 else nullcontext():
        return _train(config, target)


def _train(config: DictConfig, target: Path) -> Path:
    if rank() == 0:
        checkpoints.tidy(target / "checkpoints")
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
    hardware = part(config.hardware)
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


def keep_result(target: Path, card: Mapping[str, Any]) -> None:
    """result.json, for who looks at many runs; only the first process writes it."""
    if rank() == 0:
        kept = {"finished": True, **{name: card[name] for name in ("step", "best", "validation")}}
        write_whole(target / "result.json", json.dumps(kept, indent=1) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file at one stroke, where it does not hold this text already."""
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


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


def keep_config(target: Path, config: DictConfig) -> None:
    """The config.yaml of a run folder, which forecast and eval read; touched only where it differs."""
    file, text = target / "config.yaml", OmegaConf.to_yaml(config, resolve=True)
    if file.exists() and file.read_text(encoding="utf-8") == text:
        return
    if rank():
        return
    target.mkdir(parents=True, exist_ok=True)
    write_whole(file, text)


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


def open_archive(
    config: DictConfig, world: World | None, start: Mapping[str, Any] | None = None
) -> tuple[Archive, Mapping[str, Sequence[str]]]:
    """The data of `config`, made where missing, and its splits; world: default measured over the training split.

    start: what the training starts from, which may come with constants.
    """
    source = part(config.data)
    with console.progress("preparing the data") as report:
        source.prepare(report)
    dataset = source.dataset()
    room = config.loader.gigabytes
    if world is not None:
        return Archive(dataset, world, cache_gigabytes=room), source.splits
    made = world_of(dataset, part(config.variables), history=config.history)
    archive = Archive(dataset, made, cache_gigabytes=room)
    with console.progress("measuring means and scales") as report:
        stored, known = config.scales, constants(config, start, made)
        stored = stored if isinstance(stored, str) else None
        measured = scales(archive, source.splits["train"], stored=stored, known=known, report=report)
    return archive.on(replace(archive.world, scales=measured)), source.splits


def assemble(config: DictConfig, world: World) -> Training:
    """The Lightning module of `config` on `world`, untrained."""
    plan: Plan = part(config.training)
    step = emulator(config, world)
    learned = getattr(step.network, "learned", None)  # variables to judge by, where all others are given
    scored = world.predicted.select(learned) if learned else world.prognostic
    return Training(
        step,
        part(config.objective, world),
        terms(config.loss, world),
        part(config.optimizer),
        part(config.schedule),
        plan,
        seed=config.seed,
        scorecard=lambda: Scorecard(world, scored, {"rmse": RMSE()}, leads=plan.validation_lead),
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
    found: tuple[Path, dict[str, Any]] | None,
) -> None:
    """Descend to the plan's last step, or solve at once; checkpoints and logs land in `target`."""
    plan, hardware = module.plan, part(config.hardware)
    path, saved = found or (None, {"step": 0, "validated": -1})
    network = module.step.network
    keeper = Checkpoints(
        target / "checkpoints",
        every=plan.checkpoint_every,
        minutes=plan.checkpoint_minutes,
        requeues=hardware.slurm is not None and hardware.slurm.requeue,
    )
    reading = part(config.loader)
    validation = validation_batches(archive, splits["validation"], plan, reading.damaged)
    windows = Windows(archive, splits["train"], stride=reading.stride)
    in_order = InOrder(windows, plan.batch_size, damaged=reading.damaged)
    if hasattr(network, "fit") or not any(p.requires_grad for p in network.parameters()):
        solve(module, in_order, validation)
        keeper.keep(module)
        return
    fit_climatology = getattr(network, "fit_climatology", None)
    if found is None and callable(fit_climatology):
        with console.progress("fitting the climatology") as report:
            fit_climatology(examples(module.step, reported(in_order, report)))
        if module.averages is not None:
            module.averages.load_state_dict(module.step.state_dict())
    batches = training_batches(config, module, archive, splits["train"], saved["step"])
    if plan.flops is not None:
        module.plan = plan = replace(plan, steps=affordable(module, batches.batch, hardware.processes))
        refuse_gaps(module.losses, plan.steps)
    announce(config, module, batches, validation, saved["step"])
    lay_out(network, hardware)
    place = Place(target, str(config.name), saved["step"], saved.get("validated", -1))
    together = Together(keeper)
    callbacks = [together, keeper, Pace(batches, plan.batch_size)]
    trainer = made_trainer(hardware, plan, target, loggers(config, place), callbacks)
    batches.rank, batches.ranks = trainer.global_rank, trainer.world_size
    batches.pinned = trainer.strategy.root_device.type == "cuda"
    descend(trainer, module, batches, validation, path, together)


def training_batches(
    config: DictConfig, module: Training, archive: Archive, period: Sequence[str], start: int
) -> Batches:
    """The batches of a training from step `start` on; which process takes which is still to be said."""
    plan, objective, reading = module.plan, module.objective, part(config.loader)
    return Batches(
        Windows(archive, period, rollout=objective.longest, stride=reading.stride),
        plan.portion(part(config.hardware).processes),
        seed=config.seed,
        start=start * plan.accumulate,
        rollout=lambda batch: objective.length(batch // plan.accumulate),
        reading=reading,
    )


def descend(
    trainer: pl.Trainer,
    module: Training,
    batches: Batches,
    validation: InOrder,
    path: Path | None,
    together: Together,
) -> None:
    """Train to the last step, validate, save. Where another process is gone, this one ends and says so."""
    try:
        trainer.fit(module, batches, validation, ckpt_path=path)
        if module.validated != module.plan.steps:
            trainer.validate(module, validation, verbose=False)
        module.finished = True
        together.keeper.save(trainer, needed=True)
    except RuntimeError as error:
        raise together.explained(error) from error
    finally:
        together.over()


def validation_batches(archive: Archive, period: Sequence[str], plan: Plan, damaged: Damaged = "stop") -> InOrder:
    """Windows of the validation split at evenly spread initial dates, each of plan.validation_lead timesteps."""
    windows = Windows(archive, period, rollout=plan.validation_lead)
    stride = max(1, len(windows) // plan.validation_cases)
    spread = Windows(archive, period, rollout=plan.validation_lead, stride=stride)
    return InOrder(spread, min(plan.batch_size, plan.validation_cases), damaged=damaged)


def reported(windows: InOrder, report: Callable[[str, float], None]) -> Iterator[Window]:
    """The batches, counted as they go by."""
    for number, window in enumerate(windows, start=1):
        yield window
        report(f"{number} of {len(windows)} batches", number / len(windows))


def solve(module: Training, windows: InOrder, validation: InOrder) -> None:
    """Closed-form networks: one pass over the training split, then one validation."""
    network: Any = module.step.network
    if hasattr(network, "fit"):
        network.fit(examples(module.step, windows))
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


def loggers(config: DictConfig, place: Place) -> list[Logger]:
    """The loggers of `config`; none but in the first process."""
    return list(parts(config.logger, place).values()) if rank() == 0 else []


@rank_zero_only
def announce(config: DictConfig, module: Training, batches: Batches, validation: InOrder, start: int) -> None:
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
            "effective batch": f"{plan.batch_size} = {share(plan, part(hardware), batches.batch_size)}",
            "learning rate": f"{config.optimizer.lr:g}, never scaled",
            "steps": f"{plan.steps:,} = {plan.steps * plan.batch_size / samples:.1f} passes over the samples",
            "weight average": plan.ema or "none",
            "hardware": in_words(part(hardware)),
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
