"""Results of a budget ledger: series by lead, trends, shares that constraints changed, as numbers and as a Dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emulators.grid import grid_coordinates, grid_dims
from emulators.verification.channels import encode_leads
from emulators.world import World

if TYPE_CHECKING:
    import xarray as xr

SECONDS = 365.25 * 86_400.0  # of a year


@dataclass(frozen=True)
class Quantity:
    """Describe a quantity of a ledger. adds_up: True where it is made in each timestep, and summed for a drift.

    a_year: units of the drift.
    """

    units: str
    long_name: str
    definition: str
    a_year: str
    adds_up: bool = True


QUANTITIES = {
    "air_drift": Quantity(
        "1", "mass of all air, since the start", "(M(after) - M(start)) / M(start), M = <sum dp> / g", "1 year-1", False
    ),
    "dry_air_drift": Quantity(
        "1",
        "mass of dry air, since the start",
        "(M(after) - M(start)) / M(start), M = <sum (1 - q) dp> / g, q all water that is predicted on levels; "
        "<sum dp> / g where surface pressure is the weight of dry air",
        "1 year-1",
        False,
    ),
    "moisture_residual": Quantity(
        "kg m-2", "water made in a timestep", "W(after) - W(before) - <E - P>, W = <sum q dp> / g", "kg m-2 year-1"
    ),
    "moisture_residual_relative": Quantity(
        "1",
        "the same, as a share of precipitation",
        "(W(after) - W(before) - <E - P>) / <P>; missing where <P> is not above zero",
        "1",
    ),
    "energy_residual": Quantity(
        "W m-2", "energy made", "(H(after) - H(before) - <G>) / dt, G all radiation, heat and friction", "W m-2"
    ),
}
BUDGETED = {"dry_air": ("air_drift", "dry_air_drift"), "energy": ("energy_residual",)}
BUDGETED |= {"moisture": ("moisture_residual", "moisture_residual_relative")}


@dataclass(frozen=True, eq=False)
class BudgetResults:
    """Hold the budgets of rollouts by lead and initial time, and how much constraints changed.

    series: every quantity, (init, lead); missing where a lead was not added. shares: by constraint and variable the
    share of the raw tendency that it changed, (lead,). maps: mean and rms of what it changed in a timestep, each
    (level, *grid). left_out: why budgets are absent.
    """

    world: World
    leads: int
    series: Mapping[str, np.ndarray]
    shares: Mapping[tuple[str, str], np.ndarray]
    maps: Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]
    conventions: Mapping[str, str]
    left_out: Mapping[str, str]

    @property
    def seconds(self) -> float:
        """The length of a timestep."""
        return float(self.world.lead_time(1) / np.timedelta64(1, "s"))

    def sizes(self) -> dict[str, float]:
        """Drifts at the last lead and residuals over all leads, root mean square over initial times, for a log."""
        sizes = {}
        for name, values in self.series.items():
            if name != "moisture_residual_relative":
                selected = values if QUANTITIES[name].adds_up else values[:, -1]
                sizes[name] = float(np.sqrt(np.square(selected).mean()))
        return sizes

    def drift_per_year(self) -> dict[str, np.ndarray]:
        """Every quantity as a trend, (init,) in its units `a_year`: of what was made in all, where it adds up."""
        per_year, steps = {}, SECONDS / self.seconds
        for name, values in self.series.items():
            if name == "moisture_residual_relative":
                continue
            cumulative = np.cumsum(values, axis=1) if QUANTITIES[name].adds_up else values
            slope = slopes(cumulative)
            per_year[name] = slope if name == "energy_residual" else slope * steps
        return per_year

    def summary(self) -> dict[str, Any]:
        """For a manifest: largest and last values, drift per year, shares; numbers that JSON knows."""
        per_year, summary = self.drift_per_year(), {}
        for name, values in self.series.items():
            summary[name] = {
                "units": QUANTITIES[name].units,
                "largest": _number(np.abs(values).max()),
                "last": _number(values[:, -1].mean()),
            }
            if name in per_year:
                summary[name] |= {"per_year": _number(per_year[name].mean()), "per_year_units": QUANTITIES[name].a_year}
        if self.shares:
            summary["share_changed"] = {f"{c}: {v}": _number(share.mean()) for (c, v), share in self.shares.items()}
        return summary | {"left_out": list(self.left_out.values())}

    def dataset(self, inits: np.ndarray, truth: BudgetResults | None = None) -> xr.Dataset:
        """Quantities (source, time, lead_time), `<quantity>_per_year` (source, time), `share_changed` and its maps.

        inits: the initial times in the order in which they were added. truth: the same of the truth.
        """
        import xarray as xr

        sources = {"forecast": self} | ({} if truth is None else {"truth": truth})
        series, per_year = [s.series for s in sources.values()], [s.drift_per_year() for s in sources.values()]
        arrays: dict[str, Any] = {}
        for name in self.series:
            quantity = QUANTITIES[name]
            attributes = {"units": quantity.units, "long_name": quantity.long_name, "definition": quantity.definition}
            arrays[name] = (("source", "time", "lead_time"), np.stack([source[name] for source in series]), attributes)
            if name in per_year[0]:
                attributes = {
                    "units": quantity.a_year,
                    "long_name": f"{quantity.long_name}: least-squares trend over all leads",
                }
                values = np.stack([source[name] for source in per_year])
                arrays[f"{name}_per_year"] = (("source", "time"), values, attributes)
        lead_time = self.world.lead_time(1) * np.arange(1, self.leads + 1)
        coords: dict[str, Any] = {
            "source": list(sources),
            "time": np.asarray(inits, dtype="datetime64[ns]"),
            "lead_time": lead_time.astype("timedelta64[ns]"),
        }
        if self.shares:
            arrays |= self._share_arrays()
            coords["correction"] = [f"{name}: {variable}" for name, variable in self.shares]
        if self.maps:
            coords |= {"statistic": ["mean", "rms"], **self._map_coordinates()}
        return encode_leads(xr.Dataset(arrays, coords, self.conventions))

    def _share_arrays(self) -> dict[str, Any]:
        attributes = {"units": "1", "long_name": "rms of what a constraint changed over rms of the raw tendency"}
        arrays: dict[str, Any] = {
            "share_changed": (("correction", "lead_time"), np.stack([*self.shares.values()]), attributes)
        }
        grid = grid_dims(self.world.grid)
        for (name, variable), pair in self.maps.items():
            quantity, maps = self.world.predicted.variable(variable), np.stack(pair).astype(np.float32)
            attributes = {"units": quantity.units, "long_name": f"what {name} changes in a timestep, mean and rms"}
            attributes |= {"constraint": name, "variable": variable}
            dims = ("statistic", *((f"level_of_{variable}",) if quantity.levels else ()), *grid)
            arrays[f"map_{name}_{variable}"] = (dims, maps if quantity.levels else maps[:, 0], attributes)
        return arrays

    def _map_coordinates(self) -> dict[str, Any]:
        variables = [self.world.predicted.variable(variable) for _, variable in self.maps]
        levels = {f"level_of_{variable.name}": list(variable.levels) for variable in variables if variable.levels}
        return levels | grid_coordinates(self.world.grid)


def slopes(values: np.ndarray) -> np.ndarray:
    """Slope a lead of the least-squares line through (0, 0) and values (init, lead) at leads 1, 2, ...; (init,).

    Where values are missing from some lead on, the line goes through those before; no number where there are none.
    """
    return np.array([_slope(row[: np.argmin([*np.isfinite(row), False])]) for row in values])


def _slope(values: np.ndarray) -> float:
    padded = np.concatenate([[0.0], values])
    lead = np.arange(padded.size) - (padded.size - 1) / 2.0
    return float((padded - padded.mean()) @ lead / (lead @ lead)) if padded.size > 1 else np.nan


def _number(value: Any) -> float | None:
    """A finite float, or None: JSON knows no NaN."""
    return float(value) if np.isfinite(value) else None
