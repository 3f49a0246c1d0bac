"""Published weights of SFNOs as ours: of ACE, of Makani and of the examples of torch-harmonics.

Maps at every point are 1x1 convolutions there. The matrices of a degree are (in, out, degree, part) in ACE and Makani,
complex (out, in, degree) in torch-harmonics. ACE's decoder reads [inside, raw input] by one map, which is two here;
scale and shift of its conditioned norms are two maps there and one here, and have the 1 of 1 + scale in them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

PUBLISHED = (  # their names, and ours
    (r"pos_embed", "position.weight"),
    (r"(encoder|decoder)\.(?:fwd\.)?(\d+)\.(.*)", r"\1.\2.\3"),
    (r"residual_transform\.(.*)", r"skip.\1"),
    (r"norm_big_skip\.(.*)", r"skip_norm.\1"),
    (r"(blocks\.\d+\.)norm0\.(.*)", r"\1norm_in.\2"),
    (r"(blocks\.\d+\.)norm1\.(.*)", r"\1norm_out.\2"),
    (r"(blocks\.\d+\.)(?:inner|outer)_skip\.(.*)", r"\1skip.\2"),
    (r"(blocks\.\d+\.)(?:filter\.filter|global_conv)\.weight", r"\1filter.convolution.weight"),
    (r"(blocks\.\d+\.)filter\.filter\.bias", r"\1filter.bias"),
    (r"(blocks\.\d+\.)mlp\.fwd\.0\.(.*)", r"\1mlp.0.\2"),
    (r"(blocks\.\d+\.)mlp\.fwd\.[23]\.(.*)", r"\1mlp.2.\2"),
)
CONDITIONS = {"scalars": "", "labels": "_labels", "noise": "_2d"}


def adapted(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of an SFNO out of weights that have our names already."""
    ours = {name: _shaped(name, value) for name, value in theirs.items() if ".W_" not in name}
    for norm in {name.partition(".W_")[0] for name in theirs if ".W_" in name}:
        ours |= _conditioned(norm, theirs)
    return _decoder(ours)


def _shaped(name: str, value: Tensor) -> Tensor:
    if name == "position.weight":
        return value.permute(3, 2, 0, 1)
    if name.endswith("convolution.weight"):
        if value.is_complex():
            return torch.view_as_real(value).permute(2, 1, 3, 0)
        return value.reshape(value.shape[-4:]).permute(2, 0, 3, 1)  # without the axis of groups
    return value.flatten() if name.endswith("filter.bias") else _point(value)


def _point(value: Tensor) -> Tensor:
    """A 1x1 convolution as a matrix."""
    return value.flatten(1) if value.ndim == 4 else value


def _conditioned(norm: str, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The maps of a norm from numbers, labels and noise, each to scale and shift."""
    maps = {}
    for kind, suffix in CONDITIONS.items():
        for part in ("weight", "bias"):
            names = [f"{norm}.W_{which}{suffix}.{part}" for which in ("scale", "bias")]
            if names[0] in theirs:
                maps[f"{norm}.maps.{kind}.{part}"] = torch.cat([_point(theirs[name]) for name in names])
    bias = f"{norm}.maps.scalars.bias"
    if bias in maps:
        scale, shift = maps[bias].chunk(2)
        maps[bias] = torch.cat([scale - 1.0, shift])
    return maps


def _decoder(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The layers of the decoder by their place: first, hidden, last; and the first one's share of the raw input."""
    numbers = sorted({int(match[1]) for name in weights if (match := re.match(r"decoder\.(\d+)\.", name))})
    last = numbers[-1] if numbers else None
    ours = {}
    for name, value in weights.items():
        match = re.fullmatch(r"decoder\.(\d+)\.(.*)", name)
        if match and int(match[1]) == last:
            name = f"head.{match[2]}"
        elif match:
            name = f"decoder.{match[2]}" if match[1] == "0" else f"hidden.{int(match[1]) - 2}.{match[2]}"
        ours[name] = value
    first = ours.get("decoder.weight")
    if first is not None and first.shape[1] > first.shape[0]:
        ours["decoder.weight"], ours["skip.weight"] = first.split([len(first), first.shape[1] - len(first)], dim=1)
    return ours
