"""Accumulate maps of mean errors by lead time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from emulators.state import State
from emulators.variables import VariableSet
from emulators.verification.channels import channel_rows
from emulators.world import World


class ErrorMaps:
    """Accumulate maps of forecast - truth and of its square, as means over initial times, at some leads.

    leads: indices of the leads to keep. Two float64 fields a lead and channel are held.
    """

    def __init__(self, world: World, variables: VariableSet, leads: Sequence[int]) -> None:
        self.grid, self.variables, self.leads = world.grid, variables, tuple(leads)
        shape = (len(self.leads), variables.size, *world.grid.shape)
        self._error, self._square = np.zeros(shape), np.zeros(shape)
        self._inits = np.zeros(len(self.leads), dtype=np.int64)

    def add(self, prediction: State, target: State, lead: int) -> None:
        """Add a batch of pairs of one lead; leads that are not kept are passed over."""
        if lead not in self.leads:
            return
        row = self.leads.index(lead)
        fields = {"prediction": prediction, "target": target}
        forecast, truth = (channel_rows(f, self.variables, self.grid, role).cpu() for role, f in fields.items())
        forecast = forecast.mean(dim=0) if forecast.ndim > truth.ndim else forecast
        difference = forecast.double() - truth.double()
        self._error[row] += difference.sum(dim=0).reshape(self._error.shape[1:]).numpy()
        self._square[row] += difference.square().sum(dim=0).reshape(self._error.shape[1:]).numpy()
        self._inits[row] += len(difference)

    def partial(self) -> dict[str, np.ndarray]:
        """The sums so far as arrays, to be stored, sent, or added to others by `add_partial`."""
        return {"error": self._error.copy(), "square": self._square.copy(), "inits": self._inits.copy()}

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> ErrorMaps:
        """Add the sums of other maps of the same leads, variables and grid."""
        if partial["error"].shape != self._error.shape:
            raise ValueError("Only maps of the same leads, variables and grid can be added up.")
        self._error += partial["error"]
        self._square += partial["square"]
        self._inits += partial["inits"]
        return self

    def bias(self) -> np.ndarray:
        """Mean error, shape (kept lead, channel, lat, lon)."""
        return self._error / self._inits[:, None, None, None]

    def rmse(self) -> np.ndarray:
        """Root-mean-square error, shape (kept lead, channel, lat, lon)."""
        return np.sqrt(self._square / self._inits[:, None, None, None])
