"""Submit a verb to SLURM as a job once its configuration has been checked, or start its processes within one."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from omegaconf import DictConfig

from data_pipelines.files.atomic import is_locked
from data_pipelines.jobs.processes import started_from_outside
from data_pipelines.jobs.slurm import SRUN, job_number, script, submit_script, within_job
from data_pipelines.options.folders import result_folder
from data_pipelines.options.trust import refuse_typed
from emul.checks.examination import refuse_faults
from emul.config.build import build
from emul.terminal.console import console
from emulators.training.hardware import Hardware


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
    target = result_folder(config.output, "train", config.name)
    text = script(hardware, str(config.name), target / "slurm" / "%j.log", [line])
    if dry:
        print(text)
        return
    if is_locked(target):
        raise ValueError(f"A training is at work in {target} now; wait for it, or choose another name=... .")
    job = submit_script(text, target / "slurm" / "job.sh")
    console().print(f"Submitted job {job}: `squeue -j {job}`, log {target / 'slurm' / job}.log", soft_wrap=True)
