"""LaDCast's transformer: frames to be made and what is known are two streams of tokens with one attention.

    q, k <- R(time, lat, lon) norm(q, k),    R turns pairs of channels by position x frequency,   theta^(-2 i / d)
    two streams   x <- x + g1(c) a,   x <- x + g2(c) MLP((1 + s2(c)) norm(x) + b2(c)),   a: attention of both together
    one stream    x <- x + g(c) W [a, gelu(U h)],   h = (1 + s(c)) norm(x) + b(c),   a: attention of h

c embeds the noise level, the mean of what is known and the time of year; the known tokens go through a refiner first.
Positions are frames from the last known one, latitudes `stretch` times as large, and longitudes, in radians, so that
attention knows distances on the map. Zhuang & Duraisamy 2025, arXiv 2506.09193, weights and all; two streams, then one:
Kong et al. 2024, arXiv 2412.03603; rotations: Su et al. 2021, arXiv 2104.09864. Each point is a token. The year has its
mean length, 365.2425 days, where the published code counts its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.world import World

ABOUT = {
    "states": "any",
    "step": "latent_diffusion",
    "grid": "any",
    "parity": "LaDCast, 1e-5",
}
REFINER = r"context_refiner\.token_refiner\.refiner_blocks\.(\d+)"
PUBLISHED = (  # names in LaDCast's checkpoints, and ours
    (r"x_embedder\.proj\.(\w+)", r"embed.\1"),
    (r"context_embedder\.proj\.(\w+)", r"embed_past.\1"),
    (r"context_refiner\.proj_in\.(\w+)", r"refine_in.\1"),
    (r"context_refiner\.time_text_embed\.timestep_embedder\.(.+)", r"refine_condition.level.\1"),
    (r"context_refiner\.time_text_embed\.text_embedder\.(.+)", r"refine_condition.mean.\1"),
    (r"time_text_embed\.timestep_embedder\.(.+)", r"condition.level.\1"),
    (r"time_text_embed\.text_embedder\.(.+)", r"condition.mean.\1"),
    (r"time_elapsed_embed\.(.+)", r"year.\1"),
    (rf"{REFINER}\.attn\.to_(\w)\.(\w+)", r"refiner.\1.attention.\2.\3"),
    (rf"{REFINER}\.attn\.(norm_\w)\.(\w+)", r"refiner.\1.attention.\2.\3"),
    (rf"{REFINER}\.(norm\d)\.(\w+)", r"refiner.\1.\2.\3"),
    (rf"{REFINER}\.ff\.net\.0\.proj\.(\w+)", r"refiner.\1.mlp.linear_1.\2"),
    (rf"{REFINER}\.ff\.net\.2\.(\w+)", r"refiner.\1.mlp.linear_2.\2"),
    (rf"{REFINER}\.norm_out\.linear\.(\w+)", r"refiner.\1.gates.\2"),
    (r"transformer_blocks\.(\d+)\.norm1\.linear\.(\w+)", r"dual.\1.future.modulate.\2"),
    (r"transformer_blocks\.(\d+)\.norm1_context\.linear\.(\w+)", r"dual.\1.past.modulate.\2"),
    (r"transformer_blocks\.(\d+)\.attn\.to_(q|k|v)\.(\w+)", r"dual.\1.future.attention.\2.\3"),
    (r"transformer_blocks\.(\d+)\.attn\.add_(q|k|v)_proj\.(\w+)", r"dual.\1.past.attention.\2.\3"),
    (r"transformer_blocks\.(\d+)\.attn\.norm_(q|k)\.(\w+)", r"dual.\1.future.attention.norm_\2.\3"),
    (r"transformer_blocks\.(\d+)\.attn\.norm_added_(q|k)\.(\w+)", r"dual.\1.past.attention.norm_\2.\3"),
    (r"transformer_blocks\.(\d+)\.attn\.to_out\.0\.(\w+)", r"dual.\1.future.project.\2"),
    (r"transformer_blocks\.(\d+)\.attn\.to_add_out\.(\w+)", r"dual.\1.past.project.\2"),
    (r"transformer_blocks\.(\d+)\.ff\.net\.0\.proj\.(\w+)", r"dual.\1.future.mlp.linear_1.\2"),
    (r"transformer_blocks\.(\d+)\.ff\.net\.2\.(\w+)", r"dual.\1.future.mlp.linear_2.\2"),
    (r"transformer_blocks\.(\d+)\.ff_context\.net\.0\.proj\.(\w+)", r"dual.\1.past.mlp.linear_1.\2"),
    (r"transformer_blocks\.(\d+)\.ff_context\.net\.2\.(\w+)", r"dual.\1.past.mlp.linear_2.\2"),
    (r"single_transformer_blocks\.(\d+)\.norm\.linear\.(\w+)", r"single.\1.modulate.\2"),
    (r"single_transformer_blocks\.(\d+)\.attn\.to_(q|k|v)\.(\w+)", r"single.\1.attention.\2.\3"),
    (r"single_transformer_blocks\.(\d+)\.attn\.norm_(q|k)\.(\w+)", r"single.\1.attention.norm_\2.\3"),
    (r"single_transformer_blocks\.(\d+)\.proj_mlp\.(\w+)", r"single.\1.expand.\2"),
    (r"single_transformer_blocks\.(\d+)\.proj_out\.(\w+)", r"single.\1.project.\2"),
    (r"norm_out\.linear\.(\w+)", r"modulate.\1"),
    (r"proj_out\.(\w+)", r"out.\1"),
)
WAVES = 256  # cosines and sines of a level, or of the time of year
YEAR = 365.2425 * 86_400.0  # s


def adapted(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of convolutions over single points, as linear maps."""
    points = ("embed.weight", "embed_past.weight")
    return {name: value.flatten(1) if name in points else value for name, value in weights.items()}


