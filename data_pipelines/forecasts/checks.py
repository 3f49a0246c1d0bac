"""Check a forecast as it runs: physical ranges, missing values, the drift of dry air and water, and its climate.

A long forecast has left what its run was trained on where, in a channel,

    a value            lies beyond those of training by more than ROOM of their range
    a running mean     lies beyond the area means of training by more than MEAN_ROOM of their range
    power P            sum over l > l_s of P(l), has grown to more than GROWTH times that of the initial State

with m(k) = m(k - 1) + (<x>(k) - m(k - 1)) / min(k, n) the running mean of the area mean, n timesteps being 30 days, and
l_s three quarters of the last total wavenumber of the initial State: where emulators become unstable, it begins at the
smallest scales, or as a slow drift (Chattopadhyay et al. 2023, arXiv 2304.07029).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from data_pipelines.conventions.durations import duration_text
from emulators.grid import LatLonGrid
from emulators.physics import columns
from emulators.physics.physical_ranges import plausible_range
from emulators.sphere.spectra import NOISE, harmonics_of, last_degree, power
from emulators.state import State
from emulators.world import World

NEVER = np.iinfo(np.int64).max
ROOM, MEAN_ROOM = 0.2, 0.5  # of the range of values, and of area means, in training
LEAST = 0.01  # standard deviations that an area mean has to lie off, for channels that hardly change
MEMORY = np.timedelta64(30, "D")  # of the running mean
GROWTH = 10.0  # of the power at the smallest scales
SMALLEST = 0.75  # of the last total wavenumber, beyond which scales are the smallest
LARGEST = 256  # rows of latitude up to which power is watched, as tables of the transform grow with their cube


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


class Watch:
    """Tell the first times at which forecasts leave what a run was trained on, lead by lead.

    start: the initial States, (*lead, channel, *grid). Values and means are those of all channels whose scales have the
    extent of training; power that of prognostic channels, once a day, on global grids of up to LARGEST rows. A field
    with a missing value is passed over. departures: by kind, the lead number and a sentence.
    """

    def __init__(self, world: World, start: State) -> None:
        self.world, self.start, self.departures = world, start, dict[str, tuple[int, str]]()
        names = world.predicted.channels
        scales = [world.scales.get(name) for name in names]
        self.is_measured = np.array([scale is not None and len(scale.extent) == 4 for scale in scales], dtype=bool)
        measured_scales = [
            scale for scale, is_known in zip(scales, self.is_measured, strict=True) if scale is not None and is_known
        ]
        self.channels = [name for name, is_known in zip(names, self.is_measured, strict=True) if is_known]
        self.trained = np.array([scale.extent for scale in measured_scales]).reshape(-1, 4)
        self.std = np.array([scale.std for scale in measured_scales])
        self.means = np.zeros((_cases(start).shape[0], len(measured_scales)))
        day, step = np.timedelta64(1, "D"), world.lead_time(1)
        self.daily, self.span = max(1, round(day / step)), max(1, round(MEMORY / step))
        rows = world.grid.shape[0] if isinstance(world.grid, LatLonGrid) else int(world.grid.size**0.5)
        self.harmonics = None
        if world.grid.is_global and 4 <= rows <= LARGEST:
            try:
                self.harmonics = harmonics_of(world.grid, dtype=torch.float64)
            except ValueError:  # points that lie on no rings have no spectrum
                return
            first = self._power(start)  # (degree, case, channel)
            self.last = last_degree(first.mean(1))
            self.variance = first[1:].sum(0)
            self.small = self._small(first)

    def add(self, lead: int, state: State) -> dict[str, str]:
        """Add the forecasts at lead number `lead`; a sentence for each kind of departure that is new, by kind."""
        before = {*self.departures}
        if self.channels:
            self._compare(lead, state)
        if self.harmonics is not None and "power" not in self.departures and (lead + 1) % self.daily == 0:
            self._compare_power(lead, state)
        return {kind: sentence for kind, (_, sentence) in self.departures.items() if kind not in before}

    def _compare(self, lead: int, state: State) -> None:
        """Compare values and running means with those of training."""
        values = _cases(state)[:, torch.from_numpy(self.is_measured).to(state.values.device)]
        weights = torch.as_tensor(self.world.grid.weights.reshape(-1) / self.world.grid.size, device=values.device)
        means = (values.double() @ weights).cpu().numpy()
        self.means += (means - self.means) / min(lead + 1, self.span)
        low, high = (extreme.double().cpu().numpy() for extreme in (values.amin(-1), values.amax(-1)))
        off = excess(np.stack([low, high, self.means, self.means], -1), self.trained, self.std)
        size = np.abs(off) / self.std[:, None]
        for kind, columns_ in (("value", size[..., :2]), ("mean", size[..., 2:])):
            if kind in self.departures or not columns_.any():
                continue
            case, channel, column = (int(n) for n in np.unravel_index(int(columns_.argmax()), columns_.shape))
            column += 0 if kind == "value" else 2
            beyond, bound = off[case, channel, column], self.trained[channel, column]
            units = self._units(self.channels[channel])
            side = f"{abs(beyond):.3g} {'above' if beyond > 0 else 'below'}"
            if kind == "value":
                field = values[case, channel]
                point = int(field.argmax() if column == 1 else field.argmin())
                latitude, longitude = (float(axis.reshape(-1)[point]) for axis in self.world.grid.points)
                what = f"reaches {float(field[point]):.6g} {units} at {latitude:.4g} N, {longitude:.4g} E"
                bounds = f"{side} that of training ({bound:.6g})"
            else:
                days = min(lead + 1, self.span) * self.world.lead_time(1) / np.timedelta64(1, "D")
                what = f"has an area mean of {self.means[case, channel]:.6g} {units} over {days:.3g} d"
                bounds = f"{side} those of training ({bound:.6g})"
            self._tell(kind, lead, case, self.channels[channel], f"{what}, {bounds}")

    def _compare_power(self, lead: int, state: State) -> None:
        """Compare the power at the smallest scales with that of the initial States."""
        small = self._small(self._power(state.select(self.world.prognostic.names)))
        has_grown = (small > GROWTH * self.small) & (small - self.small > NOISE * self.variance)
        if not has_grown.any():
            return
        growth = torch.where(has_grown, small / self.small.clamp(min=torch.finfo(small.dtype).tiny), 0.0)
        case, channel = divmod(int(growth.argmax()), growth.shape[1])
        name, beyond = self.world.prognostic.channels[channel], int(SMALLEST * int(self.last[channel]))
        factor = float(growth[case, channel])
        self._tell("power", lead, case, name, f"has {factor:.3g} times the initial power beyond wavenumber {beyond}")

    def _tell(self, kind: str, lead: int, case: int, channel: str, what: str) -> None:
        init = np.broadcast_to(self.start.time, self.start.lead).reshape(-1)[case]
        self.departures[kind] = (
            lead,
            f"At lead {lead_text(self.world, lead)} the forecast from {init} leaves what the run was trained on: "
            f"{channel} {what}.",
        )

    def _units(self, channel: str) -> str:
        return next((v.units for v in self.world.predicted if channel in v.channels), "") or "1"

    def _power(self, state: State) -> Tensor:
        """Power by degree, case and prognostic channel."""
        harmonics: Any = self.harmonics
        fields = state.select(self.world.prognostic.names).values.flatten(0, -2 - state.rank).double().cpu()
        spectra = [power(harmonics.analysis(field.permute(*reversed(range(field.ndim))))) for field in fields]
        return torch.stack(spectra, 1)

    def _small(self, powers: Tensor) -> Tensor:
        """The power at the smallest scales, (case, channel)."""
        degrees = torch.arange(len(powers)).view(-1, 1, 1)
        return torch.where(degrees > SMALLEST * self.last, powers, 0.0).sum(0)

    def arrays(self) -> dict[str, np.ndarray]:
        """The departures and all that later leads depend on, for `restore`."""
        return {"means": self.means.copy(), "told": np.array(json.dumps(self.departures))}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Continue from the `arrays` of a watch of the same initial States."""
        self.means, self.departures = arrays["means"].copy(), departures_in(arrays)


