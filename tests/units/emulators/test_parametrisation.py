"""muP: activations keep their size over width where those of the usual rules grow; the base stays as it is."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from emulators.layers.attention.learned_queries import VariableAggregation, VariableTokens
from emulators.layers.spectral_layers import DegreeConvolution, DiagonalConvolution, GridPosition, SpectralMLP
from emulators.models.afno import Filter
from emulators.models.pangu import Recovery
from emulators.models.sfno import SFNO
from emulators.models.spherical_cnn import SpinConvolution
from emulators.models.swin import Swin
from emulators.models.unet import UNet
from emulators.scaling.parametrisation import MuP, UnitMuP, roles
from emulators.scaling.width import coordinate_slopes
from emulators.training.optimizers import AdamW, Muon

BASE = 16
NETWORKS = {
    "SFNO": (SFNO, lambda w: {"embed": w, "layers": 2, "position_embedding": "none"}, "blocks"),
    "Swin": (Swin, lambda w: {"embed": w, "heads": w // 16, "depth": 2, "window": (2, 4)}, "blocks"),
    "UNet": (UNet, lambda w: {"channels": [w, 2 * w]}, ["down", "up"]),
}

WIDTHS = {"SFNO": {"embed": BASE}, "Swin": {"embed": BASE}, "UNet": {"channels": BASE}}
HEADS = {"SFNO": "head.weight", "Swin": "head.weight", "UNet": "head.2.weight"}


def network(world, name: str, width: int, seed: int = 0, rule: str = "mup"):
    kind, sizes, _ = NETWORKS[name]
    torch.manual_seed(seed)
    made = kind(world, **sizes(width))
    if not rule:
        return made
    torch.manual_seed(seed)
    rule = {"mup": MuP, "umup": UnitMuP}[rule](base=WIDTHS, along=["heads"])
    return rule.apply(made, sizes(width), lambda other: kind(world, **{**sizes(width), **other}))


def optimizer(name: str, kind: str, rate: float):
    if kind == "adamw":
        return AdamW(lr=rate, weight_decay=0.0)
    return Muon(lr=0.02, adam_lr=rate, weight_decay=0.0, inside=NETWORKS[name][2])


def inner_parts(name: str, made: nn.Module) -> dict[str, nn.Module]:
    """What a coordinate check looks at: the blocks, or the levels of a U-Net on the way down and up."""
    words = NETWORKS[name][2]
    lists = [words] if isinstance(words, str) else words
    return {f"{word} {k}": part for word in lists for k, part in enumerate(made.get_submodule(word))}


def coordinates(world, name: str, width: int, kind: str, rule: str) -> dict[str, float]:
    """Mean sizes of activations and of the output at the fourth step; readouts begin at zero, so that all is learnt."""
    found: dict[str, list[float]] = {}
    rate = {"umup": 0.1}.get(rule, 1e-2) * (0.3 if name == "UNet" else 1.0)  # above, single draws run away
    for seed in range(2):
        made = network(world, name, width, seed, rule)
        for key, parameter in made.named_parameters():
            if key.startswith(HEADS[name].removesuffix("weight")):
                torch.nn.init.zeros_(parameter)
        torch.manual_seed(100 + seed)
        fields = torch.randn(4, world.input_channels, *world.grid.shape)
        target = torch.randn(4, world.output_channels, *world.grid.shape)
        descend = optimizer(name, kind, rate)(made)
        for step in range(4):
            hooks = [
                part.register_forward_hook(
                    lambda _, given, out, label=label: found.setdefault(label, []).append(
                        float(out.detach().abs().mean())
                    )
                )
                for label, part in inner_parts(name, made).items()
                if step == 3
            ]
            out = made(fields, torch.zeros(4))
            for hook in hooks:
                hook.remove()
            descend.zero_grad()
            (out - target).square().mean().backward()
            descend.step()
        found.setdefault("output", []).append(float(out.detach().abs().mean()))
    assert {*found} == {*inner_parts(name, made), "output"}
    return {label: float(np.mean(values)) for label, values in found.items()}


def slopes(world, name: str, kind: str, rule: str, widths: tuple[int, ...] = (16, 32, 64)) -> dict[str, float]:
    sizes = [coordinates(world, name, width, kind, rule) for width in widths]
    return coordinate_slopes(np.array(widths, float), {k: np.array([one[k] for one in sizes]) for k in sizes[0]})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("name", NETWORKS)
def test_activations_keep_their_size_over_width(small_world, name, kind):
    world = small_world()
    growing = slopes(world, name, kind, "")
    if kind == "adamw" and name != "SFNO":  # whose blocks hardly move in three steps: its output tells
        assert max(slope for part, slope in growing.items() if part != "output") > 0.15, growing
    for rule in ("mup", "umup"):
        flat = slopes(world, name, kind, rule, (32, 64, 128))  # draws of 16 are few
        assert all(abs(slope) < 0.05 for part, slope in flat.items() if part != "output"), (rule, flat)
        assert abs(flat["output"]) < 0.1, (rule, "narrow networks learn a little more in three steps")
        assert growing["output"] > abs(flat["output"]) + 0.3, (rule, growing)


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_changes_at_the_base_and_rates_fall_with_width(small_world, name):
    world = small_world()
    plain, scaled = (dict(network(world, name, BASE, 0, rule).named_parameters()) for rule in ("", "mup"))
    assert all(torch.equal(plain[key], scaled[key]) for key in plain)
    wide = network(world, name, 2 * BASE)
    shares = {key: value.rate_share for key, value in wide.named_parameters()}
    assert {*shares.values()} == {1.0, 0.5}
    assert shares[HEADS[name]] == 0.5
    assert all(share == 1.0 for key, share in shares.items() if key.endswith("bias"))
    grown = roles(wide, network(world, name, BASE, rule=""))
    assert {role.kind for role in grown.values()} >= {"matrix", "output", "input", "vector"}
    groups = AdamW(lr=1e-2, weight_decay=0.1)(wide).param_groups
    products = {round(group["lr"] * group["weight_decay"], 12) for group in groups if group["weight_decay"]}
    assert products == {1e-3}
    assert {group["lr"] for group in groups} == {1e-2, 5e-3}


@pytest.mark.parametrize("name", NETWORKS)
def test_unit_scaled_rates_fall_with_width_as_those_of_mup(small_world, name):
    world = small_world()
    shares = {
        (rule, w): {key: p.rate_share for key, p in network(world, name, w, rule=rule).named_parameters()}
        for rule in ("mup", "umup")
        for w in (BASE, 2 * BASE)
    }
    grown = roles(network(world, name, 2 * BASE, rule=""), network(world, name, BASE, rule=""))
    for key, role in grown.items():
        unit, plain = (shares[rule, 2 * BASE][key] / shares[rule, BASE][key] for rule in ("umup", "mup"))
        assert unit == pytest.approx(plain / (role.grows_out**0.5 if role.kind == "input" else 1.0)) or (
            role.kind == "vector" and unit == pytest.approx(0.5**0.5)  # a table of channels
        )


class Layers(nn.Module):
    def __init__(self, *, width=12):
        super().__init__()
        self.first, self.head = nn.Linear(3, width), nn.Linear(width, 2, bias=False)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width, bias=False)) for _ in range(4))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.head(x)


def test_unit_scaling_is_the_published_table_of_multipliers_spreads_and_rates():
    """Weights of variance 1 with multipliers in the forward pass learn as those with spreads and rates of their own."""
    torch.manual_seed(0)
    made = UnitMuP(base={"Layers": {"width": 1}}, branches=["blocks"]).apply(
        Layers().double(), {}, lambda sizes: Layers(**sizes)
    )
    table = {  # multiplier and rate: first map, hidden (by the root of 4 blocks), readout, bias
        "first.weight": (3**-0.5, 12**-0.5),
        "blocks": (12**-0.5, 12**-0.5 / 2.0),
        "head.weight": (1.0 / 12.0, 1.0),
        "first.bias": (1.0, 1.0),
    }
    plain, groups = {}, []
    for name, parameter in made.named_parameters():
        multiplier, rate = table["blocks" if "blocks" in name else name]
        plain[name] = (parameter.detach() / multiplier).requires_grad_()
        groups.append({"params": [plain[name]], "lr": 0.5 * rate})
        assert name == "first.bias" or float(plain[name].detach().std()) == pytest.approx(1.0)
    descend = AdamW(lr=0.5, weight_decay=0.0, eps=1e-30)(made)
    as_published = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-30, weight_decay=0.0)
    x, target = torch.randn(16, 3).double(), torch.randn(16, 2).double()

    def forward(x):
        scaled = {name: table["blocks" if "blocks" in name else name][0] * p for name, p in plain.items()}
        return torch.func.functional_call(made, scaled, x)

    for _ in range(4):
        for optimiser, run in ((descend, made), (as_published, forward)):
            optimiser.zero_grad()
            (run(x) - target).square().mean().backward()
            optimiser.step()
    torch.testing.assert_close(forward(x), made(x), rtol=1e-9, atol=1e-9)
    assert (made(x) - target).square().mean() < target.square().mean()


PARTS = {  # layers of a width, and of each of their weights: what it is, and how many numbers an output sums over at 8
    "degree": (lambda w: DegreeConvolution(3, w), {"weight": ("matrix", 16)}),
    "diagonal": (lambda w: DiagonalConvolution(3, 2, w), {"weight": ("matrix", 16)}),
    "mlp": (lambda w: SpectralMLP(w, 3, 1), {"weights.0": ("output", 16), "weights.1": ("input", 6)}),
    "spin": (lambda w: SpinConvolution(4, 5, w, 2), {"weight": ("input", 5)}),
    "wider blocks": (lambda w: Filter(w, 2, (4, 8), 0.0, 1.0), {"w1": ("matrix", 8), "b1": ("vector", 0)}),
    "more blocks": (lambda w: Filter(w, w // 2, (4, 8), 0.0, 1.0), {"w1": ("fixed", 4), "b1": ("vector", 0)}),
    "each channel": (lambda w: nn.Conv2d(w, w, 5, groups=w), {"weight": ("fixed", 25)}),
    "more groups": (lambda w: nn.Conv2d(w, w, 3, groups=w // 4), {"weight": ("fixed", 36)}),
    "wider groups": (lambda w: nn.Conv2d(w, 6, 3, groups=2), {"weight": ("output", 36)}),
    "transposed": (lambda w: nn.ConvTranspose2d(w, 6, 4, stride=2), {"weight": ("output", 32)}),
    "transposed, each": (lambda w: nn.ConvTranspose2d(w, w, 2, 2, groups=w), {"weight": ("fixed", 1)}),
    "recovery": (lambda w: Recovery(w, 3, (2, 2)), {"weight": ("output", 8)}),
    "variables": (lambda w: VariableTokens(3, w, 2), {"weight": ("input", 4), "identity": ("vector", 0)}),
    "one query": (lambda w: VariableAggregation(w, 2), {"weight": ("matrix", 8), "query": ("vector", 0)}),
    "places": (lambda w: GridPosition(4, 8, w), {"weight": ("vector", 0)}),
    "undeclared": (lambda w: nn.MultiheadAttention(w, 2), {"in_proj_weight": ("matrix", 8)}),
    "spectral norm": (lambda w: spectral_norm(nn.Linear(w, 3)), {"parametrizations.weight.original": ("output", 8)}),
}


@pytest.mark.parametrize("part", PARTS)
def test_roles_of_weights(part):
    made, expected = PARTS[part]
    found = roles(made(8), made(4))
    assert {name: (found[name].kind, found[name].inputs) for name in expected} == expected


def test_sizes_at_the_base_keep_the_proportions_of_a_network():
    class Pyramid(nn.Module):
        def __init__(self, *, channels=(24, 48), heads=(2, 4), groups=8, hidden=None, attention="plain"):
            super().__init__()

    rule = MuP(base={"Pyramid": {"channels": 12}}, along=["heads", "groups", "hidden", "attention", "experts"])
    assert rule.sizes(Pyramid(), {}) == {"channels": [12, 24], "heads": [1, 2], "groups": 4}
    wide = {"channels": [48, 96, 192], "heads": [2, 4, 8], "hidden": 400}
    assert rule.sizes(Pyramid(), wide) == {"channels": [12, 24, 48], "heads": [1, 1, 2], "groups": 2, "hidden": 100}
    assert rule.sizes(Pyramid(), {}, 2.0) == {"channels": [48, 96], "heads": [4, 8], "groups": 16}


def test_what_it_refuses(small_world):
    world = small_world()
    with pytest.raises(ValueError, match=r"sizes of UNet"):
        MuP(base={}).sizes(network(world, "UNet", BASE, rule=""), {})
    with pytest.raises(ValueError, match=r"UNet has no option embed"):
        MuP(base={"UNet": {"embed": 8}}).sizes(network(world, "UNet", BASE, rule=""), {})
    deep = SFNO(world, embed=BASE, layers=3, position_embedding="none")
    with pytest.raises(ValueError, match="differs in depth"):
        roles(deep, network(world, "SFNO", BASE, rule=""))
