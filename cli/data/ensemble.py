"""`emul data ensemble`: run simulated data again from perturbed analyses, as a perfect emulator would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.markup import escape

from data_pipelines.conventions.durations import initial_times, length, thinned
from emul.config.settings import read_settings
from emul.data.arguments import prepared_source
from emul.terminal.console import console, header, next_command, progress

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.interfaces import Source


@dataclass(frozen=True)
class EnsembleSettings:
    """Say what to simulate. inits: as of `emul forecast`; null: the test split, every `between`. lead: the last.

    every: between leads; null: the interval of the data. amplitude: of analysis errors in standard deviations. shape:
    differences, bred or white. breeding_days: of bred errors. fields: names; null: all. resume=anew: replace another.
    """

    members: int = 50
    inits: str | None = None
    between: str = "9d"
    lead: str = "15d"
    every: str | None = None
    amplitude: float = 0.05
    shape: str = "differences"
    breeding_days: int = 5
    seed: int = 0
    fields: list[str] | None = None
    resume: str = "exact"


def main(arguments: list[str]) -> None:
    """Make the ensemble of the chosen source beside its store, or what is missing of it."""
    from data_pipelines.inspection.perfect_model import AnalysisErrors, make_ensemble
    from data_pipelines.interfaces import RestartableSource

    setup, overrides = read_settings(EnsembleSettings, arguments)
    errors = AnalysisErrors(setup.amplitude, setup.shape, setup.breeding_days, setup.seed)  # type: ignore[arg-type]
    if setup.resume not in ("exact", "anew"):
        raise ValueError(f"resume: expected exact or anew; got '{setup.resume}'.")
    source, config = prepared_source(overrides)
    if not isinstance(source, RestartableSource):
        raise ValueError(
            f"data={config.name} cannot be simulated on from its states; choose data=planet, for instance."
        )
    dataset = source.dataset()
    interval = np.diff(dataset["time"].values).min()
    every = length(setup.every) if setup.every else interval
    inits = initial_times(setup.inits) if setup.inits else _of_test_split(source, dataset, setup)
    stride, leads = (
        _whole(name, duration, of)
        for name, duration, of in (("every", every, interval), ("lead", length(setup.lead), every))
    )
    summary = (
        f"{len(inits)} initial times, {setup.members} members, {setup.lead}; {errors.shape}, {errors.amplitude:g} std"
    )
    header(f"emul data ensemble {config.name}", [summary])
    with progress("simulating members") as report:
        folder = make_ensemble(
            source,
            inits,
            leads,
            setup.members,
            errors,
            fields=setup.fields,
            stride=stride,
            anew=setup.resume == "anew",
            report=report,
        )
    console().print(f"{escape(str(folder))}; it can be scored beside any forecast of these data.", soft_wrap=True)
    next_command("emul eval run=... 'baselines=[perfect_model]'")


def _whole(name: str, part: np.timedelta64, of: np.timedelta64) -> int:
    """How many times `of` goes into `part`; ValueError where not a whole number of times."""
    if part % of or part < of:
        raise ValueError(f"{name}: expected a multiple of {of.astype('timedelta64[m]')}; got {part}.")
    return int(part / of)


def _of_test_split(source: Source, dataset: xr.Dataset, asked: Any) -> np.ndarray:
    """Initial times of the test split whose last lead lies within it."""
    from data_pipelines.conventions.durations import bounds

    first, last = bounds(source.splits["test"] or [])
    times = dataset["time"].values.astype("datetime64[s]")
    inside = times[(times >= first) & (times + length(asked.lead) <= min(last, times[-1]))]
    if not inside.size:
        raise ValueError(f"inits: the test split is shorter than lead={asked.lead}; expected inits=..., got none.")
    return thinned(inside, asked.between)
