"""Whether the trials that lie in the folder of a sweep are those that it would train now."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from data_pipelines.files.identity import differences, digest, listed
from data_pipelines.verification.sweep_results import read_result
from emul.config.overrides import plain
from emul.training.changes import changes, data_now
from emul.trust.saved import read_saved

if TYPE_CHECKING:
    from emul.sweeps.trials import Trial


SCORED = ("forecast", "eval", "metric", "writer")


class KeptTrials:
    """Compare trials with what an earlier sweep left in their folders. name: of the sweep, for messages."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._data: dict[str, dict[str, Any]] = {}  # fingerprints by digest of the settings

    def changes(self, trial: Trial, config: DictConfig) -> list[str]:
        """List how the training in the folder of a trial differs from `config`; ValueError where nothing is said to do.

        Empty where there is none.
        """
        file = trial.run / "config.yaml"
        if not file.is_file():
            return []
        saved = read_saved(file)
        found = changes(saved, config, trial.run, self.data_before(trial.run), self.data(config))
        if found and config.resume == "exact":
            raise ValueError(
                f"{trial.run} holds a trial of another sweep ({listed(found)}). Choose another name, sweep.name=..., "
                "say resume=anew to train such trials again or resume=changed to go on with them, or remove the folder."
            )
        return found + (self.options(saved, config) if trial.verb == "run" else [])

    @staticmethod
    def options(saved: DictConfig, config: DictConfig) -> list[str]:
        """List how the options of forecast and evaluation differ from those under which a trial was scored."""
        return differences(*({key: plain(one.get(key)) for key in SCORED} for one in (saved, config)))

    def data(self, config: DictConfig) -> dict[str, Any]:
        """The fingerprint of the data of a configuration, taken once."""
        key = digest(plain(config.data))
        if key not in self._data:
            self._data[key] = data_now(config)
        return self._data[key]

    @staticmethod
    def data_before(run: Path) -> dict[str, Any]:
        """The fingerprint of the data that a finished training was made from; empty before it is finished."""
        return dict((read_result(run) or {}).get("data", {}))
