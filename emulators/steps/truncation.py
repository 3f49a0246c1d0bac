"""Truncate predicted fields to the total wavenumbers that the data hold.

    x -> synthesis of the coefficients of x with l <= L,       winds by vorticity and divergence

Data of a spectral model end at its truncation L. A network works on grid points and writes finer scales as well, which
no datum ever shows it and which grow from step to step. The projection is linear, and on Gaussian grids it keeps
area means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from emulators.sphere.calculus import SphericalCalculus
from emulators.sphere.transform import SphericalHarmonics, resolved_degrees
from emulators.variables import VariableSet, wind_pairs
from emulators.world import World


class Truncation(nn.Module):
    """Project fields on spherical harmonics up to the largest total wavenumber of each variable.

    limits: by variable of `world.predicted`; variables without one, and those whose limit the grid does not exceed, are
    left as they are. A component of the wind is projected together with the other one, or not at all. Raises ValueError
    on grids without spherical harmonics.
    """

    mean: Tensor

    def __init__(self, world: World, limits: Mapping[str, int]) -> None:
        super().__init__()
        self.limits = {n: l for n, l in limits.items() if l + 1 < resolved_degrees(world.grid)} if limits else {}
        mean = torch.from_numpy(world.scale(world.predicted, "mean"))[:, None, None] if self.limits else torch.zeros(0)
        self.register_buffer("mean", mean, persistent=False)
        self.transforms = nn.ModuleDict()
        self.parts: list[tuple[str, bool]] = []  # transform, and whether of winds
        for limit, winds, channels in _channels(world.predicted, self.limits):
            kind = SphericalCalculus if winds else SphericalHarmonics
            name = f"{'winds' if winds else 'scalars'}_{limit}"
            self.transforms[name] = kind(world.grid, limit + 1)
            self.register_buffer(f"channels_{name}", torch.tensor(channels), persistent=False)
            self.parts.append((name, winds))

    def forward(self, values: Tensor) -> Tensor:
        """Fields (batch, predicted channel, lat, lon) without what lies beyond the limits."""
        with torch.autocast(values.device.type, enabled=False):
            for name, winds in self.parts:
                channels, transform = self.get_buffer(f"channels_{name}"), self.transforms[name]
                rows = values.index_select(1, channels)
                made = _winds(transform, rows) if winds else _scalars(transform, rows - self.mean[channels])
                made = made if winds else made + self.mean[channels]
                values = values.index_copy(1, channels, made.to(values.dtype))
        return values


def limits_of(world: World, option: Any) -> dict[str, int]:
    """The largest total wavenumber by variable; option: `data`, a number for all prognostic ones, or None for none.

    Raises ValueError for any other option.
    """
    if option is None:
        return {}
    if option == "data":
        return {v.name: v.truncation for v in world.predicted if v.truncation is not None}
    if isinstance(option, bool) or not isinstance(option, int) or option < 1:
        raise ValueError(f"step.truncation must be 'data', a total wavenumber of at least 1, or null; got {option!r}.")
    return {variable.name: option for variable in world.prognostic}


def _channels(variables: VariableSet, limits: Mapping[str, int]) -> Iterator[tuple[int, bool, list[int]]]:
    """Limit, whether of winds, and channels: of winds all eastward ones, then all northward ones."""
    pairs = wind_pairs(variables)
    components = {name for name in variables.names if "component_of_wind" in name}
    for limit in sorted(set(limits.values())):
        scalars = [n for n, l in limits.items() if l == limit and n not in components]
        if rows := [c for name in scalars for c in _rows(variables, name)]:
            yield limit, False, rows
        both = [pair for pair in pairs if all(limits.get(name) == limit for name in pair)]
        if both:
            yield limit, True, [c for side in (0, 1) for pair in both for c in _rows(variables, pair[side])]


def _rows(variables: VariableSet, name: str) -> range:
    return range(*variables.slice(name).indices(variables.size))


def _scalars(harmonics: Any, fields: Tensor) -> Tensor:
    """(batch, channel, lat, lon) -> the same, truncated."""
    return _rowwise(harmonics.synthesis(harmonics.analysis(_columns(fields))), fields)


def _winds(calculus: Any, fields: Tensor) -> Tensor:
    """(batch, eastward then northward components, lat, lon) -> the same, truncated."""
    u, v = fields.chunk(2, dim=1)
    made = calculus.winds(*calculus.vorticity_divergence(_columns(u), _columns(v)))
    return torch.cat([_rowwise(one, u) for one in made], dim=1)


def _columns(fields: Tensor) -> Tensor:
    """(batch, channel, lat, lon) -> (lon, lat, batch x channel)."""
    return fields.flatten(0, 1).permute(2, 1, 0)


def _rowwise(columns: Tensor, like: Tensor) -> Tensor:
    return columns.permute(2, 1, 0).reshape(like.shape)
