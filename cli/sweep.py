"""`emul sweep`: many trainings over a grid, a list or at random, here or on SLURM, to outputs/sweep/<name>/.

Any key of `emul train` may have many values: `model=sfno,unet`, `seed=range(4)`, `optimizer.lr=interval(1e-4,1e-2)`,
`model=glob(*_small)`; an experiment may give some their values itself, as hydra.sweeper.params.
The same command goes on where a sweep stopped: what is finished is left alone, what failed is trained again.
"""

from __future__ import annotations

import math
import random
import shlex
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from data_pipelines.conventions.suggestions import ConfigErrors
from data_pipelines.files.atomic import lock_new_or_refuse
from data_pipelines.files.identity import refuse_name, training_identity
from data_pipelines.files.netcdf import write_netcdf
from data_pipelines.jobs.slurm import refuse_without
from data_pipelines.options.folders import groups, key_of
from data_pipelines.studies.trials import Axis, Local, Runner, SlurmJobs, SweepSettings, Trial, combinations
from data_pipelines.verification.run_results import (
    FEW_STEPS,
    across_seeds,
    is_lagging,
    read_progress,
    sorted_rows,
    trial_row,
    trials_dataset,
    write_table,
)
from emul.config.build import build
from emul.config.compose import compose, declared_sweep, distinct_name, name_piece
from emul.config.overrides import assignment
from emul.config.saved import config_faults, saved_plain
from emul.config.settings import read_settings, split_axes
from emul.terminal.console import console, header, next_command, table, warn
from emul.training.continuation import KeptTrials

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from data_pipelines.studies.trials import Search

PERIOD = 1.0  # seconds between two updates
LOOK = 5.0  # of the states of SLURM jobs
SHOWN = 30  # rows of the live table


def main(arguments: list[str]) -> int:
    """Run a sweep; the exit code is 1 if a trial failed."""
    dry = "--dry-run" in arguments
    settings, words = read_settings(SweepSettings, [word for word in arguments if word != "--dry-run"], "sweep.")
    given_axes, fixed = split_axes(words)
    experiment = compose("train", fixed)  # reports faults of the configuration
    preset, _ = split_axes(declared_sweep("train", fixed))
    axes = {key: axis for key, axis in preset.items() if key not in map(key_of, fixed)} | given_axes
    if not axes:
        raise ValueError("Nothing varies: give some keys several values, as in optimizer.lr=1e-3,3e-4 seed=1,2,3.")
    name = refuse_name(sweep_name(experiment, fixed, preset, axes) if settings.name is None else settings.name)
    config = compose("train", [*fixed, *(f"{key}={axis.first}" for key, axis in axes.items())])
    folder = Path(config.output) / "sweep" / name
    if settings.tune and dry:
        raise ValueError("sweep.tune finds values by trials: --dry-run cannot know them.")
    best = None
    if settings.tune:
        from data_pipelines.studies.trials import tuned, tuning_words

        short = tuning_words(settings, axes, config.training)
        tuned_axes = {key: axis for key, axis in axes.items() if key != "seed"}
        quick = replace(settings, verb="train", search="grid")
        search = Sweep(quick, tuned_axes, [*fixed, *short], folder / "tuning", f"{name} tuning", config)
        search.run_alone()
        best, notes = tuned(settings, axes, search.rows())
        for note in notes:
            warn(note)
    sweep = Sweep(settings, axes, fixed, folder, name, config, candidates=best)
    if dry:
        return sweep.show_plan()
    return sweep.run_alone()


def sweep_name(experiment: DictConfig, fixed: Sequence[str], preset: Mapping[str, Axis], axes: Iterable[str]) -> str:
    """The name of a sweep that was given none: that of its experiment, else what all trials share and what varies."""
    if preset:
        return str(experiment.name)
    pieces = [name_piece(f"{key}=") for key in axes]
    if {"name", "experiment"} & {*map(key_of, fixed)}:
        return "_".join([str(experiment.name), *pieces])
    shared = "_".join(f"${{hydra:runtime.choices.{group}}}" for group in ("data", "model") if group not in axes)
    return "_".join([*([str(compose("train", [*fixed, f"name={shared}"]).name)] if shared else []), *pieces])


