"""The distribution of precipitation: how often it falls how hard, and how much of it.

    frequency(b)   share of area and time at rates in bin b            amount(b)   mean precipitation that falls in it
    overlap        sum_b min(frequency_f, frequency_o)

Bins are logarithmic, twelve a decade from 0.01 to 1000 mm a day, one for less and one for more (the two distributions:
Pendergrass & Hartmann 2014, doi 10.1175/JCLI-D-14-00182.1; overlap: Perkins et al. 2007, doi 10.1175/JCLI4253.1). Rates
are means over the time that the data's sums cover: a day's largest rates are smaller than those of six hours.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from emulators.physics.fluxes import ROLES, SUFFIX, UNITS, usual_name
from emulators.physics.physical_ranges import canonical_units
from emulators.variables import Variable, VariableSet

EDGES = 10.0 ** np.linspace(-2.0, 3.0, 61)  # mm a day
CENTRES = np.concatenate([[0.0], np.sqrt(EDGES[1:] * EDGES[:-1]), EDGES[-1:]])
WET = 1.0  # mm a day, from which it counts as wet
PERCENTILES = (90.0, 95.0, 99.0, 99.9)
DAY_HOURS = 24.0


class PrecipitationDistribution:
    """Accumulate the distributions of forecast and truth by region. weights: (point, region).

    variable: that which is taken; None where there is none. left_out: why, then. factor: to mm a day.
    """

    def __init__(self, variables: VariableSet, weights: np.ndarray) -> None:
        self.weights, self.left_out = weights, ""
        self.variable, self.factor = precipitation_rate(variables)
        if self.variable is None:
            self.left_out = "no precipitation whose units and interval are known among the variables"
        self._sums = np.zeros((2, 2, weights.shape[1], len(CENTRES)))  # frequency and amount, source

    def add(self, members: np.ndarray, truth: np.ndarray) -> None:
        """Add fields of the variable in its units: (member, time, point) and (time, point); NaN is left out."""
        for source, fields in enumerate((members, truth[None])):
            rates = np.maximum(fields * self.factor, 0.0)
            place = np.searchsorted(EDGES, rates, side="right").ravel()
            for region, weights in enumerate(self.weights.T):
                weight = np.where(np.isnan(rates), 0.0, weights / len(fields))
                for row, values in enumerate((weight, weight * np.nan_to_num(rates))):
                    self._sums[row, source, region] += np.bincount(place, values.ravel(), len(CENTRES))

    def partial(self) -> dict[str, np.ndarray]:
        """The sums so far, for `add_partial`."""
        return {"precipitation": self._sums.copy()}

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> None:
        """Add the sums of others."""
        self._sums += partial["precipitation"]

    def distributions(self) -> tuple[np.ndarray, np.ndarray]:
        """Return frequency and amount (mm a day), both (source, region, bin)."""
        frequency, amount = self._sums
        total = frequency.sum(axis=-1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            return frequency / total, amount / total


def precipitation_rate(variables: VariableSet) -> tuple[Variable | None, float]:
    """Return the first variable that is precipitation, and the factor from its units to mm a day."""
    for variable in variables:
        unit = canonical_units(variable.units)
        if usual_name(variable.name) not in ROLES["precipitation"][1] or unit not in UNITS or variable.levels:
            continue
        _, is_rate, factor = UNITS[unit]
        suffix, covered = SUFFIX.search(variable.name), variable.cell.partition(" ")[2].removesuffix("h")
        hours = float(covered) if covered else float(suffix[1]) if suffix else None
        if is_rate:
            return variable, 86400.0 * factor
        if hours is not None:
            return variable, DAY_HOURS / hours * factor
    return None, 1.0


def percentiles(frequency: np.ndarray) -> np.ndarray:
    """Return the rates in mm a day that PERCENTILES of all times and places stay below, (..., percentile).

    frequency: (..., bin). Linear in the logarithm of the rate within a bin; 0 where that many are dry.
    """
    below = np.cumsum(frequency, axis=-1)[..., :-1]  # at the edges
    flat = below.reshape(-1, below.shape[-1])
    rates = np.full((len(flat), len(PERCENTILES)), np.nan)
    for row, shares in enumerate(flat):
        if np.isfinite(shares).all():
            shares = shares + 1e-12 * np.arange(len(shares))  # an order where bins are empty
            at = np.exp(np.interp(np.array(PERCENTILES) / 100.0, shares, np.log(EDGES)))
            rates[row] = np.where(np.array(PERCENTILES) / 100.0 < shares[0], 0.0, at)
    return rates.reshape(*below.shape[:-1], len(PERCENTILES))


def wet_share(frequency: np.ndarray) -> np.ndarray:
    """Return the share of times and places with at least 1 mm a day, (...)."""
    return frequency[..., 1 + int(np.argmin(np.abs(EDGES - WET))) :].sum(axis=-1)
