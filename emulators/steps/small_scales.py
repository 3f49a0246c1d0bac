"""Small scales on a grid finer than that on which a network learned: carried by a regression for each degree.

    y_lm = c_lm + r_l x_lm + g_l (n_lm - x_lm)      where l > learned;      y_lm = n_lm      where not

x is the state before, n what the network makes of it; r, g and the offset c are those of least squares over the new
data, r and g for each degree and row: a scalar channel, or vorticity or divergence of a level. A residual network hands
on scales that it never saw as they are, so that they count twice once they are decorrelated. The regression is that of
output statistics (Glahn & Lowry 1972, doi 10.1175/1520-0450(1972)011<1203:TUOMOS>2.0.CO;2); with g = 0 it is damped
persistence about the mean (Lorenz 1973, doi 10.1175/1520-0450(1973)012<0543:OTEOER>2.0.CO;2).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from emulators.sphere.calculus import SphericalCalculus
from emulators.sphere.transform import counts, degrees_and_orders
from emulators.variables import wind_pairs
from emulators.world import World


def learned_degree(old: World, new: World) -> int | None:
    """The largest total wavenumber that a network from `old` has learned, where the grid of `new` holds higher ones.

    It is where the old data end, as they declare it or as their grid does. None for grids without spherical harmonics.
    """
    if old.learned is None and not _is_finer(new, old):
        return None
    try:
        limits = [degrees_and_orders(side.lat_lon)[0] - 1 for side in (old, new)]
    except ValueError:
        return None
    declared = [v.truncation for v in old.predicted if v.truncation is not None]
    learned = max(declared, default=limits[0]) if old.learned is None else old.learned
    return learned if learned < limits[1] else None


def carried_by(small_scales: SmallScales | None, way: str, old: World, new: World) -> dict[str, str]:
    """Set the way of small scales, `regressed` or `damped`; and a row of the account that tells it, on a finer grid."""
    if small_scales is not None:
        small_scales.damped = way == "damped"
        return {"small scales": f"{way}, above degree {small_scales.learned}, on these data"}
    return {"small scales": "of the finer grid: as the network writes them"} if _is_finer(new, old) else {}


def _is_finer(world: World, other: World) -> bool:
    return world.grid.weights.size > other.grid.weights.size


class SmallScales(nn.Module):
    """Correct degrees above `learned` of predicted fields by a regression, which changes nothing until it is measured.

    Raises ValueError on grids without spherical harmonics.
    """

    slopes: Tensor
    offset: Tensor
    order: Tensor

    def __init__(self, world: World, learned: int) -> None:
        super().__init__()
        channels, pairs = world.predicted, wind_pairs(world.predicted)
        self.learned, self.damped = learned, False
        east, north = (
            [c for pair in pairs for c in range(*channels.slice(pair[side]).indices(channels.size))] for side in (0, 1)
        )
        scalars = [c for c in range(channels.size) if c not in {*east, *north}]
        self.split = len(scalars), len(east), len(north)
        self.harmonics = SphericalCalculus(world.lat_lon)
        shape = self.harmonics.degrees, channels.size
        self.register_buffer("slopes", torch.ones(2, *shape))  # r and g, (2, degree, row)
        self.register_buffer("offset", torch.zeros(2 * self.harmonics.orders, *shape))
        self.register_buffer("order", torch.tensor([*scalars, *east, *north]), persistent=False)

    def forward(self, values: Tensor, last: Tensor) -> Tensor:
        """Predicted fields (batch, predicted channel, lat, lon), corrected. last: the prognostic ones before."""
        with torch.autocast(values.device.type, enabled=False):
            before, after = self.rows(last), self.rows(values)
            kept, change = self.slopes[:, None, :, None]
            correction = self.offset[:, :, None] + (kept - change) * before + (change - 1) * after
            return values + self._fields(correction).to(values.dtype)

    def rows(self, fields: Tensor) -> Tensor:
        """Coefficients (2 * order, degree, batch, row) of fields; those of channels that `fields` lacks are 0."""
        lacking = len(self.order) - fields.shape[1]
        fields = nn.functional.pad(fields, (0, 0, 0, 0, 0, lacking))[:, self.order]
        scalars, *winds = (part.flatten(0, 1).permute(2, 1, 0) for part in fields.split(self.split, dim=1))
        parts = [self.harmonics.analysis(scalars)]
        if self.split[1]:
            parts += self.harmonics.vorticity_divergence(*winds)
        return torch.cat([part.unflatten(2, (len(fields), part.shape[2] // len(fields))) for part in parts], dim=3)

    def _fields(self, rows: Tensor) -> Tensor:
        """The inverse of `rows`."""
        scalars, *winds = (part.flatten(2) for part in rows.split(self.split, dim=3))
        parts = [self.harmonics.synthesis(scalars)]
        if self.split[1]:
            parts += self.harmonics.winds(*winds)
        batch = rows.shape[2]
        columns = torch.cat([part.unflatten(2, (batch, part.shape[2] // batch)) for part in parts], dim=3)
        return columns[..., self.order.argsort()].permute(2, 3, 1, 0)

    def measure(self, cases: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Fit the regression to cases: prognostic fields before, predicted ones as the network makes them, and true.

        With `damped` the network has no part in what is prognostic, g = 0.
        """
        weight = torch.from_numpy(counts(self.harmonics.orders)).reshape(-1)
        number, total, products = 0, torch.zeros(()), torch.zeros(())
        for last, made, truth in cases:
            before, after, target = (self.rows(fields).double() for fields in (last, made, truth))
            part = torch.stack([before, after - before, target])
            number += len(last)
            total = total + part.sum(3)
            products = products + torch.einsum("imlbr,jmlbr,m->lrij", part, part, weight)
        if number < 2:
            raise ValueError(f"Small scales are measured on at least 2 timesteps; the training split has {number}.")
        mean = total / number
        covariance = products - number * torch.einsum("imlr,jmlr,m->lrij", mean, mean, weight)
        slopes, beyond = self._slopes(covariance), self.learned + 1
        slopes[:, :beyond] = 1
        offset = mean[2] - slopes[0] * mean[0] - slopes[1] * mean[1]
        offset[:, :beyond] = 0
        self.slopes.copy_(slopes)
        self.offset.copy_(offset)

    def _slopes(self, covariance: Tensor) -> Tensor:
        """r and g, (2, degree, row), from the covariance of state, change and truth, (degree, row, 3, 3)."""
        size = covariance.diagonal(dim1=2, dim2=3)[..., :2].clamp(min=0).sqrt()
        if self.damped:
            size[..., 1] = size[..., 1].where(size[..., 0] == 0, 0)
        inverse = torch.where(size > 0, 1 / size, 0)
        normal = covariance[..., :2, :2] * inverse[..., :, None] * inverse[..., None, :]
        scaled = torch.linalg.pinv(normal, rtol=1e-6, hermitian=True) @ (covariance[..., :2, 2] * inverse)[..., None]
        return (scaled[..., 0] * inverse).permute(2, 0, 1)
