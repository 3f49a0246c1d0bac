"""Lorenz's model of 1996: waves around a latitude circle, driven, damped, and chaotic; on one scale or on two.

    dX_k/dt = X_{k-1} (X_{k+1} - X_{k-2}) - X_k + F - (h c / b) sum_j Y_jk
    dY_j/dt = c b Y_{j+1} (Y_{j-1} - Y_{j+2}) - c Y_j + (h c / b) X_k(j)

X around the circle, K of them; Y, J in each sector, around the same circle J K times finer; both cyclic. One unit of
time is five days. Lorenz 1996, Predictability: a problem partly solved (ECMWF seminar on predictability, vol. 1, 1-18);
Lorenz 2006, doi 10.1017/CBO9780511617652.004.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data_pipelines.simulators.time_schemes import runge_kutta


@dataclass(frozen=True)
class Lorenz96Equations:
    """States are (..., sectors) on one scale, (..., sectors, 1 + fast) on two: X first, then its Y.

    timestep: in units of time. fast: Y in a sector; 0: one scale. coupling, time_ratio and amplitude_ratio: h, c and b.
    """

    timestep: float
    sectors: int = 40
    forcing: float = 8.0
    fast: int = 0
    coupling: float = 1.0
    time_ratio: float = 10.0
    amplitude_ratio: float = 10.0

    def tendency(self, state: Tensor) -> Tensor:
        """dX/dt and dY/dt, per unit of time."""
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
        """What the small scale does to the large one, -(h c / b) sum_j Y_jk, (..., sectors)."""
        return -self.coupling * self.time_ratio / self.amplitude_ratio * state[..., 1:].sum(-1)

    @staticmethod
    def _advection(slow: Tensor) -> Tensor:
        before = slow.roll(1, -1)
        return before * (slow.roll(-1, -1) - before.roll(1, -1))

    def step(self, state: Tensor) -> Tensor:
        """The state one timestep later."""
        return runge_kutta(self.tendency, state, self.timestep)

    def disturbed(self, state: Tensor, size: float, generator: torch.Generator) -> Tensor:
        """The state with white noise of rms `size` on every variable."""
        return state + size * torch.randn(state.shape, generator=generator, dtype=state.dtype)

    def static(self) -> dict[str, np.ndarray]:
        """Nothing stands still."""
        return {}

    def sample(self, state: Tensor) -> dict[str, np.ndarray]:
        """The state by name on one row of latitude, float32, (member, [fast,] 1, sector)."""
        if not self.fast:
            return {"slow_variable": state[:, None].float().numpy()}
        fields = {
            "slow_variable": state[:, None, :, 0],
            "fast_variable": state[..., 1:].transpose(1, 2)[:, :, None],
            "subgrid_tendency": self.subgrid_tendency(state)[:, None],
        }
        return {name: field.float().contiguous().numpy() for name, field in fields.items()}

    def rest(self, members: int) -> Tensor:
        """Every X at F and every Y at zero: steady, but unstable; float64, (members, sectors[, 1 + fast])."""
        state = torch.zeros((members, self.sectors, 1 + self.fast), dtype=torch.float64)
        state[..., 0] = self.forcing
        return state if self.fast else state[..., 0]
