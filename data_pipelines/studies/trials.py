"""Lay out the trials of a sweep, by axes, grid or search, and run them here or on SLURM.

The search is the tree-structured Parzen estimator of Optuna: Bergstra et al. 2011 (NeurIPS 24); Akiba et al. 2019,
doi 10.1145/3292500.3330701.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any, Literal, Protocol

from data_pipelines.files.atomic import is_locked, write_text
from data_pipelines.files.fingerprints import read_json, write_json
from data_pipelines.files.identity import digest
from data_pipelines.jobs.slurm import SRUN, script, submit_script
from data_pipelines.options.trust import refuse_typed
from data_pipelines.reading.threads import processors
from data_pipelines.verification.run_results import read_progress, read_result
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
            assigned = visible[slot * devices : (slot + 1) * devices] or visible
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(assigned)
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
        numbers = ",".join(str(trial.number) for trial in trials) + (f"%{self.jobs}" if self.jobs else "")
        words = shlex.quote(str((self.folder / "words").resolve()))
        log, lines = self.folder / "%A_%a.log", [f"export CI=true; source {words}/$SLURM_ARRAY_TASK_ID.sh"]
        return script(self.hardware, self.name, log, lines, {"array": numbers})

    def update(self) -> None:
        """Ask SLURM for the states of the jobs."""
        if self.numbers and shutil.which("squeue"):
            command = ["squeue", "--noheader", "--array", "--me", "--format=%i %T"]
            queue = subprocess.run(command, capture_output=True, text=True)
            if queue.returncode == 0:  # else the controller is away for a moment
                self.states = dict(line.split() for line in queue.stdout.splitlines())

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


class Search:
    """Draw the values of trials with Optuna and report their scores to it.

    identity: of what is fixed; a search with other fixed settings or axes in the same folder is another.
    The same command replays the values of earlier trials in their order, so that finished trials keep their place.
    """

    def __init__(self, axes: Mapping[str, Axis], settings: SweepSettings, folder: Path, identity: str) -> None:
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend, JournalStorage
        except ImportError as error:
            raise ValueError("sweep.search=tpe needs Optuna: pip install 'emul[search]'.") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.axes = dict(axes)
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(folder / "search.log")))
        study_id = digest([identity, settings.seed, {key: vars(axis) for key, axis in self.axes.items()}])
        self.study = optuna.create_study(
            study_name=f"sweep-{study_id[:12]}",
            storage=storage,
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=settings.seed, n_startup_trials=max(3, settings.trials // 5)),
        )
        self.replayed = [dict(trial.user_attrs["values"]) for trial in self.study.trials]
        self.numbers: dict[str, int] = {}
        self.finished = {trial.number for trial in self.study.trials if trial.state.is_finished()}
        self.next = 0

    def next_values(self) -> dict[str, str]:
        """The values of the next trial."""
        if self.next < len(self.replayed):
            values = self.replayed[self.next]
        else:
            trial = self.study.ask()
            values = {key: self._suggest(trial, key, axis) for key, axis in self.axes.items()}
            trial.set_user_attr("values", values)
        self.numbers[_label(values)] = self.next
        self.next += 1
        return values

    def _suggest(self, trial: Any, key: str, axis: Axis) -> str:
        if axis.values:
            return str(trial.suggest_categorical(key, axis.values))
        return f"{trial.suggest_float(key, axis.low, axis.high, log=axis.logarithmic):.4g}"

    def report(self, trials: Sequence[Trial], states: Mapping[str, str], metric: str) -> None:
        """Report the trials that have been scored since the last call."""
        from optuna.trial import TrialState

        for trial in trials:
            number, state = self.numbers[_label(trial.values)], states[trial.name]
            if number in self.finished or state not in ("finished", "pruned"):
                continue
            best = read_progress(trial.run, metric).best
            lost = math.isnan(best)
            self.study.tell(number, None if lost else best, state=TrialState.FAIL if lost else TrialState.COMPLETE)
            self.finished.add(number)


def _label(values: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={value}" for key, value in values.items())


@dataclass(frozen=True)
class SweepSettings:
    """Hold the settings of a sweep, each written `sweep.<key>=`.

    verb: `train`, or `run`, which makes and scores the forecasts of every trial too, and compares them in the end.
    name: of the folder. jobs: trials at a time, null for one here and all on SLURM. search: `grid` tries every
    combination, `random` and `tpe` (which learns; needs Optuna) draw `trials` of them. metric: of the validation, the
    smaller the better. tune: a key with several values, such as optimizer.lr, whose best value is found for each
    combination of the others (but the seed) by trials of a `tuning` share of the steps or operations. prune: stop
    trials that lag behind the best third of the others at the same step. seed: of the draws.
    """

    name: str | None = None
    verb: Literal["train", "run"] = "train"
    jobs: int | None = None
    search: Literal["grid", "random", "tpe"] = "grid"
    trials: int = 20
    metric: str = "score"
    tune: str | None = None
    tuning: float = 0.2
    prune: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Axis:
    """Hold the values of one key: a list, or an interval to draw from, evenly or evenly in the logarithm."""

    values: tuple[str, ...] = ()
    low: float = math.nan
    high: float = math.nan
    logarithmic: bool = False

    @property
    def first(self) -> str:
        """A value to try the configuration with."""
        return self.values[0] if self.values else f"{self.low:g}"

    def random_value(self, chance: random.Random) -> str:
        """A value at random."""
        if self.values:
            return chance.choice(self.values)
        if self.logarithmic:
            return f"{math.exp(chance.uniform(math.log(self.low), math.log(self.high))):.4g}"
        return f"{chance.uniform(self.low, self.high):.4g}"


def combinations(axes: Mapping[str, Axis]) -> Iterator[dict[str, str]]:
    """Every combination of the values."""
    for values in itertools.product(*(axis.values for axis in axes.values())):
        yield dict(zip(axes, values, strict=True))


class Within:
    """Run trials one after another in this process, which spares each of many short ones the start of its own.

    command: runs the words of `emul`, and returns its exit code.
    """

    def __init__(self, command: Callable[[list[str]], int]) -> None:
        self.command = command

    def start(self, trials: Sequence[Trial]) -> None:
        for trial in trials:
            trial.log.parent.mkdir(parents=True, exist_ok=True)
            with open(trial.log, "a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
                self.command([trial.verb, *trial.words])

    def state(self, trial: Trial) -> str | None:
        return "running" if is_locked(trial.run) else None

    def stop(self, trial: Trial) -> None:
        """Do nothing: what interrupts this process interrupts the trial."""


def tuning_words(settings: SweepSettings, axes: Mapping[str, Axis], training: Any) -> list[str]:
    """The words that make trials short, to find the tuned key's best value. ValueError where it has no values."""
    key = str(settings.tune)
    if key not in axes or not axes[key].values or not 0 < settings.tuning < 1:
        raise ValueError(
            f"sweep.tune: expected a key with several values and sweep.tuning between 0 and 1; got {key}, "
            f"{settings.tuning}. Give values, {key}=1e-3,3e-3."
        )
    if training.flops is not None:
        return [f"training.flops={training.flops * settings.tuning}"]
    return [f"training.steps={max(1, round(training.steps * settings.tuning))}"]


