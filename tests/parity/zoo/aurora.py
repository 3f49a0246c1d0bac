"""Aurora; its normalisation of fields is left out, as ours is the Step's."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor, nn

from case import Case, checkout, stub
from emulators.grid import equiangular_grid

SURFACE, STATIC, UPPER = ("2t", "msl"), ("lsm", "z", "slt"), ("t", "q")
ROWS, COLUMNS, LEVELS = 28, 60, (1, 2, 3)
SMALL: dict[str, Any] = {
    "static_vars": STATIC,
    "atmos_vars": UPPER,
    "window_size": (2, 3, 4),
    "encoder_depths": (2, 2, 2),
    "encoder_num_heads": (1, 2, 4),
    "decoder_depths": (2, 2, 2),
    "decoder_num_heads": (4, 2, 1),
    "patch_size": 2,
    "embed_dim": 16,
    "num_heads": 4,
    "use_lora": False,
    "stabilise_level_agg": True,
}
OURS: dict[str, Any] = {
    "embed": 16,
    "encoder_depths": [2, 2, 2],
    "decoder_depths": [2, 2, 2],
    "heads": [1, 2, 4],
    "window": [2, 3, 4],
    "normed_gathering": True,
    "windows_padded": "last",
}


def theirs(kind: str = "Aurora", surface: tuple[str, ...] = SURFACE, **options: Any) -> nn.Module:
    checkout("aurora")
    stub("huggingface_hub", hf_hub_download=None)
    return getattr(importlib.import_module("aurora.model.aurora"), kind)(surf_vars=surface, **SMALL, **options)


def run(net: nn.Module, x: Tensor, surface: tuple[str, ...] = SURFACE, written: tuple[str, ...] = SURFACE) -> Tensor:
    """Without what their forward does before and after: units, cropping, clamping."""
    batches = importlib.import_module("aurora.batch")
    grid = equiangular_grid(ROWS, COLUMNS)
    count = 3 * len(UPPER) + len(surface)
    states = x[:, : 2 * count].unflatten(1, (2, count))
    batch = batches.Batch(
        {name: states[:, :, 6 + i] for i, name in enumerate(surface)},
        {name: x[:, None, 2 * count + i].expand(-1, 2, -1, -1) for i, name in enumerate(STATIC)},
        {name: states[:, :, 3 * i : 3 * i + 3] for i, name in enumerate(UPPER)},
        batches.Metadata(
            lat=torch.from_numpy(grid.latitude).float(),
            lon=torch.from_numpy(grid.longitude).float(),
            time=(datetime(1969, 12, 31, 18, tzinfo=UTC),) * len(x),
            atmos_levels=LEVELS,
        ),
    )
    batch = net._pre_encoder_hook(batch)
    hours, shape = torch.full((len(x),), 6.0), (4, ROWS // 2, COLUMNS // 2)
    latents = net.backbone(net.encoder(batch, lead_times=hours), lead_times=hours, rollout_step=0, patch_res=shape)
    out = net.decoder(latents, batch, lead_times=hours, patch_res=shape)
    return torch.cat([*out.atmos_vars.values(), torch.stack([out.surf_vars[name] for name in written], 1)], 1)


CASE = Case(
    "aurora.Aurora",
    OURS,
    theirs,
    {"prognostic": {"t": 3, "q": 3, "2t": 0, "msl": 0}, "forcing": dict.fromkeys(STATIC, 0)},
    (ROWS, COLUMNS),
    run,
    history=2,
)
