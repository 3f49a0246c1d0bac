"""`emul scaling plan|rates|run|fit|report|recommend study=NAME`: how the loss falls with size, data and operations.

plan counts operations and hours and refuses what does not fit; rates sweeps learning rates over width; run trains
trunks, branches, then, once the laws have predicted it, the held-out run, all as sweeps that go on where they stopped;
fit and report look at what is there.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from data_pipelines.conventions.suggestions import ConfigErrors
from data_pipelines.files.atomic import bytes_text
from data_pipelines.files.fingerprints import read_json, write_json
from data_pipelines.files.identity import digest
from data_pipelines.jobs.processes import device_memory, device_of, runs_here
from data_pipelines.options.folders import key_of, result_folder
from data_pipelines.studies import points, records, widths
from data_pipelines.studies.trials import Axis, SweepSettings
from emul.checks.examination import refuse_values
from emul.config.build import build
from emul.config.compose import compose
from emul.config.overrides import assignment
from emul.config.saved import config_faults
from emul.sweep import Sweep
from emul.terminal.console import console, header, next_command, progress, show_rows, table, warn
from emul.training.assembly import build_training, open_archive, training_batches
from emul.training.runs import open_run
from emulators.scaling.analysis import analyse, operations, recommended
from emulators.scaling.budgets import rate_of
from emulators.scaling.study import NEVER, Cost, PlannedRun, Study
from emulators.scaling.width import WidthRun, activation_sizes, critical_batch
from emulators.training.flop_counter import cost_of, first_loss
from emulators.training.optimizers import WarmupStableDecay

WORDS = ("plan", "rates", "run", "fit", "report", "recommend")
NOISE_BATCHES = 32  # from which the noise of gradients is told


def main(arguments: list[str]) -> int:
    """Run a word of `emul scaling`; the exit code is 1 if a training failed."""
    if not arguments or arguments[0] not in WORDS:
        got = arguments[0] if arguments else "nothing"
        raise ValueError(f"emul scaling: expected one of {', '.join(WORDS)}; got {got}.")
    config = compose("scaling", arguments[1:])
    if faults := config_faults(config):
        raise ConfigErrors(faults)
    studied = Studied(config, [word for word in arguments[1:] if key_of(word).split(".")[0] == "hardware"])
    work = {
        "plan": studied.plan, "rates": studied.over_width, "run": studied.run, "fit": studied.fit,
        "report": studied.report, "recommend": studied.recommend,
    }  # fmt: skip
    return work[arguments[0]]()


class Studied:
    """Do the work of one study in its folder. where: words that say where trainings run."""

    def __init__(self, config: DictConfig, where: Sequence[str]) -> None:
        self.config, self.where = config, list(where)
        self.study: Study = build(config.study)
        self.folder = result_folder(config.output, "scaling", config.name)
        self.costs, self.facts = measured_costs(self.study, self.where, self.folder / "costs.json")
        self.runs = self.study.planned(self.costs)
        self.largest = self.runs[-1]
        self.score = self.study.metric if self.study.metric.startswith("score") else "score"  # of a validation

    def of_kind(self, *kinds: str) -> list[PlannedRun]:
        """The runs of some kinds."""
        return [run for run in self.runs if run.kind in kinds]

    def plan(self) -> int:
        """Print runs, operations and hours. ValueError where they do not fit."""
        header(f"emul scaling {self.config.name}", [f"{len(self.runs)} trainings", f"to {self.folder}"])
        rows = []
        for width, cost in self.costs.items():
            lengths = [run.steps for run in self.runs if run.width == width and run.kind != "trunk" and not run.seed]
            spent = f"{sum(run.hours for run in self.runs if run.width == width):.2g}" if self.facts["here"] else "?"
            rows.append(
                [f"{width}", f"{cost.parameters:,}", f"{cost.step:.3g}", ", ".join(f"{n:,}" for n in lengths),
                 f"{bytes_text(cost.memory)}", spent]
            )  # fmt: skip
        columns = ["width", "size N", "operations a step", "steps", "memory", "hours"]
        table(columns, rows, [name for name in columns if name != "steps"])
        branches, hours = self.of_kind("branch"), sum(run.hours for run in self.runs)
        most = max(run.operations for run in branches)
        alone = sum(run.operations for run in branches)
        total = sum(run.operations for run in self.of_kind("trunk")) + sum(
            (run.steps - run.start) * run.cost.cooled for run in branches
        )
        samples = self.largest.steps * self.facts["batch"]
        show_rows(
            "study",
            {
                "runs": f"{len(self.of_kind('trunk'))} trunks, {len(branches)} branches, one held out",
                "operations": f"{min(r.operations for r in branches):.3g} to {most:.3g} a run; {total:.3g} in all, "
                f"{alone:.3g} if every run began anew",
                "held out": f"width {self.largest.width}, {self.largest.steps:,} steps, {self.largest.operations:.3g} "
                f"operations, {self.largest.operations / most:.1f} times the largest other; "
                f"{samples / self.facts['samples']:.1f} passes over the data",
                "time": f"{hours:.2g} hours at the speed measured here, without validation and the start of processes"
                if self.facts["here"]
                else "not known here: the jobs have GPUs and this machine has none",
            },
        )
        self.refuse_beyond(hours)
        return 0

    def refuse_beyond(self, hours: float) -> None:
        """Raise ValueError where time or memory do not suffice."""
        if self.facts["here"] and self.study.hours is not None and hours > self.study.hours:
            raise ValueError(
                f"The study takes {hours:.2g} hours, and study.hours={self.study.hours:g}. Take fewer or shorter "
                f"durations, fewer seeds, or study.hours={np.ceil(hours * 10) / 10:g}."
            )
        wide, cost = max(self.costs.items(), key=lambda pair: pair[1].memory)
        if cost.memory > self.facts["memory"]:
            raise ValueError(
                f"A training at width {wide} takes {bytes_text(cost.memory)} and has "
                f"{bytes_text(self.facts['memory'])}. Leave that width out, or raise training.accumulate."
            )

    def run(self) -> int:
        """Train all that is not trained, predict, train the held-out run, write the report; 1 if a training failed."""
        self.plan()
        failed = self.swept("trunk", self.of_kind("trunk"))
        ready = [run for run in self.of_kind("branch") if points.trunk_state(self.folder / "trunks", run).is_file()]
        if missing := [run.name for run in self.of_kind("branch") if run not in ready]:
            warn(f"{len(missing)} branches wait for a trunk that failed: {', '.join(missing[:5])}.")
        failed |= self.swept("branch", ready) if ready else 1
        if failed:
            warn("The held-out run is trained when all others are; the same command goes on.")
            return 1
        self.fit()
        failed = self.swept("held_out", [self.largest])
        self.report()
        return failed

    def swept(self, kind: str, runs: Sequence[PlannedRun]) -> int:
        """Train runs as one sweep; 1 if one failed."""
        verb = "run" if self.study.evaluate and kind != "trunk" else "train"
        return self.trained(points.FOLDERS[kind], listed(self.study, runs, self.folder / "trunks"), verb)

    def trained(self, name: str, trials: Mapping[str, tuple[dict[str, str], list[str]]], verb: Any = "train") -> int:
        """Train the trials as the sweep `name`; 1 if one failed."""
        values, words = next(iter(trials.values()))
        settings = SweepSettings(name=name, verb=verb, jobs=self.config.jobs, metric=self.score)
        axes, first, title = dict.fromkeys(values, Axis(("",))), configuration(words, self.where), self.config.name
        within, folder = self.config.jobs is None, self.folder / name
        sweep = Sweep(settings, axes, self.where, folder, f"{title} {name}", first, trials, within=within)
        return sweep.run_alone()

    def over_width(self) -> int:
        """Sweep learning rates over width, look at activations and at the noise of gradients, and write the table."""
        sweep, metric = self.study.width_sweep(), self.score
        first = configuration(self.study.words(self.runs[0]), self.where)
        rates = {f"optimizer.{key}": first.optimizer[key] for key in ("lr", "adam_lr") if key in first.optimizer}
        words = {run: self.study.width_words(run, rates) for run in sweep.runs()}
        archive, splits = open_archive(first, None)
        sizes, noise, built = ({kind: {} for kind in sweep.parametrisations} for _ in range(3))  # type: ignore[var-annotated]
        for kind, width in product(sweep.parametrisations, sweep.widths):
            config = configuration(self.study.width_words(WidthRun(kind, width, 1.0, 0), rates), self.where)
            training = build_training(config, archive.world)
            batches = training_batches(config, training, archive, splits["train"], 0)
            losses = [partial(first_loss, training, batches.batch(number)) for number in range(NOISE_BATCHES)]
            network, optimizer = training.step.network, training.optimizer(training.step)
            for part, size in activation_sizes(network, optimizer, losses[:5], self.study.inside).items():
                sizes[kind].setdefault(part, []).append(size)
            built[kind][width] = training, losses
        self.trained(widths.FOLDER, {run.name: (run.values, run_words) for run, run_words in words.items()})
        rows = widths.rate_rows(self.folder, sweep, metric)
        for kind, width in product(sweep.parametrisations, sweep.widths):
            training, losses = built[kind][width]
            best = widths.best_run(rows, sweep, metric, kind, width)
            training.step.load_state_dict(open_run(widths.run_folder(self.folder, best)).step.state_dict())
            noise[kind][str(width)] = critical_batch(training.step, losses, training.plan.batch_size)
        found = widths.write(self.folder, rows, sweep, metric, sizes, noise)
        head = widths.table_head(sweep.widths)
        table(head, [[kind, *cells] for kind, cells in widths.table_rows(found)], head[1:])
        console().print(f"rates.csv, rates.json and rates.png in [key]{self.folder}[/]", soft_wrap=True)
        return 0

    def fit(self) -> int:
        """Fit the laws to the finished branches, write points, fits and, once, the prediction; print the exponents."""
        rows = points.finished(self.folder, self.of_kind("branch"), self.facts)
        if not rows:
            raise ValueError(f"No branch in {self.folder} is finished; run `emul scaling run` first.")
        runs = points.measured_runs(rows, self.study.metric, self.facts)
        rate = rate_of(self.costs, self.facts, self.study.cooldown)
        budgets = np.geomspace(runs.compute.min(), 10 * self.largest.operations, 40)
        groups = np.array([f"{row['width']} {row['seed']}" for row in rows])
        beyond, count = self.largest.operations / runs.compute.max(), self.study.replicates
        analysis = analyse(runs, self.study.laws, rate, budgets=budgets, beyond=beyond, groups=groups, replicates=count)
        laws = records.annealing_laws(records.loss_curves(self.folder, self.runs, self.rates))
        summary = records.summary(analysis, rows, points.held_out_runs(self.largest, self.facts), laws)
        points.write_points(self.folder, rows + points.finished(self.folder, [self.largest], self.facts))
        write_json(self.folder / "fits.json", summary)
        records.write_prediction(self.folder, summary, self.largest)
        fitted = ["E", "alpha", "beta"]
        table(
            ["fit", *fitted, "noise", "held-out run"],
            [[name, *(_spread(law["parameters"].get(p)) for p in fitted), f"{law['noise']:.2%}",
              _spread(law["prediction"])] for name, law in summary["fits"].items()],
        )  # fmt: skip
        for name, why in summary["left_out"].items():
            warn(f"The law {name} is left out: {why}.")
        return 0

    def rates(self, run: PlannedRun) -> np.ndarray:
        """The learning rate of every step of a run, as a share of its peak."""
        share = 0.0 if run.kind == "trunk" else (run.steps - run.start) / run.steps
        schedule = WarmupStableDecay(warmup=self.study.warmup, cooldown=share)
        return np.array([schedule(step, run.steps) for step in range(run.steps)])

    def report(self) -> int:
        """Write report.html and its pictures."""
        laws = self.laws()
        rows = points.finished(self.folder, self.of_kind("branch"), self.facts)
        curves = records.loss_curves(self.folder, self.runs, self.rates)
        verdict = records.held_out_verdict(self.folder, self.study.metric, self.largest, self.facts)
        held_out = points.point(self.folder, self.largest, self.facts)
        records.write_page(self.folder, self.config.name, self.study, rows, laws, curves, held_out, verdict)
        if verdict is not None:
            value, low, high = verdict["by_fit"][verdict["surest"]]
            console().print(
                f"held-out run: {verdict['measured']:.4g}; predicted {value:.4g}, 90 % from {low:.4g} to {high:.4g}: "
                f"{'it held' if verdict['held'][verdict['surest']] else 'it did not hold'}"
            )
        console().print(f"report.html in [key]{self.folder}[/]", soft_wrap=True)
        next_command(f"emul scaling recommend study={self.config.name} flops=...")
        return 0

    def laws(self) -> dict[str, Any]:
        """What fits.json holds. ValueError before the first fit."""
        path = self.folder / "fits.json"
        if not path.is_file():
            raise ValueError(f"There is no {path}; `emul scaling fit` writes it once branches are finished.")
        return dict(read_json(path))

    def recommend(self) -> int:
        """Print size, data, schedule and expected score of a training of that many operations."""
        speed = min(cost.step / cost.seconds for cost in self.costs.values())
        config = self.config
        flops = operations(config.flops, config.gpu_hours, config.device, config.utilisation, speed)
        advice = recommended(flops, self.laws(), self.study, self.costs, self.facts)
        show_rows(f"a training of {flops:.3g} operations", advice.rows)
        for sentence in advice.warnings:
            warn(sentence)
        return 0


def _spread(values: Sequence[float] | None) -> str:
    return "" if values is None else f"{values[0]:.4g} ({values[1]:.4g} to {values[2]:.4g})"


def configuration(words: Sequence[str], where: Sequence[str]) -> DictConfig:
    """The configuration of one run. ConfigErrors where the study's words have faults."""
    config = compose("train", [*words, *where])
    if faults := config_faults(config):
        raise ConfigErrors(faults)
    return config