def tuned(
    settings: SweepSettings, axes: Mapping[str, Axis], rows: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, str]], list[str]]:
    """The values of all trials, each with the best value of the tuned key for its combination of the others.

    rows: of the short trials. Returned with them: a sentence on each combination that has no trial, as none of its
    short ones has a finite score, and on each whose best value is the least or greatest of those tried.
    ValueError where no combination has a finite score.
    """
    key, score = str(settings.tune), settings.metric
    others = [name for name in axes if name not in (key, "seed")]
    best: dict[tuple[str, ...], tuple[float, str]] = {}
    for row in rows:
        if math.isfinite(row[score]):
            combination = tuple(row[name] for name in others)
            best[combination] = min(best.get(combination, (math.inf, "")), (row[score], row[key]))
    combined = list(combinations({k: axis for k, axis in axes.items() if k != key}))
    if not best:
        raise ValueError(f"sweep.tune: no short trial has a finite {score}; see the folder tuning/logs.")
    found, notes = [], dict[str, None]()
    ends = {pick(axes[key].values, key=float) for pick in (min, max)} if _are_numbers(axes[key].values) else set()
    for values in combined:
        combination = tuple(values[name] for name in others)
        label, value = ", ".join(combination) or "the network", best.get(combination, (math.inf, ""))[1]
        if not value:
            notes[f"{label} is left out: none of its short trials has a finite {score}."] = None
            continue
        found.append({**values, key: value})
        if value in ends:
            notes[f"{label} is best at {key}={value}, the end of the values tried: others may be better."] = None
    return found, list(notes)


def _are_numbers(values: Sequence[str]) -> bool:
    try:
        return bool([float(value) for value in values])
    except ValueError:
        return False
