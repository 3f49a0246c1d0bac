"""`emul check` and `emul plan`: what is wrong with a training, and what it takes, before it runs.

check: first names and types, from source text alone; then, with the metadata of the data, what the parts say of each
other: variables, levels, splits, the shape a network takes, what losses and constraints need.

plan: parameters and memory of weights, gradients, moments and averages are counted; activations are what the backward
pass of one sample keeps; floating-point operations are counted as in emulators/training/flop_counter.py, those of a
training step with its backward pass; samples a second are measured here, on one process.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from data_pipelines.conventions.suggestions import ConfigErrors
from data_pipelines.files.atomic import bytes_text
from data_pipelines.options.folders import folder_words
from emul.checks.examination import examine, findings, refuse_faults
from emul.config.build import build
from emul.config.compose import run_composed
from emul.terminal.console import next_command, show_findings, show_rows, warn
from emulators.training.hardware import seconds_of

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from emulators.training.flop_counter import Requirements
    from emulators.world import World

SPARE = 0.9  # of the memory that is free


def main(arguments: list[str]) -> int:
    """Run `emul check` or `emul plan`, as the first argument says.

    Exit code 0: nothing is found, or it fits. 2: findings, or what does not fit, and what to change.
    """
    verb, words = arguments[0], arguments[1:]
    return run_composed("plan", words, plan) if verb == "plan" else _check(words)


def _check(arguments: list[str]) -> int:
    """Print the findings, or a line of what would be done."""
    flags = [word for word in arguments if word.startswith("-")]
    if flags:
        raise ValueError(f"emul check takes key=value, --config-dir and --trust only; got {', '.join(flags)}.")
    try:
        code = run_composed("check", arguments, check)
        next_command(shlex.join(["emul", "train", *folder_words(), *arguments]))
        return code
    except ConfigErrors as error:
        faults = list(error.findings)
        if error.rest is not None:
            faults += [finding for finding in findings(error.rest) if finding not in faults]
        show_findings(faults)
        warn(f"{len(faults)} fault{'s' if len(faults) > 1 else ''}; nothing was run.")
        return 2


def check(config: DictConfig) -> int:
    """Prints what a sound configuration would do; ConfigErrors where it is not sound."""
    faults, facts = examine(config)
    if faults:
        raise ConfigErrors(faults)
    for sentence in facts.warnings:
        warn(sentence)
    show_rows(f"{config.name}: no faults", facts.rows)
    return 0


def plan(config: DictConfig) -> int:
    """Print what the training of `config` takes; ValueError where it does not fit into memory or time."""
    from data_pipelines.jobs.processes import available_memory, device_of, set_threads

    refuse_faults(config)
    hardware, training = build(config.hardware), build(config.training)
    device = device_of(hardware.accelerator)
    threads = hardware.threads or (hardware.slurm.cpus_per_task if hardware.slurm else None)
    set_threads(threads, hardware.devices if device == "cpu" else 1)
    needs, world = measured(config, device)
    portion, processes = training.portion(hardware.processes), hardware.processes
    free = available_memory(device, hardware) - (needs.replay if device == "cpu" else 0)
    steps = int(training.flops // (needs.operations * training.batch_size)) if training.flops else training.steps
    seconds = steps * needs.seconds * training.accumulate * portion / needs.samples
    sharded = processes if hardware.strategy == "fsdp" else 1
    taken = needs.fixed / sharded + needs.activations * portion
    rate = needs.samples / needs.seconds * processes
    rows = {
        "grid": f"{world.grid!r}, {world.input_channels} channels in, {world.output_channels} out",
        "parameters": f"{needs.parameters:,}",
        "operations": f"{needs.operations / 1e9:,.3g} GFLOP a sample, forward and backward",
        "memory": f"{bytes_text(taken)} a process: weights {bytes_text(needs.weights)}, "
        f"gradients {bytes_text(needs.gradients)}, moments {bytes_text(needs.moments)}, "
        f"average {bytes_text(needs.averages)}"
        + (f", all shared by {sharded}" if sharded > 1 else "")
        + f", activations {bytes_text(needs.activations)} a sample x {portion}",
        **({"replay buffer": f"{bytes_text(needs.replay)} of the processor's memory"} if needs.replay else {}),
        "free": f"{bytes_text(free)} on {device}",
        "largest batch": f"{needs.largest(SPARE * free):,} samples a pass and process",
        "speed": f"{rate:,.3g} samples a second, {needs.operations * rate / 1e12:.3g} TFLOP/s, measured on one "
        f"{device}" + (f" and multiplied by {processes}" if processes > 1 else ""),
        "steps": f"{steps:,} of {training.batch_size} samples",
        "time": f"{_duration(seconds)}, {seconds * processes / 3600:,.2f} {device.upper()}-hours, without validation",
    }
    show_rows(f"plan of {config.name}", rows)
    if hardware.accelerator == "gpu" and device == "cpu":
        warn("No GPU here: memory, speed and time are those of this machine's processor. Ask where the GPUs are.")
    refuse_beyond(taken, free, needs, training, seconds, config.hardware.slurm)
    return 0


def refuse_beyond(taken: float, free: float, needs: Requirements, training: Any, seconds: float, slurm: Any) -> None:
    """Raise ValueError where the memory or the job's time is too small; warn where the job will be requeued."""
    if taken > free:
        most = needs.largest(SPARE * free)
        advice = (
            f"Take training.accumulate or training.batch_size so that a pass has at most {most} samples, or "
            "hardware.activation_checkpointing=true."
            if most
            else "Take hardware.strategy=fsdp with more devices, or a smaller model."
        )
        raise ValueError(f"A process would take {bytes_text(taken)} and has {bytes_text(free)}. {advice}")
    limit = seconds_of(slurm.time) if slurm is not None and slurm.time else None
    if limit is not None and seconds > limit:
        stretches = -(-seconds // limit)
        if not slurm.requeue:
            raise ValueError(
                f"The training takes {_duration(seconds)} and hardware.slurm.time={slurm.time} is less; give it more, "
                "or set hardware.slurm.requeue=true."
            )
        warn(
            f"The job will be requeued about {stretches:.0f} times: {_duration(seconds)} in stretches of {slurm.time}."
        )


def measured(config: DictConfig, device: str) -> tuple[Requirements, World]:
    """Measure a training on a batch of real data; its requirements and the World."""
    import torch

    from emul.training.assembly import build_training, open_archive, training_batches
    from emulators.training.fitting import lay_out
    from emulators.training.flop_counter import measure

    archive, splits = open_archive(config, None)
    training = build_training(config, archive.world)
    lay_out(training.step.networks, build(config.hardware))
    training.to(device)
    batches = training_batches(config, training, archive, splits["train"], 0)
    window = batches.batch(0).to(torch.device(device))
    return measure(training, window, mixed=str(config.hardware.precision) != "32"), archive.world


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