def measured_costs(study: Study, where: Sequence[str], record: Path) -> tuple[dict[int, Cost], dict[str, Any]]:
    """Measure a few steps of every width, or read what an earlier command measured; also the facts of the data.

    record: a JSON file, written anew where a composed configuration or the machine is another. Facts: points of a
    field, samples of the training split and of a step; not kept: memory, and whether such a device is here.
    """
    blank, widths = Cost(1, 1, 1.0, 1.0, 1.0, 1.0), sorted({*study.widths, int(study.held_out["width"])})
    runs = [PlannedRun("held_out", width, 0, NEVER, NEVER - 1, blank) for width in widths]
    configs = {run.width: configuration(study.words(run), where) for run in runs}
    identity = digest([platform.node(), list(study.inside or ()), *map(OmegaConf.to_container, configs.values())])
    hardware = build(configs[widths[0]].hardware)
    now = {"memory": device_memory(hardware), "here": runs_here(hardware)}
    if record.is_file() and (cached := read_json(record)).get("of") == identity:
        return {int(width): Cost(**cost) for width, cost in cached["costs"].items()}, cached["facts"] | now
    costs, facts, data = dict[int, Cost](), dict[str, Any](), None
    with progress("measuring the sizes") as report:
        for number, (width, config) in enumerate(configs.items()):
            report(f"width {width}", number / len(widths))
            refuse_values(config, here=False)
            data = data or open_archive(config, None)
            costs[width], facts = _cost(study, config, *data)
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, {"of": identity, "costs": {str(w): vars(cost) for w, cost in costs.items()}, "facts": facts})
    return costs, facts | now


