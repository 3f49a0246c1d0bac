"""Area means of the statistics of each initial time, kept in addition to the sums of a Scorecard.

From them scores of any part of the initial times follow exactly, and the significance of differences
(`emulators.statistics.significance`). One float32 number is held for each statistic, initial time, lead, channel and
region; statistics with axes of their own (ranks, pairs of members) are not kept.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from emulators.scores.interfaces import Metric
from emulators.statistics.significance import Significance, paired_difference
from emulators.verification.scorecard import Scorecard, statistic_names

if TYPE_CHECKING:
    import xarray as xr


Taken = Mapping[str, tuple[np.ndarray, np.ndarray]]


class InitStatistics:
    """Keep the area means of each initial time.

    inits: all initial times, sorted. regions: keep only the first n of the scorecard's regions.
    """

    def __init__(self, card: Scorecard, inits: np.ndarray, regions: int | None = None) -> None:
        self.card, self.inits = card, np.asarray(inits, dtype="datetime64[s]")
        self.regions = card.regions.names[:regions]
        self._kept: dict[str, np.ndarray] = {}

    @staticmethod
    def megabytes(card: Scorecard, inits: int, regions: int) -> float:
        """Upper bound on the memory it takes."""
        return 4 * len(card.quantities) * inits * len(card.leads) * card.scored_variables.size * regions / 2**20

    def add(self, inits: np.ndarray, lead: int, taken: Taken) -> None:
        """Add the result of `Scorecard.add` for a batch of initial times at one lead.

        NaN becomes infinite, since NaN marks values that do not count.
        """
        rows = np.searchsorted(self.inits, np.asarray(inits, dtype="datetime64[s]"))
        for quantity, (mean, counted) in taken.items():
            if mean.ndim > 3:
                continue
            if quantity not in self._kept:
                shape = (len(self.inits), len(self.card.leads), mean.shape[-2], len(self.regions))
                self._kept[quantity] = np.full(shape, np.nan, dtype=np.float32)
            encoded = np.where(np.isnan(mean), np.inf, mean)[..., : len(self.regions)]
            self._kept[quantity][rows, lead] = np.where(counted[..., : len(self.regions)], encoded, np.nan)

    def partial(self) -> dict[str, np.ndarray]:
        """The statistics so far as arrays, to be stored, sent, or added to others by `add_partial`."""
        return {quantity: values.copy() for quantity, values in self._kept.items()}

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> InitStatistics:
        """Add the statistics that another kept for some of the same initial times."""
        for quantity, added in partial.items():
            values = self._kept.get(quantity, np.full_like(added, np.nan))
            self._kept[quantity] = np.where(np.isnan(values), added, values)
        return self

    def dataset(self, attributes: Mapping[str, object] | None = None) -> xr.Dataset | None:
        """One data variable a scored variable; dims statistic, time (initial), region, lead_time and, with levels,
        level; None where nothing was kept."""
        import xarray as xr

        if not self._kept:
            return None
        values = np.stack(list(self._kept.values())).transpose(
            0, 1, 4, 2, 3
        )  # (statistic, init, region, lead, channel)
        arrays = {}
        for variable in self.card.scored_variables:
            dims, block = self.card.layout.block(variable, values)
            arrays[variable.name] = (("statistic", "time", *dims), block.astype(np.float32), {"units": variable.units})
        coords = self.card.layout.coordinates(self.card.inits)
        coords = {name: coords[name] for name in ("lead_time", "level") if name in coords}
        coords |= {"statistic": list(self._kept), "region": list(self.regions)}
        coords["time"] = self.inits.astype("datetime64[ns]")
        facts = {"comment": "area means of each initial time; NaN where it does not count, infinite where it is NaN"}
        return xr.Dataset(arrays, coords, {**facts, **(attributes or {})})


def statistics_of(name: str, metric: Metric) -> tuple[str, ...]:
    """The names under which `InitStatistics` keeps the statistics of a metric."""
    return (f"{name} by init",) if metric.by_init else statistic_names(metric)


def terms(dataset: xr.Dataset, name: str, metric: Metric, variable: str, **where: Any) -> dict[str, np.ndarray] | None:
    """By statistic of `metric` what a dataset of InitStatistics holds of a variable, shape (init, *series); None where
    one is not kept."""
    needed = statistics_of(name, metric)
    if variable not in dataset or not set(needed) <= set(dataset["statistic"].values.tolist()):
        return None
    field = dataset[variable].sel(**where)
    return {term: field.sel(statistic=term).values for term in needed}


def scores_of(by_init: xr.Dataset, metrics: Mapping[str, Metric]) -> xr.Dataset:
    """The scores of the initial times in a dataset of InitStatistics, those that do not count in them left out.

    One data variable a scored variable; dims metric, region, lead_time and, with levels, level; metrics whose
    statistics were not kept are not among them.
    """
    import xarray as xr

    available = set(by_init["statistic"].values.tolist())
    scored = {name: metric for name, metric in metrics.items() if set(statistics_of(name, metric)) <= available}
    arrays = {}
    for variable, field in by_init.data_vars.items():
        values = np.stack([_score(by_init, name, metric, str(variable)) for name, metric in scored.items()])
        arrays[str(variable)] = (("metric", *field.dims[2:]), values, field.attrs)
    coords = {str(dim): by_init[dim] for dim in ("region", "lead_time", "level") if dim in by_init.coords}
    return xr.Dataset(arrays, {"metric": list(scored), **coords})


def _score(by_init: xr.Dataset, name: str, metric: Metric, variable: str) -> np.ndarray:
    """A score from means over the initial times that count, NaN where there are none."""
    statistics = terms(by_init, name, metric, variable) or {}
    counted = np.logical_and.reduce([~np.isnan(values) for values in statistics.values()])
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {
            term: np.where(counted, values, 0.0).sum(axis=0, dtype=np.float64) / counted.sum(axis=0)
            for term, values in statistics.items()
        }
        tensors = {term: torch.from_numpy(np.where(np.isinf(mean), np.nan, mean)) for term, mean in means.items()}
        return next(iter(tensors.values())).numpy() if metric.by_init else metric.value(tensors).numpy()


def differences(
    first: xr.Dataset, others: Mapping[str, xr.Dataset], metrics: Mapping[str, Metric], significance: Significance
) -> xr.Dataset | None:
    """Losses of a forecast less those of others on the initial times that both have, from datasets of InitStatistics.

    One data variable a scored variable; dims source, estimate (those of ESTIMATES), metric, region, lead_time and, with
    levels, level. NaN where a side lacks the metric; None where there are no others. All variables, levels and leads of
    one source, metric and region are judged together.
    """
    import xarray as xr

    by_source = {name: _differences(first, reference, metrics, significance) for name, reference in others.items()}
    if not by_source:
        return None
    joined = xr.concat(
        list(by_source.values()), dim=xr.DataArray(list(by_source), dims="source", name="source"), join="outer"
    )
    joined.attrs = {
        "significance": str(significance),
        "level": f"{100 * significance.level:g}",
        "least_inits": f"{significance.least:g}",
        "false_discovery": str(significance.false_discovery).lower(),
        "exponent": json.dumps({name: metric.exponent for name, metric in metrics.items()}),
        "difference": "loss of the forecast less that of the source, loss = |score - perfect|; negative is better",
    }
    return joined


ESTIMATES = ("difference", "low", "high", "p_value", "effective_inits", "inits", "significant")


def _differences(
    first: xr.Dataset, other: xr.Dataset, metrics: Mapping[str, Metric], significance: Significance
) -> xr.Dataset:
    """Against one other, without the dimension `source`."""
    import xarray as xr

    shared = [xr.align(first[name], other[name], join="inner") for name in first.data_vars if name in other]
    arrays = {}
    for mine, theirs in shared:
        estimates = []
        for name, metric in metrics.items():
            sides = [
                terms(side.to_dataset(name=str(mine.name)), name, metric, str(mine.name)) for side in (mine, theirs)
            ]
            if sides[0] is None or sides[1] is None:
                estimates.append(np.full((len(ESTIMATES), *mine.shape[2:]), np.nan))
                continue
            paired = paired_difference(metric, sides[0], sides[1], significance)
            results = [paired.value, paired.low, paired.high, paired.p_value, paired.effective_inits, paired.inits]
            estimates.append(np.stack([*results, np.full_like(paired.value, np.nan)]))
        units = {"units": mine.attrs.get("units", "")}
        arrays[str(mine.name)] = (("estimate", "metric", *mine.dims[2:]), np.stack(estimates, axis=1), units)
    _judge_together([values for _, values, _ in arrays.values()], significance)
    coords = {name: mine[name] for mine, _ in shared for name in mine.dims[2:]}
    return xr.Dataset(arrays, {"estimate": list(ESTIMATES), "metric": list(metrics), **coords})


def _judge_together(fields: Sequence[np.ndarray], significance: Significance) -> None:
    """Fill in what is significant: of each metric and region all variables, levels and leads together.

    fields: of each variable, (estimate, metric, region, lead[, level]).
    """
    p_value, verdict = ESTIMATES.index("p_value"), ESTIMATES.index("significant")
    for metric, region in np.ndindex(fields[0].shape[1:3] if fields else (0, 0)):
        blocks = [field[:, metric, region] for field in fields]
        significant = significance.significant(np.concatenate([block[p_value].ravel() for block in blocks]))
        ends = np.cumsum([block[p_value].size for block in blocks])[:-1]
        for block, verdicts in zip(blocks, np.split(significant, ends), strict=True):
            block[verdict] = verdicts.reshape(block[verdict].shape)
