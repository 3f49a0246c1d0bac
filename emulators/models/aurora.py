"""Aurora: levels gathered into a few latent ones by a Perceiver, a 3-D Swin U-Net on these, and a Perceiver back.

    x = [surface; gathered(levels)] + place + area + lead + clock
    x <- x + s(c) norm(attention(x)) + b(c),    x <- x + s'(c) norm(MLP(x)) + b'(c)      within windows, s = b = 0 first
    y = [U-Net(x); its first stage],    surface fields = W y_0,    upper fields = W' spread(y_1 ... to the levels)

Bodnar et al. 2025, doi 10.1038/s41586-025-09005-y (arXiv 2405.13063), whose network this repeats, weights and all, but
that static and forcing fields are read once, not at both times. Low-rank updates of published weights (LoRA) are added
into the weights. Heads of air pollution and waves are not here.

Aurora 1.5 (PyPI microsoft-aurora 2.0, 2026) has smoother waves of the lead time, more variables, of which some are only
written, and an ensemble that adds noise to what the norms are told, token by token:

    c_0 = MLP(lead) + MLP'(noise),    c_k = the linear map of 2x2 neighbours of c_(k-1)      on stage k of the U-Net

Noise is drawn anew at each step of a rollout. For hours between two steps, give `interval` and, as published, the sum
of the last n draws over sqrt(n) as `noise`. Its half-precision arithmetic, with attention kept finite, is not here.

Light decoders read the latents y of all levels, with all else frozen if so wanted (Lehmann et al. 2025, arXiv
2506.19088); not parity-tested. Left open there: depth and latents (here a norm, one hidden layer, all of a patch).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from emulators.layers.attention.learned_queries import Resampler
from emulators.layers.attention.level_columns import LevelColumns
from emulators.layers.attention.patches import Doubling, Frame, Halving, PatchDecoder, PatchEmbedding, unpatched
from emulators.layers.attention.transformer import MLP, drop_path_stages, initialise_linear
from emulators.layers.attention.wave_embedding import (
    CLOCK,
    LEVELS,
    lead_waves,
    log_spaced_waves,
    patch_position_waves,
    pressures,
)
from emulators.layers.attention.window_attention import WindowAttention
from emulators.layers.attention.windows import ConditionedBlocks, WindowBlock, Windows, refuse_stages
from emulators.layers.conditioned_norms import AdaptiveNorm
from emulators.layers.convolution import pole_mirror
from emulators.layers.low_rank import with_low_rank_updates
from emulators.layers.sample_draws import Generators, normal
from emulators.variables import VariableSet
from emulators.world import World, hours_of

ABOUT = {
    "states": "2",
    "step": "any, an input",
    "grid": "any; same levels for all variables",
    "parity": "Aurora, 1e-5",
}
_READ = tuple("2t 10u 10v msl 2d tcwv tcc 100u 100v sp lcc mcc hcc skt stl1 swvl1 ci scaled_sd".split())
WRITTEN_ONLY = tuple("i10fg blh uvb_1h ssrd_1h ttr_1h scaled_tp_1h scaled_sf_1h".split())
_GROUND = (
    *"lsm z anor isor cvh cl dl cvl slor slt_0 slt_1 slt_2 slt_3 slt_4 slt_5 slt_6 slt_7 sdfor sdor tvh_0".split(),
    *"tvh_18 tvh_19 tvh_3 tvh_4 tvh_5 tvh_6 tvl_0 tvl_1 tvl_10 tvl_11 tvl_13 tvl_16 tvl_17 tvl_2 tvl_7 tvl_9".split(),
)
ORDER = (*_READ, "insolation", *WRITTEN_ONLY, *_GROUND, "u", "v", "t", "q", "slt")  # of variables, each in its group
_BLOCK = r"backbone\.(en|de)coder_layers\.(\d)\.blocks\.(\d+)\."
_NAMES = (
    (r"encoder\.surf_token_embeds\.(?:weights\.(\w+)|weight)", r"embed_surface.weight.\1"),
    (r"encoder\.atmos_token_embeds\.(?:weights\.(\w+)|weight)", r"embed_levels.weight.\1"),
    (r"encoder\.surf_token_embeds\.bias", r"embed_surface.bias"),
    (r"encoder\.atmos_token_embeds\.bias", r"embed_levels.bias"),
    (r"decoder\.surf_heads?\.(?:(\w+)\.)?(weight|bias)", r"surface.\2.\1"),
    (r"decoder\.atmos_heads?\.(?:(\w+)\.)?(weight|bias)", r"upper.\2.\1"),
    (r"encoder\.atmos_latents", r"latents"),
    (r"encoder\.surf_level_encoding", r"surface_level"),
    (r"encoder\.surf_mlp\.net\.0\.(\w+)", r"surface_mlp.expand.\1"),
    (r"encoder\.surf_mlp\.net\.2\.(\w+)", r"surface_mlp.contract.\1"),
    (r"encoder\.surf_norm\.(\w+)", r"surface_norm.\1"),
    (r"encoder\.pos_embed\.(\w+)", r"of_place.\1"),
    (r"encoder\.scale_embed\.(\w+)", r"of_area.\1"),
    (r"encoder\.lead_time_embed\.(\w+)", r"of_lead.\1"),
    (r"encoder\.absolute_time_embed\.(\w+)", r"of_clock.\1"),
    (r"encoder\.atmos_levels_embed\.(\w+)", r"of_level.\1"),
    (r"decoder\.atmos_levels_embed\.(\w+)", r"to_level.\1"),
    *(
        (rf"{theirs}\.layers\.(\d)\.{part}\.(\w+)", rf"{ours}.layers.\1.{name}.\2")
        for theirs, ours in ((r"encoder\.level_agg", "gathering"), (r"decoder\.level_decoder", "spreading"))
        for part, name in (
            (r"0\.to_q", "attention.query"),
            (r"0\.to_kv", "attention.keys_values"),
            (r"0\.to_out", "attention.projection"),
            (r"0\.(?:ln_q|q_ln)", "attention.norm_query"),
            (r"0\.(?:ln_k|k_ln)", "attention.norm_key"),
            (r"1\.net\.0", "mlp.expand"),
            (r"1\.net\.2", "mlp.contract"),
            (r"2", "norm_in"),
            (r"3", "norm_out"),
        )
    ),
    (r"backbone\.time_mlp\.(\d)\.(\w+)", r"lead_mlp.\1.\2"),
    (r"backbone\.noise_mlp\.(\d)\.(\w+)", r"noise_mlp.\1.\2"),
    (r"backbone\.context_down_layers\.(\d)\.reduction\.weight", r"noise_halvings.\1.linear.weight"),
    (rf"{_BLOCK}norm1\.ln_modulation\.1\.(\w+)", r"\1coder.\2.\3.norm_in.modulation.\4"),
    (rf"{_BLOCK}norm2\.ln_modulation\.1\.(\w+)", r"\1coder.\2.\3.norm_out.modulation.\4"),
    (rf"{_BLOCK}attn\.qkv\.(\w+)", r"\1coder.\2.\3.attention.qkv.\4"),
    (rf"{_BLOCK}attn\.proj\.(\w+)", r"\1coder.\2.\3.attention.projection.\4"),
    *(
        (rf"{_BLOCK}attn\.lora_{part}\.loras\.(\d+)\.lora_([AB])", rf"\1coder.\2.\3.attention.{name}.low_rank.\4.\5")
        for part, name in (("qkv", "qkv"), ("proj", "projection"))
    ),
    (rf"{_BLOCK}mlp\.fc1\.(\w+)", r"\1coder.\2.\3.mlp.expand.\4"),
    (rf"{_BLOCK}mlp\.fc2\.(\w+)", r"\1coder.\2.\3.mlp.contract.\4"),
    (r"backbone\.encoder_layers\.(\d)\.downsample\.reduction\.(\w+)", r"halvings.\1.linear.\2"),
    (r"backbone\.encoder_layers\.(\d)\.downsample\.norm\.(\w+)", r"halvings.\1.norm.\2"),
    (r"backbone\.decoder_layers\.(\d)\.upsample\.lin1\.(\w+)", r"doublings.\1.widen.\2"),
    (r"backbone\.decoder_layers\.(\d)\.upsample\.lin2\.(\w+)", r"doublings.\1.mix.\2"),
    (r"backbone\.decoder_layers\.(\d)\.upsample\.norm\.(\w+)", r"doublings.\1.norm.\2"),
)
PUBLISHED = tuple((rf"(?:net\.)?{theirs}", ours) for theirs, ours in _NAMES)  # names in Aurora's checkpoints, and ours


class Aurora(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon), `interval` hours later.

    Published with history 2. patch: rows and columns of a token. embed: channels at full resolution, doubled at each
    further stage. encoder_depths, decoder_depths: number of blocks of each stage, in order. heads: attention heads of
    the encoder's stages and, in reverse, of the decoder's. window: levels, rows and columns of tokens in a window.
    latent_levels: number of latent levels, including that of the surface. level_heads, level_depth, level_mlp_ratio:
    heads, layers and MLP ratio of the Perceivers; level_mlp_ratio of the one back, mlp_ratio of everything else.
    normed_gathering: layer norm on keys and queries of the first Perceiver. windows_padded: `first` or `last`, see
    emulators.layers.attention.windows. light: diagnostic variables without levels that light decoders of `light_hidden`
    channels read from the latents. frozen: train the light decoders only. drop_path: rate of dropped residual paths in
    the last block of encoder and decoder, growing linearly from 0. smooth_leads: see
    emulators.layers.attention.wave_embedding.lead_waves. noisy: whether norms are told noise, `embed` numbers a token.
    fit, edges: see emulators.layers.attention.patches.Frame.
    """

    conditioning: Sequence[str] = ("interval",)
    places: Tensor
    areas: Tensor
    levels_read: Tensor
    levels_written: Tensor
    order: Tensor
    noise_channels = 0
    additions = ("light.",)  # which weights of the network without light decoders lack

    def __init__(
        self,
        world: World,
        *,
        patch: int = 2,
        embed: int = 64,
        encoder_depths: Sequence[int] = (2, 2),
        decoder_depths: Sequence[int] = (2, 2),
        heads: Sequence[int] = (2, 4),
        window: Sequence[int] = (2, 4, 8),
        mlp_ratio: float = 4.0,
        latent_levels: int = 4,
        level_heads: int = 4,
        level_depth: int = 1,
        level_mlp_ratio: float = 2.0,
        normed_gathering: bool = False,
        windows_padded: str = "first",
        light: Sequence[str] = (),
        light_hidden: int = 256,
        frozen: bool = False,
        drop_path: float = 0.0,
        smooth_leads: bool = False,
        noisy: bool = False,
        fit: str = "pad",
        edges: str | None = None,
    ) -> None:
        super().__init__()
        count = len(encoder_depths)
        refuse_stages(window, 3, encoder_depths=encoder_depths, decoder_depths=decoder_depths, heads=heads)
        self.patch, self.hours, self.frozen = (patch, patch), hours_of(world.timestep), frozen
        self.embed, self.smooth_leads, world = embed, smooth_leads, self._without_light(world, light)
        self.columns, self.mirror = LevelColumns(world), pole_mirror(world)
        self.frame = Frame(world.lat_lon, patch, patch, fit, edges)
        self._encoding(world, embed, mlp_ratio, latent_levels, level_heads, level_depth, normed_gathering)
        shapes = [[latent_levels, *(-(-size // (patch * 2**k)) for size in self.frame.shape)] for k in range(count)]
        widths = [embed * 2**k for k in range(count)]

        def stage(k: int, drops: Sequence[float]) -> ConditionedBlocks:
            blocks = ConditionedBlocks()
            for i, drop in enumerate(drops):
                windows = Windows(
                    shapes[k], window, shifted=i % 2 == 1, cyclic=world.lat_lon.is_cyclic, padded=windows_padded
                )
                norm, attention = partial(AdaptiveNorm, condition=embed), WindowAttention(widths[k], heads[k])
                blocks.append(
                    WindowBlock(widths[k], attention, windows, mlp_ratio=mlp_ratio, norm=norm, drop_path=drop)
                )
            return blocks

        last = 0.0 if frozen else drop_path
        self._telling(embed, count, noisy)
        self.encoder = nn.ModuleList(stage(k, drops) for k, drops in enumerate(drop_path_stages(last, encoder_depths)))
        self.halvings = nn.ModuleList(Halving(width) for width in widths[:-1])
        self.decoder = nn.ModuleList(
            stage(count - 1 - k, drops) for k, drops in enumerate(drop_path_stages(last, decoder_depths))
        )
        self.doublings = nn.ModuleList(Doubling(widths[k], shapes[k][1:]) for k in reversed(range(count - 1)))
        self._decoding(embed, latent_levels, level_heads, level_depth, level_mlp_ratio, light, light_hidden)
        self._initialise()

    def _initialise(self) -> None:
        """Set initial weights, and freeze all but light decoders where that is asked for."""
        initialise_linear(self)
        for module in self.modules():
            if isinstance(module, AdaptiveNorm):
                nn.init.zeros_(module.modulation.weight)
        if self.frozen:
            for name, parameter in self.named_parameters():
                parameter.requires_grad_(name.startswith("light."))

    def _without_light(self, world: World, light: Sequence[str]) -> World:
        """Return the World without light variables; register the order of output channels and the learned variables."""
        if self.frozen and not light:
            raise ValueError("A frozen network has nothing to train but light decoders: name variables in light.")
        diagnostic = {v.name: v for v in world.diagnostic}
        if unfit := [name for name in light if name not in diagnostic or diagnostic[name].levels]:
            raise ValueError(
                f"Light decoders write diagnostic variables without levels; got {', '.join(unfit)} among "
                f"{', '.join(diagnostic) or 'none'}."
            )
        rest = replace(world, diagnostic=VariableSet(tuple(v for v in world.diagnostic if v.name not in light)))
        written = [*rest.predicted.channels, *light]
        order = torch.tensor([written.index(channel) for channel in world.predicted.channels], device="cpu")
        self.register_buffer("order", order, persistent=False)
        self.learned = tuple(light) if self.frozen else ()
        return rest

    def _telling(self, embed: int, stages: int, noisy: bool) -> None:
        """Create the modules that make of lead time and noise what norms are told."""
        self.lead_mlp = nn.Sequential(nn.Linear(embed, embed), nn.SiLU(), nn.Linear(embed, embed))
        if noisy:
            self.conditioning, self.noise_channels = ("generator", "interval"), embed
            self.noise_mlp = nn.Sequential(nn.Linear(embed, embed), nn.SiLU(), nn.Linear(embed, embed))
            self.noise_halvings = nn.ModuleList(Halving(embed, embed, normed=False) for _ in range(stages - 1))

    def _encoding(
        self, world: World, embed: int, mlp_ratio: float, latent_levels: int, heads: int, depth: int, normed: bool
    ) -> None:
        """Create the modules that turn fields into tokens."""
        if latent_levels < 2:
            raise ValueError(f"Expected at least 2 latent_levels, the surface's own among them; got {latent_levels}.")
        self.embed_surface = PatchEmbedding(self.columns.read_single, embed, self.patch)
        self.embed_levels = PatchEmbedding(self.columns.read_upper, embed, self.patch)
        self.surface_level = nn.Parameter(nn.init.trunc_normal_(torch.empty(embed), std=0.02))
        self.surface_mlp, self.surface_norm = MLP(embed, int(mlp_ratio * embed)), nn.LayerNorm(embed)
        self.latents = nn.Parameter(nn.init.trunc_normal_(torch.empty(latent_levels - 1, embed), std=0.02))
        self.of_place, self.of_area, self.of_lead, self.of_clock, self.of_level = (
            nn.Linear(embed, embed) for _ in range(5)
        )
        self.gathering = Resampler(embed, heads, depth, mlp_ratio, normed)
        places, areas = patch_position_waves(world.lat_lon, self.frame, self.patch[0], embed)
        levels = pressures(self.columns.levels)
        tables = {"places": places, "areas": areas}
        tables |= {"levels_read": log_spaced_waves(levels, LEVELS, embed)}
        tables |= {"levels_written": log_spaced_waves(levels, LEVELS, 2 * embed)}
        for name, value in tables.items():
            self.register_buffer(name, value, persistent=False)

    def _decoding(
        self,
        embed: int,
        latent_levels: int,
        heads: int,
        depth: int,
        mlp_ratio: float,
        light: Sequence[str],
        hidden: int,
    ) -> None:
        """Create the modules that turn tokens into fields."""
        self.to_level = nn.Linear(2 * embed, 2 * embed)
        self.spreading = Resampler(2 * embed, heads, depth, mlp_ratio)
        self.surface = nn.Linear(2 * embed, self.patch[0] ** 2 * self.columns.written_single)
        self.upper = nn.Linear(2 * embed, self.patch[0] ** 2 * self.columns.written_upper)
        self.light = nn.ModuleDict(
            {name: PatchDecoder(latent_levels * 2 * embed, hidden, self.patch) for name in light}
        )

    def forward(
        self,
        fields: Tensor,
        time: Tensor,
        *,
        interval: Tensor | None = None,
        generator: Generators = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Return the fields `interval` hours later, (batch,); None for the World's timestep.

        noise: of the finest tokens, (batch, latent level, lat, lon, channel), or None to draw it from `generator`, one
        for all cases or one for each. Without a generator it is drawn by sample in training and zero in evaluation.
        """
        hours = fields.new_full((len(fields),), self.hours) if interval is None else interval.to(fields.dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            latents = self.encoded(self.frame.inward(fields, self.mirror), time, hours)
            latents = self.backbone(latents, self.conditions(latents, hours, generator, noise))
            out = self.decoded(latents)
        if self.light:
            out = torch.cat([out, *(decoder(latents) for decoder in self.light.values())], dim=1)
            out = out.index_select(1, self.order)
        return self.frame.outward(out)

    def encoded(self, fields: Tensor, time: Tensor, hours: Tensor) -> Tensor:
        """Return tokens (batch, latent level, lat, lon, channel) of fitted fields; time: the output's, in seconds."""
        columns, single = self.columns.split(fields)
        surface = self.embed_surface(single) + self.surface_level
        surface = surface + self.surface_norm(self.surface_mlp(surface))
        levels = self.embed_levels(columns.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(fields), -1))
        levels = levels.permute(0, 2, 3, 1, 4) + self.of_level(self.levels_read)
        latents = self.gathering(self.latents, levels.flatten(0, 2)).unflatten(0, levels.shape[:3])
        x = torch.cat([surface[:, None], latents.permute(0, 3, 1, 2, 4)], dim=1)
        now = time.double() / 3600.0 - hours.double()
        lead, clock = lead_waves(hours, self.embed, self.smooth_leads), log_spaced_waves(now, CLOCK, self.embed)
        when = self.of_lead(lead) + self.of_clock(clock)
        return x + (self.of_place(self.places) + self.of_area(self.areas)) + when[:, None, None, None]

    def conditions(self, x: Tensor, hours: Tensor, generator: Generators, noise: Tensor | None) -> list[Tensor]:
        """Return what the norms of each stage are told, the finest first, of cases or of their tokens."""
        lead_numbers = self.lead_mlp(lead_waves(hours, self.embed, self.smooth_leads))[:, None, None, None]
        if not self.noise_channels:
            return [lead_numbers] * len(self.encoder)
        if noise is None and (self.training or generator is not None):
            noise = torch.stack(normal(len(x), x.shape[1:], x.device, generator)).to(x.dtype)
        each = [lead_numbers + self.noise_mlp(torch.zeros_like(x) if noise is None else noise)]
        for halving in self.noise_halvings:
            each.append(halving(each[-1]))
        return each

    def backbone(self, x: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        """Return tokens of twice the channels, passed through the U-Net; conditions of each stage, finest first."""
        seen = []
        for k, stage in enumerate(self.encoder):
            x = stage(x, conditions[k])
            seen.append(x)
            if k < len(self.halvings):
                x = self.halvings[k](x)
        for k, stage in enumerate(self.decoder):
            x = stage(x, conditions[-1 - k])
            if k < len(self.doublings):
                x = self.doublings[k](x)
                x = x if k == 0 else x + seen[-2 - k]  # none at the coarsest, as published
        return torch.cat([x, seen[0]], dim=-1)

    def decoded(self, latents: Tensor) -> Tensor:
        """Return the fields of latents (batch, latent level, lat, lon, channel)."""
        upper = latents[:, 1:].permute(0, 2, 3, 1, 4)
        upper = self.upper(self.spreading(self.to_level(self.levels_written), upper.flatten(0, 2)))
        upper = upper.unflatten(0, (len(latents), *latents.shape[2:4])).permute(0, 3, 1, 2, 4)
        columns = unpatched(upper.flatten(0, 1), self.patch).unflatten(0, (len(latents), -1)).transpose(1, 2)
        return self.columns.join(columns, unpatched(self.surface(latents[:, 0]), self.patch))


def adapted(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return published weights: one tensor for all variables, static fields once, low-rank updates added.

    Static fields have no head, and variables that are only written are not read: published networks read zeros in their
    place. Variables are in the published ORDER, others after them as stored; the World's must have the same order.
    """
    theirs = _named(theirs)
    heads = ("surface.weight", "surface.bias", "upper.weight", "upper.bias")
    keys = ("embed_surface.weight", "embed_levels.weight", *heads)
    ours = {name: value for name, value in theirs.items() if not name.startswith(tuple(f"{key}." for key in keys))}

    def rank(name: str) -> tuple[bool, int]:
        return f"surface.bias.{name}" not in theirs, ORDER.index(name) if name in ORDER else len(ORDER)

    for key in keys:
        names = sorted((name[len(key) + 1 :] for name in theirs if name.startswith(f"{key}.")), key=rank)
        if key not in heads:
            tensors = [theirs[f"{key}.{name}"] for name in names if name not in WRITTEN_ONLY]
            ours[key] = torch.cat(tensors, 1)
        else:  # older files have one tensor already
            tensors = [theirs[f"{key}.{name}"] for name in names]
            ours[key] = tensors[0] if names == [""] else torch.stack(tensors, 1).flatten(0, 1)
    unread = sum(f"surface.bias.{name}" in theirs for name in WRITTEN_ONLY)
    fields = ours["surface.bias"].numel() // ours["embed_surface.weight"].shape[-1] ** 2 - unread
    changing, fixed = ours["embed_surface.weight"].tensor_split([fields], dim=1)
    ours["embed_surface.weight"] = torch.cat([changing.transpose(1, 2).flatten(1, 2), fixed.sum(2)], 1)
    ours["embed_levels.weight"] = ours["embed_levels.weight"].transpose(1, 2).flatten(1, 2)
    return with_low_rank_updates(ours)


def _named(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of Aurora 1.5 that have one tensor for all surface variables with one for each."""
    written = (*_READ, *WRITTEN_ONLY, "insolation")
    read = (*written, *_GROUND)
    if "embed_surface.weight." not in theirs or theirs["embed_surface.weight."].shape[1] != len(read):
        return theirs
    ours = dict(theirs)
    kernels = ours.pop("embed_surface.weight.")
    ours |= {f"embed_surface.weight.{name}": kernels[:, [i]] for i, name in enumerate(read)}
    for part in ("surface.weight", "surface.bias"):
        heads = ours.pop(f"{part}.").unflatten(0, (-1, len(written)))
        ours |= {f"{part}.{name}": heads[:, i] for i, name in enumerate(written)}
    return ours
