"""Scores by lead time, from sums over pairs of States.

For statistic s, initial time i, lead l, channel v and region R, with w the area of the cells,

    S_lvR = sum_i <s>_ilvR,   <s> = sum_{x in R} w_x s_x / sum_{x in R} w_x,   score = value(S / number of inits)

so that sums of any batches, processes or runs add up to the whole (the aggregation states of WeatherBench-X,
https://github.com/google-research/weatherbenchX); means over area first, then over initial times, the root last.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from emulators.scores.interfaces import Metric
from emulators.scores.neighbourhoods import neighbourhood
from emulators.state import State
from emulators.statistics.area_means import (
    AreaWeights,
    Means,
    Missing,
    PointFields,
    Region,
    Statistics,
    area_means,
    land_fraction,
    region_weights,
)
from emulators.variables import VariableSet
from emulators.verification.channels import ScoreLayout, channel_rows, vector_channels
from emulators.world import World

if TYPE_CHECKING:
    import xarray as xr


class Scorecard:
    """Accumulate scores by metric, region, lead and channel from pairs of States.

    leads: lead times, timedelta64, or how many timesteps of the world; `add` counts them from 0.
    regions: names, boxes or `Region`s; those over land need `land_sea_mask` among the world's static variables.
    missing: NaN points are left out where the truth has none (`truth`: a NaN in the forecast alone makes the score
    NaN), where any field has none (`any`), or never (`none`). Sums are float64 on the CPU.
    vectors: {name: components} scored as wholes beside the variables, such as `WINDS`; those of which a component is
    not among the variables are passed over.
    """

    def __init__(
        self,
        world: World,
        variables: VariableSet,
        metrics: Mapping[str, Metric],
        regions: Sequence[str | Region | Mapping] = ("global",),
        leads: int | Sequence[np.timedelta64] = 1,
        *,
        missing: Missing = "truth",
        vectors: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        if isinstance(leads, int):
            leads = [world.lead_time(steps) for steps in range(1, leads + 1)]
        if not variables.size or not len(leads) or not metrics:
            raise ValueError(
                "A scorecard needs variables, lead times and metrics; got "
                f"{variables.size}, {len(leads)} and {len(metrics)} of them."
            )
        if missing not in ("truth", "any", "none"):
            raise ValueError(f"`missing` is truth, any or none; got '{missing}'.")
        self.grid, self.variables, self.missing = world.grid, variables, missing
        self.leads = np.asarray(leads, dtype="timedelta64[s]")
        self.regions = region_weights(world.grid, regions, land_fraction(world))
        self._weights = AreaWeights(self.regions.matrix, world.grid.shape[1] if len(world.grid.shape) > 1 else 1)
        whole, self._components = vector_channels(variables, vectors or {})
        self.scored_variables = variables + whole
        names = self.regions.names
        self.layout = ScoreLayout(self.scored_variables, self.leads, names, world.grid.size, variables.size)
        self._empty(metrics)

    def _empty(self, metrics: Mapping[str, Metric]) -> None:
        """Begin with empty sums of these metrics."""
        self.metrics = dict(metrics)
        self._statistics = {name: statistic_names(metric) for name, metric in self.metrics.items()}
        pooled = {s: None for name, m in self.metrics.items() if not m.by_init for s in self._statistics[name]}
        by_init = [name for name, m in self.metrics.items() if m.by_init]
        self.quantities = (*pooled, *(f"{name} by init" for name in by_init))
        self._shape = (len(self.leads), self.scored_variables.size, len(self.regions.names))
        self._sum: dict[str, np.ndarray] = {}
        self._count = {quantity: np.zeros(self._shape, dtype=np.int64) for quantity in self.quantities}
        self._inits = np.zeros(len(self.leads), dtype=np.int64)
        self._missing = np.zeros((len(self.leads), self.variables.size), dtype=np.int64)
        self._members = 0

    def with_metrics(self, metrics: Mapping[str, Metric]) -> Scorecard:
        """An empty scorecard of other metrics, which shares the weights of the regions."""
        other = copy(self)
        other._empty(metrics)
        return other

    def add(
        self,
        prediction: State,
        target: State,
        lead: int,
        climatology: State | Tensor | Mapping[str, State | Tensor] | None = None,
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Add a batch of forecasts of one lead (index into `leads`) and their truth, matched by valid time.

        What was added of each initial time, by quantity: area means ([...,] batch, channel, region), and where they
        count (batch, channel, region).

        prediction: of an ensemble (member, batch, channel, *grid); metrics of single forecasts then score its mean.
        climatology: of the valid times, for metrics that need one: the mean, or fields by name (`mean`, `std`,
        `quantile_0.9`, ...); a Tensor has the channels of `variables`.
        """
        if not 0 <= lead < len(self.leads):
            raise ValueError(f"Lead index {lead} is outside 0..{len(self.leads) - 1}, the leads of this scorecard.")
        fields, members = self._fields(prediction, target, climatology)
        shape = (-1, self.variables.size, len(self.regions.names))  # (batch, channel, region)
        statistics, weights = self._statistics_of(fields, members), self._weights.to(fields.target.device)
        means = area_means(statistics, fields, weights, self.missing)
        mean, counted = dict(means.mean), dict(means.counted)
        for local in self._local_means(fields, members, weights):
            mean, counted = mean | local.mean, counted | local.counted
        averages = {name: self._with_vectors(name, value, counted[name], shape) for name, value in mean.items()}
        self._keep_members(members)
        taken: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        for quantity in self.quantities:
            name = quantity.removesuffix(" by init")
            if quantity in averages:
                value, valid = averages[quantity]
            elif name != quantity and set(self._statistics[name]) <= set(averages):
                value, valid = self._by_init(name, averages)
            else:
                continue
            taken[quantity] = (value, valid)
            extra = value.shape[:-3]
            total = self._sum.setdefault(quantity, np.zeros((*extra, *self._shape)))
            total[..., lead, :, :] += np.where(valid, value, 0.0).sum(axis=-3)
            self._count[quantity][lead] += valid.sum(axis=0)
        self._inits[lead] += fields.target.shape[0] // self.variables.size
        self._missing[lead] += means.missing.numpy().reshape(-1, self.variables.size).sum(axis=0)
        return taken

    def _fields(self, prediction: State, target: State, climatology: Any) -> tuple[PointFields, int]:
        """All fields as rows of points, a row a channel of an initial time; the number of members, 0 without any."""
        if not isinstance(climatology, Mapping):
            climatology = {} if climatology is None else {"mean": climatology}
        given = {"prediction": prediction, "target": target}
        given |= {
            f"climatology ({name})" if name != "mean" else "climatology": climatology[name] for name in climatology
        }
        fields = [channel_rows(f, self.variables, self.grid, role) for role, f in given.items()]
        if len({tuple(field.shape[-3:]) for field in fields}) > 1:
            raise ValueError(
                "Prediction, target and climatology must have the same batch; got "
                f"{', '.join(str(tuple(field.shape[-3:-2])) for field in fields)}."
            )
        if fields[0].device.type == "mps":  # has no float64
            fields = [field.cpu() for field in fields]
        rows = [field.flatten(-3, -2) for field in fields]
        return PointFields(rows[0], rows[1], dict(zip(climatology, rows[2:], strict=True))), (
            rows[0].shape[0] if rows[0].ndim == 3 else 0
        )

    def _statistics_of(self, fields: PointFields, members: int) -> Statistics:
        """A function that computes all statistics that can be taken of `fields`, those of one name once."""
        metrics: list[Metric] = []
        names: set[str] = set()
        for name, metric in self.metrics.items():
            if metric.radius or not _fits(metric, fields, members):
                continue
            if not names.issuperset(self._statistics[name]):
                names.update(self._statistics[name])
                metrics.append(metric)

        def statistics(prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]) -> dict[str, Any]:
            single = prediction.mean(dim=0) if members else prediction
            every = prediction if members else prediction.unsqueeze(0)
            values: dict[str, Any] = {}
            for metric in metrics:
                values |= metric.statistics(every if metric.members else single, target, climatology)
            return values

        return statistics

    def _local_means(self, fields: PointFields, members: int, weights: AreaWeights) -> Iterator[Means]:
        """Area means of the statistics of metrics that read neighbourhoods."""
        for metric in self.metrics.values():
            if metric.radius and _fits(metric, fields, members):
                prediction = fields.prediction if members else fields.prediction[None]
                prediction = prediction if metric.members else prediction.mean(dim=0)
                near = neighbourhood(self.grid, metric.radius)
                local = PointFields(*metric.local(near, prediction, fields.target, fields.climatology), {})
                yield area_means(metric.statistics, local, weights, self.missing)

    def _with_vectors(
        self, statistic: str, mean: Tensor, counted: Tensor, shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means and what counts as (..., batch, channel, region), vectors after the channels of the variables."""
        values, valid = mean.cpu().numpy().reshape(*mean.shape[:-2], *shape), counted.numpy().reshape(shape)
        if not self._components.size:
            return values, valid
        adds = any(m.vector and statistic in self._statistics[name] for name, m in self.metrics.items())
        parts = values[..., self._components, :]  # (..., vector, component, region)
        whole = parts.sum(axis=-2) if adds else np.full_like(parts[..., 0, :], np.nan)
        both = valid[:, self._components].all(axis=-2) & adds
        return np.concatenate([values, whole], axis=-2), np.concatenate([valid, both], axis=-2)

    def _by_init(
        self, name: str, averages: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Value of a by-init metric for each initial time and channel, and where it counts."""
        metric, terms = self.metrics[name], self._statistics[name]
        value = metric.value({term: torch.from_numpy(averages[term][0]) for term in terms}).numpy()
        counted = np.logical_and.reduce([averages[term][1] for term in terms])
        return value, counted & ~np.isnan(value) if self.missing == "any" else counted

    def _keep_members(self, members: int) -> None:
        if self._inits.any() and members != self._members:
            raise ValueError(f"One scorecard takes ensembles of one size; it has {self._members}, got {members}.")
        self._members = members

    def value(self, metric: str) -> np.ndarray:
        """The score so far, float64, ([dims of the metric,] region, lead, channel); NaN where nothing was added."""
        part = self.metrics[metric]
        terms = [f"{metric} by init"] if part.by_init else self._statistics[metric]
        with np.errstate(invalid="ignore", divide="ignore"):
            means = {
                term: torch.from_numpy(self._sum.get(term, np.zeros(self._shape)) / self._count[term]) for term in terms
            }
        scores = means[terms[0]] if part.by_init else part.value(means)
        score = np.moveaxis(scores.numpy(), -1, -3)
        if not part.vector:
            score[..., self.variables.size :] = np.nan
        return score

    def spoilt(self, metric: str) -> np.ndarray:
        """Where missing values make a score NaN in some region, bool (lead, channel)."""
        terms = [f"{metric} by init"] if self.metrics[metric].by_init else self._statistics[metric]
        is_spoilt = np.zeros(self._shape, dtype=bool)
        for term in terms:
            if term in self._sum:
                total = self._sum[term]
                is_spoilt |= np.isnan(total).any(axis=tuple(range(total.ndim - 3))) & (self._count[term] > 0)
        return np.asarray(is_spoilt.any(axis=-1))

    @property
    def inits(self) -> np.ndarray:
        """Number of initial times added for each lead."""
        return self._inits.copy()

    @property
    def scored(self) -> tuple[str, ...]:
        """The metrics that have been fed: those whose climatological fields and members were given."""

        def terms(name: str) -> Sequence[str]:
            return [f"{name} by init"] if self.metrics[name].by_init else self._statistics[name]

        return tuple(name for name in self.metrics if any(self._count[term].any() for term in terms(name)))

    def _labels(self, leads: slice = slice(None)) -> str:
        variables, times = self.scored_variables.plain(), self.leads[leads].astype(int).tolist()
        return json.dumps([self.quantities, times, variables, self.regions.names, self.grid.shape, self.missing])

    def partial(self) -> dict[str, np.ndarray]:
        """The sums so far as arrays, to be stored, sent, or added to another scorecard by `add_partial`."""
        return {
            **{f"sum {quantity}": total.copy() for quantity, total in self._sum.items()},
            **{f"count {quantity}": count.copy() for quantity, count in self._count.items()},
            "inits": self._inits.copy(),
            "missing": self._missing.copy(),
            "members": np.array(self._members),
            "labels": np.array(self._labels()),
        }

    def add_partial(self, partial: Mapping[str, np.ndarray], first: int = 0) -> Scorecard:
        """Add the sums of another scorecard of the same variables, regions and metrics; its leads begin at `first`."""
        leads = slice(first, first + len(partial["inits"]))
        if str(partial["labels"]) != self._labels(leads):
            raise ValueError("Only sums of the same metrics, leads, variables, regions and grid can be added up.")
        if not partial["inits"].any():
            return self
        self._keep_members(int(partial["members"]))
        for quantity in self.quantities:
            self._count[quantity][leads] += partial[f"count {quantity}"]
            if f"sum {quantity}" in partial:
                more = partial[f"sum {quantity}"]
                total = self._sum.setdefault(quantity, np.zeros((*more.shape[:-3], *self._shape)))
                total[..., leads, :, :] += more
        self._inits[leads] += partial["inits"]
        self._missing[leads] += partial["missing"]
        return self

    def scores(self, attributes: Mapping[str, object] | None = None) -> xr.Dataset:
        """One data variable a scored variable; dims metric, region, lead_time (timedelta64) and, with levels, level.

        attributes: what only the caller knows (truth, forecast, ...), added to the attributes of the Dataset.
        """
        if not self._inits.any():
            raise ValueError("No pair of forecast and truth was added; there is nothing to score.")
        if not self.scored:
            raise ValueError(f"No metric could be taken: {'; '.join(self._why_not(name) for name in self.metrics)}.")
        names = [name for name in self.scored if not self.metrics[name].dims]
        empty = np.zeros((0, len(self.regions.names), len(self.leads), self.scored_variables.size))
        values = np.stack([self.value(name) for name in names]) if names else empty  # (metric, region, lead, channel)
        return self.layout.scores(values, names, self._inits, self._missing, self._attributes(names, attributes))

    def histograms(self, attributes: Mapping[str, object] | None = None) -> xr.Dataset | None:
        """Scores of more than a number: `<variable>_<metric>`, the metric's dims in front; None if there are none."""
        names = [name for name in self.scored if self.metrics[name].dims]
        values = {name: (self.metrics[name].dims, self.value(name)) for name in names}
        return self.layout.histograms(values, self._inits, self._attributes(names, attributes)) if names else None

    def _attributes(self, names: Sequence[str], further: Mapping[str, object] | None) -> dict[str, object]:
        """The attributes that are needed to compare these scores with others."""
        rules = {"truth": "where the truth is NaN", "any": "where a field is NaN", "none": "never"}
        attributes: dict[str, object] = {
            "weights": "cell area of the full grid, then sub-selected to the region",
            "averaging": "mean over area, then over initial times, roots and ratios last unless named by_init",
            "grid": str(self.grid),
            "number_of_inits": int(self._inits.max()),
            "points_left_out": rules[self.missing],
            "nan_share": float(self._missing.sum() / (self._inits.sum() * self.variables.size * self.grid.size)),
            "definitions": "; ".join(f"{name} = {self.metrics[name].definition}" for name in names),
            "perfect": json.dumps({name: self.metrics[name].perfect for name in names}),
            "exponent": json.dumps({name: self.metrics[name].exponent for name in names}),
        }
        if self._members:
            attributes["members"] = self._members
            attributes["single_forecast"] = "the ensemble mean, in metrics of single forecasts"
        absent = [self._why_not(name) for name in self.metrics if name not in self.scored]
        if absent:
            attributes["metrics_left_out"] = "; ".join(absent)
        if self.regions.skipped:
            attributes["regions_left_out"] = "; ".join(f"{name}: {why}" for name, why in self.regions.skipped.items())
        return attributes | dict(further or {})

    def _why_not(self, name: str) -> str:
        metric = self.metrics[name]
        if metric.members > max(self._members, 1):
            return f"{name}: the forecast has {max(self._members, 1)} of the {metric.members} members needed"
        return f"{name}: no climatology with {', '.join(metric.needs)} at hand"


def _fits(metric: Metric, fields: PointFields, members: int) -> bool:
    """Whether the fields and members that a metric reads are there."""
    return set(metric.needs) <= set(fields.climatology) and max(members, 1) >= metric.members


def statistic_names(metric: Metric) -> tuple[str, ...]:
    """The names of the statistics of a metric, from a run on one point."""
    point = torch.zeros(1, 1, dtype=torch.float64)
    prediction = point.expand(metric.members, 1, 1) if metric.members else point
    return tuple(metric.statistics(prediction, point, dict.fromkeys(metric.needs, point)))
