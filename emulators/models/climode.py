"""ClimODE: fields carried by velocities that a network accelerates, then a head for bias and spread.

    du_k/dt = v_k . grad u_k + u_k div v_k,     dv/dt = f(x) + gamma attention(x),     x = (t, u, grad u, v, place)
    y ~ Normal(u + b(x), softplus(s(x)))

Every channel has a velocity field of its own, which points to where the air comes from. It starts as the one that best
explains the last change, min |du/dt - v . grad u - u div v|^2 + ridge |v|^2, solved by conjugate gradients, du/dt
the end of a natural cubic spline through the last three known states; with one known state the air starts at rest.
Verma et al. 2024, arXiv 2404.10024, whose networks this repeats, weights and all. Differences from its code unless
`as_published`: fields are periodic around the globe and meridians converge; attention is normalised over the keys; a
year takes a year; u moves at the pace of the velocities that were fitted, not at a hundredth of it. In any case
fields are in standard deviations, not between 0 and 1, velocities are fitted anew every timestep, and the head reads
the time in hours. Train it with objective=emission and loss=[gaussian_nll].
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.grid import LatLonGrid
from emulators.layers.convolution import Convolution, Edges, PoleMirror, pole_mirror
from emulators.layers.sample_draws import Generators, dropout
from emulators.world import World, hours_of

ABOUT = {
    "states": "1 to 3",
    "step": "timestep",
    "grid": "any of several rows",
    "parity": "ClimODE, 1e-5",
}
PUBLISHED = (  # names in ClimODE's checkpoints, and ours
    (r"vel_f\.layer_cnn\.(\d+)\.(\d+)\.conv1\.(\w+)", r"acceleration.\1.\2.first.\3"),
    (r"vel_f\.layer_cnn\.(\d+)\.(\d+)\.conv2\.(\w+)", r"acceleration.\1.\2.second.\3"),
    (r"vel_f\.layer_cnn\.(\d+)\.(\d+)\.bn1\.(\w+)", r"acceleration.\1.\2.norm_first.\3"),
    (r"vel_f\.layer_cnn\.(\d+)\.(\d+)\.bn2\.(\w+)", r"acceleration.\1.\2.norm_second.\3"),
    (r"vel_f\.layer_cnn\.(\d+)\.(\d+)\.shortcut\.(\w+)", r"acceleration.\1.\2.shortcut.\3"),
    (r"noise_net\.layer_cnn\.(\d+)\.(\d+)\.conv1\.(\w+)", r"head.\1.\2.first.\3"),
    (r"noise_net\.layer_cnn\.(\d+)\.(\d+)\.conv2\.(\w+)", r"head.\1.\2.second.\3"),
    (r"noise_net\.layer_cnn\.(\d+)\.(\d+)\.bn1\.(\w+)", r"head.\1.\2.norm_first.\3"),
    (r"noise_net\.layer_cnn\.(\d+)\.(\d+)\.bn2\.(\w+)", r"head.\1.\2.norm_second.\3"),
    (r"noise_net\.layer_cnn\.(\d+)\.(\d+)\.shortcut\.(\w+)", r"head.\1.\2.shortcut.\3"),
    (r"vel_att\.query\.1\.(\w+)", r"attention.query.0.\1"),
    (r"vel_att\.query\.4\.(\w+)", r"attention.query.1.\1"),
    (r"vel_att\.query\.7\.(\w+)", r"attention.query.2.\1"),
    (r"vel_att\.(key|value)\.0\.(\w+)", r"attention.\1.0.\2"),
    (r"vel_att\.(key|value)\.2\.(\w+)", r"attention.\1.1.\2"),
    (r"vel_att\.(key|value)\.4\.(\w+)", r"attention.\1.2.\2"),
    (r"vel_att\.post_map\.0\.(\w+)", r"attention.projection.\1"),
    (r"gamma", r"gamma"),
)
SLOPE = 0.3  # of the activation below zero
PACE = 0.01  # of accelerations by hour, and of everything in the published code
YEAR = 365.2425 * 24.0  # hours


class ClimODE(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon): the mean, or draws.

    widths: channels of the stages of either tower but the last, whose width is that of its output. blocks, head_blocks:
    number of blocks in each stage of the towers of acceleration and head. attention: channels inside the convolutions
    of the attention, four times those compared; None: half of its input's. step: hours of an Euler step. ridge,
    iterations: penalty and iterations of the fit of the first velocities. dropout: rate in the towers. as_published:
    use the code's plane, attention, year and pace. edges: padding of convolutions, see emulators.layers.convolution;
    published: `reflect`.
    """

    conditioning = ("generator",)
    place: Tensor
    eastward: Tensor
    southward: Tensor
    divergent: Tensor

    def __init__(
        self,
        world: World,
        *,
        widths: Sequence[int] = (128, 64),
        blocks: Sequence[int] = (5, 3, 2),
        head_blocks: Sequence[int] = (3, 2, 2),
        attention: int | None = None,
        step: float = 1.0,
        ridge: float = 0.01,
        iterations: int = 20,
        dropout: float = 0.1,
        as_published: bool = False,
        edges: str | None = None,
    ) -> None:
        super().__init__()
        if {len(blocks), len(head_blocks)} != {len(widths) + 1} or min(*blocks, *head_blocks) < 1:
            raise ValueError(
                f"Expected {len(widths) + 1} numbers of blocks of at least 1, one more than widths, for either tower; "
                f"got {list(blocks)} and {list(head_blocks)}."
            )
        if attention is not None and attention < 4:
            raise ValueError(f"Expected attention of at least 4 channels, or null; got {attention}.")
        if step <= 0 or ridge <= 0 or iterations < 1 or not 0.0 <= dropout < 1.0:
            raise ValueError(
                "Expected a positive step, a positive ridge, at least 1 iteration and a dropout in [0, 1); "
                f"got {step}, {ridge}, {iterations} and {dropout}."
            )
        least = 15 if as_published else 2
        if min(world.lat_lon.shape) < least:
            raise ValueError(f"Expected a grid of {least}x{least} points at least; got {world.lat_lon!r}.")
        self.fields, self.history = world.prognostic.size, world.history
        self.hours, self.published = hours_of(world.timestep), as_published
        self.steps = max(1, round(self.hours / step))
        self.ridge, self.iterations = ridge, iterations
        fixed = world.input_channels - world.history * self.fields
        rim = Edges(world.lat_lon, edges)
        around = 2 + fixed + 6 + 24
        inside = 5 + 5 * self.fields + around
        mirror = pole_mirror(world)
        first, last = (mirror and TowerMirror(mirror, self.fields, fixed, moving) for moving in (True, False))
        self.acceleration = tower(inside, (*widths, 2 * self.fields), blocks, dropout, rim, first)
        self.attention = Attention(inside, attention or inside // 2, 2 * self.fields, rim, as_published, first)
        self.gamma = nn.Parameter(torch.full((1,), 0.1))
        self.head = tower(
            4 + self.fields + around, (*widths, 2 * world.output_channels), head_blocks, dropout, rim, last
        )
        self.register_buffer("place", places(world.lat_lon), persistent=False)
        eastward, southward, divergent = differences(world.lat_lon, as_published)
        self.register_buffer("eastward", eastward, persistent=False)
        self.register_buffer("southward", southward, persistent=False)
        self.register_buffer("divergent", divergent, persistent=False)

    def forward(self, fields: Tensor, time: Tensor, *, generator: Generators = None) -> Tensor:
        """Return the mean, or with `generator`, one for all cases or one for each, a draw from the distribution."""
        mean, deviation = self.emission(fields, time)
        if generator is None:
            return mean
        each = generator if isinstance(generator, Sequence) else [generator] * len(mean)
        drawn = [torch.randn(mean.shape[1:], generator=g, device=g.device).to(mean.device) for g in each]
        return mean + deviation * torch.stack(drawn)

    def emission(self, fields: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation of the output, each (batch, output channel, lat, lon)."""
        states = fields[:, : self.history * self.fields].unflatten(1, (self.history, self.fields)).float()
        fixed = fields[:, self.history * self.fields :]
        u, v = states[:, -1], self.first_velocity(states)
        hours, pace = self.hours / self.steps, PACE if self.published else 1.0
        for n in range(self.steps):
            moved, gradients = self.transported(u, v)
            pushed = self.accelerated(u, v, gradients, fixed, self.clock(time, n * hours - self.hours))
            u, v = u + pace * hours * moved, v + PACE * hours * pushed
        clock = self.clock(time, 0.0)[1:]
        place = self.place.expand(len(u), *self.place.shape)
        seen = [*self.everywhere(clock, u), u, place[:, :2], place[:, 2:], fixed, self.turning(clock)]
        bias, spread = self.head(torch.cat(seen, 1)).float().chunk(2, 1)
        return bias + F.pad(u, (0, 0, 0, 0, 0, bias.shape[1] - self.fields)), F.softplus(spread)

    def accelerated(self, u: Tensor, v: Tensor, gradients: Tensor, fixed: Tensor, clock: list[Tensor]) -> Tensor:
        """Return the change of all velocities in a hundred hours, (batch, 2 field, lat, lon)."""
        place = self.place.expand(len(u), *self.place.shape)
        seen = [*self.everywhere(clock, u), gradients, v, u, place[:, :2], fixed, place[:, 2:], self.turning(clock[1:])]
        x = torch.cat(seen, 1)
        return self.acceleration(x).float() + self.gamma * self.attention(x).float()

    def clock(self, time: Tensor, after: float) -> list[Tensor]:
        """Return the share of the day, sine and cosine of day and year, `after` hours after `time`; each (batch,)."""
        day = torch.remainder(torch.remainder(time, 86_400) / 3600.0 + after, 24.0)
        year = day / (365.0 * 24.0) if self.published else torch.remainder(time / 3600.0 + after, YEAR) / YEAR
        turns = [2.0 * torch.pi * share - torch.pi / 2.0 for share in (day / 24.0, year)]
        return [day / 24.0, *(wave(turn) for turn in turns for wave in (torch.sin, torch.cos))]

    @staticmethod
    def everywhere(numbers: list[Tensor], like: Tensor) -> list[Tensor]:
        """Return numbers (batch,) as fields (batch, 1, lat, lon)."""
        return [n.to(like.dtype)[:, None, None, None].expand(-1, 1, *like.shape[-2:]) for n in numbers]

    def turning(self, clock: list[Tensor]) -> Tensor:
        """Return products of the waves of time with those of place, (batch, 24, lat, lon)."""
        waves = torch.stack(clock, 1).to(self.place.dtype)
        return (waves[:, :, None, None, None] * self.place[2:]).flatten(1, 2)

    def transported(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return v . grad u + u div v, and grad u in units of grid points: eastward, then southward."""
        with torch.autocast("cuda" if u.is_cuda else "cpu", enabled=False):
            east, south = u @ self.eastward.mT, self.southward @ u
            x, y = v.chunk(2, 1)
            moved = x * east + y * south + u * (x @ self.eastward.mT + self.divergent @ y)
            return moved, torch.cat([east, south], 1)

    @torch.no_grad()
    def first_velocity(self, states: Tensor) -> Tensor:
        """Return the velocities that explain the last change of states (batch, time, field, lat, lon); no gradient.

        v = A* z with (A A* + ridge) z = du/dt, A v = v . grad u + u div v.
        """
        *_, before, u = states.unbind(1) if self.history > 1 else (states[:, 0], states[:, 0])
        change = (u - before) / self.hours
        if self.history > 2:
            change = (5.0 * u - 6.0 * before + states[:, -3]) / (4.0 * self.hours)
        east, south = u @ self.eastward.mT, self.southward @ u

        def transposed(z: Tensor) -> Tensor:
            return torch.cat([east * z + (u * z) @ self.eastward, south * z + self.divergent.mT @ (u * z)], 1)

        def total(a: Tensor, b: Tensor) -> Tensor:
            return (a * b).sum((-2, -1), keepdim=True)

        with torch.autocast("cuda" if u.is_cuda else "cpu", enabled=False):
            z, residual, direction = torch.zeros_like(change), change, change
            size = total(change, change)
            for _ in range(self.iterations):
                image = self.transported(u, transposed(direction))[0] + self.ridge * direction
                length = size / total(direction, image).clamp(min=1e-30)
                z, residual = z + length * direction, residual - length * image
                size, former = total(residual, residual), size
                direction = residual + size / former.clamp(min=1e-30) * direction
            return transposed(z)


class Block(nn.Module):
    """Add to the input (through 1x1 if the width changes) two 3x3 convolutions with batch norm and activation."""

    def __init__(self, into: int, out: int, dropout: float, rim: Edges, mirror: PoleMirror | None) -> None:
        super().__init__()
        self.first, self.second = Convolution(into, out, 3, rim, mirror=mirror), Convolution(out, out, 3, rim)
        self.norm_first, self.norm_second = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.shortcut = nn.Conv2d(into, out, 1) if into != out else nn.Identity()
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.norm_first(self.first(x)), SLOPE)
        h = F.leaky_relu(self.norm_second(self.second(h)), SLOPE)
        return dropout(h, self.dropout, self.training) + self.shortcut(x)


class TowerMirror(PoleMirror):
    """Turn what a tower reads where it is seen from beyond a pole: components of winds, and every direction.

    inputs: the mirror of the input channels. moving: whether gradients and velocities are read, as by the tower of
    accelerations, or not, as by the head.
    """

    def __init__(self, inputs: PoleMirror, fields: int, fixed: int, moving: bool) -> None:
        super().__init__(inputs.signs, inputs.offsets)
        self.sizes, self.moving = (fields, fixed), moving

    def forward(self, rows: Tensor) -> Tensor:
        """Turn rows (batch, channel, row, lon) of what the tower reads."""
        (u, fixed), (shift, fixed_shift) = (
            table.to(rows.dtype)[-sum(self.sizes) :].split(self.sizes) for table in (self.signs, self.offsets)
        )

        def alike(count: int, value: float) -> Tensor:
            return rows.new_full((count, 1, 1), value)

        if self.moving:
            turned = [alike(5, 1.0), -u, -u, alike(2 * len(u), -1.0)]
            signs = [*turned, u, alike(2, 1.0), fixed, alike(30, 1.0)]
            shifts = [alike(5 + 4 * len(u), 0.0), shift, alike(2, 0.0), fixed_shift, alike(30, 0.0)]
        else:
            signs = [alike(4, 1.0), u, alike(8, 1.0), fixed, alike(24, 1.0)]
            shifts = [alike(4, 0.0), shift, alike(8, 0.0), fixed_shift, alike(24, 0.0)]
        return rows * torch.cat(signs) + torch.cat(shifts)


def tower(
    into: int,
    widths: Sequence[int],
    blocks: Sequence[int],
    dropout: float,
    rim: Edges,
    mirror: PoleMirror | None = None,
) -> nn.Sequential:
    """Return stages of blocks with the given widths. mirror: of what the first block reads."""
    stages = []
    for n, ((before, width), count) in enumerate(zip(pairwise([into, *widths]), blocks, strict=True)):
        stage = [Block(width if k else before, width, dropout, rim, None if n or k else mirror) for k in range(count)]
        stages.append(nn.Sequential(*stage))
    return nn.Sequential(*stages)


class Attention(nn.Module):
    """Let every point attend to a grid of a quarter of the rows and columns; three convolutions make each of q, k, v.

    as_published: keys and values are not padded, and the weights of each key add up to one. mirror: of what it reads.
    """

    def __init__(
        self, into: int, width: int, out: int, rim: Edges, as_published: bool, mirror: PoleMirror | None = None
    ) -> None:
        super().__init__()
        self.rim, self.published, self.mirror = rim, as_published, mirror

        def three(last: int, stride: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Conv2d(a, b, 3, stride=s)
                for a, b, s in ((into, width, stride), (width, last, stride), (last, last, 1))
            )

        self.query, self.key, self.value = three(width // 4, 1), three(width // 4, 2), three(out, 2)
        self.projection = nn.Conv2d(out, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        q = self._features(self.query, x, padded=True)
        k, v = (self._features(layer, x, padded=not self.published) for layer in (self.key, self.value))
        if self.published:
            out = (q @ k.mT).softmax(1) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        return self.projection(out.mT.unflatten(2, x.shape[-2:]))

    def _features(self, convolutions: nn.ModuleList, x: Tensor, padded: bool) -> Tensor:
        """Return the output of convolutions, (batch, point, channel)."""
        rim, columns = self.rim, x.shape[-1]
        for k, convolution in enumerate(convolutions):
            x = F.leaky_relu(x, SLOPE) if k else x
            x = convolution(rim.pad(x, 1, 1, 1, 1, mirror=None if k else self.mirror) if padded else x)
            rim = rim.coarser() if x.shape[-1] < columns else rim
        return x.flatten(2).mT


def places(grid: LatLonGrid) -> Tensor:
    """Return latitude, longitude in radians, cosines and sines of both, and two products of them, (8, lat, lon)."""
    latitude, longitude = np.meshgrid(np.deg2rad(grid.latitude), np.deg2rad(grid.longitude), indexing="ij")
    cos, sin = np.cos(latitude), np.sin(latitude)
    fields = [latitude, longitude, cos, np.cos(longitude), sin, np.sin(longitude)]
    fields += [sin * np.cos(longitude), sin * np.sin(longitude)]
    return torch.tensor(np.stack(fields), dtype=torch.float32)


def differences(grid: LatLonGrid, plane: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return central differences between points, one-sided at the edges: eastward, southward, and southward divergence.

    Matrices (lon, lon) and twice (lat, lat). plane: longitudes are not periodic, meridians do not converge.
    """
    rows, columns = (np.asarray(np.gradient(np.eye(size), axis=0)) for size in grid.shape)
    area = np.ones(grid.shape[0]) if plane else grid.weights.mean(1)
    if grid.is_cyclic and not plane:
        columns = 0.5 * (np.roll(np.eye(grid.shape[1]), 1, 1) - np.roll(np.eye(grid.shape[1]), -1, 1))
    eastward, southward, divergent = (
        torch.tensor(matrix, dtype=torch.float32) for matrix in (columns, rows, rows * area / area[:, None])
    )
    return eastward, southward, divergent