class LaDCast(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon), frame by frame.

    frames: into which the prognostic channels (of all known states) and the output are divided, in order; what else is
    read is what is known, or all of it where there is nothing else. heads, head: of attention, and channels of each.
    dual, single, refiner: blocks. rotary: channels of a head turned by time, latitude and longitude. theta: see above.
    scalars: what is told of the noise level, (batch, 1). Raises ValueError where frames or channels do not divide.
    """

    conditioning = ("scalars",)

    def __init__(
        self,
        world: World,
        *,
        frames: int = 1,
        heads: int = 12,
        head: int = 128,
        dual: int = 2,
        single: int = 4,
        refiner: int = 1,
        mlp_ratio: float = 4.0,
        rotary: Sequence[int] = (16, 56, 56),
        theta: float = 256.0,
        stretch: float = 6.0,
    ) -> None:
        super().__init__()
        self.read, written = world.history * world.prognostic.size, world.output_channels
        if frames < 1 or self.read % frames or written % frames:
            raise ValueError(
                f"Expected model.frames that divides {self.read} channels read and {written} written; got {frames}."
            )
        if sum(rotary) != head or len(rotary) != 3 or any(n % 2 or n < 0 for n in rotary):
            raise ValueError(f"Expected model.rotary of three even numbers with the sum {head}; got {[*rotary]}.")
        if min(heads, dual + 1, single, refiner + 1) < 1:
            raise ValueError(
                "Expected model.heads and model.single of at least 1, model.dual and model.refiner of at least 0; got "
                f"{heads}, {single}, {dual} and {refiner}."
            )
        width, self.frames = heads * head, frames
        rest = world.input_channels - self.read
        self.embed, self.embed_past = nn.Linear(self.read // frames, width), nn.Linear(rest or self.read, width)
        self.refine_condition, self.refine_in = Condition(width), nn.Linear(width, width)
        self.refiner = nn.ModuleList(RefinerBlock(width, heads, mlp_ratio) for _ in range(refiner))
        self.condition, self.year = Condition(width), TwoLayers(WAVES, 2 * width, 2 * width)
        self.dual = nn.ModuleList(DualBlock(width, heads, mlp_ratio) for _ in range(dual))
        self.single = nn.ModuleList(SingleBlock(width, heads, mlp_ratio) for _ in range(single))
        self.norm, self.modulate = nn.LayerNorm(width, 1e-7, elementwise_affine=False), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, written // frames)
        self.rotation = Rotation(world, frames, rotary, theta, stretch)

    def forward(self, fields: Tensor, time: Tensor, *, scalars: Tensor | None = None) -> Tensor:
        level = fields.new_zeros(len(fields)) if scalars is None else scalars[:, 0]
        x = self.embed(fields[:, : self.read].unflatten(1, (self.frames, -1)).movedim(2, -1).flatten(1, 3))
        rest = fields[:, self.read :] if fields.shape[1] > self.read else fields
        past = self._refined(self.embed_past(rest.movedim(1, -1).flatten(1, 2)), level)
        scale, shift = self.year(_year_waves(time)).chunk(2, -1)
        condition = self.condition(level, past) * (1.0 + scale) + shift
        count = x.shape[1]
        for block in self.dual:
            x, past = block(x, past, condition, self.rotation)
        both = torch.cat([x, past], dim=1)
        for block in self.single:
            both = block(both, condition, self.rotation)
        scale, shift = self.modulate(F.silu(condition))[:, None].chunk(2, -1)
        out = self.out(self.norm(both[:, :count]) * (1.0 + scale) + shift)
        return out.unflatten(1, (self.frames, *fields.shape[2:])).movedim(-1, 2).flatten(1, 2).float()

    def _refined(self, past: Tensor, level: Tensor) -> Tensor:
        condition, past = self.refine_condition(level, past), self.refine_in(past)
        for block in self.refiner:
            past = block(past, condition, self.rotation)
        return past


class Rotation(nn.Module):
    """Turn pairs of channels of queries and keys (batch, head, token, channel) by where their tokens are.

    Tokens are those of the frames made, 1, 2, ..., then the known one, 0. count: number of the former.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, world: World, frames: int, channels: Sequence[int], theta: float, stretch: float) -> None:
        super().__init__()
        latitude, longitude = (np.deg2rad(axis) for axis in (world.lat_lon.latitude, world.lat_lon.longitude))
        times = np.array([*range(1, frames + 1), 0.0])
        grid = np.meshgrid(times, stretch * latitude, longitude, indexing="ij")
        angles = [
            axis.reshape(-1, 1) * theta ** (-np.arange(0, count, 2) / max(1, count))
            for axis, count in zip(grid, channels, strict=True)
        ]
        angle = np.concatenate(angles, axis=1)
        for name, values in (("cosine", np.cos(angle)), ("sine", np.sin(angle))):
            self.register_buffer(name, torch.as_tensor(values, dtype=torch.float32), persistent=False)
        self.count = frames * world.lat_lon.size

    def forward(self, x: Tensor, first: int = 0) -> Tensor:
        """Turn tokens of which the first is number `first`."""
        cosine, sine = (table[first : first + x.shape[2]] for table in (self.cosine, self.sine))
        real, imaginary = x.float().unflatten(-1, (-1, 2)).unbind(-1)
        turned = [real * cosine - imaginary * sine, imaginary * cosine + real * sine]
        return torch.stack(turned, -1).flatten(-2).to(x.dtype)


