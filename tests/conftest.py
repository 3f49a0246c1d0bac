"""What several tests share: a small world, one thread, and a cache of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, Vertical, World

GRIDS: dict[str, Callable[[], LatLonGrid]] = {
    "gaussian": lambda: gaussian_grid(8),
    "equiangular": lambda: equiangular_grid(8),
    "equiangular_with_poles": lambda: equiangular_grid(9, poles=True),
    "limited_area": lambda: LatLonGrid(np.linspace(70.0, 30.0, 9), np.linspace(-30.0, 30.0, 13)),
}


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache that the processes of this session share: planets of another state of the code are not met in it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        yield


@pytest.fixture(scope="session")
def small_world() -> Callable[..., World]:
    """small_world(grid="gaussian", **changes): six channels, a forcing and a static field on a tiny grid."""

    def world(grid: str = "gaussian", **changes) -> World:
        where = GRIDS[grid]()
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

    return world


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


@pytest.fixture(scope="session")
def column_world() -> Callable[..., World]:
    """column_world(kind="sigma", grid="gaussian", **changes): whole columns of air, and all fluxes of their budgets."""

    def world(kind: str = "sigma", grid: str = "gaussian", **changes) -> World:
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

    return world


@pytest.fixture(scope="session")
def weather() -> Callable[..., State]:
    """weather(world, variables, seed, lead=(2,), dtype=torch.float64): random fields with the means of the world."""

    def state(world: World, variables: VariableSet, seed: int, lead=(2,), dtype=torch.float64) -> State:
        noise = torch.randn(*lead, variables.size, *world.grid.shape, generator=torch.Generator().manual_seed(seed))
        mean, std = (
            torch.as_tensor(world.scale(variables, kind)).reshape(-1, 1, 1).double() for kind in ("mean", "std")
        )
        time = np.datetime64("2000-01-01", "s") + np.arange(lead[-1] if lead else 1) * np.timedelta64(6, "h")
        return State((mean + std * noise.double()).to(dtype), variables, time if lead else time[0])

    return state
