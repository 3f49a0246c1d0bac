"""Climatology as harmonics of the year and of the day, fitted at every point by least squares.

    f(t) = sum_kj c_kj A_k(t) D_j(t),   A = 1, cos(2 pi k y), sin(2 pi k y);   D = 1, cos(2 pi j d), sin(2 pi j d)

y is the fraction of the mean tropical year, d that of the UTC day. The normal equations are summed in float64 over any
number of passes, so that the memory needed does not grow with the record. Narapusetty, DelSole & Tippett 2009,
doi 10.1175/2009JCLI2944.1.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

DAY = 86_400
TROPICAL_YEAR = 31_556_925  # s


class HarmonicClimatology:
    """Fit the mean, annual and diurnal cycle of each channel at each point.

    annual, diurnal: how many harmonics of the year and of the day; their products are included.

        climatology = HarmonicClimatology(annual=2, diurnal=2)
        for times, values in batches:                # datetime64 (time,), (time, channel, *grid)
            climatology.accumulate(times, values)
        normal = climatology.solve().evaluate(times)   # float32 (*times.shape, channel, *grid)

    Combinations of harmonics that the sample does not determine (a record much shorter than a year, one hour a day) are
    left out of the fit: those whose variance in the sample is below 1 % of the largest. Missing values spread: a point
    with a NaN has a NaN climatology.
    """

    def __init__(self, annual: int = 2, diurnal: int = 2) -> None:
        if annual < 0 or diurnal < 0:
            raise ValueError(f"Expected numbers of harmonics of at least 0; got annual={annual}, diurnal={diurnal}.")
        self.annual, self.diurnal = annual, diurnal
        self.coefficients: Tensor | None = None
        self._gram: Tensor | None = None
        self._moment: Tensor | None = None

    @classmethod
    def for_timestep(cls, timestep: np.timedelta64, annual: int = 2, diurnal: int = 2) -> HarmonicClimatology:
        """A climatology without the cycles that a series with this timestep cannot resolve."""
        return cls(*resolved_harmonics(timestep, annual, diurnal))

    @property
    def size(self) -> int:
        """Number of coefficients of a channel at a point."""
        return (1 + 2 * self.annual) * (1 + 2 * self.diurnal)

    def accumulate(self, times: np.ndarray | Tensor, values: Tensor | np.ndarray) -> None:
        """Add fields to the sums. times: datetime64 or int64 seconds since 1970, (time,); values (time, ...)."""
        values = torch.as_tensor(values)
        basis = harmonics(_seconds(times).to(values.device), self.annual, self.diurnal)
        if basis.shape[0] != values.shape[0] or basis.ndim != 2:
            raise ValueError(f"Expected a field a time; got {tuple(basis.shape[:-1])} times, {values.shape[0]} fields.")
        gram, moment = basis.T @ basis, torch.tensordot(basis.T, values.double(), dims=1)
        self._gram = gram if self._gram is None else self._gram + gram
        self._moment = moment if self._moment is None else self._moment.add_(moment)

    def solve(self) -> HarmonicClimatology:
        """Fit the coefficients, (size, channel, *grid), to all fields accumulated so far."""
        if self._gram is None or self._moment is None:
            raise ValueError("A climatology needs fields: call accumulate before solve.")
        inverse = torch.linalg.pinv(self._gram, rtol=0.01, hermitian=True)
        self.coefficients = torch.tensordot(inverse, self._moment, dims=1).float()
        return self

    def evaluate(self, times: np.ndarray | Tensor) -> Tensor:
        """Normal fields at `times` of any shape, float32 (*times.shape, channel, *grid)."""
        if self.coefficients is None:
            raise ValueError("A climatology must be solved before it is evaluated.")
        basis = harmonics(_seconds(times).to(self.coefficients.device), self.annual, self.diurnal)
        return torch.tensordot(basis.to(self.coefficients.dtype), self.coefficients, dims=1)


def resolved_harmonics(timestep: np.timedelta64, annual: int, diurnal: int) -> tuple[int, int]:
    """At most `annual` and `diurnal` harmonics: two samples a cycle, the last harmonic of an even number by half."""
    unit, _ = np.datetime_data(timestep)
    seconds = int(timestep.astype(int)) * TROPICAL_YEAR // 12 if unit == "M" else timestep / np.timedelta64(1, "s")
    return min(annual, int(TROPICAL_YEAR * 1.01 / (2 * seconds))), min(diurnal, int(DAY / (2 * seconds)))


def harmonics(seconds: Tensor, annual: int, diurnal: int) -> Tensor:
    """The basis at times in int64 seconds since 1970: float64, (*seconds.shape, size)."""
    year = _waves(seconds, TROPICAL_YEAR, annual)
    day = _waves(seconds, DAY, diurnal)
    return (year.unsqueeze(-1) * day.unsqueeze(-2)).flatten(-2)


def _waves(seconds: Tensor, period: int, count: int) -> Tensor:
    angle = torch.remainder(seconds, period).double() * (2.0 * math.pi / period)
    waves = [torch.ones_like(angle)]
    for k in range(1, count + 1):
        waves += [torch.cos(k * angle), torch.sin(k * angle)]
    return torch.stack(waves, dim=-1)


def _seconds(times: np.ndarray | Tensor) -> Tensor:
    if isinstance(times, Tensor):
        return times
    return torch.from_numpy(np.asarray(times, dtype="datetime64[s]").astype(np.int64))
