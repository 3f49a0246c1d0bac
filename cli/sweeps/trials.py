"""Trials: the trainings of a sweep, which values each has, where it stands, and what runs it."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from data_pipelines.files.locks import is_locked
from data_pipelines.files.metrics_table import read_rows
from data_pipelines.reading.threads import processors

if TYPE_CHECKING:
    from emulators.training.hardware import Hardware


LAST_LINES = 12


@dataclass
class Trial:
    """One training of a sweep. values: of the keys that vary, as text; words: the whole command after `emul <verb>`.

    verb: `train`, or `run`, which goes on to forecasts and their scores.
    """

    name: str
    values: dict[str, str]
    words: list[str]
    folder: Path
    number: int = 0
    verb: str = "train"
    started: bool = False
    pruned: bool = False
    marks: list[tuple[int, float]] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """Its run folder."""
        return self.folder / "train" / self.name

    @property
    def scores(self) -> Path:
        """Where its evaluation lands, if there is one."""
        return self.folder / "eval" / self.name

    @property
    def log(self) -> Path:
        """What it says."""
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def result(self) -> dict[str, Any] | None:
        """What a finished training leaves behind; None before."""
        try:
            return dict(json.loads((self.run / "result.json").read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return None

    @property
    def is_finished(self) -> bool:
        """Whether all that its verb makes is there."""
        return self.result is not None and (self.verb == "train" or (self.scores / "scores.nc").is_file())

    def progress(self, metric: str) -> tuple[int, float, list[tuple[int, float]]]:
        """Steps made, best value of the metric so far, and its values by step."""
        rows = read_rows(self.run / "metrics.csv")
        self.marks = [(row["step"], row[metric]) for row in rows if metric in row]
        best = min((value for _, value in self.marks if not math.isnan(value)), default=math.nan)
        return (rows[-1]["step"] if rows else 0), best, self.marks

    def last_lines(self) -> list[str]:
        """The last lines of its log, for who asks why it failed."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ["(it left no log)"]
        return [line for line in text.splitlines() if line.strip()][-LAST_LINES:]


class Runner(Protocol):
    """What runs trials. state: `queued`, `running`, or None where a trial is not, or no longer, in its hands."""

    def start(self, trials: Sequence[Trial]) -> None: ...

    def state(self, trial: Trial) -> str | None: ...

    def stop(self, trial: Trial) -> None: ...


class Local:
    """Trials as processes of this machine, each with its share of the cores, or GPUs of its own."""

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
        """CI keeps the log free of bars; threads as many as a share has, unless the user has said otherwise."""
        own = {"OMP_NUM_THREADS": str(self.threads), **os.environ, "CI": "true"}
        if self.hardware.accelerator == "gpu":
            devices, known = self.hardware.devices, gpus()
            own["CUDA_VISIBLE_DEVICES"] = ",".join(known[slot * devices : (slot + 1) * devices] or known)
        return own

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


class Jobs:
    """Trials as jobs of SLURM: those started together are an array, at most `jobs` of them at a time."""

    def __init__(self, hardware: Hardware, jobs: int | None, folder: Path, name: str) -> None:
        self.hardware, self.jobs, self.folder, self.name = hardware, jobs, folder / "slurm", name
        self.noted = self.folder / "jobs.json"
        self.numbers: dict[str, str] = json.loads(self.noted.read_text()) if self.noted.exists() else {}
        self.states: dict[str, str] = {}
        self.look()

    def start(self, trials: Sequence[Trial]) -> None:
        from emul.jobs.slurm import SRUN, script, submitted

        for trial in trials:
            trial.log.parent.mkdir(parents=True, exist_ok=True)
            (self.folder / "words").mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "emul.main", trial.verb, *trial.words]
            text = f"exec >> {shlex.quote(str(trial.log.resolve()))} 2>&1\n{SRUN} {shlex.join(command)}\n"
            (self.folder / "words" / f"{trial.number}.sh").write_text(text, encoding="utf-8")
        numbers = ",".join(str(trial.number) for trial in trials) + (f"%{self.jobs}" if self.jobs else "")
        words = shlex.quote(str((self.folder / "words").resolve()))
        log, lines = self.folder / "%A_%a.log", [f"export CI=true; source {words}/$SLURM_ARRAY_TASK_ID.sh"]
        job = submitted(script(self.hardware, self.name, log, lines, {"array": numbers}), self.folder / "array.sh")
        self.numbers |= {trial.name: f"{job}_{trial.number}" for trial in trials}
        self.noted.write_text(json.dumps(self.numbers), encoding="utf-8")
        self.states |= {self.numbers[trial.name]: "PENDING" for trial in trials}

    def look(self) -> None:
        """Ask SLURM what has become of the jobs."""
        if self.numbers:
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
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [word for word in told.split(",") if word]
    return [path.removeprefix("/dev/nvidia") for path in sorted(glob("/dev/nvidia[0-9]*"))]


def row(trial: Trial, state: str, metric: str) -> dict[str, Any]:
    """All that is known of a trial, as one row of the results."""
    step, best, _ = trial.progress(metric)
    result: Mapping[str, Any] = trial.result or {}
    last = {name: value for name, value in result.get("validation", {}).items() if name != metric}
    if math.isnan(best) and metric in result.get("validation", {}):
        best = float(result["validation"][metric])  # of a network that is solved, not descended
    return {"trial": trial.name, **trial.values, "state": state, "step": result.get("step", step), metric: best, **last}
