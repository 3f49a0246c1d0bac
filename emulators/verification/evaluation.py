"""Evaluation: all that is summed up over pairs of forecast and truth, for the forecast and for reference forecasts.

evaluation = Evaluation(world, variables, metrics, leads)
for pair in pairs:
    evaluation.add(pair)
scores = evaluation.scores()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from emulators.scores.interfaces import Accumulator, Metric, Pair, Reference
from emulators.state import State
from emulators.statistics.area_means import Missing, Region
from emulators.statistics.significance import Significance
from emulators.variables import VariableSet
from emulators.verification.by_init import InitStatistics, differences
from emulators.verification.channels import WINDS, channel_rows
from emulators.verification.climate import ClimateCard
from emulators.verification.comparison import side_by_side
from emulators.verification.scorecard import Scorecard
from emulators.verification.spectra import LeadSpectra
from emulators.world import World

if TYPE_CHECKING:
    import xarray as xr


class Evaluation:
    """Score a forecast and reference forecasts on the same pairs, in one pass.

    references: by name, each with metrics of its own. regions, missing, vectors: as in `Scorecard`. climate: also
    the climate of forecast and truth. monthly: channels of which the climate keeps monthly fields. maps: variables
    and lead numbers of which maps of the mean error are kept. spectra: empty sums of spectra. inits: the initial
    times whose statistics are kept one by one, for the significance of differences; None: none are. megabytes:
    memory for these; where all regions do not fit, the first alone is kept, or nothing, and `notes` says so.
    """

    def __init__(
        self,
        world: World,
        variables: VariableSet,
        metrics: Mapping[str, Metric],
        leads: Sequence[np.timedelta64] | np.ndarray,
        *,
        references: Mapping[str, Reference] | None = None,
        regions: Sequence[str | Region | Mapping] = ("global",),
        missing: Missing = "truth",
        vectors: Mapping[str, Sequence[str]] = WINDS,
        climate: bool = False,
        monthly: VariableSet | None = None,
        maps: tuple[VariableSet, Sequence[int]] = (VariableSet(), ()),
        spectra: LeadSpectra | None = None,
        inits: np.ndarray | None = None,
        megabytes: float = 512,
    ) -> None:
        self.references, self.leads, self.spectra = dict(references or {}), np.asarray(leads), spectra
        self.forecast = Scorecard(world, variables, metrics, regions, [*leads], missing=missing, vectors=vectors)
        self.baselines = {name: self.forecast.with_metrics(r.metrics) for name, r in self.references.items()}
        self.climate = ClimateCard(world, variables, regions, monthly) if climate else None
        self.maps = ErrorMaps(world, *maps)
        self.notes: list[str] = []
        self.by_init: dict[str, InitStatistics] = {}
        if inits is not None:
            self._keep_by_init(inits, megabytes)

    def _keep_by_init(self, inits: np.ndarray, available: float) -> None:
        """Prepare to keep the statistics of each initial time, of all regions or the first, as far as they fit."""
        cards = {"forecast": self.forecast, **self.baselines}
        every = len(self.forecast.regions.names)
        needed = {n: sum(InitStatistics.megabytes(card, len(inits), n) for card in cards.values()) for n in (every, 1)}
        fitting = [n for n, megabytes in needed.items() if megabytes <= available]
        if every not in fitting:
            where = "in the first region alone" if fitting else "nowhere"
            self.notes.append(
                f"Differences are judged {where}: statistics of each initial time would take {needed[every]:.0f} MB, "
                f"more than significance.megabytes={available}."
            )
        if fitting:
            self.by_init = {name: InitStatistics(card, inits, fitting[0]) for name, card in cards.items()}

    def add(self, pair: Pair, climatology: Mapping[str, Tensor] | None = None) -> None:
        """Add forecasts of one lead and their truth. climatology: fields of the valid times by name, such as `mean`."""
        climatology = climatology or {}
        taken = self.forecast.add(pair.prediction, pair.target, pair.lead, climatology)
        self._add_by_init("forecast", pair.inits, pair.lead, taken)
        self.maps.add(pair.prediction, pair.target, pair.lead)
        if self.climate is not None:
            self.climate.add(pair.prediction, pair.target)
        if self.spectra is not None:
            self.spectra.add(pair.prediction, pair.target, self.leads[pair.lead])
        for name, reference in self.references.items():
            for forecast, rows in reference.forecasts(pair, climatology):
                index = torch.from_numpy(rows)
                truth = replace(pair.target, values=pair.target.values[index], time=pair.target.time[rows])
                usual = {key: field[index] for key, field in climatology.items()}
                taken = self.baselines[name].add(forecast, truth, pair.lead, usual)
                self._add_by_init(name, pair.inits[rows], pair.lead, taken)

    def _add_by_init(self, name: str, inits: np.ndarray, lead: int, taken: Any) -> None:
        if name in self.by_init:
            self.by_init[name].add(inits, lead, taken)

    def accumulators(self) -> dict[str, Accumulator]:
        """All sums by name, to be saved and added up."""
        sums: dict[str, Accumulator] = {"forecast": self.forecast, "maps": self.maps}
        sums |= {f"baseline {name}": card for name, card in self.baselines.items()}
        sums |= {f"inits {name}": statistics for name, statistics in self.by_init.items()}
        sums |= {} if self.climate is None else {"climate": self.climate}
        return sums if self.spectra is None else {**sums, "spectra": self.spectra}

    def drop_unscored(self) -> None:
        """Drop the references of which no pair could be scored."""
        for name in [name for name, card in self.baselines.items() if not card.scored]:
            del self.baselines[name]
            self.by_init.pop(name, None)

    def scores(self, attributes: Mapping[str, object] | None = None) -> xr.Dataset:
        """The scores of the forecast: a data variable a scored variable, as in `Scorecard.scores`."""
        return self.forecast.scores(attributes)

    def baseline_scores(self, attributes: Mapping[str, object] | None = None) -> xr.Dataset | None:
        """The scores of the references, dimension `source` first, on the metrics of the forecast; None without any."""
        if not self.baselines:
            return None
        each = {name: card.scores(attributes) for name, card in self.baselines.items()}
        return side_by_side(each, self.scores(attributes))

    def statistics_by_init(self, attributes: Mapping[str, object] | None = None) -> dict[str, xr.Dataset]:
        """Area means of each initial time, of `forecast` and by the names of the references; empty where none are kept.

        Without those of the forecast there are none of the references.
        """
        datasets = {name: statistics.dataset(attributes) for name, statistics in self.by_init.items()}
        return (
            {n: dataset for n, dataset in datasets.items() if dataset is not None}
            if datasets.get("forecast") is not None
            else {}
        )

    def differences(self, by_init: Mapping[str, xr.Dataset], significance: Significance) -> xr.Dataset | None:
        """Differences to the references with their intervals, from `statistics_by_init`; None where there are none."""
        others = {name: dataset for name, dataset in by_init.items() if name != "forecast"}
        return differences(by_init["forecast"], others, self.forecast.metrics, significance) if by_init else None


class ErrorMaps:
    """Accumulate maps of forecast - truth, its square and the members' variance, as means over initial times.

    leads: indices of the leads to keep. Three float64 fields a lead and channel are held.
    """

    def __init__(self, world: World, variables: VariableSet, leads: Sequence[int]) -> None:
        self.grid, self.variables, self.leads = world.grid, variables, tuple(leads)
        shape = (len(self.leads), variables.size, *world.grid.shape)
        self._error, self._square, self._variance = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._inits = np.zeros(len(self.leads), dtype=np.int64)

    def add(self, prediction: State, target: State, lead: int) -> None:
        """Add a batch of pairs of one lead; leads that are not kept are passed over."""
        if lead not in self.leads:
            return
        row = self.leads.index(lead)
        fields = {"prediction": prediction, "target": target}
        forecast, truth = (channel_rows(f, self.variables, self.grid, role).cpu() for role, f in fields.items())
        if forecast.ndim > truth.ndim:
            if forecast.shape[0] > 1:
                spread = forecast.double().var(dim=0, correction=1)
                self._variance[row] += spread.sum(dim=0).reshape(self._error.shape[1:]).numpy()
            forecast = forecast.mean(dim=0)
        difference = forecast.double() - truth.double()
        self._error[row] += difference.sum(dim=0).reshape(self._error.shape[1:]).numpy()
        self._square[row] += difference.square().sum(dim=0).reshape(self._error.shape[1:]).numpy()
        self._inits[row] += len(difference)

    def partial(self) -> dict[str, np.ndarray]:
        """The sums so far as arrays, to be stored, sent, or added to others by `add_partial`."""
        return {
            "error": self._error.copy(),
            "square": self._square.copy(),
            "variance": self._variance.copy(),
            "inits": self._inits.copy(),
        }

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> ErrorMaps:
        """Add the sums of other maps of the same leads, variables and grid."""
        if partial["error"].shape != self._error.shape:
            raise ValueError("Only maps of the same leads, variables and grid can be added up.")
        self._error += partial["error"]
        self._square += partial["square"]
        self._variance += partial["variance"]
        self._inits += partial["inits"]
        return self

    @property
    def _counts(self) -> np.ndarray:
        """The number of initial times a lead, to divide sums by."""
        return self._inits.reshape(-1, *[1] * (self._error.ndim - 1))

    def bias(self) -> np.ndarray:
        """Mean error, shape (kept lead, channel, *grid)."""
        return self._error / self._counts

    def rmse(self) -> np.ndarray:
        """Root-mean-square error, shape (kept lead, channel, *grid)."""
        return np.sqrt(self._square / self._counts)

    def spread(self) -> np.ndarray:
        """Spread of the members, the root of their mean unbiased variance, shape (kept lead, channel, *grid)."""
        return np.sqrt(self._variance / self._counts)