class JointMaps(nn.Module):
    """Map tokens (batch, token, channel) to queries, keys (both normed) and values, (batch, head, token, channel)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, width) for _ in range(3))
        self.norm_q, self.norm_k = (nn.RMSNorm(width // heads, 1e-7) for _ in range(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        return self.norm_q(q.float()), self.norm_k(k.float()), v


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Averages of v by softmax(q k^T / sqrt(d)), heads joined: (batch, token, channel)."""
    return F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v).transpose(1, 2).flatten(2)


class RefinerBlock(nn.Module):
    """Apply attention of the known tokens and an MLP, each with a gate."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, 1e-7) for _ in range(2))
        self.attention, self.gates = JointMaps(width, heads), nn.Linear(width, 2 * width)
        self.mlp = TwoLayers(width, int(mlp_ratio * width), width)

    def forward(self, x: Tensor, condition: Tensor, rotation: Rotation) -> Tensor:
        q, k, v = self.attention(self.norm1(x))
        first, second = self.gates(F.silu(condition))[:, None].chunk(2, -1)
        x = x + attended(rotation(q, rotation.count), rotation(k, rotation.count), v) * first
        return x + self.mlp(self.norm2(x)) * second


class DualBlock(nn.Module):
    """Apply attention of both streams together and an MLP for each, by maps of their own.

    As published, queries and keys of what is known are not turned here.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.future, self.past = Stream(width, heads, mlp_ratio), Stream(width, heads, mlp_ratio)

    def forward(self, x: Tensor, past: Tensor, condition: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        (q, k, v), future_condition = self.future.read(x, condition)
        (q_past, k_past, v_past), past_condition = self.past.read(past, condition)
        q, k = (torch.cat(pair, 2) for pair in ((rotation(q), q_past), (rotation(k), k_past)))
        joint, count = attended(q, k, torch.cat([v, v_past], 2)), x.shape[1]
        x, past = (
            self.future.moved(x, joint[:, :count], future_condition),
            self.past.moved(past, joint[:, count:], past_condition),
        )
        return x, past


class Stream(nn.Module):
    """Hold one of two streams of tokens: norms moved by the condition, maps to queries, keys and values, MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps, elementwise_affine=False) for eps in (1e-6, 1e-7))
        self.modulate, self.attention = nn.Linear(width, 6 * width), JointMaps(width, heads)
        self.project = nn.Linear(width, width)
        self.mlp = TwoLayers(width, int(mlp_ratio * width), width, gelu=True)

    def read(self, x: Tensor, condition: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
        """Queries, keys and values; and the rest of what moves and gates the stream."""
        shift, scale, *rest = self.modulate(F.silu(condition))[:, None].chunk(6, -1)
        return self.attention(self.norm1(x) * (1.0 + scale) + shift), tuple(rest)

    def moved(self, x: Tensor, mixed: Tensor, condition: tuple[Tensor, ...]) -> Tensor:
        """The stream after attention and MLP."""
        gate, shift, scale, mlp_gate = condition
        x = x + gate * self.project(mixed)
        return x + mlp_gate * self.mlp(self.norm2(x) * (1.0 + scale) + shift)


class SingleBlock(nn.Module):
    """Apply attention of all tokens beside an MLP, to the same input."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(mlp_ratio * width)
        self.norm, self.modulate = nn.LayerNorm(width, 1e-6, elementwise_affine=False), nn.Linear(width, 3 * width)
        self.attention, self.expand = JointMaps(width, heads), nn.Linear(width, hidden)
        self.project = nn.Linear(width + hidden, width)

    def forward(self, x: Tensor, condition: Tensor, rotation: Rotation) -> Tensor:
        shift, scale, gate = self.modulate(F.silu(condition))[:, None].chunk(3, -1)
        h = self.norm(x) * (1.0 + scale) + shift
        q, k, v = self.attention(h)
        mixed = attended(rotation(q), rotation(k), v)
        return x + gate * self.project(torch.cat([mixed, F.gelu(self.expand(h), approximate="tanh")], -1))


class TwoLayers(nn.Module):
    """Apply two linear maps with SiLU, or an approximated GELU, between them."""

    def __init__(self, into: int, hidden: int, out: int, *, gelu: bool = False) -> None:
        super().__init__()
        self.linear_1, self.linear_2, self.gelu = nn.Linear(into, hidden), nn.Linear(hidden, out), gelu

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.linear_1(x)
        return self.linear_2(F.gelu(hidden, approximate="tanh") if self.gelu else F.silu(hidden))


class Condition(nn.Module):
    """Embed the noise level (batch,) and the mean of known tokens as one vector, (batch, channel)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.level, self.mean = TwoLayers(WAVES, width, width), TwoLayers(width, width, width)

    def forward(self, level: Tensor, past: Tensor) -> Tensor:
        half = WAVES // 2
        phase = level.float()[:, None] * torch.exp(-math.log(1e4) / half * torch.arange(half, device=level.device))
        return self.level(torch.cat([phase.cos(), phase.sin()], -1)) + self.mean(past.mean(1))


def _year_waves(time: Tensor) -> Tensor:
    """Sines, then cosines of the time of year, of waves that are shorter and weaker one by one; (batch, WAVES)."""
    number = torch.arange(WAVES // 2, device=time.device)
    share = ((time.double() / YEAR) % 1.0).float()[:, None]
    phase, size = 2.0 * math.pi * share * (number + 1), torch.exp(-math.log(1e4) / len(number) * number)
    return torch.cat([phase.sin() * size, phase.cos() * size], -1)
