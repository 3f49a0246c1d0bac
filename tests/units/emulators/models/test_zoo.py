"""Published networks: sizes to the parameter, what turns with the planet, grids that do not fit, wrong options."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import build, channels, randomised
from omegaconf import OmegaConf

from emulators.grid import LatLonGrid, equiangular_grid
from emulators.grids.catalogue import named_grid
from emulators.layers.attention.level_columns import LevelColumns
from emulators.layers.attention.window_attention import CosineAttention, EarthAttention, WindowAttention
from emulators.layers.attention.windows import Windows
from emulators.models.aurora import ORDER, WRITTEN_ONLY
from emulators.variables import Variable, VariableSet
from emulators.world import World
from places import CONF


def world(grid=None, prognostic=3, forcing=0, history=1) -> World:
    grid = equiangular_grid(16) if grid is None else grid
    sets = {
        name: channels(0, count) if isinstance(count, dict) else VariableSet((Variable(name, "", tuple(range(count))),))
        for name, count in (("prognostic", prognostic), ("forcing", forcing))
        if count
    }
    return World(grid, timestep=np.timedelta64(6, "h"), history=history, **sets)


AIR = {**dict.fromkeys("zqtuv", 13), **dict.fromkeys(("msl", "u10", "v10", "t2m"), 0)}  # Pangu's variables
MASKS = dict.fromkeys(("land", "soil", "orography"), 0)


def size(net: torch.nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


GRID32, GRID64 = equiangular_grid(32), equiangular_grid(64)
SAMUDRA2 = {"channels": [280, 380, 480, 520], "widening": 2, "periodic": True}
PANGU_LITE = {"embed": 48, "depths": [2, 6, 6, 2], "heads": [3, 6, 6, 3]}
WXFORMER_LITE = {"channels": [32, 64, 128, 256], "depth": [2] * 4, "head_channels": 32, "groups": 32}
HPX_OCEAN = {"channels": [180, 90, 90], "block": "symmetric", "recurrent": False}
SURFACE, GROUND = ORDER[:19], ORDER[26:62]
AURORA_15 = replace(
    world(equiangular_grid(721, poles=True), {**dict.fromkeys("zuvtq", 13), **dict.fromkeys(SURFACE, 0)}, {}, 2),
    diagnostic=channels(0, dict.fromkeys(WRITTEN_ONLY, 0)),
    forcing=channels(0, dict.fromkeys((f"{name}_below" for name in GROUND), 0)),
)
PUBLISHED = [  # file, world, changes, parameters measured on the original code
    ("vit", world(GRID32, 3, 138, 3), {"positions": "learned"}, 1_761_932),
    ("resnet", world(GRID32, 3, 138, 3), {}, 9_220_227),
    ("attention_unet", world(GRID64, 244, 125), {}, 37_894_304),
    ("attention_unet", world(GRID64, 20, 25), {}, 37_693_120),
    ("convnext_unet", world(equiangular_grid(180), 154, 4), {}, 135_142_266),
    ("convnext_unet", world(equiangular_grid(180), 154, 4), SAMUDRA2, 83_993_946),
    ("afno", world(equiangular_grid(720), 20), {}, 74_691_840 - 1_536),
    ("afno", world(equiangular_grid(720), 20), {"patch": 4}, 110_542_080 - 1_536),
    ("climax", world(GRID32, 48), {}, 108_088_512),
    ("climax_small", world(GRID32, 20), {"embed": 128}, 984_016),
    ("stormer", world(equiangular_grid(128), 69), {}, 468_751_636),
    ("stormer_small", world(GRID32, 20), {"embed": 192, "depth": 6, "heads": 6}, 4_358_672),
    ("fuxi", world(equiangular_grid(640), 71, 6, 2), {}, 260_794_608),
    ("fuxi_small", world(GRID32, 20, 6, 2), {"embed": 128, "depth": 6, "window": 8, "groups": 32}, 2_114_792),
    ("wxformer", world(equiangular_grid(640), 71, 3), {}, 155_171_128 - 9_856),
    ("wxformer_small", world(GRID32, 20, 3), WXFORMER_LITE, 7_257_028 - 832),
    ("climode", world(GRID32, 5, 2, 3), {}, 2_752_099),
    ("met2net", world(GRID32, 5, 0, 12), {}, 8_698_405 - 65_536),  # without maps that are never called
    ("aurora", world(equiangular_grid(721, poles=True), AIR, MASKS, 2), {}, 1_256_300_176 - 24_576),
    ("aurora_15", AURORA_15, {}, 1_257_562_096 - 409_600),  # without static fields at the time before, and zeros
    ("aurora_15", AURORA_15, {"noisy": True}, 1_260_184_560 - 409_600),
    ("archesweather", world(equiangular_grid(121, poles=True), {**AIR, "w": 13}, MASKS, 2), {}, 84_643_712),
    ("pangu", world(equiangular_grid(721, poles=True), AIR, MASKS), {}, 64_220_169),
    ("pangu_small", world(GRID32, AIR, MASKS), PANGU_LITE, 2_240_841),
    pytest.param(
        "prithvi",
        world(LatLonGrid(np.linspace(90, -90, 361), 0.625 * np.arange(576)), 160, 4, 2),
        {},
        2_366_592_640,
        marks=pytest.mark.slow,
    ),
    ("poseidon", world(equiangular_grid(128, 128), 4), {"embed": 48, "depths": [4] * 4}, 20_774_444),
    ("poseidon", world(equiangular_grid(128, 128), 4), {}, 157_729_988),
    ("poseidon", world(equiangular_grid(128, 128), 4), {"embed": 192}, 628_575_524),
    ("graphcast", world(GRID32, 227, 17, 2), {}, 36_348_131),
    ("graphcast", world(GRID32, 83, 17, 2), {"level": 5}, 35_979_347),
    ("graph_transformer", world(GRID32, 90, 101), {"trainable": 0}, 246_203_482),
    ("dlwp_hpx", world(named_grid("healpix:64"), 14, 4), {}, 9_822_818),
    ("dlwp_hpx", world(named_grid("healpix:32:nested"), 2, 7), HPX_OCEAN, 3_011_312),
]


@pytest.mark.parametrize(("file", "where", "changes", "parameters"), PUBLISHED)
@pytest.mark.slow
def test_published_sizes(file, where, changes, parameters):
    with torch.device("meta"):
        assert size(build(file, where, **changes)) == parameters


TURNING = {  # file: changes after which nothing in the network knows its longitude, and by how many columns to turn
    "resnet_small": ({}, 3),
    "attention_unet_small": ({}, 8),
    "convnext_unet_small": ({}, 8),
    "fuxi_small": ({}, 16),
    "pangu_small": ({"window": [2, 4, 4]}, 16),
    "wxformer_small": ({"near": [2, 2, 2, 1], "far": [1, 1, 1, 1]}, 16),
    "poseidon_small": ({"window": [2, 4], "depths": [2, 2], "heads": [2, 4], "skips": [1, 0]}, 16),
}


@pytest.mark.parametrize("file", TURNING)
def test_turning_the_planet_turns_the_answer(file):
    torch.manual_seed(0)
    changes, turn = TURNING[file]
    net = randomised(build(file, world(), **changes))
    fields, time = torch.randn(2, 3, 16, 32), torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        torch.testing.assert_close(
            net(fields.roll(turn, -1), time), net(fields, time).roll(turn, -1), rtol=1e-3, atol=1e-4
        )


PATCHED = ["vit_small", "afno_small", "climax_small", "stormer_small", "swin_small"]
AREA = LatLonGrid(np.linspace(60.0, 30.0, 11), np.linspace(0.0, 30.0, 13))


@pytest.mark.parametrize("file", PATCHED)
@pytest.mark.parametrize("fit", ["pad", "crop"])
@pytest.mark.parametrize("grid", [equiangular_grid(17, poles=True), AREA], ids=str)
def test_grids_that_patches_do_not_tile(file, fit, grid):
    net = randomised(build(file, world(grid), fit=fit))
    fields = torch.randn(1, 3, *grid.shape, requires_grad=True)
    out = net(fields, torch.zeros(1, dtype=torch.int64))
    out.square().mean().backward()
    assert out.shape == fields.shape
    unseen = fields.grad[0].abs().sum(0) == 0
    assert unseen[-1].all() == (fit == "crop")
    assert not unseen[:-1].any()


@pytest.mark.parametrize("file", PATCHED)
def test_a_grid_that_does_not_fit_is_refused_with_the_nearest_that_does(file):
    with pytest.raises(ValueError, match=r"Regrid to 1[68]x32"):
        build(file, world(equiangular_grid(17, poles=True)), fit="exact")


WRONG = [
    ("vit_small", {"heads": 5}, "divides the 64 channels"),
    ("vit_small", {"positions": "rotary"}, "'fixed' or 'learned'"),
    ("vit_small", {"embed": 66, "heads": 2}, "4 divides"),
    ("vit_small", {"fit": "stretch"}, "pad, crop, exact"),
    ("vit_small", {"drop_path": 1.0}, r"drop_path in \[0, 1\)"),
    ("afno_small", {"blocks": 7}, "blocks that divide embed"),
    ("afno_small", {"kept": 0.0}, r"kept in \(0, 1\]"),
    ("swin_small", {"attention": "linear"}, "'plain' or 'cosine'"),
    ("swin_small", {"order": "middle"}, "'post' or 'pre'"),
    ("swin_small", {"window": [4]}, "a window of 2 sizes"),
    ("pangu_small", {"bias": "none"}, "'earth' or 'relative'"),
    ("pangu_small", {"patch": [2, 2]}, "3 sizes"),
    ("prithvi_small", {"shift": "latitude"}, "none, longitude, both as shift"),
    ("poseidon_small", {"heads": [2, 4]}, "as many heads and skips as stages"),
    ("poseidon_small", {"horizon": 0}, "horizon of some hours"),
    ("wxformer_small", {"near": [4]}, "each of 4 stages; got another number of near"),
    ("wxformer_small", {"kernels": [[1]] * 4}, "kernels of at least 2"),
    ("wxformer_small", {"distances": "none"}, "'true' or 'published'"),
    ("wxformer_small", {"groups": 5}, "groups that divide the 64 channels"),
    ("aurora_small", {"heads": [2]}, "as many decoder_depths and heads"),
    ("aurora_small", {"latent_levels": 1}, "at least 2 latent_levels"),
    ("aurora_small", {"windows_padded": "never"}, "'first' or 'last'"),
    ("aurora_small", {"light": ["rain"]}, "diagnostic variables without levels; got rain"),
    ("aurora_small", {"frozen": True}, "nothing to train but light decoders"),
    ("fuxi_small", {"groups": 5}, "groups that divide embed"),
    ("fuxi_small", {"margin": -1}, "no negative margin"),
    ("resnet_small", {"blocks": 0}, "at least 1 block"),
    ("attention_unet_small", {"channels": [8]}, "at least 2 levels"),
    ("convnext_unet_small", {"dilation": [1, 2]}, "one dilation"),
    ("convnext_unet_small", {"norm": "layer"}, "'batch', 'instance' or 'none'"),
    ("convnext_unet_small", {"fit": "uneven", "channels": [8] * 5, "dilation": [1] * 5}, "32x32 at least"),
]


@pytest.mark.parametrize(("file", "changes", "message"), WRONG)
def test_wrong_options_are_refused(file, changes, message):
    with pytest.raises(ValueError, match=message):
        build(file, world(), **changes)


def test_a_filter_keeps_low_wavenumbers_only():
    """A wave along latitude that `kept` leaves out passes the filter unchanged, one that it keeps does not."""
    from emulators.models.afno import Filter

    torch.manual_seed(0)
    mix = Filter(4, 2, (16, 8), 0.0, 0.5)
    with torch.no_grad():
        mix.b1.zero_()
        mix.b2.zero_()
        row = torch.arange(16.0)
        for wavenumber, passes in ((2, False), (7, True)):
            x = torch.cos(2 * torch.pi * wavenumber * row / 16)[None, :, None, None].expand(1, 16, 8, 4)
            assert torch.allclose(mix(x), x, atol=1e-6) == passes


def test_levels_that_differ_are_refused():
    bare = world(prognostic={"t2m": 0})
    with pytest.raises(ValueError, match="no levels with any of t2m"):
        build("pangu_small", bare)
    with pytest.raises(ValueError, match="t on 1, 2, 3; q on 1, 2"):
        build("pangu_small", world(prognostic={"t": 3, "q": 2}))


def test_columns_come_apart_and_together_by_name():
    """Levels in the middle of the set, two known states, forcing on the same levels and a static one."""
    where = World(
        equiangular_grid(4),
        channels(0, {"t2m": 0, "t": 3, "msl": 0, "u": 3}),
        np.timedelta64(6, "h"),
        forcing=channels(0, {"sun": 0, "heating": 3}),
        diagnostic=channels(0, {"rain": 0, "cloud": 3}),
        history=2,
    )
    columns = LevelColumns(where)
    fields = torch.arange(float(where.input_channels)).reshape(1, -1, 1, 1).expand(1, -1, 4, 8)
    upper, single = columns.split(fields)
    assert upper[0, :, :, 0, 0].tolist() == [[1, 2, 3], [5, 6, 7], [9, 10, 11], [13, 14, 15], [17, 18, 19]]
    assert single[0, :, 0, 0].tolist() == [0, 4, 8, 12, 16]
    out = columns.join(upper[:, [0, 1, 4]], single[:, [0, 1, 4]])
    assert out[0, :, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19]


@pytest.mark.parametrize("file", ["climax_small", "stormer_small", "poseidon_small", "prithvi_small"])
def test_the_interval_tells_in_hours(file):
    torch.manual_seed(0)
    net = randomised(build(file, world()))
    fields, time = torch.randn(2, 3, 16, 32), torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        usual, six, day = (net(fields, time, **told) for told in ({}, hours(6.0, 6.0), hours(6.0, 24.0)))
    assert torch.equal(usual, six)
    torch.testing.assert_close(six[0], day[0])
    assert not torch.allclose(six[1], day[1], atol=1e-3)


def hours(*interval: float) -> dict[str, torch.Tensor]:
    return {"interval": torch.tensor(interval)}


@pytest.mark.parametrize(("shape", "window"), [((5, 7), (2, 4)), ((3, 6, 8), (2, 3, 4)), ((4, 4), (4, 4))])
@pytest.mark.parametrize("shifted", [True, False])
@pytest.mark.parametrize("cyclic", [True, False])
@pytest.mark.parametrize("padded", ["first", "last"])
def test_windows_join_what_they_cut(shape, window, shifted, cyclic, padded):
    windows = Windows(shape, window, shifted=shifted, cyclic=cyclic, padded=padded)
    x = torch.randn(2, *shape, 3)
    cut = windows.partition(x)
    assert cut.shape[3] == windows.tokens
    assert torch.equal(windows.join(cut), x)
    if windows.blocked is not None:
        alike = (cyclic and (padded == "first" or shape[-1] % window[-1] == 0)) or window[-1] >= shape[-1]
        assert (windows.blocked.shape[0] == 1) == alike
        assert (windows.blocked == 0).any(-1).all()  # every query sees some key


def test_tokens_of_spread_windows_lie_evenly_over_the_box():
    windows = Windows((4, 9), (2, 3), shifted=False, cyclic=True, spread=True)
    places = torch.arange(36.0).reshape(1, 4, 9, 1)
    cut = windows.partition(places)
    assert cut[0, 1, 0, :, 0].tolist() == [1, 4, 7, 19, 22, 25]
    assert torch.equal(windows.join(cut), places)
    with pytest.raises(ValueError, match="shifted or spread"):
        Windows((4, 9), (2, 3), shifted=True, cyclic=True, spread=True)


def test_distances_of_pairs_are_true_or_as_published():
    """A token knows where the others of its window are; the published table is read rows too short."""
    from emulators.models.wxformer import DistanceAttention

    true, published = (DistanceAttention(8, 2, (3, 3), kind) for kind in ("true", "published"))
    apart = true.distances[true.pairs]
    assert apart[0, 5].tolist() == [-1.0, -2.0]
    assert torch.equal(apart, -apart.transpose(0, 1))
    assert not torch.equal(apart, published.distances[published.pairs])


@pytest.mark.parametrize("kind", ["plain", "cosine", "earth", "relative"])
def test_who_sees_whom_in_shifted_windows(kind):
    """Around the globe, not over the poles: what reaches one token at the rim comes from there by longitude only."""
    torch.manual_seed(0)
    shape, window = (2, 4, 8), (2, 2, 4)
    shape, window = (shape[1:], window[1:]) if kind in ("plain", "cosine") else (shape, window)
    windows = Windows(shape, window, shifted=True, cyclic=True)
    attention = {
        "plain": lambda: WindowAttention(8, 2),
        "cosine": lambda: CosineAttention(8, 2, windows.window),
        "earth": lambda: EarthAttention(8, 2, windows),
        "relative": lambda: EarthAttention(8, 2, windows, "relative"),
    }[kind]()
    x = torch.randn(1, *shape, 8, requires_grad=True)
    windows.join(attention(windows.partition(x), windows.blocked))[0, ..., 0, 0, :].sum().backward()
    seen = x.grad[0].abs().sum(-1) > 0
    seen = seen if seen.ndim == 2 else seen.any(0)
    assert seen.nonzero().tolist() == [[0, 0], [0, 1], [0, 6], [0, 7]]


def test_spectral_norms():
    """After some passes the largest singular value is 1; names of weights that were stored with norms are known."""
    from emulators.models.wxformer import PUBLISHED as NAMES
    from emulators.models.wxformer import adapted, norm_spectrally
    from emulators.training.published_weights import renamed

    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 8, 3)
    norm_spectrally(torch.nn.Sequential(layer))
    for _ in range(100):
        layer(torch.randn(1, 3, 4, 4))
    torch.testing.assert_close(torch.linalg.matrix_norm(layer.weight.flatten(1), 2), torch.tensor(1.0))
    net = build("wxformer_small", world(), spectral_norm=True)
    shapes = {"orig": (48, 16, 1, 1), "u": (48,), "v": (16,)}
    stored = {f"layers.0.1.layers.0.0.to_qkv.weight_{kind}": torch.zeros(shape) for kind, shape in shapes.items()}
    ours, state = adapted(renamed(stored, NAMES)), net.state_dict()
    assert {name: value.shape for name, value in ours.items()} == {name: state[name].shape for name in ours}


def test_every_published_network_has_a_small_one():
    targets = {}
    for path in (CONF / "model").glob("*.yaml"):
        options = OmegaConf.load(path)
        if "_target_" in options:
            targets.setdefault(str(options["_target_"]), []).append(path.stem)
    for target, names in targets.items():
        module, name = target.rsplit(".", 1)
        if hasattr(importlib.import_module(module), "PUBLISHED"):
            small = any(stem.endswith("_small") for stem in names)
            assert small or "sfno" in names, f"{target} has {names}"  # `sfno` is small, its published sizes are sfno_*
            assert inspect.getdoc(getattr(importlib.import_module(module), name))
