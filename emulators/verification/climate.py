"""The climate of forecasts against that of the truth at the same times: sums over pairs, and what follows from them.

    x(t) = sum_k c_k A_k(t) + b t + rest      A: the mean and two harmonics of the year, by least squares at each point

gives the trend b free of the season; mean, variance and series of monthly area means are summed beside it. Sums of any
batches, processes or runs add up to the whole; of scores whose years are too few it is said why they are left out.

Scores of a climate: its mean state, its season, its variability, its extremes and its trend, from maps and from series
of area means. A bias of annual area means stands beside what internal variability would make of it in n years,

    bias_over_noise = |mean_n (<f> - <o>)| / sqrt((var f / M + var o) / n)

of M members, years taken as independent: below 2 it says little. Return levels are those of the largest value of each
year, of the members taken together. The drift is the slope of <f> - <o> over the years, beside its standard error.

Beside these stand the variance by time scale and the leading patterns of some fields (`statistics.monthly_fields`), the
poleward transports (`physics.transports`) and the distribution of precipitation (`statistics.precipitation`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from emulators.physics.transports import Transports
from emulators.scores.climate import (
    ALPHA,
    NINO_REGION,
    area_mean,
    area_rmse,
    nino_index,
    nrmse_global,
    nrmse_spatial,
    slope,
    whole_years,
)
from emulators.state import State
from emulators.statistics.area_means import Region, land_fraction, region_weights
from emulators.statistics.climatology import AnnualMaxima, harmonics
from emulators.statistics.monthly_fields import Modes, MonthlyFields
from emulators.statistics.period_sums import PeriodSums
from emulators.statistics.precipitation import PrecipitationDistribution
from emulators.variables import Variable, VariableSet
from emulators.verification.channels import channel_rows
from emulators.world import World

ANNUAL = 2  # harmonics
DECADE = 315_569_252.0  # s
ORIGIN = 946_684_800  # 2000-01-01: trends are taken about it, for the sake of rounding
SEA = ("sea_surface_temperature", "skin_temperature", "2m_temperature")  # the first of these has the Nino index
YEARS = {
    "annual": 1,
    "nrmse": 1,
    "cycle": 1,
    "scales": 2,
    "interannual": 5,
    "patterns": 5,
    "nino": 5,
    "trend": 10,
    "return": 10,
}  # whole years needed
RETURN = 10.0  # years between two excesses of the return level
PATTERN_REGIONS = ("northern-hemisphere", "southern-hemisphere")  # those with patterns of their own, beside the first


class YearlyTransports:
    """Accumulate transports of forecasts and truth by year."""

    def __init__(self, world: World) -> None:
        self.transports = Transports(world)
        self._years = PeriodSums("transport")  # (truth and members, quantity, lat)

    @property
    def names(self) -> list[str]:
        """The transports that can be had."""
        return list(self.transports.parts)

    def add(self, prediction: State, target: State) -> None:
        """Add forecasts and their truth at the same times; an ensemble has its members in front."""
        if not self.names:
            return
        truth, members = (
            np.stack([field.numpy() for field in self.transports(state.to("cpu")).values()])
            for state in (target, prediction)
        )
        count = prediction.lead[0] if len(prediction.lead) == 2 else 1
        rows = [fields.reshape(len(fields), n, -1, fields.shape[-1]) for fields, n in ((truth, 1), (members, count))]
        both = np.concatenate(rows, axis=1).swapaxes(0, 1)  # (series, quantity, time, lat)
        years = np.atleast_1d(target.time).astype("datetime64[Y]").astype(int) + 1970
        self._years.add_times(years, both, axis=2)

    def partial(self) -> dict[str, np.ndarray]:
        """The sums so far, for `add_partial`."""
        return self._years.partial()

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> None:
        """Add the sums of others."""
        self._years.add_partial(partial)

    def means(self) -> np.ndarray:
        """Return the means over all times of the forecast and of the truth, (2, quantity, lat)."""
        mean = np.sum([*self._years.sums.values()], axis=0) / sum(self._years.counts.values())
        return np.stack([mean[1:].mean(axis=0), mean[0]])

    def noise(self, years: np.ndarray) -> np.ndarray:
        """Return the standard deviation of means of whole `years` of forecast and truth, (2, quantity, lat)."""
        annual = np.stack([self._years.mean(year) for year in years.tolist()])
        spread = np.sqrt(annual.var(axis=0, ddof=1))
        return np.stack([np.sqrt(np.square(spread[1:]).mean(axis=0)), spread[0]])


class ClimateCard:
    """Accumulate mean state, variability, annual means and trends of forecasts and of their truth.

    A point at which either is ever missing is left out. Of an ensemble the means are those of its members, the
    variability that of each member. Eight float64 fields a channel are held of forecast and truth each, and for every
    year a float32 field of each member and of the truth. monthly: channels of which a float64 field is held for every
    month too, for variance by time scale and patterns.
    """

    def __init__(
        self,
        world: World,
        variables: VariableSet,
        regions: Sequence[str | Region | Mapping] = ("global",),
        monthly: VariableSet | None = None,
    ) -> None:
        self.grid, self.variables = world.grid, variables
        self.monthly = VariableSet() if monthly is None else monthly
        land = land_fraction(world)
        self.regions = region_weights(world.grid, regions, land)
        self._nino = region_weights(world.grid, [*regions, NINO_REGION], land)
        shape = (variables.size, int(np.prod(world.grid.shape)))
        size = 2 + 2 * ANNUAL
        self._gram = np.zeros((size, size))
        self._moment, self._square = np.zeros((2, size, *shape)), np.zeros((2, *shape))
        self._missing = np.zeros(shape, dtype=bool)
        self._months = PeriodSums("area mean")  # since 1970; (truth and members, channel, region)
        self._times: set[int] = set()
        self._maxima, self._fields = AnnualMaxima(), MonthlyFields()
        self._kept = [variables.channels.index(channel) for channel in self.monthly.channels]
        self.transports = YearlyTransports(world)
        self.precipitation = PrecipitationDistribution(variables, self.regions.matrix)

    def add(self, prediction: State, target: State) -> None:
        """Add forecasts of any leads and their truth, matched by valid time; an ensemble has its members in front."""
        by_role = {"prediction": prediction, "target": target}
        forecast, truth = (
            channel_rows(fields, self.variables, self.grid, role).double().cpu().numpy()
            for role, fields in by_role.items()
        )
        members = forecast if forecast.ndim == 4 else forecast[None]  # (member, time, channel, point)
        seconds = np.atleast_1d(target.time).astype(np.int64)
        self.transports.add(prediction, target)
        rain = self.precipitation.variable
        if rain is not None:
            place = self.variables.slice(rain.name).start
            self.precipitation.add(members[:, :, place], truth[:, place])
        missing = np.isnan(truth) | np.isnan(members).any(axis=0)
        if missing.any():
            self._missing |= missing.any(axis=0)
            truth, members = np.where(missing, 0.0, truth), np.where(missing, 0.0, members)
        both = np.concatenate([truth[None], members])
        basis = _basis(seconds)
        self._gram += basis.T @ basis
        for row, fields in enumerate((members, truth[None])):
            self._moment[row] += np.tensordot(basis.T, fields.mean(axis=0), axes=1)
            self._square[row] += np.square(fields).mean(axis=0).sum(axis=0)
        self._times.update(seconds.tolist())
        self._maxima.add(target.time.reshape(-1).astype("datetime64[Y]").astype(int) + 1970, both)
        months = target.time.reshape(-1).astype("datetime64[M]").astype(int)
        if self._kept:
            self._fields.add(months, both[:, :, self._kept])
        matrix = self._nino.matrix
        coverage = (~missing) @ matrix
        with np.errstate(invalid="ignore", divide="ignore"):
            means = both @ matrix / coverage  # (1 + member, time, channel, region)
        for place, month in enumerate(months.tolist()):
            self._months.add(month, means[:, place])

    def partial(self) -> dict[str, np.ndarray]:
        """The sums so far as arrays, to be stored, sent, or added to others by `add_partial`."""
        return {
            "gram": self._gram.copy(),
            "moment": self._moment.copy(),
            "square": self._square.copy(),
            "missing": self._missing.copy(),
            "times": np.array(sorted(self._times), dtype=np.int64),
            "labels": np.array(self._labels()),
            **self._months.partial(),
            **self._maxima.partial(),
            **self._fields.partial(),
            **self.transports.partial(),
            **self.precipitation.partial(),
        }

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> ClimateCard:
        """Add the sums of others of the same variables, regions and grid."""
        if str(partial["labels"]) != self._labels():
            raise ValueError("Only sums of the same variables, regions and grid can be added up.")
        self._gram += partial["gram"]
        self._moment += partial["moment"]
        self._square += partial["square"]
        self._missing |= partial["missing"]
        self._times.update(partial["times"].tolist())
        for part in (self._months, self._maxima, self._fields, self.transports, self.precipitation):
            part.add_partial(partial)
        return self

    def _labels(self) -> str:
        parts = [self.variables.plain(), list(self._nino.names), self.grid.plain(), list(self.monthly.channels)]
        return json.dumps(parts)

    @property
    def times(self) -> np.ndarray:
        """The valid times of the pairs, in order, datetime64[s]."""
        return np.array(sorted(self._times), dtype="datetime64[s]")

    @property
    def years(self) -> np.ndarray:
        """The whole years that the pairs cover."""
        return whole_years(self.times)

    def left_out(self) -> dict[str, str]:
        """Scores for which there are too few years, or no sea, and why."""
        have = len(self.years)
        reasons = {name: f"{have} of the {need} whole years needed" for name, need in YEARS.items() if have < need}
        if "cycle" not in reasons and len(self._times) < 6 * have:
            reasons["cycle"] = "fewer than six times a year"
        if not self._kept:
            reasons |= dict.fromkeys(("scales", "patterns"), "no monthly fields are kept")
        elif "scales" not in reasons and self._monthly_means().shape[1] < YEARS["scales"]:
            reasons |= dict.fromkeys(("scales", "patterns"), "months without any time")
        if lacking := self.transports.transports.left_out:
            reasons["transports"] = ", ".join(f"{name.replace('_', ' ')}: {why}" for name, why in lacking.items())
        if self.precipitation.left_out:
            reasons["precipitation"] = self.precipitation.left_out
        if self._sea() is None:
            reasons["nino"] = f"none of {', '.join(SEA)} among the variables"
        elif NINO_REGION not in self._nino.names:
            reasons["nino"] = f"no point of {NINO_REGION} on the grid"
        return reasons

    def maps(self) -> dict[str, np.ndarray]:
        """`mean`, `std`, `trend` (a decade), `cosine`, `sine` and amplitude `cycle` of the year, `return10` where years
        suffice, of forecast and truth: (source, channel, point); NaN where missing."""
        count = self._gram[0, 0]
        if not count:
            raise ValueError("No pair of forecast and truth was added; there is no climate to score.")
        mean = self._moment[:, 0] / count
        maps = {"mean": mean, "std": np.sqrt(np.maximum(self._square / count - np.square(mean), 0.0))}
        fitted = np.tensordot(_fit(self._gram), self._moment, axes=(1, 1))  # (function, source, channel, point)
        maps |= {"trend": fitted[-1], "cosine": fitted[1], "sine": fitted[2]}
        maps["cycle"] = np.hypot(maps["cosine"], maps["sine"])
        if "return" not in self.left_out():
            truth, forecast = self._maxima.return_levels(self.years, RETURN)
            maps["return10"] = np.stack([forecast, truth])
        for values in maps.values():
            values[:, self._missing] = np.nan
        return maps

    def _monthly_means(self) -> np.ndarray:
        """Monthly means of whole years, (truth and members, year, month, channel of `monthly`, point)."""
        return self._fields.whole(self.years)

    def variances(self) -> np.ndarray | None:
        """Variance by time scale of forecast and truth, (source, scale, channel of `monthly`, point); None where it is
        left out, NaN where missing."""
        if "scales" in self.left_out():
            return None
        by_scale = self._fields.variances(self._monthly_means())
        by_scale[..., self._missing[self._kept]] = np.nan
        return by_scale

    def modes(self) -> dict[str, list[Modes]]:
        """The leading patterns by region, of each channel of `monthly`; empty where they are left out."""
        if "patterns" in self.left_out():
            return {}
        means = self._monthly_means()
        means[..., self._missing[self._kept]] = np.nan
        names = [name for place, name in enumerate(self.regions.names) if not place or name in PATTERN_REGIONS]
        return {
            name: [
                MonthlyFields.modes(means[..., channel, :], self.regions.matrix[:, self.regions.names.index(name)])
                for channel in range(means.shape[-2])
            ]
            for name in names
        }

    def monthly_area_means(self) -> tuple[np.ndarray, np.ndarray]:
        """Area means (month, truth and members, channel, region), and the months since 1970; the regions of scores are
        the first."""
        months = self._months.periods
        return np.stack([self._months.mean(month) for month in months]), np.array(months)

    def annual_means(self) -> np.ndarray:
        """Area means of whole years, (year, truth and members, channel, region)."""
        rows = []
        for year in self.years.tolist():
            months = [month for month in self._months.sums if month // 12 + 1970 == year]
            total = sum(self._months.sums[month] for month in months)
            rows.append(total / sum(self._months.counts[month] for month in months))
        return np.stack(rows)[..., : len(self.regions.names)]

    def scores(self) -> dict[str, np.ndarray]:
        """By name the scores that can be taken, (channel, region)."""
        maps, absent, weights = self.maps(), self.left_out(), self.regions.matrix
        (mean, true_mean), (std, true_std), (trend, true_trend) = maps["mean"], maps["std"], maps["trend"]
        variances = (area_mean(np.square(field), weights) for field in (std, true_std))
        with np.errstate(invalid="ignore", divide="ignore"):
            scores = {
                "mean_forecast": area_mean(mean, weights),
                "mean_truth": area_mean(true_mean, weights),
                "bias": area_mean(mean - true_mean, weights),
                "bias_rmse": area_rmse(mean - true_mean, weights),
                "std_rmse": area_rmse(std - true_std, weights),
                "std_ratio": np.sqrt(np.divide(*variances)),
            }
            if "annual" not in absent:
                scores |= self._annual_scores(nrmse_spatial(mean, true_mean, weights), "interannual" not in absent)
        if "cycle" not in absent:
            apart = [maps[wave][0] - maps[wave][1] for wave in ("cosine", "sine")]
            with np.errstate(invalid="ignore", divide="ignore"):
                scores["cycle_ratio"] = np.sqrt(np.divide(*(area_mean(np.square(f), weights) for f in maps["cycle"])))
            scores["cycle_rmse"] = area_rmse(np.hypot(*apart), weights) / np.sqrt(2.0)
        if "return" not in absent:
            level, true_level = maps["return10"]
            scores |= {"return10_forecast": area_mean(level, weights), "return10_truth": area_mean(true_level, weights)}
            scores["return10_rmse"] = area_rmse(level - true_level, weights)
        if "trend" not in absent:
            scores["trend_forecast"] = area_mean(trend, weights)
            scores["trend_truth"] = area_mean(true_trend, weights)
            scores["trend_rmse"] = area_rmse(trend - true_trend, weights)
        return scores

    def _annual_scores(self, spatial: np.ndarray, variability: bool) -> dict[str, np.ndarray]:
        annual = self.annual_means()
        truth, members = annual[:, 0], annual[:, 1:]
        forecast = members.mean(axis=1)
        scores = {
            "annual_rmse": np.sqrt(np.square(forecast - truth).mean(axis=0)),
            "nrmse_spatial": spatial,
            "nrmse_global": nrmse_global(forecast, truth),
        }
        scores["nrmse"] = scores["nrmse_spatial"] + ALPHA * scores["nrmse_global"]
        if variability:
            scores["interannual_std_forecast"] = np.sqrt(members.var(axis=0, ddof=1).mean(axis=0))
            scores["interannual_std_truth"] = truth.std(axis=0, ddof=1)
            variance = members.var(axis=0, ddof=1).mean(axis=0) / members.shape[1] + truth.var(axis=0, ddof=1)
            scores["bias_noise"] = np.sqrt(variance / len(truth))
            scores["drift"], scores["drift_noise"] = slope(self.years / 10.0, forecast - truth)
            with np.errstate(invalid="ignore", divide="ignore"):
                scores["bias_over_noise"] = np.abs((forecast - truth).mean(axis=0)) / scores["bias_noise"]
                scores["drift_over_noise"] = np.abs(scores["drift"]) / scores["drift_noise"]
        return scores

    def _sea(self) -> Variable | None:
        names = [name for name in SEA if name in self.variables]
        return self.variables.variable(names[0]) if names else None

    def nino(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The Nino 3.4 index and its months (datetime64[M]): (month, truth and members); None where it is left out."""
        sea = self._sea()
        if sea is None or "nino" in self.left_out():
            return None
        series, months = self.monthly_area_means()
        channel, region = self.variables.slice(sea.name).start, self._nino.names.index(NINO_REGION)
        means = series[:, :, channel, region]
        return nino_index(means, months), months.astype("datetime64[M]")


def _fit(gram: np.ndarray) -> np.ndarray:
    """The weights of the moments whose sums are the coefficients of the functions, (function, function).

    All functions are taken about their means, and harmonics that hardly vary from time to time are left out: yearly
    data do not determine a season.
    """
    count, centred = gram[0, 0], np.eye(len(gram))
    centred[0, 1:] = -gram[0, 1:] / count
    about = centred.T @ gram @ centred
    size = np.full(len(gram), np.sqrt(0.5 * count))
    size[0], size[-1] = np.sqrt(count), np.sqrt(max(about[-1, -1], 1e-12 * count))
    inverse = np.linalg.pinv(about / np.outer(size, size), rcond=1e-3, hermitian=True) / np.outer(size, size)
    return inverse @ centred.T


def _basis(seconds: np.ndarray) -> np.ndarray:
    """Mean, harmonics of the year and time in decades, (time, function)."""
    season = harmonics(torch.from_numpy(seconds), ANNUAL, 0).numpy()
    return np.concatenate([season, ((seconds - ORIGIN) / DECADE)[:, None]], axis=1)
