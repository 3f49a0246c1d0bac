"""SLURM: the script of a job that trains, saves on a signal, goes back to the queue and resumes.

The script is the command itself: `srun emul train ...`, one process a device. Before the time limit SLURM sends
SIGUSR1; preemption and `scontrol requeue` send SIGTERM. The training then saves its state, and the job is put back into
the queue, unless SLURM does so itself.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from data_pipelines.files.atomic import write_text
from emul.config.folders import VARIABLE
from emul.jobs.processes import rank, started_from_outside
from emul.terminal.console import console
from emul.trust.secrets import refuse_typed

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from emulators.training.hardware import Hardware, Slurm


SRUN = "srun --kill-on-bad-exit=1"


def submitted_or_within_job(verb: str, config: DictConfig, words: Sequence[str], dry: bool) -> bool:
    """Submit `emul <verb> words` to SLURM, or print its script, and return True; False where it is to run here.

    Within a job, srun starts the command in place of this process. The configuration is checked first.
    """
    if config.hardware.slurm is None or started_from_outside():
        if dry:
            raise ValueError("--dry-run prints the script of a job: choose hardware=slurm.")
        return False
    if {"--multirun", "-m"} & {*words}:
        raise ValueError("Several trainings as jobs are a sweep: emul sweep hardware=slurm, with the same words.")
    from emul.checks.examination import refuse_faults
    from emul.config.build import build

    refuse_typed(words, "the script of the job")
    refuse_faults(config)
    command = [sys.executable, "-m", "emul.main", verb, *words]
    if not any(word.startswith("name=") for word in words):
        command.append(f"name={config.name}")
    hardware: Hardware = build(config.hardware)
    if job_number() is not None and not dry:
        within_job(hardware, command)
    submit(config, hardware, f"{SRUN} {shlex.join(command)}", dry)
    return True


def submit(config: DictConfig, hardware: Hardware, line: str, dry: bool) -> None:
    """Submit a job that runs one line of shell, or print its script."""
    from data_pipelines.files.locks import is_locked
    from emul.config.places import result_folder

    target = result_folder(config, "train")
    text = script(hardware, str(config.name), target / "slurm" / "%j.log", [line])
    if dry:
        print(text)
        return
    if is_locked(target):
        raise ValueError(f"A training is at work in {target} now; wait for it, or choose another name=... .")
    job = submit_script(text, target / "slurm" / "job.sh")
    console().print(f"Submitted job {job}: `squeue -j {job}`, log {target / 'slurm' / job}.log", soft_wrap=True)


def within_job(hardware: Hardware, command: Sequence[str]) -> NoReturn:
    """Replace this process by the srun that starts the processes of a command in the current job."""
    slurm = hardware.slurm
    cores = slurm.cpus_per_task or hardware.threads if slurm else None
    asked = {"nodes": hardware.nodes, "ntasks-per-node": hardware.devices, "cpus-per-task": cores}
    options = [f"--{key}={value}" for key, value in asked.items() if value is not None]
    sys.stdout.flush()
    os.execvp("srun", [*SRUN.split(), *options, *command])


def script(
    hardware: Hardware, name: str, log: Path, lines: Sequence[str], options: Mapping[str, Any] | None = None
) -> str:
    """The script of a job. lines: shell commands; options: of sbatch, which replace those of the hardware."""
    slurm = hardware.slurm
    assert slurm is not None
    asked = {**sbatch_options(hardware, slurm), "job-name": name, "output": log.resolve(), **(options or {})}
    head = [_sbatch_line(key, value) for key, value in asked.items()]
    cores = asked.get("cpus-per-task")
    exports = (
        [f"export SRUN_CPUS_PER_TASK={shlex.quote(str(cores))}"] if cores else []
    )  # else srun asks for one, from SLURM 22.05 on
    if folders := os.environ.get(VARIABLE):
        exports.append(f"export {VARIABLE}={shlex.quote(folders)}")
    return "\n".join(["#!/bin/bash", *head, "", *exports, *slurm.setup, f"cd {shlex.quote(os.getcwd())}", *lines, ""])


def _sbatch_line(key: str, value: object) -> str:
    """A line of options; sbatch takes quotes as a shell does. Raises ValueError for what would be another line."""
    text = "" if value is True else f"={shlex.quote(str(value))}"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", key) or not text.isprintable():
        raise ValueError(f"hardware.slurm: expected an option of sbatch in one line, got {f'{key}{text}'!r}.")
    return f"#SBATCH --{key}{text}"


def sbatch_options(hardware: Hardware, slurm: Slurm) -> dict[str, Any]:
    """The options of sbatch by name."""
    gpus = slurm.gpus if slurm.gpus is not None else hardware.devices if hardware.accelerator == "gpu" else None
    kind = f"{slurm.gpu_type}:" if slurm.gpu_type else ""
    asked = {
        "partition": slurm.partition,
        "account": slurm.account,
        "qos": slurm.qos,
        "time": slurm.time,
        "nodes": hardware.nodes,
        "ntasks-per-node": hardware.devices,
        "cpus-per-task": slurm.cpus_per_task or hardware.threads,
        "gres": f"gpu:{kind}{gpus}" if gpus else None,
        "mem": slurm.memory,
        "signal": f"USR1@{slurm.notice}",
        "requeue" if slurm.requeue else "no-requeue": True,
        "open-mode": "append",
        **(slurm.options or {}),
    }
    return {key: value for key, value in asked.items() if value is not None}


def submit_script(text: str, path: Path) -> str:
    """Write a script and submit it with sbatch; return the job's number. ValueError carries the message of sbatch."""
    refuse_without("sbatch")
    write_text(path, text)
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"sbatch refused the job: {' '.join(done.stderr.split())} The script is {path}.")
    return done.stdout.strip().partition(";")[0]


def refuse_without(*commands: str) -> None:
    """Raise ValueError where a command of SLURM is not installed here."""
    absent = [command for command in commands if shutil.which(command) is None]
    if absent:
        raise ValueError(f"hardware=slurm needs {' and '.join(absent)}, not found here; --dry-run prints the script.")


def job_number(environment: Mapping[str, str] = os.environ) -> str | None:
    """The number of the current job, as scontrol writes it; None outside of SLURM."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")


def requeue() -> bool:
    """Put the current job back into the queue, where it is running; return whether that was done.

    A job that is being cancelled, preempted or requeued is no longer `RUNNING`, and is left alone.
    """
    job = job_number()
    if job is None or shutil.which("scontrol") is None:
        return False
    shown = subprocess.run(["scontrol", "show", "job", job, "-o"], capture_output=True, text=True)
    state = re.search(r"\bJobState=(\w+)", shown.stdout)
    if state is None or state[1] != "RUNNING":
        return False
    return subprocess.run(["scontrol", "requeue", job], capture_output=True).returncode == 0


def requeue_on_notice(slurm: Slurm | None) -> None:
    """Requeue the job at the notice of its time limit, while no training runs that would save its state first."""
    if slurm is None or not slurm.requeue or rank():
        return

    def go_back(number: int, frame: FrameType | None) -> None:
        if requeue():
            console().print("The time ends; the job is back in the queue, and what is done is kept.")
        raise SystemExit(128 + number)

    signal.signal(signal.SIGUSR1, go_back)
