"""Prithvi WxC: attention alternately within units of the map and between them, on visible tokens, of an anomaly.

    x = W [states] + s + clock(hours between states, hours ahead),     s = W' [forcing, static, normal(t)] + place
    z = encoder(visible x), mask token + s elsewhere;     fields(t) = normal(t) + deviation * W'' decoder(z)

Within a unit all tokens see each other; between units those at the same position, as in MaxViT (Tu et al. 2022,
arXiv 2204.01697). Schmude et al. 2024, arXiv 2409.13598, whose network this repeats, weights and all. Its normal
weather and the deviation from it are read from files; here they are fitted to the training period before the first
step, see emulators.statistics.climatology. Its training hides units, or tokens of every unit
(objective=masked_forecast).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from emulators.grid import LatLonGrid
from emulators.layers.attention.patches import Frame, PatchEmbedding, unpatched
from emulators.layers.attention.transformer import TransformerBlock, initialise_linear
from emulators.layers.attention.windows import Windows
from emulators.layers.convolution import pole_mirror
from emulators.statistics.climatology import HarmonicClimatology, harmonics, resolved_harmonics
from emulators.world import World, hours_of

ABOUT = {
    "states": "2",
    "step": "any, an input",
    "grid": "any; units of patches, others padded",
    "parity": "Prithvi WxC, 1e-5",
}
_LAYER, _OURS = r"(en|de)coder\.lgl_block\.transformers\.(\d+)\.", r"\1coder.blocks.\2."
PUBLISHED = (  # names in Prithvi WxC's checkpoints, and ours
    (r"patch_embedding\.proj\.(\w+)", r"embedding.\1"),
    (r"patch_embedding_static\.proj\.(\w+)", r"embedding_static.\1"),
    (r"input_time_embedding\.(\w+)", r"clock.0.\1"),
    (r"lead_time_embedding\.(\w+)", r"clock.1.\1"),
    (r"mask_token", r"mask_token"),
    (_LAYER + r"attention\.0\.(\w+)", _OURS + r"norm_in.\3"),
    (_LAYER + r"attention\.1\.qkv_layer\.weight", _OURS + r"attention.qkv.weight"),
    (_LAYER + r"attention\.1\.w_layer\.weight", _OURS + r"attention.projection.weight"),
    (_LAYER + r"ff\.0\.(\w+)", _OURS + r"norm_out.\3"),
    (_LAYER + r"ff\.1\.net\.0\.(\w+)", _OURS + r"mlp.expand.\3"),
    (_LAYER + r"ff\.1\.net\.3\.(\w+)", _OURS + r"mlp.contract.\3"),
    (r"unembed\.(\w+)", r"head.\1"),
    (r"(?:static_)?(?:in|out)put_scalers(?:_\w+)?", r"scalers"),
)
SHIFTS = ("none", "longitude", "both")
HEADS = 16  # as published


class Prithvi(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon), `interval` hours later.

    Published with history 2; for a Step with absolute output if it writes anomalies. patch: rows and columns of a
    token. unit: rows and columns of tokens in a unit. embed: channels of a token. encoder, decoder: number of pairs of
    blocks within and between units, followed by one more within. heads: attention heads of each block. mlp_ratio:
    hidden channels of the MLPs as a multiple of embed. qk_norm: root-mean-square norms of each head's queries and keys.
    shift: shift the decoder's units by half a unit after every second block, along `longitude`, along `both` as
    published, where north meets south, or `none`. climatology: write anomalies. annual, diurnal: harmonics of year and
    day of the climatology. drop_path: rate of dropped residual paths in every block of the encoder. fit, edges: see
    emulators.layers.attention.patches.Frame.
    """

    conditioning = ("interval", "units", "tokens")
    place: Tensor
    coefficients: Tensor
    deviation: Tensor
    areas: Tensor

    def __init__(
        self,
        world: World,
        *,
        patch: int = 2,
        unit: Sequence[int] = (4, 8),
        embed: int = 96,
        encoder: int = 1,
        decoder: int = 1,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        qk_norm: bool = False,
        shift: str = "longitude",
        climatology: bool = True,
        annual: int = 2,
        diurnal: int = 2,
        drop_path: float = 0.0,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        if len(unit) != 2 or min(encoder, decoder) < 0 or shift not in SHIFTS or embed % 4:
            raise ValueError(
                "Expected a unit of 2 sizes, no negative number of pairs, an embed that 4 divides and one of "
                f"{', '.join(SHIFTS)} as shift; got {list(unit)}, {encoder} and {decoder}, {embed} and '{shift}'."
            )
        self.patch, self.hours = (patch, patch), hours_of(world.timestep)
        self.mirror = pole_mirror(world)
        self.frame = Frame(world.lat_lon, patch * unit[0], patch * unit[1], fit, edges)
        shape = [size // patch for size in self.frame.shape]
        self.windows = Windows(shape, unit, shifted=False, cyclic=False)
        self.units, self.tokens = int(np.prod(self.windows.counts)), self.windows.tokens
        self.states = world.history * world.prognostic.size
        normals = world.output_channels if climatology else 0
        self.embedding = PatchEmbedding(self.states, embed, self.patch)
        self.embedding_static = PatchEmbedding(world.input_channels - self.states + normals, embed, self.patch)
        self.clock = nn.ModuleList(nn.Linear(1, embed // 4) for _ in range(2))
        self.mask_token = nn.Parameter(torch.randn(1, 1, 1, embed))
        half = [size // 2 for size in self.windows.window]
        rolls = {"none": (0, 0), "longitude": (0, half[1]), "both": half}[shift]
        self.encoder = LocalGlobal(embed, heads, mlp_ratio, qk_norm, encoder, drop_path, self.windows)
        self.decoder = LocalGlobal(embed, heads, mlp_ratio, qk_norm, decoder, 0.0, self.windows, rolls)
        self.head = nn.Linear(embed, world.output_channels * patch**2)
        self.register_buffer("place", self._place(world.lat_lon, embed), persistent=False)
        self.harmonics = resolved_harmonics(world.timestep, annual, diurnal) if climatology else None
        if self.harmonics is not None:
            size = HarmonicClimatology(*self.harmonics).size
            self.register_buffer("coefficients", torch.zeros(size, normals, *world.lat_lon.shape))
            self.register_buffer("deviation", torch.ones(normals, 1, 1))
            areas = torch.as_tensor(world.lat_lon.weights / world.lat_lon.weights.size, dtype=torch.float64)
            self.register_buffer("areas", areas, persistent=False)
        initialise_linear(self)

    def forward(
        self,
        fields: Tensor,
        time: Tensor,
        *,
        interval: Tensor | None = None,
        units: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """Return the fields `interval` hours later, (batch,); None for the World's timestep.

        units: the visible ones, (batch, n). tokens: the visible ones of every unit, (batch, unit * n). At most one of
        the two.
        """
        hours = fields.new_full((len(fields),), self.hours)
        clock = self._clock(hours, hours if interval is None else interval.to(fields.dtype))
        padded = self.frame.inward(fields, self.mirror)
        states, fixed = padded.split([self.states, fields.shape[1] - self.states], 1)
        normal = None if self.harmonics is None else self._normal(time)
        fixed = fixed if normal is None else torch.cat([fixed, self.frame.inward(normal.to(fixed.dtype))], 1)
        static = self._cut(self.embedding_static(fixed) + self.place)
        x = self._cut(self.embedding(states)) + static + clock
        x = self._encoded(x, static + self.mask_token, units, tokens)
        anomaly = self.frame.outward(unpatched(self.windows.join(self.head(self.decoder(x))), self.patch))
        return anomaly if normal is None else torch.addcmul(normal, anomaly, self.deviation)

    def _encoded(self, x: Tensor, hidden: Tensor, units: Tensor | None, tokens: Tensor | None) -> Tensor:
        """Return the encoded visible part of x, with `hidden` elsewhere."""
        if units is not None:
            axis, index = 1, units[:, :, None, None].expand(-1, -1, *x.shape[2:])
        elif tokens is not None:
            axis, index = 2, tokens.unflatten(1, (self.units, -1))[..., None].expand(-1, -1, -1, x.shape[-1])
        else:
            return self.encoder(x) + 0.0 * self.mask_token  # it has a gradient, as distributed processes expect
        seen = self.encoder(x.gather(axis, index))
        return hidden.to(seen.dtype).scatter(axis, index, seen)

    @torch.no_grad()
    def fit_climatology(self, examples: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Fit normal weather, and the area mean of the deviation from it, to all examples (fields, time, target)."""
        if self.harmonics is None:
            return
        fitted, count = HarmonicClimatology(*self.harmonics), 0
        gram = squares = torch.zeros((), dtype=torch.float64, device=self.coefficients.device)
        for _, time, target in examples:
            fitted.accumulate(time, target)
            basis = self._basis(time).double()
            gram, squares = gram + basis.T @ basis, squares + target.double().square().sum(0)
            count += len(time)
        coefficients = fitted.solve().coefficients
        assert coefficients is not None
        self.coefficients.copy_(coefficients)
        normal = coefficients.double()
        explained = (torch.tensordot(gram, normal, dims=1) * normal).sum(0)
        variance = ((squares - explained) / count * self.areas).sum((-2, -1))
        self.deviation.copy_(variance.clamp(min=1e-6).sqrt()[:, None, None])

    def _normal(self, time: Tensor) -> Tensor:
        """Return the normal weather at these times, normalised, (batch, output channel, lat, lon)."""
        with torch.autocast("cuda" if self.coefficients.is_cuda else "cpu", enabled=False):
            return torch.tensordot(self._basis(time), self.coefficients, dims=1)

    def _basis(self, time: Tensor) -> Tensor:
        """Return the harmonics at these times, (batch, harmonic)."""
        assert self.harmonics is not None
        return harmonics(time, *self.harmonics).to(self.coefficients.dtype)

    def _clock(self, between: Tensor, ahead: Tensor) -> Tensor:
        """Return hours between the known states and hours ahead as waves, (batch, 1, 1, embed)."""
        phases = [
            linear(hours[:, None, None, None]) for linear, hours in zip(self.clock, (between, ahead), strict=True)
        ]
        return torch.cat([wave(phase) for wave in (torch.cos, torch.sin) for phase in phases], -1)

    def _cut(self, x: Tensor) -> Tensor:
        """Return (batch, lat, lon, channel) as (batch, unit, token, channel)."""
        return self.windows.partition(x).flatten(1, 2)

    def _place(self, grid: LatLonGrid, embed: int) -> Tensor:
        """Return waves of each patch's mean latitude and longitude, (lat, lon, embed)."""
        angles = np.stack(np.meshgrid(np.deg2rad(grid.latitude), np.deg2rad(grid.longitude), indexing="ij"))
        whole = self.frame.inward(torch.from_numpy(angles)[None])
        means = nn.functional.avg_pool2d(whole, self.patch)[0, ..., None]
        means = means * torch.from_numpy(np.arange(1.0, embed // 4 + 1))
        return torch.cat([means[0].sin(), means[1].sin(), means[0].cos(), means[1].cos()], -1).float()


class LocalGlobal(nn.Module):
    """Apply blocks within units and between them alternately, first and last within; (batch, unit, token, channel).

    rolls: rows and columns by which units move after the first block between them, back after the next, and so on.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        mlp_ratio: float,
        qk_norm: bool,
        pairs: int,
        drop_path: float,
        windows: Windows,
        rolls: Sequence[int] = (0, 0),
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TransformerBlock(channels, heads, mlp_ratio, bias=False, normed=qk_norm, drop_path=drop_path)
            for _ in range(2 * pairs + 1)
        )
        self.windows, self.rolls = windows, tuple(rolls)

    def forward(self, x: Tensor) -> Tensor:
        for k, block in enumerate(self.blocks):
            if k % 2 == 0:
                x = _apart(block, x)
                continue
            x = _apart(block, x.transpose(1, 2)).transpose(1, 2)
            if any(self.rolls):
                x = self._rolled(x, 1 if k % 4 == 1 else -1)
        return x

    def _rolled(self, x: Tensor, sign: int) -> Tensor:
        return self.windows.partition(self.windows.join(x).roll([sign * n for n in self.rolls], (1, 2))).flatten(1, 2)


def _apart(block: nn.Module, x: Tensor) -> Tensor:
    """Apply a block to each sequence of (batch, sequence, token, channel)."""
    result: Tensor = block(x.flatten(0, 1))
    return result.unflatten(0, x.shape[:2])


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights without data scales: queries, keys, values before 16 heads, channels last in patches."""
    ours = {name: value for name, value in theirs.items() if name != "scalers"}
    for name, value in ours.items():
        if name.endswith("qkv.weight"):
            ours[name] = value.unflatten(0, (HEADS, 3, -1)).transpose(0, 1).flatten(0, 2)
    patch = ours["embedding.weight"].shape[2:]
    for name in ("head.weight", "head.bias"):
        ours[name] = ours[name].unflatten(0, (-1, *patch)).movedim(0, 2).flatten(0, 2)
    return ours
