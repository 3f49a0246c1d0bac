"""Verification: sums over pairs of States by lead time, and the scores that follow from them.

For statistic s, initial time i, lead l, channel v and region R, with w the area of the cells,

    S_lvR = sum_i <s>_ilvR,   <s> = sum_{x in R} w_x s_x / sum_{x in R} w_x,   score = value(S / number of inits)

so that sums of any batches, processes or runs add up to the whole (the aggregation states of WeatherBench-X,
https://github.com/google-research/weatherbenchX); means over area first, then over initial times, the root last.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from emulators.grid import LatLonGrid
from emulators.regions import Region, region_weights
from emulators.state import State
from emulators.variables import VariableSet
from emulators.world import World

if TYPE_CHECKING:
    import xarray as xr

Missing = Literal["truth", "any", "none"]
BLOCK = 2**21  # numbers cast to float64 at a time: 16 MiB a field


class Metric(Protocol):
    """Statistics of single points, and the score from their means.

    by_init: the value is taken for each initial time and then averaged. perfect: value at a perfect forecast.
    exponent: power of the variable's units. A statistic's name stands for one formula in every metric.
    """

    needs_climatology: bool
    by_init: bool
    perfect: float
    exponent: int
    definition: str

    def statistics(self, prediction: Tensor, target: Tensor, climatology: Tensor | None) -> dict[str, Tensor]: ...

    def value(self, means: dict[str, Tensor]) -> Tensor: ...


class Scorecard:
    """Scores by metric, region, lead and channel, from pairs of States.

    leads: lead times, timedelta64, or how many timesteps of the world; `add` counts them from 0.
    regions: names, boxes or `Region`s; those over land need `land_sea_mask` among the world's static variables.
    missing: NaN points are left out where the truth has none (`truth`: a NaN in the forecast alone makes the score
    NaN), where any field has none (`any`), or never (`none`). Sums are float64 on the CPU.
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
        self.grid, self.variables, self.metrics, self.missing = world.grid, variables, dict(metrics), missing
        self.leads = np.asarray(leads, dtype="timedelta64[s]")
        self.regions = region_weights(world.grid, regions, _land_fraction(world))
        self._matrix = torch.from_numpy(self.regions.matrix)
        self._statistics = {name: tuple(_dry_run(metric)) for name, metric in self.metrics.items()}
        pooled = {s: None for name, m in self.metrics.items() if not m.by_init for s in self._statistics[name]}
        by_init = [name for name, m in self.metrics.items() if m.by_init]
        self.quantities = (*pooled, *(f"{name} by init" for name in by_init))
        shape = (len(self.quantities), len(self.leads), variables.size, len(self.regions.names))
        self._sum, self._count = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        self._inits = np.zeros(len(self.leads), dtype=np.int64)
        self._missing = np.zeros(shape[1:3], dtype=np.int64)

    def add(self, prediction: State, target: State, lead: int, climatology: State | Tensor | None = None) -> None:
        """Add a batch of forecasts of one lead (index into `leads`) and their truth, matched by valid time.

        climatology: of the valid times, for metrics that need one; a Tensor has the channels of `variables`.
        """
        if not 0 <= lead < len(self.leads):
            raise ValueError(f"Lead index {lead} is outside 0..{len(self.leads) - 1}, the leads of this scorecard.")
        given = {"prediction": prediction, "target": target, "climatology": climatology}
        fields = [_channels(f, self.variables, self.grid, role) for role, f in given.items() if f is not None]
        if len({tuple(field.shape) for field in fields}) > 1:
            raise ValueError(
                "Prediction, target and climatology must have the same batch; got "
                f"{', '.join(str(tuple(field.shape[:1])) for field in fields)}."
            )
        shape = (*fields[0].shape[:2], len(self.regions.names))  # (batch, channel, region)
        means, missing = self._area_means([field.flatten(0, 1) for field in fields])
        for row, quantity in enumerate(self.quantities):
            if quantity in means:
                mean, counted = means[quantity]
            elif quantity.endswith(" by init"):
                found = self._by_init(quantity.removesuffix(" by init"), means)
                if found is None:
                    continue
                mean, counted = found
            else:
                continue
            self._sum[row, lead] += np.where(counted, mean, 0.0).reshape(shape).sum(axis=0)
            self._count[row, lead] += counted.reshape(shape).sum(axis=0)
        self._inits[lead] += shape[0]
        self._missing[lead] += missing.reshape(shape[:2]).sum(axis=0)

    def _area_means(self, rows: list[Tensor]) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], np.ndarray]:
        """Of every statistic: area means and where there were points, both (row, region); missing points of each row.

        rows: prediction, target and perhaps climatology, each (batch * channel, point).
        """
        if rows[0].device.type == "mps":  # has no float64
            rows = [field.cpu() for field in rows]
        matrix = self._matrix = self._matrix.to(rows[0].device)
        metrics = [m for m in self.metrics.values() if len(rows) == 3 or not m.needs_climatology]
        parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
        missing: list[Tensor] = []
        step = max(1, BLOCK // rows[0].shape[1])
        for start in range(0, len(rows[0]), step):
            fields = [field[start : start + step].to(matrix) for field in rows]
            prediction, target = fields[:2]
            climatology = fields[2] if len(fields) == 3 else None
            missing.append((target.isnan() | prediction.isnan()).sum(dim=1))
            done = set()
            for metric in metrics:
                for name, values in metric.statistics(prediction, target, climatology).items():
                    if name not in done:
                        done.add(name)
                        parts.setdefault(name, []).append(self._area_mean(values, target, matrix))
        joined = {
            name: (torch.cat([m for m, _ in found]).cpu().numpy(), torch.cat([c for _, c in found]).cpu().numpy())
            for name, found in parts.items()
        }
        return joined, torch.cat(missing).cpu().numpy()

    def _area_mean(self, values: Tensor, target: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of `values` (row, point) over each region, and whether it had a point that counts."""
        mean = values @ matrix
        if mean.isfinite().all():  # a NaN anywhere would have spread to every region
            return mean, torch.ones_like(mean, dtype=torch.bool)
        left_out = torch.zeros_like(values, dtype=torch.bool)
        if self.missing != "none":
            left_out = (target if self.missing == "truth" else values).isnan()
        share = (~left_out).to(matrix) @ matrix
        broken = ~values.isfinite() & ~left_out
        mean = torch.where(values.isfinite() & ~left_out, values, 0.0) @ matrix / share
        mean = torch.where(broken.to(matrix) @ matrix > 0.0, torch.nan, mean)
        return mean, share > 0.0

    def _by_init(
        self, name: str, means: dict[str, tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Value of a by-init metric for each row, and where it counts; None without its climatology."""
        metric, terms = self.metrics[name], self._statistics[name]
        if not set(terms) <= set(means):
            return None
        value = metric.value({term: torch.from_numpy(means[term][0]) for term in terms}).numpy()
        counted = np.logical_and.reduce([means[term][1] for term in terms])
        return value, counted & ~np.isnan(value) if self.missing == "any" else counted

    def value(self, metric: str) -> np.ndarray:
        """The score so far, float64, shape (region, lead, channel); NaN where nothing was added."""
        with np.errstate(invalid="ignore", divide="ignore"):
            means = {q: torch.from_numpy(self._sum[i] / self._count[i]) for i, q in enumerate(self.quantities)}
        part = self.metrics[metric]
        if part.by_init:
            found = means[f"{metric} by init"]
        else:
            found = part.value({term: means[term] for term in self._statistics[metric]})
        return np.moveaxis(found.numpy(), -1, 0)

    @property
    def inits(self) -> np.ndarray:
        """Number of initial times added for each lead."""
        return self._inits.copy()

    @property
    def scored(self) -> tuple[str, ...]:
        """The metrics that have been fed: those that need a climatology only if one was given."""

        def rows(name: str) -> list[int]:
            by_init = self.metrics[name].by_init
            return [self.quantities.index(q) for q in ([f"{name} by init"] if by_init else self._statistics[name])]

        return tuple(name for name in self.metrics if self._count[rows(name)].any())

    def _labels(self) -> str:
        variables, leads = self.variables.plain(), self.leads.astype(int).tolist()
        return json.dumps([self.quantities, leads, variables, self.regions.names, self.grid.shape, self.missing])

    def partial(self) -> dict[str, np.ndarray]:
        """The sums so far as arrays, to be stored, sent, or added to another scorecard by `add_partial`."""
        return {
            "sum": self._sum.copy(),
            "count": self._count.copy(),
            "inits": self._inits.copy(),
            "missing": self._missing.copy(),
            "labels": np.array(self._labels()),
        }

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> Scorecard:
        """Add the sums of another scorecard of the same leads, variables, regions and metrics."""
        if str(partial["labels"]) != self._labels():
            raise ValueError("Only sums of the same metrics, leads, variables, regions and grid can be added up.")
        self._sum += partial["sum"]
        self._count += partial["count"]
        self._inits += partial["inits"]
        self._missing += partial["missing"]
        return self

    def scores(self, attributes: Mapping[str, object] | None = None) -> xr.Dataset:
        """One data variable a scored variable; dims metric, region, lead_time (timedelta64) and, with levels, level.

        attributes: what only the caller knows (truth, forecast, ...), added to the attributes of the Dataset.
        """
        import xarray as xr

        if not self._inits.any():
            raise ValueError("No pair of forecast and truth was added; there is nothing to score.")
        names = self.scored
        values = np.stack([self.value(name) for name in names])  # (metric, region, lead, channel)
        every_level = sorted({level for variable in self.variables for level in variable.levels})
        whole = all(float(level).is_integer() for level in every_level)
        coords = {
            "metric": list(names),
            "region": list(self.regions.names),
            "lead_time": self.leads.astype("timedelta64[ns]"),
            "inits": ("lead_time", self._inits, {"long_name": "number of initial times scored"}),
        }
        if every_level:
            coords["level"] = np.array(every_level, dtype=np.int64 if whole else np.float64)
        arrays = {}
        for variable in self.variables:
            chosen = self.variables.slice(variable.name)
            part, dims = values[..., chosen], ["metric", "region", "lead_time"]
            if variable.levels:
                dims.append("level")
                block = np.full((*part.shape[:-1], len(every_level)), np.nan)
                block[..., [every_level.index(level) for level in variable.levels]] = part
            else:
                block = part[..., 0]
            cells = self._inits.sum() * variable.size * np.prod(self.grid.shape)
            share = float(self._missing[:, chosen].sum() / cells)
            arrays[variable.name] = (dims, block, {"units": variable.units, "nan_share": share})
        dataset = xr.Dataset(arrays, coords, {**self._attributes(names), **(attributes or {})})
        dataset["lead_time"].encoding = {"units": "hours" if not (self.leads.astype(int) % 3600).any() else "seconds"}
        return dataset

    def _attributes(self, names: Sequence[str]) -> dict[str, object]:
        """What a reader needs to compare these scores with others."""
        rows, columns = self.grid.shape
        spacing = abs(float(np.mean(np.diff(self.grid.latitude))))
        kept = {"truth": "where the truth is NaN", "any": "where a field is NaN", "none": "never"}
        attributes: dict[str, object] = {
            "weights": "cell area of the full grid, then sub-selected to the region",
            "averaging": "mean over area, then over initial times, roots and ratios last unless named by_init",
            "grid": f"{self.grid.kind} {columns}x{rows} (longitude x latitude), {spacing:.3g} degrees of latitude",
            "number_of_inits": int(self._inits.max()),
            "points_left_out": kept[self.missing],
            "nan_share": float(self._missing.sum() / (self._inits.sum() * self.variables.size * rows * columns)),
            "definitions": "; ".join(f"{name} = {self.metrics[name].definition}" for name in names),
            "perfect": json.dumps({name: self.metrics[name].perfect for name in names}),
            "exponent": json.dumps({name: self.metrics[name].exponent for name in names}),
        }
        absent = [name for name in self.metrics if name not in names]
        if absent:
            attributes["metrics_left_out"] = f"{', '.join(absent)}: no climatology at hand"
        if self.regions.skipped:
            attributes["regions_left_out"] = "; ".join(f"{name}: {why}" for name, why in self.regions.skipped.items())
        return attributes


class ErrorMaps:
    """Means over initial times, point by point, of forecast - truth and of its square, at chosen leads.

    leads: indices of the leads to keep. Two float64 fields a lead and channel are held.
    """

    def __init__(self, world: World, variables: VariableSet, leads: Sequence[int]) -> None:
        self.grid, self.variables, self.leads = world.grid, variables, tuple(leads)
        shape = (len(self.leads), variables.size, *world.grid.shape)
        self._error, self._square = np.zeros(shape), np.zeros(shape)
        self._inits = np.zeros(len(self.leads), dtype=np.int64)

    def add(self, prediction: State, target: State, lead: int) -> None:
        """Add a batch of pairs of one lead; leads that are not kept are passed over."""
        if lead not in self.leads:
            return
        row = self.leads.index(lead)
        fields = {"prediction": prediction, "target": target}
        forecast, truth = (_channels(f, self.variables, self.grid, role).cpu() for role, f in fields.items())
        difference = forecast.double() - truth.double()
        self._error[row] += difference.sum(dim=0).reshape(self._error.shape[1:]).numpy()
        self._square[row] += difference.square().sum(dim=0).reshape(self._error.shape[1:]).numpy()
        self._inits[row] += len(difference)

    def bias(self) -> np.ndarray:
        """Mean error, shape (kept lead, channel, lat, lon)."""
        return self._error / self._inits[:, None, None, None]

    def rmse(self) -> np.ndarray:
        """Root-mean-square error, shape (kept lead, channel, lat, lon)."""
        return np.sqrt(self._square / self._inits[:, None, None, None])


def _channels(fields: State | Tensor, variables: VariableSet, grid: LatLonGrid, role: str) -> Tensor:
    """The channels of `variables` as (batch, channel, point); a Tensor has just these."""
    wanted = variables.channels
    if isinstance(fields, State):
        values = fields.values
        have = {channel: i for i, channel in enumerate(fields.variables.channels)}
        absent = [channel for channel in wanted if channel not in have]
        if absent:
            raise ValueError(f"The {role} lacks {', '.join(absent[:5])}; it has {', '.join(list(have)[:10])}.")
        if tuple(have) != wanted:
            index = torch.tensor([have[channel] for channel in wanted], dtype=torch.int64, device=values.device)
            values = values.index_select(fields.channel_axis, index)
    else:
        values = fields
    expected = (len(wanted), *grid.shape)
    if values.ndim == len(expected):
        values = values.unsqueeze(0)
    if tuple(values.shape[1:]) != expected:
        raise ValueError(
            f"Expected a {role} of shape (batch, {', '.join(map(str, expected))}); got {tuple(values.shape)}."
        )
    return values.detach().flatten(2)


def _dry_run(metric: Metric) -> dict[str, Tensor]:
    """The statistics of a metric on one number, for their names."""
    one = torch.zeros(1, dtype=torch.float64)
    return metric.statistics(one, one, one)


def _land_fraction(world: World) -> np.ndarray | None:
    """Share of land of each cell, shape grid.shape, where the world knows it."""
    if "land_sea_mask" not in world.static or world.static_fields is None:
        return None
    return np.asarray(world.static_fields)[world.static.slice("land_sea_mask").start]
