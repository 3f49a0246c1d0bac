"""Small worlds and weather on which parts are tested: `emul.contracts`, `emul check` and the tests use them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from emulators.grid import Grid, LatLonGrid, PointGrid, equiangular_grid, gaussian_grid
from emulators.grids.catalogue import named_grid
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, Vertical, World

LARGEST = 8192  # points of a grid on which `emul check` calls a loss
GRIDS: dict[str, Callable[[], Grid]] = {
    "gaussian": lambda: gaussian_grid(8),
    "equiangular": lambda: equiangular_grid(8),
    "equiangular_with_poles": lambda: equiangular_grid(9, poles=True),
    "limited_area": lambda: LatLonGrid(np.linspace(70.0, 30.0, 9), np.linspace(-30.0, 30.0, 13)),
    "cells": lambda: named_grid("O4"),
}


VERTICALS = {
    "sigma": (Vertical("sigma", (0.0,) * 5, (0.0, 0.2, 0.5, 0.8, 1.0)), (100.0, 350.0, 650.0, 900.0)),
    "hybrid": (Vertical("hybrid", (0.0, 9e3, 8e3, 2e3, 0.0), (0.0, 0.1, 0.4, 0.8, 1.0)), (1.0, 2.0, 3.0, 4.0)),
    "pressure": (Vertical("pressure"), (200.0, 500.0, 850.0, 1000.0)),
}
# name: (units, mean, standard deviation, change over a timestep, positive, cell); profiles by layer, top first
PROFILES = {
    "temperature": ("K", (220.0, 245.0, 265.0, 280.0), 10.0, 2.0),
    "specific_humidity": ("kg kg-1", (1e-4, 1e-3, 4e-3, 9e-3), 2e-5, 1e-5),
    "u_component_of_wind": ("m s-1", (20.0, 15.0, 8.0, 3.0), 6.0, 2.0),
    "v_component_of_wind": ("m s-1", (0.0, 0.0, 0.0, 0.0), 6.0, 2.0),
    "geopotential": ("m2 s-2", (1.15e5, 6e4, 2.5e4, 6e3), 1e3, 2e2),
}
FIELDS = {
    "surface_pressure": ("Pa", 96_000.0, 2_000.0, 200.0, "", ""),
    "skin_temperature": ("K", 285.0, 10.0, 1.0, "", ""),
    "depth": ("m", 8_000.0, 200.0, 20.0, "", ""),
    "total_precipitation_6hr": ("m", 8e-4, 2e-4, 1e-4, "down", "sum 6h"),
    "evaporation_6hr": ("m", 8e-4, 2e-4, 1e-4, "up", "sum 6h"),
    "sensible_heat_flux_6hr": ("J m-2", 4e5, 2e5, 1e5, "up", "sum 6h"),
    "net_radiation_6hr": ("J m-2", -2e6, 3e5, 1e5, "in", "sum 6h"),
    "friction_6hr": ("J m-2", -4e4, 1e4, 1e4, "in", "sum 6h"),
    "tendency_of_total_water_path_due_to_advection": ("kg m-2 s-1", 0.0, 3e-5, 1e-5, "in", "mean"),
    "sea_surface_temperature": ("K", 288.0, 8.0, 0.1, "", ""),
    "land_sea_mask": ("1", 0.5, 0.3, 0.1, "", ""),
    "geopotential_at_surface": ("m2 s-2", 2e3, 1e3, 0.1, "", ""),
}


def small_world(grid: str = "gaussian", **changes: Any) -> World:
    """Return a World of six channels, a forcing and a static field on a tiny grid; changes: of its fields.

    grid: one of GRIDS, or the name of another, such as healpix:16.
    """
    where = GRIDS[grid]() if grid in GRIDS else named_grid(grid)
    sets = {
        "prognostic": VariableSet(
            (
                Variable("temperature", "K", (500.0, 850.0)),
                Variable("specific_humidity", "kg kg-1", (500.0, 850.0)),
                Variable("2m_temperature", "K"),
            )
        ),
        "diagnostic": VariableSet((Variable("total_precipitation_6hr", "m"),)),
        "forcing": VariableSet((Variable("toa_incident_solar_radiation", "J m-2"),)),
        "static": VariableSet((Variable("land_sea_mask"),)),
    }
    channels = [channel for variables in sets.values() for channel in variables.channels]
    return World(
        **{
            "grid": where,
            **sets,
            "static_fields": np.random.default_rng(0).random((1, *where.shape), dtype=np.float32),
            "timestep": np.timedelta64(6, "h"),
            "scales": {c: Scale(0.1 * n, 2.0 + n, 0.5 + 0.1 * n) for n, c in enumerate(channels)},
            **changes,
        }
    )


def tiny_world(world: World) -> World:
    """Return the same World, on a grid of about 32 rows, or of fewer points, where its own is larger."""
    if world.grid.size <= LARGEST:
        return world
    kind, grid = world.grid.kind, world.grid
    if not isinstance(grid, LatLonGrid):
        stride = slice(None, None, -(-grid.size // LARGEST))
        latitude, longitude = grid.points
        grid = PointGrid(latitude[stride], longitude[stride], grid.weights[stride])
    elif kind == "gaussian":
        grid = gaussian_grid(32)
    elif kind.startswith("equiangular"):
        poles = kind.endswith("poles")
        grid = equiangular_grid(32 + poles, poles=poles)
    else:
        rows, columns = (slice(None, None, max(1, size // 32)) for size in grid.shape)
        grid = LatLonGrid(grid.latitude[rows], grid.longitude[columns])
    return replace(world, grid=grid, static_fields=np.zeros((world.static.size, *grid.shape), np.float32))


def column_world(kind: str = "sigma", grid: str = "gaussian", **changes: Any) -> World:
    """Return a World of whole columns of air, with all fluxes of their budgets. kind: sigma, hybrid or pressure."""
    where, (vertical, levels) = GRIDS[grid](), VERTICALS[kind]

    def fields(*names: str) -> tuple[Variable, ...]:
        return tuple(Variable(name, FIELDS[name][0], (), *FIELDS[name][4:]) for name in names)

    profiles = tuple(Variable(name, PROFILES[name][0], levels) for name in PROFILES)
    scales = {
        channel: Scale(mean, std, change)
        for (name, (_, means, std, change)), variable in zip(PROFILES.items(), profiles, strict=True)
        for channel, mean in zip(variable.channels, means, strict=True)
    }
    scales |= {name: Scale(mean, std, change) for name, (_, mean, std, change, *_) in FIELDS.items()}
    random = np.random.default_rng(0)
    ground = np.stack([random.random(where.shape) > 0.5, 3e3 * random.random(where.shape)]).astype(np.float32)
    return World(
        **{
            "grid": where,
            "prognostic": VariableSet((*profiles, *fields("surface_pressure", "skin_temperature", "depth"))),
            "diagnostic": VariableSet(fields(*list(FIELDS)[3:9])),
            "forcing": VariableSet(fields("sea_surface_temperature")),
            "static": VariableSet(fields("land_sea_mask", "geopotential_at_surface")),
            "static_fields": ground,
            "timestep": np.timedelta64(6, "h"),
            "scales": scales,
            "vertical": vertical,
            **changes,
        }
    )


def example_state(
    world: World,
    variables: VariableSet,
    seed: int,
    lead: Sequence[int] = (2,),
    dtype: torch.dtype = torch.float64,
) -> State:
    """Return random fields with the means and spreads of the World, (*lead, channel, *grid)."""
    noise = torch.randn(*lead, variables.size, *world.grid.shape, generator=torch.Generator().manual_seed(seed))
    column = (-1, *[1] * len(world.grid.shape))
    mean, std = (torch.as_tensor(world.scale(variables, kind)).reshape(column).double() for kind in ("mean", "std"))
    time = np.datetime64("2000-01-01", "s") + np.arange(lead[-1] if lead else 1) * np.timedelta64(6, "h")
    values = (mean + std * noise.double()).to(dtype)
    return State(values, variables, time if lead else time[0], len(world.grid.shape))
