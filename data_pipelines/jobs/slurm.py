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
from typing import Any, NoReturn

from data_pipelines.files.atomic import write_text
from data_pipelines.jobs.processes import rank
from data_pipelines.options.folders import VARIABLE
from emulators.training.hardware import Hardware, Slurm

SRUN = "srun --kill-on-bad-exit=1"


def within_job(hardware: Hardware, command: Sequence[str]) -> NoReturn:
    """Replace this process by the srun that starts the processes of a command in the current job."""
    slurm = hardware.slurm
    cores = slurm.cpus_per_task or hardware.threads if slurm else None
    requested = {"nodes": hardware.nodes, "ntasks-per-node": hardware.devices, "cpus-per-task": cores}
    options = [f"--{key}={value}" for key, value in requested.items() if value is not None]
    sys.stdout.flush()
    os.execvp("srun", [*SRUN.split(), *options, *command])


def script(
    hardware: Hardware, name: str, log: Path, lines: Sequence[str], options: Mapping[str, Any] | None = None
) -> str:
    """The script of a job. lines: shell commands; options: of sbatch, which replace those of the hardware."""
    slurm = hardware.slurm
    assert slurm is not None
    requested = {**sbatch_options(hardware, slurm), "job-name": name, "output": log.resolve(), **(options or {})}
    head = [_sbatch_line(key, value) for key, value in requested.items()]
    cores = requested.get("cpus-per-task")
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
    options = {
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
    return {key: value for key, value in options.items() if value is not None}


def submit_script(text: str, path: Path) -> str:
    """Write a script and submit it with sbatch; return the job's number. ValueError carries the message of sbatch."""
    refuse_without("sbatch")
    write_text(path, text)
    completed = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True)
    if completed.returncode:
        raise ValueError(f"sbatch refused the job: {' '.join(completed.stderr.split())} The script is {path}.")
    return completed.stdout.strip().partition(";")[0]


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
    reply = subprocess.run(["scontrol", "show", "job", job, "-o"], capture_output=True, text=True)
    state = re.search(r"\bJobState=(\w+)", reply.stdout)
    if state is None or state[1] != "RUNNING":
        return False
    return subprocess.run(["scontrol", "requeue", job], capture_output=True).returncode == 0


def requeue_on_notice(slurm: Slurm | None) -> None:
    """Requeue the job at the notice of its time limit, while no training runs that would save its state first."""
    if slurm is None or not slurm.requeue or rank():
        return

    def go_back(number: int, frame: FrameType | None) -> None:
        if requeue():
            print("The time ends; the job is back in the queue, and what is done is kept.")
        raise SystemExit(128 + number)

    signal.signal(signal.SIGUSR1, go_back)