class Sweep:
    """Run the trials of one sweep and collect their results.

    listed: trials by name in place of a grid over the axes, each with the values that its row shows and all its words.
    candidates: the values of trials in place of a grid. within: one after another in this process, where they do not
    run on SLURM.
    """

    def __init__(
        self,
        settings: SweepSettings,
        axes: Mapping[str, Axis],
        fixed: Sequence[str],
        folder: Path,
        name: str,
        config: DictConfig,
        listed: Mapping[str, tuple[dict[str, str], Sequence[str]]] | None = None,
        candidates: Sequence[dict[str, str]] | None = None,
        within: bool = False,
    ) -> None:
        self.listed, self.candidates = listed, candidates
        self.settings, self.axes, self.fixed, self.folder, self.name = settings, dict(axes), list(fixed), folder, name
        self.config, hardware = config, build(config.hardware)
        self.on_slurm = hardware.slurm is not None
        self.jobs = settings.jobs if settings.jobs or self.on_slurm else 1
        self.runner: Runner
        if self.on_slurm:
            self.runner = SlurmJobs(hardware, settings.jobs, folder, name)
        else:
            self.runner = self.within() if within else Local(hardware, self.jobs or 1)
        self.trials: list[Trial] = []
        self.states: dict[str, str] = {}
        self.taken: dict[str, str] = {}
        self.earlier = KeptTrials(name)
        self.search: Search | None = None

    @staticmethod
    def within() -> Runner:
        """The runner of trials in this process."""
        from data_pipelines.studies.trials import Within
        from emul.main import main as command

        return Within(command)

    def run_alone(self) -> int:
        """Do what `run` does as the only command in the folder, and stop the trials where it is interrupted."""
        if self.on_slurm:
            refuse_without("sbatch", "squeue")
        try:
            with lock_new_or_refuse(self.folder, work="sweeping", other="another sweep.name=..."):
                return self.run()
        except KeyboardInterrupt:
            self.stop()
            raise

    def run(self) -> int:
        """Train all trials that are not finished and write the results; 1 if one failed."""
        self.prepare()
        count = f"{len(self.trials)} trials" if self.search is None else f"{self.settings.trials} trials, drawn by TPE"
        header(f"emul sweep {self.name}", [count, f"to {self.folder}"])
        with Live(console=console(), auto_refresh=False) if console().is_terminal else _PlainTable() as live:
            while self.step():
                live.update(self.table(), refresh=True)
                time.sleep(PERIOD)
            live.update(self.table(), refresh=True)
        return self.close()

    def show_plan(self) -> int:
        """Print what would be trained and, on SLURM, the script of the array; nothing is written or started."""
        if self.settings.search == "tpe":
            raise ValueError("sweep.search=tpe draws a trial from the results of others: --dry-run cannot know them.")
        self.prepare()
        header(f"emul sweep {self.name}", [f"{len(self.trials)} trials", f"to {self.folder}"])
        rows = [[trial.name, *trial.values.values(), self.state(trial)] for trial in self.trials]
        table(["trial", *self.axes, "state"], rows)
        waiting = [trial for trial in self.trials if self.state(trial) == "waiting"]
        if isinstance(self.runner, SlurmJobs) and waiting:
            console().print(self.runner.script(waiting), markup=False, highlight=False, soft_wrap=True)
        return 0

    def prepare(self) -> None:
        """Add the trials of a grid or a random search, or make the search that draws them one by one."""
        settings = self.settings
        if self.listed is not None:
            for name, (values, words) in self.listed.items():
                self.add_named(name, values, [*self.fixed, *words])
        elif self.candidates is not None:
            for values in self.candidates:
                self.add(values)
        elif settings.search == "tpe":
            from data_pipelines.studies.trials import Search

            fixed = training_identity(saved_plain(self.config))
            self.search = Search(self.axes, settings, self.folder, fixed)
        elif settings.search == "random":
            chance = random.Random(settings.seed)
            drawn = [{key: a.random_value(chance) for key, a in self.axes.items()} for _ in range(settings.trials)]
            for values in {tuple(draw.values()): draw for draw in drawn}.values():
                self.add(values)
        else:
            intervals = [key for key, axis in self.axes.items() if not axis.values]
            if intervals:
                raise ValueError(
                    f"{intervals[0]} is an interval, which no grid goes through; add sweep.search=random or tpe."
                )
            for values in combinations(self.axes):
                self.add(values)

    def add(self, values: dict[str, str]) -> Trial:
        """Add a trial, once. ConfigErrors if its configuration has faults; ValueError if another lies in its folder."""
        group_names = groups()
        varied = [f"{key}={value}" for key, value in values.items()]
        name = "_".join(value if key in group_names else name_piece(f"{key}={value}") for key, value in values.items())
        name = distinct_name(name, varied, self.taken)
        if existing := next((trial for trial in self.trials if trial.name == name), None):
            return existing
        return self.add_named(name, values, [*self.fixed, *varied])

    def add_named(self, name: str, values: dict[str, str], words: Sequence[str]) -> Trial:
        """Add a trial by its name and words. ConfigErrors, ValueError: as of `add`."""
        words = [word for word in words if key_of(word) != "name"]
        words += [assignment("output", self.folder), assignment("name", name)]
        config = compose("train", words)
        faults = config_faults(config)
        if faults:
            raise ConfigErrors(faults)
        trial = Trial(name, values, words, self.folder, len(self.trials), self.settings.verb)
        trial.changed = bool(self.earlier.changes(trial, config))
        self.trials.append(trial)
        return trial

    def step(self) -> bool:
        """Start trials that may start and update the states; False once all have ended."""
        if isinstance(self.runner, SlurmJobs) and time.monotonic() % LOOK < PERIOD:
            self.runner.update()
        self.states = {trial.name: self.state(trial) for trial in self.trials}
        busy = [trial for trial in self.trials if self.states[trial.name] in ("queued", "running")]
        if self.settings.prune:
            self.prune(busy)
        if self.search is not None:
            self.search.report(self.trials, self.states, self.settings.metric)
            while len(busy) < (self.jobs or 1) and len(self.trials) < self.settings.trials:
                trial = self.add(self.search.next_values())
                self.states[trial.name] = self.state(trial)
                if self.states[trial.name] == "waiting":
                    self.begin([trial])
                    busy.append(trial)
            return bool(busy) or len(self.trials) < self.settings.trials
        waiting = [trial for trial in self.trials if self.states[trial.name] == "waiting"]
        begun = waiting if self.on_slurm else waiting[: (self.jobs or 1) - len(busy)]
        if begun:
            self.begin(begun)
        return bool(busy or waiting)

    def begin(self, trials: Sequence[Trial]) -> None:
        """Hand trials to the runner."""
        for trial in trials:
            if trial.changed:  # else an earlier result would count as that of this training
                (trial.run / "result.json").unlink(missing_ok=True)
        self.runner.start(trials)
        for trial in trials:
            trial.started = True
            self.states[trial.name] = "queued" if self.on_slurm else "running"

    def state(self, trial: Trial) -> str:
        """`finished`, `queued`, `running`, `pruned`, `failed` or `waiting`; what failed in an earlier command waits."""
        at_work = self.runner.state(trial)
        if at_work:
            return at_work
        if trial.is_finished:
            return "finished"
        if trial.pruned or (trial.run / "pruned").exists():
            return "pruned"
        return "failed" if trial.started else "waiting"

    def prune(self, busy: Sequence[Trial]) -> None:
        """Stop trials whose metric is not among the best third at the step they have reached."""
        marks = {trial.name: read_progress(trial.run, self.settings.metric).marks for trial in self.trials}
        for trial in busy:
            others = [mark for name, mark in marks.items() if name != trial.name]
            if not trial.pruned and is_lagging(marks[trial.name], others):
                trial.pruned = True
                (trial.run / "pruned").touch()
                self.runner.stop(trial)

    def table(self) -> Table:
        """The table of all trials: those that run, then the best."""
        table = Table(show_edge=False, pad_edge=False, title=self.name, title_justify="left")
        for column in (*self.axes, "state", "step", self.settings.metric):
            table.add_column(column, justify="right" if column in ("step", self.settings.metric) else "left")
        styles = {"finished": "good", "failed": "bad", "running": "key", "pruned": "quiet", "waiting": "quiet"}
        for row in sorted_rows(self.rows(), self.settings.metric, "running")[:SHOWN]:
            style = styles.get(row["state"], "")
            state = f"[{style}]{row['state']}[/]" if style else row["state"]
            best = row[self.settings.metric]
            number = "" if math.isnan(best) else f"{best:.4f}"
            table.add_row(*(escape(row[key]) for key in self.axes), state, f"{row['step']:,}", number)
        return table

    def rows(self) -> list[dict[str, Any]]:
        """A row of results for each trial."""
        states, metric = self.states, self.settings.metric
        return [trial_row(t.name, t.values, states.get(t.name, "waiting"), t.run, metric) for t in self.trials]

    def close(self) -> int:
        """Write results.nc, results.csv and sweep.png, print the best and the failed."""
        from data_pipelines.pictures.curves import draw_trials

        metric = self.settings.metric
        rows = sorted_rows(self.rows(), metric, "finished")
        self.folder.mkdir(parents=True, exist_ok=True)
        write_netcdf(self.folder / "results.nc", trials_dataset(rows, list(self.axes), {"sweep": self.name}))
        write_table(self.folder / "results.csv", rows)
        finished = [row for row in rows if row["state"] == "finished"]
        if finished:
            draw_trials(self.folder / "sweep.png", finished, list(self.axes), metric)
            top = [[row["trial"], f"{row[metric]:.4f}"] for row in finished[:5]]
            table(["best", metric], top, [metric])
        for trial in self.trials:
            if self.states[trial.name] == "failed":
                warn(f"{trial.name} failed ({trial.log}):")
                console(stderr=True).print(
                    "\n".join(f"  {escape(line)}" for line in trial.last_lines()), soft_wrap=True
                )
        if "seed" in self.axes and finished and self.listed is None:
            self.show_seeds(finished)
        failed = sum(state == "failed" for state in self.states.values())
        scored = [trial for trial in self.trials if trial.verb == "run" and self.states[trial.name] == "finished"]
        if len(scored) > 1:
            self.compare(scored)
        if failed:
            warn(f"{failed} of {len(self.trials)} trials failed; the same command trains only these again.")
        console().print(f"results.nc, results.csv and sweep.png in [key]{escape(str(self.folder))}[/]", soft_wrap=True)
        if finished:
            best = next(trial for trial in self.trials if trial.name == finished[0]["trial"])
            next_command(shlex.join(["emul", "show", str(best.run)]))
        return int(failed > 0)

    def show_seeds(self, finished: Sequence[Mapping[str, Any]]) -> None:
        """Write seeds.csv and print it: the mean over seeds of each other combination, with its interval."""
        metric, others = self.settings.metric, [key for key in self.axes if key != "seed"]
        rows = across_seeds(finished, others, metric)
        write_table(self.folder / "seeds.csv", rows)
        table_rows = [
            [*(row[key] for key in others), f"{row[metric]:.4f}", f"{row['low']:.4f} to {row['high']:.4f}",
             f"{row['seeds']}", f"{row['steps']:,.0f}{'' if row['steps'] >= FEW_STEPS else ', too few to judge'}"]
            for row in rows
        ]  # fmt: skip
        table([*others, metric, "95 % over seeds", "seeds", "steps"], table_rows, [metric])

    def compare(self, scored: Sequence[Trial]) -> None:
        """The scores of trials side by side, the best first, against persistence, to <sweep>/eval/compare."""
        from emul.evaluation.compare import main as compare

        ranked = [row["trial"] for row in sorted_rows(self.rows(), self.settings.metric, "finished")]
        names = [name for name in ranked if name in {trial.name for trial in scored}]
        compare([*names, "baseline=persistence", f"output={self.folder}"])

    def stop(self) -> None:
        """Tell local trials to save and end; jobs of SLURM continue."""
        if not self.on_slurm:
            for trial in self.trials:
                self.runner.stop(trial)


class _PlainTable:
    """Print a line whenever a trial changes its state, where there is no terminal for a live table."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}

    def __enter__(self) -> _PlainTable:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to end."""

    def update(self, drawn: Table, refresh: bool = True) -> None:
        cells = [list(column.cells) for column in drawn.columns]
        for *values, state, step, best in zip(*cells, strict=True):
            label, now = " ".join(map(str, values)), str(state)
            if self.states.get(label) != now:
                self.states[label] = now
                console().print(f"{label}  {now}  step {step}  {best}".rstrip(), soft_wrap=True)
