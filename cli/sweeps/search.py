"""Parse the axes of a sweep, lay out their grid, and draw trials by the tree-structured Parzen estimator of Optuna.

Bergstra et al. 2011 (NeurIPS 24); Akiba et al. 2019, doi 10.1145/3292500.3330701.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from data_pipelines.files.identity import digest
from data_pipelines.verification.sweep_results import read_progress
from emul.config.folders import options_of
from emul.config.overrides import key_of

if TYPE_CHECKING:
    from emul.sweeps.trials import Trial


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
        told = digest([identity, settings.seed, {key: vars(axis) for key, axis in self.axes.items()}])
        self.study = optuna.create_study(
            study_name=f"sweep-{told[:12]}",
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
    """Settings of a sweep, each written `sweep.<key>=`.

    verb: `train`, or `run`, which makes and scores the forecasts of every trial too, and compares them in the end.
    name: of the folder. jobs: trials at a time, null for one here and all on SLURM. search: `grid` tries every
    combination, `random` and `tpe` (which learns; needs Optuna) draw `trials` of them. metric: of the validation, the
    smaller the better. prune: stop trials that lag behind the best third of the others at the same step. seed: of the
    draws.
    """

    name: str | None = None
    verb: Literal["train", "run"] = "train"
    jobs: int | None = None
    search: Literal["grid", "random", "tpe"] = "grid"
    trials: int = 20
    metric: str = "score"
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


def split_axes(words: Sequence[str]) -> tuple[dict[str, Axis], list[str]]:
    """Split arguments into the keys that vary, with their values, and the arguments that are fixed."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Glob, IntervalSweep

    axes: dict[str, Axis] = {}
    fixed = []
    for word in words:
        if word.startswith("-"):
            raise ValueError(f"emul sweep takes key=value only; got {word}.")
        override = OverridesParser.create().parse_override(word)
        if not override.is_sweep_override():
            fixed.append(word)
            continue
        values = override.value()
        if isinstance(values, IntervalSweep):
            low, high = float(values.start), float(values.end)  # type: ignore[arg-type]
            logarithmic = "log" in values.tags or (low > 0 and high / low >= 100)
            axes[key_of(word)] = Axis((), low, high, logarithmic)
        elif isinstance(values, Glob):
            axes[key_of(word)] = Axis(tuple(values.filter(options_of(key_of(word)))))
        else:
            axes[key_of(word)] = Axis(tuple(override.sweep_string_iterator()))
    return axes, fixed


def combinations(axes: Mapping[str, Axis]) -> Iterator[dict[str, str]]:
    """Every combination of the values."""
    for values in itertools.product(*(axis.values for axis in axes.values())):
        yield dict(zip(axes, values, strict=True))
