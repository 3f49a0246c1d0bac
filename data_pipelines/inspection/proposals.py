"""Propose an experiment on a dataset: the roles of its variables, the splits of its times; write it as YAML.

A few times are read of each variable. What changes in time is prognostic; sums and fluxes over a step are diagnostic,
the ocean surface is prescribed, what stays the same is static. The last tenth of the times is for the test, the tenth
before it for validation.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import yaml

from data_pipelines.conventions.attributes import grid_of, origin_of, timestep_of, vertical_coordinate
from data_pipelines.conventions.durations import bounds, duration_text
from data_pipelines.derived import forcings
from data_pipelines.inspection.contents import grid_description, level_description, time_axis
from data_pipelines.opening.file_kinds import file_kind, file_names
from emulators.physics.physical_ranges import plausible_range

Entry = str | dict[str, list[float | int]]
ROLES = ("prognostic", "forcing", "diagnostic", "static")
LEAST_TIMES = 8  # of validation and of test; four times as many are left for training
ABOUT_A_TENTH = 0.08  # so that whole months of a year and years of thirty do
SAMPLES = 4  # times read of a variable
SUMS = re.compile(r"_\d+hr$|precipitation|rainfall|snowfall|evaporation|runoff|flux|radiation|_rate$|tendency")
OCEAN = {"sea_surface_temperature": 273.15, "sea_ice_cover": 0.0}  # prescribed; what stands on land in their place
CONSTANT = ("land_sea_mask", "geopotential_at_surface", "soil_type", "angle_of_sub_gridscale_orography")
USUAL_LEVELS = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)  # hPa, of WeatherBench 2
FEW_LEVELS = (250, 500, 700, 850)  # where a processor trains alone


@dataclass(frozen=True)
class Proposal:
    """Hold what is proposed for a dataset.

    roles: entries of `variables`, by role. fill: values in place of missing ones. left_out: why a variable has no role,
    by name. splits: first and last time of train, validation and test.
    """

    roles: dict[str, list[Entry]] = field(default_factory=lambda: {role: [] for role in ROLES})
    fill: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    splits: dict[str, list[str]] = field(default_factory=dict)


def propose(dataset: xr.Dataset, predicted: Sequence[str] | None = None, few_levels: bool = False) -> Proposal:
    """Return the proposal for a canonical dataset.

    predicted: names of the prognostic variables, where they are known already. few_levels: four pressure levels rather
    than thirteen. Raises ValueError where there are too few times, or nothing that could be predicted.
    """
    proposal = Proposal(splits=split_times(dataset))
    levels = _levels(dataset, few_levels)
    for name in map(str, dataset.data_vars):
        is_predicted = predicted is not None and name in predicted
        role = "prognostic" if is_predicted else _role(name, dataset[name], proposal, predicted is not None)
        if role:
            entry = {name: levels} if levels and "level" in dataset[name].dims else name
            proposal.roles[role].append(entry)
    if not proposal.roles["prognostic"]:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in proposal.left_out.items())
        raise ValueError(f"No variable of {origin_of(dataset)} can be predicted. {reasons or 'All are constant.'}")
    proposal.roles["forcing"].extend(name for name in _computed(dataset) if name not in dataset.data_vars)
    proposal.roles["static"].extend(name for name in forcings.FIXED if name not in dataset.data_vars)
    return proposal


def _role(name: str, values: xr.DataArray, proposal: Proposal, excluded: bool) -> str | None:
    """Return the role of a variable; None, and a reason in `proposal.left_out`, where it has none.

    excluded: the prognostic variables are known, and this is none of them.
    """
    if "time" not in values.dims or name in CONSTANT:
        sampled, role = values.isel(time=0) if "time" in values.dims else values, "static"
    else:
        picked = np.unique(np.linspace(0, values.sizes["time"] - 1, SAMPLES).round().astype(int))
        sampled, role = values.isel(time=picked), "prognostic"
    numbers = np.asarray(sampled.values, dtype=np.float64)
    if role == "prognostic" and len(numbers) > 1 and np.array_equal(numbers[1:], numbers[:-1], equal_nan=True):
        role = "static"
    elif name in forcings.MOVING or name in OCEAN:
        role = "forcing"
    elif SUMS.search(name):
        role = "diagnostic"
    missing, finite = ~np.isfinite(numbers), numbers[np.isfinite(numbers)]
    limits = plausible_range(name, str(values.attrs.get("units", "")))
    if not finite.size:
        reason = "every value that was read is missing"
    elif limits and not limits[0] <= finite.min() <= finite.max() <= limits[1]:
        reason = f"{finite.min():.4g} to {finite.max():.4g} is beyond {limits[0]:g} to {limits[1]:g}; mend data.units"
    elif missing.any() and name in OCEAN:
        proposal.fill[name] = OCEAN[name]
        return role
    elif missing.any():
        reason = f"{100 * missing.mean():.2g} % of what was read is missing; give data.fill={{{name}: ...}} and list it"
    elif role == "static" and finite.min() == finite.max():
        reason = "the same everywhere"
    elif excluded and role in ("prognostic", "diagnostic"):
        reason = "not among what is to be predicted"
    else:
        return role
    proposal.left_out[name] = reason
    return None


def _levels(dataset: xr.Dataset, few: bool) -> list[float | int]:
    """Return the pressure levels to take; empty for all."""
    if "level" not in dataset.dims or vertical_coordinate(dataset).kind != "pressure":
        return []
    available = [float(level) for level in dataset["level"].values]
    standard = FEW_LEVELS if few else USUAL_LEVELS
    if len(available) <= len(standard) or any(name.attrs.get("levels") is not None for name in dataset.values()):
        return []
    nearest = sorted({min(available, key=lambda level: abs(level - target)) for target in standard})
    return [int(level) if level.is_integer() else level for level in nearest]


def _computed(dataset: xr.Dataset) -> list[str]:
    """Return the forcings that are computed: sunlight and the clocks that the timestep can follow."""
    step = timestep_of(dataset)
    if step is None or np.datetime_data(step)[0] in ("M", "Y"):
        return ["sin_year", "cos_year"]
    hours = step / np.timedelta64(1, "h")
    sunlight = forcings.INSOLATION if hours < 24 else "mean_toa_incident_solar_radiation_24hr"
    daily = ["sin_day", "cos_day"] if hours < 24 else []
    return [*([sunlight] if hours <= 24 else []), "sin_year", "cos_year", *daily]


def split_times(dataset: xr.Dataset) -> dict[str, list[str]]:
    """Return [first, last] of train, validation and test: whole years, months or days where there are enough of them.

    Raises ValueError where there are too few times.
    """
    needed = 6 * LEAST_TIMES
    times = dataset["time"].values.astype("datetime64[s]") if "time" in dataset.dims else np.array([], "M8[s]")
    if times.size < needed:
        step = timestep_of(dataset) if times.size > 1 else None
        every = f", every {duration_text(step)}" if step is not None else ""
        raise ValueError(
            f"Expected at least {needed} times to train, validate and test on; got {times.size}{every} in "
            f"{origin_of(dataset)}. Give more files, a folder of them or a pattern such as 'era5_*.nc'."
        )
    for unit in ("Y", "M", "D", "h", "m"):
        labels = times.astype(f"datetime64[{unit}]")
        periods, counts = np.unique(labels, return_counts=True)
        tenth = max(ABOUT_A_TENTH * times.size, LEAST_TIMES)
        test = _last(counts, tenth)
        validation = _last(counts[: len(counts) - test], tenth)
        train = len(counts) - test - validation
        if train > 0 and counts[:train].sum() >= 0.7 * times.size:
            edges = {"train": (0, train), "validation": (train, train + validation), "test": (-test, len(counts))}
            return {name: _within([str(periods[a]), str(periods[b - 1])], times) for name, (a, b) in edges.items()}
    raise ValueError(f"The times of {origin_of(dataset)} cannot be divided; say data.splits in an experiment.")


def _within(period: list[str], times: np.ndarray) -> list[str]:
    """Return the period with the first or last time of the data where they begin or end within a year, month or day."""
    (start, end), step = bounds(period), np.diff(times[:2])[0]
    first = period[0] if start > times[0] - step else str(times[0])
    return [first, period[1] if end < times[-1] + step else str(times[-1])]


def _last(counts: np.ndarray, needed: float) -> int:
    """Return how many of the last periods hold the needed times."""
    return int(np.searchsorted(np.cumsum(counts[::-1]), needed - 1e-9) + 1)


MEANINGS = {
    "prognostic": "predicted, each step from the last",
    "forcing": "given at every step; those that the data lack are computed",
    "diagnostic": "predicted only, such as precipitation",
    "static": "constant; places on the sphere are computed",
}


def group_and_place(paths: list[str]) -> tuple[str, str | list[str]]:
    """Return the data source, called as the kind of the files, and the places as they are written, absolute."""
    kinds = {file_kind(file) for path in paths for file in file_names(path)}
    if len(kinds) > 1:
        raise ValueError(f"Expected files of one kind; got {' and '.join(sorted(kinds))}; name those of one kind.")
    if (packed := Path(paths[0], "channel")).exists() and Path(paths[0], "fields").exists():
        command = shlex.join(["emul", "train", "data=packed", f"data.path={packed.parent}"])
        raise ValueError(f"{packed.parent} is packed and holds its variables and splits; write {command}.")
    places = [path if "://" in path or "::" in path else os.path.abspath(os.path.expanduser(path)) for path in paths]
    return kinds.pop(), places[0] if len(places) == 1 else places


def proposal_summary(dataset: xr.Dataset, proposal: Proposal) -> dict[str, str]:
    """Rows on what was found and what is proposed."""
    axis = time_axis(dataset)
    rows = {"grid": grid_description(grid_of(dataset)), "levels": level_description(dataset)}
    if axis is not None:
        rows["times"] = f"{axis.count}, {axis.first} to {axis.last}, every {axis.step}"
    rows |= {
        role: ", ".join(_entry_text(entry) for entry in entries) for role, entries in proposal.roles.items() if entries
    }
    rows |= {f"not {name}": reason for name, reason in proposal.left_out.items()}
    return rows | {name: " to ".join(period) for name, period in proposal.splits.items()}


def _entry_text(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    ((name, levels),) = entry.items()
    return f"{name} ({', '.join(f'{level:g}' for level in levels)})"


def entry_names(entries: Sequence[Any]) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def split_size(template: xr.Dataset, proposal: Proposal, split: str) -> int:
    """How many times a split holds."""
    start, end = bounds(proposal.splits[split])
    times = template["time"].values
    return int(((times >= start) & (times <= end)).sum())


def experiment_name(place: str | list[str], model: str) -> str:
    """<data>_<model>, from the letters and digits of the place."""
    text = place if isinstance(place, str) else place[0]
    stem = Path(text.partition("*")[0].rstrip("/")).name.partition(".")[0]
    letters = "".join(letter if letter.isalnum() else "_" for letter in stem.lower()).strip("_")
    return f"{letters or 'my_data'}_{model}"


def experiment_text(
    name: str,
    group: str,
    source: dict[str, Any],
    template: xr.Dataset,
    proposal: Proposal,
    model: ProposedModel,
    folder: Path,
) -> str:
    """Return the YAML of the experiment, a comment at every key."""
    step = timestep_of(template)
    assert step is not None  # the data have times enough
    lead = min(max(split_size(template, proposal, "test") // 2, 1), 40)
    interval = max((split_size(template, proposal, "test") - lead) // 60, 1)
    command = shlex.join(["emul", "train", "--config-dir", str(folder), f"experiment={name}"])
    splits = "".join(
        f"    {key}: {_flow(period)}  # {split_size(template, proposal, key)} times\n"
        for key, period in proposal.splits.items()
    )
    settings = {**source, **({"fill": {**source.get("fill", {}), **proposal.fill}} if proposal.fill else {})}
    keys = "".join(f"  {key}: {_flow(value)}{_remark(key)}\n" for key, value in settings.items() if key != "splits")
    roles = "".join(
        f"  {role}:{'' if entries else ' []'}  # {MEANINGS[role]}\n"
        + "".join(f"    - {_flow(entry).strip('{}')}\n" for entry in entries)
        for role, entries in proposal.roles.items()
    )
    left_out = "".join(f"  # left out: {variable}: {reason}\n" for variable, reason in proposal.left_out.items())
    size = "".join(f"  {key}: {_flow(value)}  # {remark}\n" for key, (value, remark) in proposed_options(model).items())
    return (
        "# @package _global_\n"
        f"# Steps of {duration_text(step)} on {grid_of(template).size_text}, "
        f"proposed by `emul init`. Every line may be changed.\n#\n# Train it with: {command}\n"
        "defaults:\n"
        f"  - override /data: {group}  # `emul sources`\n"
        "  - override /variables: listed  # those below\n"
        f"  - override /model: {model.name}  # `emul models`\n"
        "  - override /objective: forecast  # `emul objectives`\n"
        "  - override /loss: [mse]  # `emul losses`\n"
        "  - override /optimizer: adamw  # `emul optimizers`\n"
        "  - override /schedule: warmup_cosine  # `emul schedules`\n\n"
        f"name: {name}  # results lie in outputs/train/{name}, outputs/forecast/{name} and outputs/eval/{name}\n"
        f"data:\n{keys}  splits:  # first and last time, both included\n{splits}"
        f"variables:\n{roles}{left_out}" + (f"model:  # {model.why}\n{size}" if size else "") + "training:\n"
        f"  steps: {model.steps}  # {model.cost}; `emul plan` measures it\n"
        f"  batch_size: {model.batch}  # examples a step\n"
        f"  validate_every: {max(model.steps // 4, 1)}  # steps\n"
        "forecast:\n"
        f"  lead: {lead}  # timesteps of {duration_text(step)}, how far each forecast goes\n"
        f"  every: {duration_text(interval * step)}  # between two initial times of the test\n"
    )


def _remark(key: str) -> str:
    return {"path": "  # where the data are", "fill": "  # in place of missing values"}.get(key, "  # as you said")


def _flow(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("\n...\n").strip()


REMARKS = {
    "embed": "channels of the hidden state",
    "layers": "blocks",
    "channels": "of each level of the network, finest first",
}


@dataclass(frozen=True)
class ProposedModel:
    """Hold a model of conf/model, its options, and its training. why, cost: in words."""

    name: str
    options: dict[str, Any]
    batch: int
    steps: int
    why: str
    cost: str


def proposed_options(model: ProposedModel) -> dict[str, tuple[Any, str]]:
    """Return the options of a proposed model, each with what it is."""
    return {key: (value, REMARKS[key]) for key, value in model.options.items()}
