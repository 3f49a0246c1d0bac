"""Networks of others, built from checkouts of their code, and what is stored of them for where there are none.

EMUL_PEERS names a folder of checkouts: NVlabs/FourCastNet, aditya-grover/climate-learn, and so on, each under the name
of its repository. Weights are a recipe by name and shape, so that a stored case holds names, shapes, and what came out.

    EMUL_PEERS=... python tests/parity/zoo.py afno vit      # writes tests/data/zoo/<case>.npz anew
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

FOLDER = Path(__file__).parents[1] / "data" / "zoo"
BATCH = 2


@dataclass(frozen=True)
class Case:
    """One network. target, options: ours. channels: prognostic, forcing, diagnostic. peer: builds theirs.

    call: runs theirs on fields (batch, channel, lat, lon).
    """

    target: str
    options: dict[str, Any]
    peer: Callable[[], nn.Module]
    channels: dict[str, Any]
    grid: tuple[int, int]
    call: Callable[[nn.Module, Tensor], Tensor] = lambda net, fields: net(fields)
    history: int = 1
    told: dict[str, float] = field(default_factory=dict)
    adapt: dict[str, Any] = field(default_factory=dict)


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Gaussian numbers that depend on the name alone."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)


def recipe(name: str, shape: tuple[int, ...]) -> Tensor:
    """Weights by their name; statistics and norms stay near those of trained networks."""
    values = noise(name, shape)
    if name.endswith("running_var"):
        values = 0.5 + np.abs(values)
    elif name.endswith("weight") and len(shape) == 1:
        values = 1.0 + 0.1 * values
    elif len(shape) > 1:
        values = values / np.sqrt(max(1, np.prod(shape[1:])))
    else:
        values = 0.1 * values
    return torch.from_numpy(values.astype(np.float32))


def fields(case: Case, channels: int) -> Tensor:
    return torch.from_numpy(noise("fields", (BATCH, channels, *case.grid)).astype(np.float32))


def randomised(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Fill a network of theirs by the recipe; names and shapes of what was filled."""
    shapes = {}
    state = net.state_dict()
    for name, value in state.items():
        if value.is_floating_point() and value.ndim:
            shapes[name] = tuple(value.shape)
            state[name] = recipe(name, shapes[name])
    net.load_state_dict(state)
    return shapes


