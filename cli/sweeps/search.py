"""Search with Optuna: the tree-structured Parzen estimator draws trials from the scores of earlier ones.

Bergstra et al. 2011 (NeurIPS 24); Akiba et al. 2019, doi 10.1145/3292500.3330701.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_pipelines.verification.sweep_results import read_progress

if TYPE_CHECKING:
    from emul.sweeps.axes import Axis, SweepSettings
    from emul.sweeps.trials import Trial


class Search:
    """Draw the values of trials with Optuna and report their scores to it.

    The same command replays the values of earlier trials in their order, so that finished trials keep their place.
    """

    def __init__(self, axes: Mapping[str, Axis], settings: SweepSettings, folder: Path) -> None:
        try:
            import optuna
            from optuna.storages.journal import JournalFileBackend, JournalStorage
        except ImportError as error:
            raise ValueError("sweep.search=tpe needs Optuna: pip install 'emul[search]'.") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.axes = dict(axes)
        folder.mkdir(parents=True, exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(folder / "search.log")))
        self.study = optuna.create_study(
            study_name="sweep",
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
