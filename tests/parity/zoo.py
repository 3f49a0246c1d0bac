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

    @property
    def read(self) -> int:
        """Channels that the network reads."""
        counts = {
            name: sum(max(1, n) for n in count.values()) if isinstance(count, dict) else count
            for name, count in self.channels.items()
        }
        return self.history * counts["prognostic"] + counts.get("forcing", 0)


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
    learned = dict(net.named_parameters())
    for name, value in state.items():
        if name in learned or "running_" in name:
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


def sample(values: Tensor) -> Tensor:
    """Not more than some ten thousand of the numbers, evenly spread."""
    return values.flatten()[:: 1 + values.numel() // 10_000]


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


def package(root: Path, *names: str) -> None:
    """Packages of theirs without what their __init__ would import."""
    for name in names:
        stub(name)
        sys.modules[name].__path__ = [str(root / name.replace(".", "/"))]


def old_timm() -> None:
    """Blocks as timm 0.6 names their options."""
    layers = importlib.import_module("timm.models.vision_transformer")
    new = getattr(layers, "_new_block", layers.Block)
    layers._new_block = new
    layers.Block = lambda *args, drop=0.0, **given: new(*args, proj_drop=drop, **given)


def climax() -> nn.Module:
    path = checkout("ClimaX", "src")
    package(path, "climax", "climax.utils")
    stub("climax.parallelpatchembed", ParallelVarPatchEmbed=None)
    np.float = float  # as numpy had it
    old_timm()
    module = importlib.import_module("climax.arch")
    names = [f"v{k}" for k in range(5)]
    return module.ClimaX(names, [8, 16], patch_size=2, embed_dim=32, depth=2, decoder_depth=2, num_heads=4)


def run_climax(net: nn.Module, x: Tensor) -> Tensor:
    lead = torch.full((len(x),), 0.24)
    tokens = net.forward_encoder(x, lead, tuple(net.default_vars))
    return net.unpatchify(net.head(tokens))


def stormer() -> nn.Module:
    path = checkout("stormer")
    package(path, "stormer", "stormer.models", "stormer.models.hub", "stormer.utils")

    def attention(q: Tensor, k: Tensor, v: Tensor, attn_bias: None = None) -> Tensor:
        parts = (part.transpose(1, 2) for part in (q, k, v))
        return nn.functional.scaled_dot_product_attention(*parts).transpose(1, 2)

    stub("xformers")
    stub("xformers.ops", memory_efficient_attention=attention, unbind=torch.unbind)
    module = importlib.import_module("stormer.models.hub.stormer")
    names = [f"v{k}" for k in range(5)]
    return module.Stormer([8, 16], names, patch_size=2, hidden_size=32, depth=2, num_heads=4)


def run_stormer(net: nn.Module, x: Tensor) -> Tensor:
    return net(x, tuple(net.variables), torch.full((len(x),), 1.2))


def swin() -> nn.Module:
    checkout("neural-scaling-weather")
    for name in [name for name in sys.modules if name.split(".")[0] in ("utils", "models", "distributed")]:
        del sys.modules[name]
    alone = types.SimpleNamespace(get_size=lambda name: 1, get_rank=lambda name: 0, get_world_rank=lambda: 0)
    stub("utils", comm=alone)
    stub("utils.profiler_utils", profile=lambda *args, **given: lambda function: function)
    stub("utils.misc_utils", create_dummy_metadata=None)
    stub("distributed")
    stub("distributed.helpers", compute_split_shapes=None)
    stub(
        "distributed.mappings",
        **dict.fromkeys(
            (
                "identity_forward_allreduce_backward",
                "allreduce_forward_identity_backward",
                "allgather_forward_split_backward",
                "split_forward_allgather_backward",
            ),
            lambda x, **given: x,
        ),
        roll_forward_reverseroll_backward=lambda x, shifts, dims, comm_names: x.roll(shifts, dims),
    )
    compiled, torch.compile = torch.compile, lambda function: function
    try:
        module = importlib.import_module("models.swin")
    finally:
        torch.compile = compiled
    latitude, longitude = torch.deg2rad(torch.tensor(78.75 - 22.5 * np.arange(8))), torch.arange(16) * torch.pi / 8
    x, y = latitude.cos()[:, None] * longitude.cos(), latitude.cos()[:, None] * longitude.sin()
    coords = torch.stack([x, y, latitude.sin()[:, None].expand(8, 16)], -1).float()
    return module.SwinTransformer(
        window_size=(2, 4),
        patch_size=1,
        in_chans=5,
        out_chans=3,
        embed_dim=16,
        depth=2,
        num_heads=2,
        domain_metadata={"coords": coords, "sp_shapes": [[8], [16]]},
        use_transformer_engine=False,
    )


def fuxi() -> nn.Module:
    path = checkout("miles-credit")
    package(path, "credit", "credit.models", "credit.models.wxformer", "credit.postblock")
    stub("credit.postblock.gen1", PostBlock=None)
    stub("credit.models.base_model", BaseModel=nn.Module)
    stub("credit.boundary_padding", TensorPadding=None)
    stub("credit.models.wxformer.stochastic_decomposition_layer", StochasticDecompositionLayer=None)
    return importlib.import_module("credit.models.fuxi").Fuxi(
        image_height=40,
        image_width=64,
        patch_height=2,
        patch_width=2,
        levels=1,
        frames=2,
        frame_patch_size=2,
        dim=16,
        num_groups=4,
        channels=1,
        surface_channels=2,
        num_heads=2,
        depth=2,
        window_size=4,
        use_spectral_norm=False,
        interp=False,
    )


def run_fuxi(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.unflatten(1, (2, -1)).transpose(1, 2))[:, :, 0]


def pangu() -> nn.Module:
    path = checkout("physicsnemo")
    package(path, "physicsnemo", "physicsnemo.core", "physicsnemo.nn", "physicsnemo.nn.module", "physicsnemo.models")
    package(path, "physicsnemo.models.pangu")
    anything = type("Anything", (), {"__getitem__": lambda self, key: Tensor})()
    stub("jaxtyping", Float=anything, Int=anything, Bool=anything)

    class Whole(nn.Module):
        def __init__(self, meta: Any) -> None:
            super().__init__()

    class MLP(nn.Module):
        def __init__(self, in_features: int, hidden_features: int, act_layer: Any, drop: float) -> None:
            super().__init__()
            self.layers = nn.Sequential(
                nn.Linear(in_features, hidden_features), nn.GELU(), nn.Linear(hidden_features, in_features)
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    stub("physicsnemo.core.meta", ModelMetaData=object)
    stub("physicsnemo.core.module", Module=Whole)
    stub("physicsnemo.nn.module.conv_layers", Conv2d=None)
    stub("physicsnemo.nn.module.group_norm", get_group_norm=None)
    stub("physicsnemo.nn.module.drop", DropPath=lambda rate: nn.Identity())
    stub("physicsnemo.nn.module.mlp_layers", Mlp=MLP)
    layers = importlib.import_module("physicsnemo.nn.module.transformer_layers")
    resample = importlib.import_module("physicsnemo.nn.module.resample_layers")
    for name, kind in (
        ("FuserLayer", layers.FuserLayer),
        ("DownSample3D", resample.DownSample3D),
        ("UpSample3D", resample.UpSample3D),
    ):
        setattr(sys.modules["physicsnemo.nn"], name, kind)
    module = importlib.import_module("physicsnemo.models.pangu.pangu")
    return module.Pangu(img_size=(23, 48), patch_size=(2, 1, 1), embed_dim=8, num_heads=(1, 2, 2, 1))


def run_pangu(net: nn.Module, x: Tensor) -> Tensor:
    """Ours has the five variables on levels first, then the single ones, then the masks."""
    upper, surface, masks = x.split([65, 4, 3], 1)
    low, high = net(torch.cat([surface, masks, upper], 1))
    return torch.cat([high.flatten(1, 2), low], 1)


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
    "climax": Case(
        "climax.ClimaX",
        {"embed": 32, "depth": 2},
        climax,
        {"prognostic": 5},
        (8, 16),
        run_climax,
        told={"interval": 24.0},
    ),
    "stormer": Case(
        "stormer.Stormer",
        {"embed": 32, "depth": 2},
        stormer,
        {"prognostic": 5},
        (8, 16),
        run_stormer,
        told={"interval": 12.0},
    ),
    "swin": Case(
        "swin.Swin",
        {"patch": 1, "window": [2, 4], "embed": 16, "depth": 2, "heads": 2},
        swin,
        IN5_OUT3,
        (8, 16),
        lambda net, x: net(x[:, None])[:, 0],
    ),
    "fuxi": Case(
        "fuxi.FuXi",
        {"embed": 16, "depth": 2, "heads": 2, "window": 4, "groups": 4, "around": False, "inner_edges": "flat"},
        fuxi,
        {"prognostic": 3},
        (40, 64),
        run_fuxi,
        history=2,
    ),
    "pangu": Case(
        "pangu.Pangu",
        {"patch": [2, 1, 1], "embed": 8, "heads": [1, 2, 2, 1], "window": [2, 6, 12], "order": "pre", "around": False},
        pangu,
        {
            "prognostic": {**dict.fromkeys("zqtuv", 13), **dict.fromkeys(("msl", "u10", "v10", "t2m"), 0)},
            "forcing": {"a": 0, "b": 0, "c": 0},
        },
        (23, 48),
        run_pangu,
    ),
}


def write(name: str) -> None:
    case = CASES[name]
    net = case.peer().eval()
    shapes = randomised(net)
    out, gradient = result(lambda x: case.call(net, x), fields(case, case.read))
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.npz"
    np.savez_compressed(path, shapes=json.dumps(shapes), out=sample(out).numpy(), gradient=sample(gradient).numpy())
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, output of deviation {out.std():.3f}")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or CASES:
        write(wanted)
