"""Check a forecast as it runs: physical ranges, missing values, and the drift of dry air and water."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipelines.conventions.durations import duration_text
from emulators.physics import columns
from emulators.physics.physical_ranges import plausible_range
from emulators.state import State
from emulators.world import World

NEVER = np.iinfo(np.int64).max


class Checks:
    """Accumulate extremes, missing values and budgets of one batch of forecasts, lead by lead.

    more: bounds by variable name that override the table of physical ranges.
    """

    def __init__(self, world: World, more: Mapping[str, tuple[float, float]] | None = None) -> None:
        self.world, self.budgeted = world, columns.has_closed_columns(world.predicted, world.vertical)
        limits = [
            plausible_range(v.name, v.units, more) or (-np.inf, np.inf) for v in world.predicted for _ in v.channels
        ]
        self.low, self.high = np.array(limits, dtype=np.float64).T
        size = world.predicted.size
        self.minimum, self.maximum = np.full(size, np.inf), np.full(size, -np.inf)
        self.missing, self.first_missing = np.zeros(size, np.int64), np.full(size, NEVER)
        self.first_beyond = np.full(size, NEVER)
        self.numbers = 0
        self.dry_air: list[np.ndarray] = []
        self.column_water: list[np.ndarray] = []

    def add(self, lead: int, state: State, contents: Mapping[str, Tensor] | None = None) -> bool:
        """Add the forecasts at lead number `lead`, (*lead, channel, *grid); True where nothing is wrong.

        contents: global means of `dry_air` and `column_water`, (*lead, 1[, 1]), where they are known already.
        """
        values, axes = state.values.flatten(-state.rank).flatten(0, -3), (0, 2)
        extremes = torch.stack([values.amin(axes), values.amax(axes)]).double().cpu().numpy()
        missing = np.zeros(extremes.shape[1], np.int64)
        if not np.isfinite(extremes).all():
            finite = values.isfinite()
            missing = (~finite).sum(axes).cpu().numpy()
            low, high = values.where(finite, torch.inf).amin(axes), values.where(finite, -torch.inf).amax(axes)
            extremes = torch.stack([low, high]).double().cpu().numpy()
        beyond = (extremes[0] < self.low) | (extremes[1] > self.high)
        beyond &= np.isfinite(extremes).all(0)
        self.minimum, self.maximum = np.minimum(self.minimum, extremes[0]), np.maximum(self.maximum, extremes[1])
        self.missing += missing
        self.first_missing = np.where(missing > 0, np.minimum(self.first_missing, lead), self.first_missing)
        self.first_beyond = np.where(beyond, np.minimum(self.first_beyond, lead), self.first_beyond)
        self.numbers += values.shape[0] * values.shape[2]
        if self.budgeted:
            water, air = column_means(state, self.world, contents or {})
            self.column_water.append(water)
            self.dry_air.append(air)
        return not (missing.any() or beyond.any())

    def arrays(self) -> dict[str, np.ndarray]:
        """All results as arrays; budgets have shape (init, lead), the others (channel,)."""
        arrays = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "missing": self.missing,
            "first_missing": self.first_missing,
            "first_beyond": self.first_beyond,
            "numbers": np.array(self.numbers),
        }
        if self.budgeted:
            arrays |= {"dry_air": np.stack(self.dry_air, axis=1), "column_water": np.stack(self.column_water, axis=1)}
        return arrays


def column_means(state: State, world: World, known: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Global means of column water and dry air in kg m-2, float64, of every member and initial time (n,).

    known: those that need not be computed, by name.
    """
    functions = {"column_water": columns.column_water, "dry_air": columns.dry_air}
    means = {name: known[name] for name in functions if name in known}
    for name in functions.keys() - means.keys():
        field = functions[name](state["specific_humidity"], state["surface_pressure"], world.vertical, state.rank)
        means[name] = columns.area_mean(field, world.grid.weights)
    water, air = (means[name].cpu().numpy().reshape(-1) for name in functions)
    return water, air


def gather(parts: Iterable[Mapping[str, np.ndarray]], axis: int = 0) -> dict[str, np.ndarray]:
    """Merge the arrays of several parts. axis: of the budgets, along which they are joined, 0 init or 1 lead."""
    arrays = list(parts)
    lowest = ("minimum", "first_missing", "first_beyond")
    merged = {name: np.min([a[name] for a in arrays], axis=0) for name in lowest}
    merged["maximum"] = np.max([a["maximum"] for a in arrays], axis=0)
    merged |= {name: np.sum([a[name] for a in arrays], axis=0) for name in ("missing", "numbers")}
    joined = ("dry_air", "column_water")
    return merged | {name: np.concatenate([a[name] for a in arrays], axis) for name in joined if name in arrays[0]}


def describe(
    gathered: Mapping[str, np.ndarray], world: World, more: Mapping[str, tuple[float, float]] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """(facts on each variable for the manifest, one sentence for each fault)."""
    variables, faults = {}, []
    for variable in world.predicted:
        channels = world.predicted.slice(variable.name)
        minimum, maximum = gathered["minimum"][channels], gathered["maximum"][channels]
        missing = float(gathered["missing"][channels].sum() / (gathered["numbers"] * variable.size))
        limits = plausible_range(variable.name, variable.units, more)
        variables[variable.name] = {
            "units": variable.units,
            "minimum": _number(minimum.min()),
            "maximum": _number(maximum.max()),
            "bounds": None if limits is None else list(limits),
            "nan_share": missing,
        }
        if missing:
            lead = lead_text(world, int(gathered["first_missing"][channels].min()))
            faults.append(f"{variable.name}: {missing:.2%} of the numbers are NaN or infinite, first at lead {lead}")
        first = int(gathered["first_beyond"][channels].min())
        if limits and first != NEVER:
            extreme = minimum.min() if minimum.min() < limits[0] else maximum.max()
            faults.append(
                f"{variable.name}: reaches {extreme:.5g} {variable.units}, beyond the physical range "
                f"{limits[0]:g} .. {limits[1]:g}, first at lead {lead_text(world, first)}"
            )
    return variables, faults


def budget_drifts(gathered: Mapping[str, np.ndarray], world: World) -> dict[str, Any] | None:
    """Global means of dry air and column water and their drift over the forecast; None where they were not computed."""
    if "dry_air" not in gathered:
        return None
    days = float(world.lead_time(gathered["dry_air"].shape[1] - 1) / np.timedelta64(86400, "s"))
    report: dict[str, Any] = {"units": "kg m-2", "days": days}
    for name in ("dry_air", "column_water"):
        series = gathered[name]
        drift = series[:, -1] - series[:, 0]
        report[name] = {
            "first": _number(series[:, 0].mean()),
            "last": _number(series[:, -1].mean()),
            "mean_drift": _number(drift.mean()),
            "largest_drift": _number(np.abs(drift).max()),
            "largest_relative_drift": _number((np.abs(drift) / np.abs(series[:, 0])).max()),
        }
    return report


def lead_text(world: World, lead: int) -> str:
    """Lead number `lead` (from 0) in words: `36h`, `10d`, `3y`."""
    return duration_text(world.timestep * (lead + 1))


def _number(value: Any) -> float | None:
    """A finite float, or None: JSON knows no NaN."""
    return float(value) if np.isfinite(value) else None
