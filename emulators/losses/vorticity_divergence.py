"""Errors of the vorticity and divergence of the predicted winds, by exact derivatives in spectral space.

    L = mean over winds of  w / (4 pi) sum_lm [ alpha |zeta_a - zeta_b|^2 + beta |D_a - D_b|^2 ]_lm  length^2 / s^2
    length^2 = a^2 / mean of l (l + 1) over harmonics

with s^2 the mean of the squared scales of both components, w the sum of their weights over its mean over winds, alpha
and beta the shares of vorticity and divergence. So weights compare winds with one another, not with other variables: a
factor common to all winds changes nothing, and within a pair only the sum counts. Winds whose errors have the same
power in every harmonic count as in the mean square error of winds alone; rotation and convergence of small scales count
more.
Winds are one vector field, of which no component is differentiated alone: the poles are points like others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from emulators.constants import EARTH_RADIUS
from emulators.scores.channel_weights import ChannelWeights
from emulators.scores.spectral_errors import checked_degrees
from emulators.sphere.calculus import SphericalCalculus
from emulators.sphere.spectra import power
from emulators.state import State
from emulators.variables import EASTWARD, NORTHWARD, VariableSet
from emulators.world import World


class VorticityDivergence(nn.Module):
    """Compute the error of vorticity and divergence for each lead element of two States with winds.

    Winds are the pairs of variables whose names differ in u and v: `u_component_of_wind`, `10m_u_component_of_wind`.
    vorticity, divergence: alpha and beta. degrees: number of total wavenumbers, at least 2, as neither has a mean;
    default: all that the grid resolves. scale, variable_weights, level_weights: as in
    `emulators.scores.channel_weights.ChannelWeights`, used for winds alone and relative to their mean; the loss as a
    whole is weighted by `weight`, as any other.
    """

    east: Tensor
    north: Tensor
    inverse_scales: Tensor
    weights: Tensor

    def __init__(
        self,
        world: World,
        *,
        vorticity: float = 1.0,
        divergence: float = 1.0,
        degrees: int | None = None,
        scale: str = "tendency_std",
        variable_weights: str | Mapping[str, float] = "uniform",
        level_weights: str | Mapping[float, float] = "uniform",
    ) -> None:
        super().__init__()
        if not all(0 <= share < math.inf for share in (vorticity, divergence)) or vorticity + divergence == 0:
            raise ValueError(
                "Expected vorticity and divergence, shares, to be finite, not negative and not both zero; "
                f"got {vorticity} and {divergence}."
            )
        self.vorticity, self.divergence = vorticity, divergence
        self.channels = ChannelWeights(world, scale, variable_weights, level_weights)
        self.calculus = SphericalCalculus(world.lat_lon, checked_degrees(degrees, least=2))
        east, north = winds(world.predicted)
        inverse, weight = self.channels.inverse_scales.flatten(1).double(), self.channels.weights.double()
        squares = 0.5 * (inverse[:, east] ** -2 + inverse[:, north] ** -2) / self.length**2
        shared = weight[east] + weight[north]
        if not shared.sum() > 0:
            raise ValueError("The weights of all winds are zero: nothing would count in vorticity_divergence.")
        for name, table in (
            ("east", east),
            ("north", north),
            ("inverse_scales", squares.rsqrt().float()),
            ("weights", (shared / shared.sum()).float()),
        ):
            self.register_buffer(name, table, persistent=False)

    @property
    def length(self) -> float:
        """The length (m) that converts vorticity to a wind."""
        l = torch.arange(self.calculus.degrees, dtype=torch.float64)
        modes = 2.0 * l + 1.0
        return EARTH_RADIUS / math.sqrt(float((l * (l + 1.0) * modes).sum() / modes.sum()))

    def forward(self, prediction: State, target: State) -> Tensor:
        with torch.autocast(prediction.values.device.type, enabled=False):
            error = self.channels.difference(prediction, target)
            u, v = (error.index_select(-3, index) for index in (self.east, self.north))
            factor = self.inverse_scales[self.channels.row(prediction)].to(error.dtype)[:, None, None]
            vorticity, divergence = self._coefficients(u * factor, v * factor)
            powers = self.vorticity * power(vorticity) + self.divergence * power(divergence)
            rows = powers.sum(dim=0).view(*prediction.lead, -1) / (4.0 * math.pi)
            return (rows * self.weights.to(rows.dtype)).sum(dim=-1)

    def _coefficients(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the coefficients of vorticity and divergence of winds (*lead, pair, lat, lon)."""
        calculus = self.calculus
        if u.dtype == torch.float64:
            calculus = SphericalCalculus(calculus.grid, calculus.degrees, dtype=u.dtype).to(u.device)
        return calculus.vorticity_divergence(*(c.flatten(0, -3).permute(2, 1, 0) for c in (u, v)))


def winds(variables: VariableSet) -> tuple[Tensor, Tensor]:
    """Return the channels of the eastward and of the northward winds, pair by pair.

    Raises ValueError if there are none or the levels of a pair differ.
    """
    east: list[int] = []
    north: list[int] = []
    for variable in variables:
        twin = variable.name.replace(EASTWARD, NORTHWARD)
        if EASTWARD in variable.name and twin in variables:
            if variables.variable(twin).levels != variable.levels:
                raise ValueError(f"{variable.name} and {twin} are winds of different levels; predict the same of both.")
            east += range(*variables.slice(variable.name).indices(variables.size))
            north += range(*variables.slice(twin).indices(variables.size))
    if not east:
        raise ValueError(
            f"Expected winds among the predicted variables, {EASTWARD} and {NORTHWARD} or those at 10m; "
            f"got {', '.join(variables.names)}. Leave vorticity_divergence out of `loss`."
        )
    return torch.tensor(east), torch.tensor(north)
