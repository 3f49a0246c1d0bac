"""DLWP-HPX with its memory, warmed up by one pass on two earlier states."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from case import Case, checkout, stub

SIDE, WIDTHS, DILATIONS = 8, [6, 5, 4], [1, 3, 2]
PAIR, STATES, FIELDS = 2, 4, 3


def part(name: str, **options: Any) -> dict[str, Any]:
    return {"_target_": f"dlwp.model.modules.{name}", **options}


def theirs() -> nn.Module:
    checkout("dlwp-hpx", "src/dlwp-hpx")
    stub("einops", rearrange=None)
    stub("einops.layers")
    stub("einops.layers.torch", Rearrange=None)
    torch.cuda.nvtx.range_push = torch.cuda.nvtx.range_pop = lambda *args: None
    configuration = importlib.import_module("omegaconf").OmegaConf.create
    active = {"activation": part("activations.CappedGELU", cap_value=10)}
    block = part("blocks.ConvNeXtBlock", kernel_size=3, upscale_factor=4, **active)
    memory = part("blocks.ConvGRUBlock", kernel_size=1)
    down = {"n_channels": WIDTHS, "dilations": DILATIONS, "down_sampling_block": part("blocks.AvgPool", pooling=2)}
    up = {"n_channels": WIDTHS[::-1], "dilations": DILATIONS[::-1], "recurrent_block": memory}
    up["up_sampling_block"] = part("blocks.TransposedConvUpsample", upsampling=2, **active)
    up["output_layer"] = part("blocks.BasicConvBlock", kernel_size=1, dilation=1, n_layers=1, activation=None)
    encoder = configuration(part("encoder.UNetEncoder", _recursive_=False, conv_block=block, **down))
    decoder = configuration(part("decoder.UNetDecoder", _recursive_=False, conv_block=block, **up))
    sizes = {"input_channels": FIELDS, "output_channels": FIELDS, "input_time_dim": PAIR, "output_time_dim": PAIR}
    return importlib.import_module("dlwp.model.models.unet").HEALPixRecUNet(
        encoder, decoder, n_constants=0, decoder_input_channels=1, delta_time="6h", reset_cycle="24h", **sizes
    )


def squares(x: Tensor, side: int) -> Tensor:
    """Nested cells (batch, channel, cell) as (batch, face, channel, row, column)."""
    bits = side.bit_length() - 1
    quads = x.unflatten(-1, (12, *[2] * 2 * bits))  # bits of y and x in turn, the highest first
    y, x_bits = ([first + 2 * bit for bit in range(bits)] for first in (3, 4))
    return quads.permute(0, 2, 1, *x_bits, *y).reshape(len(x), 12, -1, side, side).flip(-2, -1)


def cells(faces: Tensor) -> Tensor:
    """Back to nested cells (batch, channel, cell)."""
    order = squares(torch.arange(faces[:1, :, :1].numel())[None, None], faces.shape[-1]).flatten().argsort()
    return faces.transpose(1, 2).flatten(2)[..., order]


def call(net: nn.Module, x: Tensor) -> Tensor:
    """Their change of the last two states; sunlight is the same in both passes."""
    faces = squares(x, SIDE)
    past, sun = faces[:, :, : STATES * FIELDS], faces[:, :, STATES * FIELDS :, None]
    past = past.unflatten(2, (STATES, FIELDS))
    change = net([past, torch.cat([sun, sun], dim=2)]) - past[:, :, -PAIR:]
    return cells(change.flatten(2, 3))


CASE = Case(
    "dlwp_hpx.DLWPHEALPix",
    {"channels": WIDTHS, "dilation": DILATIONS, "states": PAIR},
    theirs,
    {"prognostic": FIELDS, "diagnostic": FIELDS, "forcing": PAIR},
    f"healpix:{SIDE}:nested",
    call,
    history=STATES,
)
