"""What several tests share: a small world, one thread, and a cache of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from emulators.grid import LatLonGrid, equiangular_grid, gaussian_grid
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

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