def result(run: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """What comes out, and the gradient of a fixed sum of it with respect to the fields."""
    x = x.clone().requires_grad_()
    out = run(x)
    (out * torch.from_numpy(noise("slopes", tuple(out.shape)).astype(np.float32))).mean().backward()
    return out.detach(), x.grad


def checkout(name: str, inside: str = "") -> Path:
    """The folder of a checkout, put before all others from which modules come."""
    path = Path(os.environ["EMUL_PEERS"]) / name / inside
    if not path.exists():
        raise FileNotFoundError(f"no checkout at {path}")
    sys.path.insert(0, str(path))
    return path


def stub(name: str, **contents: Any) -> None:
    """A module with just these contents, where theirs is not needed."""
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.__path__ = []
        sys.modules[name] = module
    for key, value in contents.items():
        setattr(sys.modules[name], key, value)


def climate_learn(network: str) -> Any:
    path = checkout("climate-learn", "src")
    for name, folder in (("climate_learn", ""), ("climate_learn.models", "models"), ("climate_learn.models.hub", "")):
        stub(name)
        sys.modules[name].__path__ = (
            [str(path / name.replace(".", "/"))] if not folder else [str(path / "climate_learn" / folder)]
        )
    stub("climate_learn.models.hub.utils", register=lambda name: lambda kind: kind)
    return importlib.import_module(f"climate_learn.models.hub.{network}")


def vit() -> nn.Module:
    return climate_learn("vit").VisionTransformer(
        (16, 32), 5, 3, 1, patch_size=2, embed_dim=32, depth=2, decoder_depth=2, num_heads=4, learn_pos_emb=True
    )


def resnet() -> nn.Module:
    return climate_learn("resnet").ResNet(5, 3, hidden_channels=16, n_blocks=3)


def attention_unet() -> nn.Module:
    path = checkout("nonlocal_gwfluxes")
    sys.path.insert(0, str(next(path.rglob("model_definition.py")).parent))
    module = importlib.import_module("model_definition")
    net = module.Attention_UNet(5, 3)
    widths = dict(zip((64, 128, 256, 512, 1024), (4, 6, 8, 10, 12), strict=True))  # theirs are fixed

    def narrow(ci: int) -> int:
        return widths.get(ci, ci)

    w = [narrow(c) for c in (64, 128, 256, 512, 1024)]
    net.conv1 = module.Conv_block(5, w[0])
    for k in range(1, 5):
        setattr(net, f"conv{k + 1}", module.Conv_block(w[k - 1], w[k]))
        setattr(net, f"up{k + 1}", module.Upsample(w[k], w[k - 1]))
        setattr(net, f"attn{k + 1}", module.Attention_block(w[k - 1], w[k - 1], w[k - 1] // 2))
        setattr(net, f"upconv{k + 1}", module.Conv_block(2 * w[k - 1], w[k - 1]))
    net.conv1x1 = nn.Conv2d(w[0], 3, 1)
    return net


def samudra() -> nn.Module:
    path = checkout("Samudra", "src")
    for name in ("samudra", "samudra.models", "samudra.models.modules", "samudra.utils"):
        stub(name)
        sys.modules[name].__path__ = [str(path / name.replace(".", "/"))]
    anything = type("Anything", (), {"__getitem__": lambda self, key: Tensor})()
    stub("jaxtyping", Float=anything, Int=anything, Bool=anything)
    stub("samudra.utils.train", pairwise=importlib.import_module("itertools").pairwise)
    blocks = importlib.import_module("samudra.models.modules.blocks")
    backbone = importlib.import_module("samudra.models.modules.unet_backbone").UNetBackbone

    def block(**given: Any) -> nn.Module:
        return blocks.ConvNeXtBlock(kernel_size=3, upscale_factor=2, **given)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = backbone(
                5,
                [6, 8, 10],
                [1, 2, 3],
                [1, 1, 1],
                "circular",
                block,
                blocks.AvgPool(2),
                lambda **_: blocks.ZonallyPeriodicBilinearUpsample(2),
                None,
            )
            self.decoder = nn.Conv2d(6, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.pad(self.unet(x), (1, 1, 0, 0), mode="circular")
            return self.decoder(nn.functional.pad(x, (0, 0, 1, 1)))

    return Whole()


def afno() -> nn.Module:
    checkout("FourCastNet")
    stub("numpy.lib.arraypad", pad=np.pad)
    stub("timm.models.layers", DropPath=nn.Identity, trunc_normal_=nn.init.trunc_normal_)
    stub("utils")
    stub("utils.img_utils", PeriodicPad2d=nn.Identity)
    module = importlib.import_module("networks.afnonet")
    params = types.SimpleNamespace(patch_size=2, N_in_channels=5, N_out_channels=3, num_blocks=4)
    return module.AFNONet(params, img_size=(16, 32), embed_dim=32, depth=2)


IN5_OUT3 = {"prognostic": 3, "forcing": 2}
CASES = {
    "vit": Case("vit.ViT", {"embed": 32, "depth": 2, "heads": 4, "positions": "learned"}, vit, IN5_OUT3, (16, 32)),
    "resnet": Case("resnet.ResNet", {"channels": 16, "blocks": 3, "edges": "zeros"}, resnet, IN5_OUT3, (16, 32)),
    "attention_unet": Case(
        "attention_unet.AttentionUNet",
        {"channels": [4, 6, 8, 10, 12], "edges": "flat"},
        attention_unet,
        IN5_OUT3,
        (16, 32),
    ),
    "convnext_unet": Case(
        "convnext_unet.ConvNextUNet",
        {"channels": [6, 8, 10], "dilation": [1, 2, 3], "widening": 2, "edges": "zeros", "fit": "uneven"},
        samudra,
        IN5_OUT3,
        (20, 36),
        adapt={"levels": 3},
    ),
    "afno": Case("afno.AFNO", {"embed": 32, "depth": 2, "blocks": 4}, afno, IN5_OUT3, (16, 32)),
}


def write(name: str) -> None:
    case = CASES[name]
    net = case.peer().eval()
    shapes = randomised(net)
    channels = case.history * case.channels.get("prognostic", 0) + case.channels.get("forcing", 0)
    out, gradient = result(lambda x: case.call(net, x), fields(case, channels))
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.npz"
    np.savez_compressed(path, shapes=json.dumps(shapes), out=out.numpy(), gradient=gradient.numpy())
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, output of deviation {out.std():.3f}")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        write(wanted)
