"""`emul train`: from a composed config to outputs/train/<name>/, begun, continued, or found finished."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from omegaconf import DictConfig

from data_pipelines.batches.loader import ShuffledBatches
from data_pipelines.files.atomic import lock_new_or_refuse, write_text
from data_pipelines.files.fingerprints import json_text
from data_pipelines.jobs.processes import local_rank, rank, set_threads, started_from_outside
from data_pipelines.jobs.slurm import requeue_on_notice
from data_pipelines.options.folders import result_folder
from emul.checks.examination import refuse_faults, refuse_values
from emul.checks.submission import submitted_or_within_job
from emul.config.build import build
from emul.config.compose import run_composed
from emul.terminal import console
from emul.training.assembly import Inputs, loggers, prepare, print_plan, reported, training_batches
from emul.training.continuation import (
    Resumed,
    find_checkpoint,
    keep_options,
    refuse_nothing_left,
    write_config,
    write_result,
)
from emul.training.loggers import InterruptibleCheckpoints, ProcessWatch, ProgressLogger, environment
from emul.training.runs import Run, open_run, save_adapter
from emulators.interfaces import is_fitted_at_once
from emulators.training.fitting import fit, fit_climatology, silence_lightning, solve
from emulators.training.flop_counter import steps_within_flops
from emulators.training.hardware import Hardware
from emulators.training.lightning_module import Training
from emulators.training.plan import refuse_gaps


def main(arguments: list[str]) -> int:
    """With --dry-run the script of a job of SLURM is printed and nothing is done."""
    dry = "--dry-run" in arguments
    words = [word for word in arguments if word != "--dry-run"]

    def task(config: DictConfig) -> int:
        if not ((dry or config.hardware.slurm is not None) and submitted_or_within_job("train", config, words, dry)):
            console.next_command(f"emul forecast {shlex.quote(f'run={train(config)}')}")
        return 0

    return run_composed("train", words, task)


def train(config: DictConfig, signals: bool = True) -> Path:
    """Train what `config` describes, or resume it; the run folder. Bad input is refused before any work.

    signals: install handlers that save and stop on SIGTERM, SIGUSR1 and Ctrl-C.
    """
    config, target = config.copy(), result_folder(config.output, "train", config.name)
    with lock_new_or_refuse(target) if rank() == 0 else nullcontext():
        resumed = find_checkpoint(config, target)
        if resumed is not None and resumed.state["finished"] and not resumed.changed:
            keep_options(target, config, resumed.state)
            write_result(target, resumed.state)
            steps = resumed.state["step"]
            console.console().print(f"{target} is trained already, {steps} steps; take another name to train anew.")
            return target
        hardware = prepare_process(config)
        inputs = prepare(config, target, resumed)
        training, saving = inputs.training, target / "checkpoints"
        checkpoints = InterruptibleCheckpoints(saving, training.plan, requeues=_requeues(hardware), signals=signals)
        if is_fitted_at_once(training.step):
            refuse_nothing_left(resumed, 0, target)
            write_config(target, config)
            solve(training, inputs.in_order, validation=inputs.validation, checkpoints=checkpoints)
        else:
            batches = first_batches(config, inputs, hardware, resumed)
            refuse_nothing_left(resumed, training.plan.steps, target)
            write_config(target, config)
            watch = ProcessWatch(checkpoints, saving)
            try:
                fit(
                    training,
                    batches,
                    validation=inputs.validation,
                    hardware=hardware,
                    callbacks=[watch, checkpoints, ProgressLogger(batches, training.plan.batch_size)],
                    loggers=loggers(config, target, resumed),
                    folder=target,
                    resume=resumed.path if resumed else None,
                    plugins=environment(),
                )
            except RuntimeError as error:
                explained = watch.explain(error)
                raise explained from (None if explained is error else error)
            finally:
                watch.stop()
        if config.get("adapter"):
            save_adapter(target)
        finish(target, training)
    return target


def prepare_process(config: DictConfig) -> Hardware:
    """Refuse a configuration that cannot be trained here; set threads, signals and warnings of this process."""
    refuse_values(config, here=True)
    refuse_faults(config)
    hardware: Hardware = build(config.hardware)
    refuse_other_count(hardware)
    if hardware.slurm is not None:
        requeue_on_notice(hardware.slurm)
    silence_lightning()
    set_threads(hardware.threads, hardware.devices, local_rank(), hardware.affinity)
    return hardware


def first_batches(config: DictConfig, inputs: Inputs, hardware: Hardware, resumed: Resumed | None) -> ShuffledBatches:
    """The batches of a training by gradient steps, its length settled and the plan printed."""
    training, step = inputs.training, resumed.state["step"] if resumed else 0
    if resumed is None:
        with console.progress("fitting the climatology") as report:
            fit_climatology(training, reported(inputs.in_order, report))
    batches = training_batches(config, training, inputs.archive, inputs.splits["train"], step, inputs.old)
    if training.plan.flops is not None:
        training.plan = replace(training.plan, steps=steps_within_flops(training, batches.batch, hardware.processes))
        refuse_gaps(training.losses, training.plan.steps)
    print_plan(config, training, batches, inputs.validation, step)
    return batches


def finish(target: Path, training: Training) -> None:
    """Write the result, print the score, and let the first of several processes go on alone."""
    result = {"step": training.validated, "best": training.best, "validation": training.validation}
    write_result(target, result | {"data": training.metadata["data"]})
    if rank():
        raise SystemExit(0)
    if card := training.metadata.get("published"):
        write_text(target / "model_card.json", json_text(card))
    score = f"score {training.validation['score']:.4f}, the best {training.best:.4f}"
    console.console().print(f"Trained: {target}, {score}", soft_wrap=True)


def _requeues(hardware: Hardware) -> bool:
    return hardware.slurm is not None and hardware.slurm.requeue


def refuse_other_count(hardware: Hardware) -> None:
    """ValueError where srun or torchrun has started another number of processes than the config shares the batch by."""
    for name in ("WORLD_SIZE", "SLURM_NTASKS") if started_from_outside() else ():
        count = os.environ.get(name)
        if count and int(count) != hardware.processes:
            raise ValueError(
                f"Expected {hardware.processes} processes (hardware.nodes={hardware.nodes} x "
                f"hardware.devices={hardware.devices}), but {count} were started ({name})."
            )


class _Callable(ModuleType):
    """Call the module as its function: `emul.train(config)` in Python is `emul train` without signal handlers."""

    def __call__(self, config: DictConfig) -> Run:
        """Train what a configuration describes, or resume it; the run, with its best weights.

        To build and fit parts without a configuration see `emulators.training.fitting.fit`.
        """
        return open_run(train(config, signals=False))


sys.modules[__name__].__class__ = _Callable
