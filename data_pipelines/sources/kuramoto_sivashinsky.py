"""The Kuramoto-Sivashinsky equation, chaotic in space and time, as a dataset on one row around the equator.

    du/dt = -u du/dx - d2u/dx2 - d4u/dx4,   u(x + length) = u(x),   mean of u zero

It is solved with Fourier series: the linear terms are exact (ETDRK4, Kassam & Trefethen 2005,
doi 10.1137/S1064827502410633) and products are free of aliases (two-thirds rule). Kuramoto & Tsuzuki 1976,
doi 10.1143/PTP.55.356; Sivashinsky 1977, doi 10.1016/0094-5765(77)90096-0. The leading Lyapunov exponent at length 22
is 0.043 (Cvitanovic, Davidchack & Siminos 2010, doi 10.1137/070705623; Edson et al. 2019,
doi 10.1017/S1446181119000105).

The circle, of any length, lies along the equator. A unit of time is one day, so samples 6 hours apart are 0.25 units
apart, as is customary (Pathak et al. 2018, doi 10.1103/PhysRevLett.120.024102).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from data_pipelines.simulators.stores import (
    GAP,
    SURFACE,
    SimulatedSource,
    Trajectories,
    VariableDescription,
    empty_dataset,
    require_at_least,
    store_path,
)
from data_pipelines.simulators.time_schemes import ExponentialRungeKutta
from emulators.grid import LatLonGrid, gaussian_grid

EDITION = 1  # of the equations; a new edition makes new stores
INTERVAL = np.timedelta64(6, "h")
TIMESTEP = np.timedelta64(180, "m")  # 0.125 units of time
VARIABLES: dict[str, VariableDescription] = {"velocity": (SURFACE, "1", "", "u of the Kuramoto-Sivashinsky equation")}


class KuramotoSivashinskyEquation:
    """Integrate the equation; a state holds the Fourier coefficients of `torch.fft.rfft`, (..., points // 2 + 1).

    length: of the circle, in the equation's units. step: timestep in units of time.
    """

    def __init__(self, points: int, length: float, step: float) -> None:
        self.points, self.length, self.timestep = points, length, step
        wave = 2.0 * np.pi / length * np.arange(points // 2 + 1)
        resolved = np.arange(points // 2 + 1) < points / 3.0
        self._slope = torch.from_numpy(np.where(resolved, -0.5j * wave, 0.0))
        self._scheme = ExponentialRungeKutta(wave**2 - wave**4, step)

    def advection(self, coefficients: Tensor) -> Tensor:
        """Return the coefficients of -u du/dx = -d(u^2 / 2)/dx."""
        return self._slope * torch.fft.rfft(self.field(coefficients).square())

    def step(self, coefficients: Tensor) -> Tensor:
        """Return the state one timestep later."""
        return self._scheme(self.advection, coefficients)

    def field(self, coefficients: Tensor) -> Tensor:
        """Return u on the circle, (..., points)."""
        return torch.fft.irfft(coefficients, n=self.points)

    def sample(self, coefficients: Tensor) -> dict[str, np.ndarray]:
        """Return u on one row of latitude, float32, (member, 1, point)."""
        return {"velocity": self.field(coefficients)[:, None].float().numpy()}

    @property
    def state_variables(self) -> tuple[str, ...]:
        """Return the name of u."""
        return ("velocity",)

    def state(self, sample: Mapping[str, np.ndarray]) -> Tensor:
        """Return the state whose sample this is."""
        return torch.fft.rfft(torch.from_numpy(sample["velocity"][:, 0].astype(np.float64)))

    def static(self) -> dict[str, np.ndarray]:
        """Return the fields without time: none."""
        return {}

    def disturbed(self, coefficients: Tensor, size: float, generator: torch.Generator) -> Tensor:
        """Return the state with noise of rms `size` and mean zero added, white over the resolved waves."""
        noise = torch.fft.rfft(torch.randn(len(coefficients), self.points, generator=generator, dtype=torch.float64))
        noise = torch.where(self._slope != 0.0, noise, 0.0)
        return coefficients + noise * (size / self.field(noise).square().mean().sqrt())

    def rest(self, members: int) -> Tensor:
        """Return u = 0, steady but unstable, (members, points // 2 + 1)."""
        return torch.zeros(members, self.points // 2 + 1, dtype=torch.complex128)


class KuramotoSivashinsky(SimulatedSource):
    """Simulate the equation on first use, and cache the store in `folder` (default: the user's cache).

    splits: first and last time of train, validation and test. days: length of each trajectory. seed: of the initial
    noise. spinup_days: simulated before the first stored sample. length: of the circle, in the equation's units.
    points: number of points on it. start: date of the first stored sample.
    """

    def __init__(
        self,
        *,
        splits: Mapping[str, Sequence[str | int]],
        folder: str | None = None,
        days: int = 1000,
        trajectories: int = 8,
        seed: int = 0,
        spinup_days: int = 200,
        length: float = 22.0,
        points: int = 64,
        start: str = "2001-01-01",
    ) -> None:
        require_at_least(
            "Kuramoto-Sivashinsky",
            {
                "days": (days, 1),
                "trajectories": (trajectories, 1),
                "spinup_days": (spinup_days, 0),
                "length": (length, 1),
                "points": (points, max(8, int(np.ceil(2.0 * length)))),  # resolves the scales that are damped
            },
        )
        self.splits = {name: list(period) for name, period in splits.items()}
        self.label, self.seed = "Kuramoto-Sivashinsky", seed
        self.timestep: np.timedelta64 = TIMESTEP
        self.spinup: np.timedelta64 = np.timedelta64(spinup_days, "D")
        self.length, self.points = length, points
        self.trajectories = Trajectories(trajectories, 4 * days, INTERVAL, np.datetime64(start, "s"), GAP)
        settings = {"seed": seed, "spinup_days": spinup_days, "length": length, "points": points, "edition": EDITION}
        self.path = store_path(folder, "kuramoto_sivashinsky", settings | self.trajectories.plain())

    @property
    def grid(self) -> LatLonGrid:
        """Return the equator."""
        return gaussian_grid(1, self.points)

    def template(self) -> xr.Dataset:
        """Return the coordinates, attributes and shapes of the dataset, without its values."""
        attributes = {"title": f"emul Kuramoto-Sivashinsky, length {self.length:g}", "edition": EDITION}
        return empty_dataset(VARIABLES, self.grid, self.trajectories.times, attributes=attributes)

    def initial_state(self, members: int) -> tuple[KuramotoSivashinskyEquation, Tensor]:
        """Return the model, and its unstable steady state with noise."""
        model = KuramotoSivashinskyEquation(self.points, self.length, float(self.timestep / np.timedelta64(1, "D")))
        return model, model.disturbed(model.rest(members), 1.0, torch.Generator().manual_seed(self.seed))
