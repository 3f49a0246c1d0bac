"""A search that learns: the tree-structured Parzen estimator of Optuna draws trials from what the others have scored.

Bergstra et al. 2011 (NeurIPS 24); Akiba et al. 2019, doi 10.1145/3292500.3330701.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from emul.sweeps.axes import Axis, SweepSettings
    from emul.sweeps.trials import Trial


class Search:
    """Asks Optuna for values and tells it what became of them; drawn anew, in the same order, by the same command.

    The values of earlier trials are replayed, so that those found finished keep their place.
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

    def asked(self) -> dict[str, str]:
        """The values of the next trial."""
        if self.next < len(self.replayed):
            values = self.replayed[self.next]
        else:
            trial = self.study.ask()
            values = {key: self._suggested(trial, key, axis) for key, axis in self.axes.items()}
            trial.set_user_attr("values", values)
        self.numbers[_label(values)] = self.next
        self.next += 1
        return values

    def _suggested(self, trial: Any, key: str, axis: Axis) -> str:
        if axis.values:
            return str(trial.suggest_categorical(key, axis.values))
        return f"{trial.suggest_float(key, axis.low, axis.high, log=axis.logarithmic):.4g}"

    def told(self, trials: Sequence[Trial], states: Mapping[str, str], metric: str) -> None:
        """Pass on what has been scored since the last time."""
        from optuna.trial import TrialState

        for trial in trials:
            number, state = self.numbers[_label(trial.values)], states[trial.name]
            if number in self.finished or state not in ("finished", "pruned"):
                continue
            best = trial.progress(metric)[1]
            lost = math.isnan(best)
            self.study.tell(number, None if lost else best, state=TrialState.FAIL if lost else TrialState.COMPLETE)
            self.finished.add(number)


def _label(values: Mapping[str, str]) -> str:
    return "\n".join(f"{key}={value}" for key, value in values.items())
