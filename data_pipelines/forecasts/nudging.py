"""Relax a forecast towards the truth, and correct the climate of other forecasts by what that took.

    nudging      x <- x + r (truth - x),    r = timestep / relaxation time
    increments   x <- x + G,                G = mean of r (truth - x) over a forecast that was nudged

at every step, before the constraints. Nudged States stay near the truth, where G is minus the mean error of the
emulator's tendency; a free run that is given it has a mean nearer to the truth's, as long as its own error is so small
that the two are proportional. Weak nudging to a truth that the forecast has lost damps its eddies, and is no better.
Nudging: Hoke & Anthes 1976, doi 10.1175/1520-0493(1976)104<1551:TIOAMB>2.0.CO;2; mean nudging tendencies as a
correction: Watt-Meyer et al. 2021, doi 10.1029/2021GL092555.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.conventions.canonical import LEAD, first_member
from data_pipelines.conventions.durations import length
from data_pipelines.files.identity import weights_digest
from data_pipelines.forecasts.boundary import store_of
from data_pipelines.forecasts.manifest import read_manifest
from data_pipelines.opening.forecasts import open_forecast
from emulators.grid import grid_dims
from emulators.interfaces import Constraint
from emulators.state import State
from emulators.world import World, nominal_seconds

if TYPE_CHECKING:
    from data_pipelines.batches.archive import Archive

BLOCK = 100  # leads that are read together
SPIN_UP = 3.0  # relaxation times at the start of a nudged forecast, of which no increments are taken


class Constrained(Protocol):
    """Describe a step with constraints, which it applies in their order."""

    constraints: dict[str, Constraint]


class Nudging(Constraint):
    """Move the prognostic variables by a share of the way to the truth. archive: holds it at all valid times.

    Applied twice it moves them further, unlike a law, so that it is of plain rollouts alone; so are Increments.
    """

    def __init__(self, archive: Archive, share: float) -> None:
        self.archive, self.share = archive, share
        self.variables, self.changes = archive.world.prognostic, archive.world.prognostic.names

    def __call__(self, before: State, after: State, forcing: State) -> State:
        truth, moved = self.archive.states(after.time, self.variables), {}
        for name in self.variables.names:
            way = truth[name].to(after.values.device) - after[name]
            moved[name] = after[name] + self.share * torch.where(way.isnan(), 0.0, way)
        return after.with_(**moved)


class Increments(Constraint):
    """Add the same fields at every step. increments: of the prognostic variables, (channel, *grid)."""

    def __init__(self, world: World, increments: Tensor) -> None:
        self.changes = world.prognostic.names
        self.fields = {name: increments[world.prognostic.slice(name)] for name in world.prognostic.names}

    def __call__(self, before: State, after: State, forcing: State) -> State:
        device = after.values.device
        return after.with_(**{name: after[name] + field.to(device) for name, field in self.fields.items()})


def adjust(
    step: Constrained, archive: Archive, valid: np.ndarray, relaxation: str | None, increments: str | None
) -> dict[str, Any]:
    """Make a Step nudge its States or add increments to them, before its constraints; return the settings that say so.

    valid: valid times of the forecast. relaxation: a duration. increments: folder of a nudged forecast. Raises
    ValueError where the truth is not known at all valid times, and for a duration that is not above the timestep.
    """
    settings: dict[str, Any] = {}
    if relaxation:
        share = _share(archive.world, relaxation)
        if not archive.has(valid).all():
            missing = valid[~archive.has(valid)][0]
            raise ValueError(f"nudging: expected the truth at all valid times, got none at {missing}; shorten lead.")
        step.constraints = {"nudging": Nudging(archive, share), **step.constraints}
        settings["nudging"] = str(relaxation)
    if increments:
        fields = mean_increments(Path(increments), archive)
        step.constraints = {"increments": Increments(archive.world, fields), **step.constraints}
        settings["increments"] = {"folder": str(increments), "digest": weights_digest({"mean": fields})}
    return settings


def mean_increments(folder: Path, archive: Archive) -> Tensor:
    """Return the mean increments of a nudged forecast of the archive, (channel, *grid) of the prognostic variables.

    They follow from its States, of which each is what nudging left: r (truth - x) = r / (1 - r) (truth - x'). Those it
    was given itself are added. Raises ValueError for a forecast that was not nudged, is not finished, lacks States or
    is too short, and where those that it was given are others now.
    """
    manifest = read_manifest(folder)
    relaxation, given = (manifest["settings"].get(key) for key in ("nudging", "increments"))
    if not relaxation or not manifest["finished"]:
        raise ValueError(
            f"increments: expected a finished forecast that was made with nudging, such as nudging=5d; got {folder}."
        )
    world, share = archive.world, _share(archive.world, relaxation)
    stored = first_member(open_forecast(store_of(folder)))
    inits, count = stored["time"].values.astype("datetime64[s]"), stored.sizes[LEAD]
    first = round(SPIN_UP / share)
    if (stored[LEAD].values != [world.lead_time(lead + 1) for lead in range(count)]).any():
        raise ValueError(f"increments: expected a forecast of every timestep, as of keep=members; got {folder}.")
    if count <= first:
        raise ValueError(
            f"increments: expected a nudged forecast longer than {SPIN_UP:g} relaxation times of {relaxation}; got "
            f"{folder} of {count} timesteps."
        )
    way = torch.zeros(world.prognostic.size, *world.grid.shape, dtype=torch.float64)
    for start in range(first, count, BLOCK):
        leads = range(start, min(start + BLOCK, count))
        for row, init in enumerate(inits):
            truth = archive.states(np.stack([world.after(init, lead + 1) for lead in leads]), world.prognostic)
            made = stored.isel({"time": row, LEAD: slice(leads.start, leads.stop)})
            way += truth.values.sum(0, dtype=torch.float64) - _sum(made, world)
    mean = (way / (len(inits) * (count - first)) * share / (1.0 - share)).float()
    if given is None:
        return mean
    earlier = mean_increments(Path(given["folder"]), archive)
    if weights_digest({"mean": earlier}) != given["digest"]:
        raise ValueError(
            f"increments: {folder} was given those of {given['folder']}, which are others now; make it anew."
        )
    return mean + earlier


def _sum(made: xr.Dataset, world: World) -> Tensor:
    """Return the sum of forecast fields over leads, (channel, *grid) of the prognostic variables."""
    axes, sums = grid_dims(world.grid), []
    for variable in world.prognostic:
        field = made[variable.name].sel(level=list(variable.levels)) if variable.levels else made[variable.name]
        values = field.transpose(LEAD, ..., *axes).values.sum(0, dtype=np.float64)
        sums.append(values.reshape(variable.size, *world.grid.shape))
    return torch.from_numpy(np.concatenate(sums))


def _share(world: World, relaxation: str) -> float:
    """Return r; ValueError for a relaxation time that is not above the timestep."""
    share = nominal_seconds(world.timestep) / nominal_seconds(length(relaxation))
    if not 0.0 < share < 1.0:
        raise ValueError(f"nudging: expected a duration above the timestep of {world.timestep}; got {relaxation}.")
    return share
