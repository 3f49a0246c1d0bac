"""The model of Lorenz (1996), with one or two scales, as a dataset on one row around the equator.

    dX_k/dt = X_{k-1} (X_{k+1} - X_{k-2}) - X_k + F - (h c / b) sum_j Y_jk
    dY_j/dt = c b Y_{j+1} (Y_{j-1} - Y_{j+2}) - c Y_j + (h c / b) X_k(j)

X has K points on the circle; Y has J points in each of the K sectors, on the same circle; both are cyclic. Lorenz 1996,
Predictability: a problem partly solved (ECMWF seminar on predictability, vol. 1, 1-18); Lorenz 2006,
doi 10.1017/CBO9780511617652.004.

The sectors lie along the equator, eastward from 0 degrees. A unit of time is five days, so samples 6 hours apart are
0.05 units apart, as in Lorenz 1996. With two scales, the Y of each sector are stored along `level`, and their effect on
X is stored as `subgrid_tendency`, the target of a parametrisation (Wilks 2005, doi 10.1256/qj.04.03).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.simulators.stores import (
    COLUMN,
    GAP,
    SURFACE,
    SimulatedSource,
    Trajectories,
    VariableDescription,
    empty_dataset,
    require_at_least,
    store_path,
)
from data_pipelines.simulators.time_schemes import runge_kutta
from emulators.grid import LatLonGrid, gaussian_grid

EDITION = 1  # of the equations; a new edition makes new stores
INTERVAL = np.timedelta64(6, "h")
UNIT_DAYS = 5  # days in a unit of time
TIMESTEPS = {False: 72, True: 18}  # minutes, on one scale and on two
SLOW: dict[str, VariableDescription] = {"slow_variable": (SURFACE, "1", "", "X, the large scale")}
FAST: dict[str, VariableDescription] = {
    "fast_variable": (COLUMN, "1", "", "Y, the small scale"),
    "subgrid_tendency": (SURFACE, "1", "", "Tendency of X by the small scale, per unit of time"),
}


@dataclass(frozen=True)
class Lorenz96Equations:
    """Integrate the equations; a state is (..., sectors) on one scale, (..., sectors, 1 + fast) on two, X before Y.

    timestep: in units of time. forcing: F. fast: J, the number of Y in each sector; 0: one scale. coupling, time_ratio
    and amplitude_ratio: h, c and b.
    """

    timestep: float
    sectors: int = 40
    forcing: float = 8.0
    fast: int = 0
    coupling: float = 1.0
    time_ratio: float = 10.0
    amplitude_ratio: float = 10.0

    def tendency(self, state: Tensor) -> Tensor:
        """Return dX/dt and dY/dt per unit of time."""
        if not self.fast:
            return self._advection(state) - state + self.forcing
        slow, fast = state[..., 0], state[..., 1:]
        c, b, exchange = self.time_ratio, self.amplitude_ratio, self.coupling * self.time_ratio / self.amplitude_ratio
        d_slow = self._advection(slow) - slow + self.forcing + self.subgrid_tendency(state)
        ring = fast.flatten(-2)
        after = ring.roll(-1, -1)
        turned = c * b * after * (ring.roll(1, -1) - after.roll(-1, -1))
        d_fast = turned.view_as(fast) - c * fast + exchange * slow[..., None]
        return torch.cat([d_slow[..., None], d_fast], dim=-1)

    def subgrid_tendency(self, state: Tensor) -> Tensor:
        """Return the effect of Y on X, -(h c / b) sum_j Y_jk, (..., sectors)."""
        return -self.coupling * self.time_ratio / self.amplitude_ratio * state[..., 1:].sum(-1)

    @staticmethod
    def _advection(slow: Tensor) -> Tensor:
        before = slow.roll(1, -1)
        return before * (slow.roll(-1, -1) - before.roll(1, -1))

    def step(self, state: Tensor) -> Tensor:
        """Return the state one timestep later."""
        return runge_kutta(self.tendency, state, self.timestep)

    def disturbed(self, state: Tensor, size: float, generator: torch.Generator) -> Tensor:
        """Return the state with white noise of rms `size` added to every variable."""
        return state + size * torch.randn(state.shape, generator=generator, dtype=state.dtype)

    @property
    def state_variables(self) -> tuple[str, ...]:
        """Return the names of X, and of Y on two scales."""
        return ("slow_variable", "fast_variable") if self.fast else ("slow_variable",)

    def state(self, sample: Mapping[str, np.ndarray]) -> Tensor:
        """Return the state whose sample this is."""
        slow = torch.from_numpy(sample["slow_variable"][:, 0].astype(np.float64))
        if not self.fast:
            return slow
        fast = torch.from_numpy(sample["fast_variable"][:, :, 0].astype(np.float64)).transpose(1, 2)
        return torch.cat([slow[..., None], fast], dim=-1)

    def static(self) -> dict[str, np.ndarray]:
        """Return the fields without time: none."""
        return {}

    def sample(self, state: Tensor) -> dict[str, np.ndarray]:
        """Return the fields by name on one row of latitude, float32, (member, [fast,] 1, sector)."""
        if not self.fast:
            return {"slow_variable": state[:, None].float().numpy()}
        fields = {
            "slow_variable": state[:, None, :, 0],
            "fast_variable": state[..., 1:].transpose(1, 2)[:, :, None],
            "subgrid_tendency": self.subgrid_tendency(state)[:, None],
        }
        return {name: field.float().contiguous().numpy() for name, field in fields.items()}

    def rest(self, members: int) -> Tensor:
        """Return X = F and Y = 0, steady but unstable: float64, (members, sectors[, 1 + fast])."""
        state = torch.zeros((members, self.sectors, 1 + self.fast), dtype=torch.float64)
        state[..., 0] = self.forcing
        return state if self.fast else state[..., 0]


class Lorenz96(SimulatedSource):
    """Simulate the model of Lorenz (1996) on first use, and cache the store in `folder` (default: the user's cache).

    splits: first and last time of train, validation and test. days: length of each trajectory. seed: of the initial
    noise. spinup_days: simulated before the first stored sample. sectors, forcing: K and F. fast: J, the number of Y in
    each sector; 0: one scale. coupling, time_ratio, amplitude_ratio: h, c and b. start: date of the first stored
    sample.
    """

    def __init__(
        self,
        *,
        splits: Mapping[str, Sequence[str | int]],
        folder: str | None = None,
        days: int = 1000,
        trajectories: int = 8,
        seed: int = 0,
        spinup_days: int = 100,
        sectors: int = 40,
        forcing: float = 8.0,
        fast: int = 0,
        coupling: float = 1.0,
        time_ratio: float = 10.0,
        amplitude_ratio: float = 10.0,
        start: str = "2001-01-01",
    ) -> None:
        require_at_least(
            "Lorenz 1996",
            {
                "days": (days, 1),
                "trajectories": (trajectories, 1),
                "spinup_days": (spinup_days, 0),
                "sectors": (sectors, 4),
                "fast": (fast, 0),
            },
        )
        self.splits = {name: list(period) for name, period in splits.items()}
        self.label, self.seed = "Lorenz 1996", seed
        self.spinup: np.timedelta64 = np.timedelta64(spinup_days, "D")
        self.timestep: np.timedelta64 = np.timedelta64(TIMESTEPS[fast > 0], "m")
        self.settings = {
            "sectors": sectors,
            "forcing": forcing,
            "fast": fast,
            "coupling": coupling,
            "time_ratio": time_ratio,
            "amplitude_ratio": amplitude_ratio,
        }
        self.fast, self.variables = fast, SLOW | (FAST if fast else {})
        self.trajectories = Trajectories(trajectories, 4 * days, INTERVAL, np.datetime64(start, "s"), GAP)
        shared = {"seed": seed, "spinup_days": spinup_days, "edition": EDITION}
        self.path = store_path(folder, "lorenz96", self.settings | shared | self.trajectories.plain())

    @property
    def grid(self) -> LatLonGrid:
        """Return the equator, with one point for each sector."""
        return gaussian_grid(1, int(self.settings["sectors"]))

    def template(self) -> xr.Dataset:
        """Return the coordinates, attributes and shapes of the dataset, without its values."""
        within = {"long_name": "number of the small-scale variable within its sector"}
        return empty_dataset(
            self.variables,
            self.grid,
            self.trajectories.times,
            (tuple(range(1, self.fast + 1)), within) if self.fast else None,
            {"title": "emul Lorenz 1996", "edition": EDITION, "vertical_kind": "none"},
        )

    def initial_state(self, members: int) -> tuple[Lorenz96Equations, Tensor]:
        """Return the model, and its unstable steady state with a little noise."""
        units = float(self.timestep / np.timedelta64(UNIT_DAYS, "D"))
        model = Lorenz96Equations(units, **self.settings)  # type: ignore[arg-type]
        return model, model.disturbed(model.rest(members), 0.01, torch.Generator().manual_seed(self.seed))