def _cost(study: Study, config: DictConfig, archive: Any, splits: Mapping[str, Any]) -> tuple[Cost, dict[str, Any]]:
    hardware, device = build(config.hardware), device_of(config.hardware.accelerator)
    training = build_training(config, archive.world).to(device)
    batches = training_batches(config, training, archive, splits["train"], 0)
    window, last = (batches.batch(n * training.plan.accumulate).to(torch.device(device)) for n in (0, NEVER - 1))
    facts = {
        "points": int(torch.tensor(archive.world.grid.shape).prod()),
        "samples": len(batches.windows),
        "batch": training.plan.batch_size,
    }
    cost = cost_of(training, window, last, inside=study.inside, start=NEVER - 1, processes=hardware.processes)
    return cost, facts


def listed(study: Study, runs: Sequence[PlannedRun], trunks: Path) -> dict[str, tuple[dict[str, str], list[str]]]:
    """Runs as trials: name, the values that a table shows, the words. trunks: the folder that branches start from."""
    trials = {}
    for run in runs:
        values = {"width": str(run.width), "seed": str(run.seed), "steps": str(run.steps)}
        words = study.words(run)
        if run.kind == "branch":
            words.append(assignment("continue_from", points.trunk_state(trunks, run)))
        trials[run.name] = values, words
    return trials