def departures_in(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[int, str]]:
    """Return what a Watch has told, by kind: the lead number and a sentence."""
    return {kind: (int(lead), str(text)) for kind, (lead, text) in json.loads(str(arrays["told"])).items()}


def first_departures(batches: Iterable[Mapping[str, tuple[int, str]]]) -> list[str]:
    """Return the first sentence of each kind that the batches of a forecast were told, in the order of leads."""
    first: dict[str, tuple[int, str]] = {}
    for departures in batches:
        first |= {kind: entry for kind, entry in departures.items() if kind not in first or entry < first[kind]}
    return [sentence for _, sentence in sorted(first.values())]


def excess(extents: np.ndarray, trained: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return by how much numbers lie outside those of training, negative below; 0 within the room.

    extents: least and greatest value, least and greatest area mean, (..., channel, 4). trained: of training, (channel,
    4). std: standard deviations, (channel,).
    """
    room = np.stack(
        [ROOM * (trained[:, 1] - trained[:, 0]), MEAN_ROOM * (trained[:, 3] - trained[:, 2]) + LEAST * std], 1
    )
    below = np.minimum(extents[..., ::2] - trained[:, ::2], 0)
    above = np.maximum(extents[..., 1::2] - trained[:, 1::2], 0)
    result = np.empty_like(extents)
    result[..., ::2], result[..., 1::2] = np.where(-below > room, below, 0), np.where(above > room, above, 0)
    return result


def _cases(state: State) -> Tensor:
    """The values, (case, channel, point)."""
    return state.values.flatten(-state.rank).flatten(0, -3)


def column_means(state: State, world: World, computed: Mapping[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Global means of column water and dry air in kg m-2, float64, of every member and initial time (n,).

    computed: those that need not be computed again, by name.
    """
    functions = {"column_water": columns.column_water, "dry_air": columns.dry_air}
    means = {name: computed[name] for name in functions if name in computed}
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
