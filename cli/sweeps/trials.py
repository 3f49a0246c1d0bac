"""Run the trials of a sweep, as processes of this machine or as jobs of SLURM."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from data_pipelines.files.atomic import write_text
from data_pipelines.files.locks import is_locked
from data_pipelines.files.seals import read_json, write_json
from data_pipelines.reading.threads import processors
from data_pipelines.verification.sweep_results import read_result
from emul.trust.secrets import refuse_typed

if TYPE_CHECKING:
    from emulators.training.hardware import Hardware


LAST_LINES = 12


@dataclass
class Trial:
    """Hold one training of a sweep.

    values: of the keys that vary, as text. words: the arguments of `emul <verb>`. verb: `train`, or `run`, which also
    makes forecasts and scores them. changed: what lies in its folder is of another training, which goes on or is
    replaced, as `resume` says.
    """

    name: str
    values: dict[str, str]
    words: list[str]
    folder: Path
    number: int = 0
    verb: str = "train"
    started: bool = False
    pruned: bool = False
    changed: bool = False

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / "train" / self.name

    @property
    def scores(self) -> Path:
        """The folder of the evaluation."""
        return self.folder / "eval" / self.name

    @property
    def log(self) -> Path:
        """The file of its output."""
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def is_finished(self) -> bool:
        """True if the training, and with `run` its evaluation, is complete."""
        if self.changed and not self.started:
            return False
        return read_result(self.run) is not None and (self.verb == "train" or (self.scores / "scores.nc").is_file())

    def last_lines(self) -> list[str]:
        """The last lines of the log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ["(it left no log)"]
        return [line for line in text.splitlines() if line.strip()][-LAST_LINES:]


class Runner(Protocol):
    """Start, watch and stop trials. state: `queued`, `running`, or None for a trial that it does not run."""

    def start(self, trials: Sequence[Trial]) -> None: ...

    def state(self, trial: Trial) -> str | None: ...

    def stop(self, trial: Trial) -> None: ...


class Local:
    """Run trials as processes of this machine, each with its share of the cores, or GPUs of its own."""

    def __init__(self, hardware: Hardware, jobs: int) -> None:
        self.hardware, self.free = hardware, list(range(jobs))
        self.threads = max(1, processors() // jobs)
        self.processes: dict[str, tuple[subprocess.Popen[bytes], int]] = {}

    def start(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            slot = self.free.pop(0)
            trial.log.parent.mkdir(parents=True, exist_ok=True)
            with open(trial.log, "ab") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "emul.main", trial.verb, *trial.words],
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env=self.environment(slot),
                    start_new_session=True,
                )
            self.processes[trial.name] = (process, slot)

    def environment(self, slot: int) -> dict[str, str]:
        """The environment of a trial: threads unless set already; CI turns progress bars off."""
        environment = {"OMP_NUM_THREADS": str(self.threads), **os.environ, "CI": "true"}
        if self.hardware.accelerator == "gpu":
            devices, visible = self.hardware.devices, gpus()
            chosen = visible[slot * devices : (slot + 1) * devices] or visible
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(chosen)
        return environment

    def state(self, trial: Trial) -> str | None:
        if trial.name not in self.processes:
            return "running" if is_locked(trial.run) else None
        process, slot = self.processes[trial.name]
        if process.poll() is None:
            return "running"
        del self.processes[trial.name]
        self.free.append(slot)
        return None

    def stop(self, trial: Trial) -> None:
        if trial.name in self.processes:
            self.processes[trial.name][0].send_signal(signal.SIGTERM)


class SlurmJobs:
    """Run trials as jobs of SLURM: those started together are an array, at most `jobs` of them at a time."""

    def __init__(self, hardware: Hardware, jobs: int | None, folder: Path, name: str) -> None:
        self.hardware, self.jobs, self.folder, self.name = hardware, jobs, folder / "slurm", name
        self.record = self.folder / "jobs.json"
        self.numbers: dict[str, str] = read_json(self.record) if self.record.exists() else {}
        self.states: dict[str, str] = {}
        self.update()

    def start(self, trials: Sequence[Trial]) -> None:
        from emul.jobs.slurm import SRUN, submit_script

        for trial in trials:
            refuse_typed(trial.words, "the script of the job")
            trial.log.parent.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "emul.main", trial.verb, *trial.words]
            text = f"exec >> {shlex.quote(str(trial.log.resolve()))} 2>&1\n{SRUN} {shlex.join(command)}\n"
            write_text(self.folder / "words" / f"{trial.number}.sh", text)
        job = submit_script(self.script(trials), self.folder / "array.sh")
        self.numbers |= {trial.name: f"{job}_{trial.number}" for trial in trials}
        write_json(self.record, self.numbers)
        self.states |= {self.numbers[trial.name]: "PENDING" for trial in trials}

    def script(self, trials: Sequence[Trial]) -> str:
        """The script of the array that runs these trials."""
        from emul.jobs.slurm import script

        numbers = ",".join(str(trial.number) for trial in trials) + (f"%{self.jobs}" if self.jobs else "")
        words = shlex.quote(str((self.folder / "words").resolve()))
        log, lines = self.folder / "%A_%a.log", [f"export CI=true; source {words}/$SLURM_ARRAY_TASK_ID.sh"]
        return script(self.hardware, self.name, log, lines, {"array": numbers})

    def update(self) -> None:
        """Ask SLURM for the states of the jobs."""
        if self.numbers and shutil.which("squeue"):
            command = ["squeue", "--noheader", "--array", "--me", "--format=%i %T"]
            shown = subprocess.run(command, capture_output=True, text=True)
            if shown.returncode == 0:  # else the controller is away for a moment
                self.states = dict(line.split() for line in shown.stdout.splitlines())

    def state(self, trial: Trial) -> str | None:
        state = self.states.get(self.numbers.get(trial.name, ""))
        return None if state is None else "queued" if state == "PENDING" else "running"

    def stop(self, trial: Trial) -> None:
        subprocess.run(["scancel", self.numbers.get(trial.name, "0")], capture_output=True)


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name]
    return [path.removeprefix("/dev/nvidia") for path in sorted(glob("/dev/nvidia[0-9]*"))]
