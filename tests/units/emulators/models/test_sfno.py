"""SFNO: published sizes, symmetries, every layout of the block, conditions, every option."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from emulators.grid import equiangular_grid, gaussian_grid, lobatto_grid
from emulators.layers import pointwise
from emulators.layers.field_norms import Noise
from emulators.models.sfno import SFNO
from emulators.sphere.transform import SphericalHarmonics
from emulators.variables import Variable, VariableSet
from emulators.world import World
from places import CONF


def size(net) -> int:
    return sum(p.numel() for p in net.parameters())


def channels(name: str, count: int) -> VariableSet:
    return VariableSet((Variable(name, "", tuple(range(count))),))


def inputs(world, batch=2, seed=0):
    fields = torch.randn(batch, world.input_channels, *world.grid.shape, generator=torch.Generator().manual_seed(seed))
    return fields, torch.zeros(batch, dtype=torch.int64)


PUBLISHED = [  # file, grid, channels in and out, changes, parameters: those of the original code, complex ones as two
    ("sfno_ace", (180, 360), 39, 44, {}, 208_135_168),
    ("sfno_ace2", (180, 360), 39, 44, {}, 455_824_896),
    ("sfno_ace2", (180, 360), 44, 51, {}, 455_831_424),
    ("sfno_ace2_noise", (180, 360), 40, 54, {}, 799_795_792),
    ("sfno_makani", (721, 1440), 76, 73, {}, 572_509_228),
    ("sfno_makani", (721, 1440), 76, 73, {"scale_factor": 2, "modes_fraction": 0.5}, 430_951_468),
    ("sfno_makani", (721, 1440), 76, 73, {"scale_factor": 2, "modes_fraction": 0.5, "embed": 128}, 47_906_092),
    ("sfno_torch_harmonics", (128, 256), 3, 3, {}, 23_072_256),
    ("sfno_torch_harmonics", (32, 64), 20, 20, {"scale_factor": 1, "embed": 64}, 1_117_184),
    ("sfno_torch_harmonics", (64, 128), 20, 20, {"scale_factor": 2, "embed": 128, "layers": 6}, 6_691_328),
]


def randomised(net) -> None:
    """Every parameter away from where it starts, so that nothing is hidden by a zero or a one."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize(("file", "shape", "into", "out", "changes", "parameters"), PUBLISHED)
def test_published_sizes(file, shape, into, out, changes, parameters):
    """ACE 39 in and 44 out, ACE2 with a slab ocean 44 and 51, its ensembles 40 and 54, Makani 76 and 73."""
    same = min(into, out)
    world = World(
        gaussian_grid(*shape) if "ace" in file else equiangular_grid(*shape, poles=True),
        channels("state", same),
        np.timedelta64(6, "h"),
        forcing=channels("forcing", into - same) if into > same else VariableSet(),
        diagnostic=channels("flux", out - same) if out > same else VariableSet(),
    )
    options = OmegaConf.load(CONF / "model" / f"{file}.yaml")
    options.pop("_target_")
    with torch.device("meta"):
        net = SFNO(world, **{**options, **changes})
    assert size(net) == parameters


def test_size_of_the_spectral_weights(small_world):
    net = SFNO(small_world(), embed=6, layers=3, modes_fraction=0.75)
    spectral = [p.shape for name, p in net.named_parameters() if "convolution" in name]
    assert spectral == [(6, 6, 2, 6)] * 3


@pytest.mark.parametrize("block", ["ace", "makani", "torch_harmonics"])
@pytest.mark.parametrize("grid", ["gaussian", "equiangular", "equiangular_with_poles"])
@pytest.mark.parametrize("operator", ["degree", "diagonal", "mlp"])
@pytest.mark.parametrize("position", ["none", "latitude"])
def test_turning_the_planet_turns_the_answer(small_world, block, grid, operator, position):
    torch.manual_seed(0)
    world = small_world(grid)
    net = SFNO(world, block=block, embed=8, layers=2, operator=operator, position_embedding=position)
    randomised(net)
    fields, time = inputs(world)
    with torch.no_grad():
        torch.testing.assert_close(net(fields.roll(3, -1), time), net(fields, time).roll(3, -1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["instance", "instance_area", "layer"])
def test_turning_the_planet_upside_down_turns_the_answer(small_world, norm):
    """Half a turn about an axis in the equator: latitude and longitude change sign; for real spectral weights."""
    torch.manual_seed(0)
    world = small_world()
    net = SFNO(world, embed=8, layers=2, position_embedding="none", norm=norm)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "convolution" in name:
                parameter[:, :, 1] = 0

    def turned(x):
        return x.flip((-2, -1)).roll(1, -1)

    fields, time = inputs(world)
    with torch.no_grad():
        torch.testing.assert_close(net(turned(fields), time), turned(net(fields, time)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("block", "position", "norm"),
    list(
        product(
            ["ace", "makani", "torch_harmonics"],
            ["none", "grid", "latitude", "spectral"],
            ["instance", "instance_area", "layer", "none"],
        )
    ),
)
def test_options_work_together_on_a_coarser_inner_grid(block, position, norm):
    world = World(equiangular_grid(9, 16, poles=True), channels("state", 3), np.timedelta64(6, "h"))
    torch.manual_seed(0)
    net = SFNO(
        world, block=block, embed=4, layers=3, scale_factor=2, position_embedding=position, norm=norm, mlp_ratio=1.5
    )
    fields, time = inputs(world)
    output = net(fields, time)
    output.square().mean().backward()
    assert output.shape == fields.shape
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("grid", [lobatto_grid(9), lobatto_grid(8, 15), equiangular_grid(9, 16, poles=True)])
@pytest.mark.parametrize("block", ["ace", "torch_harmonics"])
@pytest.mark.parametrize("quadrature", [True, False])
def test_defaults_fit_grids_with_poles(grid, block, quadrature):
    world = World(grid, channels("state", 2), np.timedelta64(6, "h"))
    net = SFNO(world, block=block, embed=4, layers=1, quadrature=quadrature)
    fields, time = inputs(world)
    assert net(fields, time).isfinite().all()


def test_the_inner_grid_is_coarser_and_gaussian():
    world = World(equiangular_grid(16, 32), channels("state", 2), np.timedelta64(6, "h"))
    net = SFNO(world, embed=4, layers=3, scale_factor=2, modes_fraction=0.5)
    assert net.blocks[0].filter.source.grid is world.grid
    assert net.blocks[2].filter.goal.grid is world.grid
    inner = net.blocks[1].filter.source
    assert (inner.grid.kind, inner.grid.shape, inner.degrees) == ("gaussian", (8, 16), 4)


def test_without_the_big_skip_the_decoder_sees_only_the_blocks(small_world):
    world = small_world()
    for block in ("ace", "makani", "torch_harmonics"):
        bare = SFNO(world, block=block, embed=4, layers=1, big_skip=False)
        whole = SFNO(world, block=block, embed=4, layers=1)
        width = 4 if block == "ace" else world.output_channels
        assert size(whole) - size(bare) == world.input_channels * width


def test_blocks_follow_their_formulas(small_world):
    """Both layouts, written out with complex numbers on (batch, channel, lat, lon) fields."""
    torch.manual_seed(0)
    world = small_world()
    fields = torch.randn(2, 4, *world.grid.shape)

    def filtered(block, x):
        a = block.filter.source.coefficients(x)
        weight = torch.complex(*block.filter.convolution.weight.unbind(2))
        return block.filter.source.field(torch.einsum("bilm,lio->bolm", a, weight))

    def last(layer, x):
        return layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def norm(x):
        return torch.nn.functional.instance_norm(x, eps=1e-6)

    gelu = torch.nn.functional.gelu
    for kind in ("ace", "makani"):
        block = SFNO(world, block=kind, embed=4, layers=1).blocks[0]
        with torch.no_grad():
            if kind == "ace":
                h = norm(fields)
                expected = h + last(block.mlp, norm(gelu(filtered(block, h) + last(block.skip, h))))
            else:
                expected = last(block.skip, fields) + norm(last(block.mlp, gelu(norm(filtered(block, fields)))))
            output = block(fields.permute(3, 2, 0, 1).contiguous()).permute(2, 3, 1, 0)
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("operator", ["diagonal", "mlp"])
def test_filters_follow_their_formulas(small_world, operator):
    torch.manual_seed(0)
    world = small_world()
    net = SFNO(world, embed=4, layers=1, operator=operator, spectral_layers=2, filter_bias=True)
    randomised(net)
    spectral = net.blocks[0].filter
    fields = torch.randn(2, 4, *world.grid.shape)
    a = spectral.source.coefficients(fields)
    weights = [torch.view_as_complex(w.detach()) for n, w in spectral.named_parameters() if "weight" in n]
    if operator == "diagonal":
        b = torch.zeros_like(a)
        for weight, m, l in zip(weights[0], spectral.convolution.order, spectral.convolution.degree, strict=True):
            b[:, :, l, m] = a[:, :, l, m] @ weight
    else:
        b = torch.einsum("bilm,io->bolm", a, weights[0])
        for weight, bias in zip(weights[1:], spectral.convolution.biases, strict=True):
            gate = torch.relu(b.abs() + bias[:, None, None]) / b.abs().clamp(min=1e-6)
            b = torch.einsum("bilm,io->bolm", b * gate, weight)
    expected = spectral.source.field(b) + spectral.bias[:, None, None]
    output, _ = spectral(fields.permute(3, 2, 0, 1).contiguous())
    torch.testing.assert_close(output.permute(2, 3, 1, 0), expected, rtol=1e-4, atol=1e-5)


def test_encoder_and_decoder_are_as_deep_as_asked(small_world):
    sizes = [size(SFNO(small_world(), embed=4, layers=1, encoder_layers=n)) for n in (0, 1, 2, 3)]
    into, out = small_world().input_channels, small_world().output_channels
    assert sizes[1] - sizes[0] == 2 * (4 * 4 + 4) + into * (4 - out)
    assert sizes[2] - sizes[1] == sizes[3] - sizes[2] == 2 * (4 * 4 + 4)


def test_conditions_start_without_effect_and_are_learned(small_world):
    world = small_world()
    fields, time = inputs(world)
    told = {"labels": torch.randn(2, 3), "scalars": torch.randn(2, 2), "noise": torch.randn(2, 5, *world.grid.shape)}
    sizes = {"labels": 3, "scalars": 2, "noise": 5}
    for block, norm in product(("ace", "makani", "torch_harmonics"), ("layer", "instance")):
        plain, conditional = (
            SFNO(world, block=block, embed=4, layers=2, norm=norm, normed_big_skip=True, **changes)
            for changes in ({}, sizes)
        )
        theirs = conditional.state_dict()
        shared = [name for name in theirs if ".maps." not in name]
        conditional.load_state_dict(theirs | dict(zip(shared, plain.state_dict().values(), strict=True)))
        with torch.no_grad():
            torch.testing.assert_close(conditional(fields, time, **told), plain(fields, time), rtol=1e-5, atol=1e-5)
        conditional(fields, time, **told).square().mean().backward()
        assert all(m.weight.grad.abs().sum() > 0 for n, m in conditional.named_modules() if ".maps." in n)


def test_draws_of_the_noise_are_members_that_a_generator_repeats(small_world):
    world = small_world()
    net = SFNO(world, embed=4, layers=2, norm="layer", noise=5).eval()
    randomised(net)
    fields, time = inputs(world)

    def member(seed):
        return net(fields, time, generator=torch.Generator().manual_seed(seed))

    with torch.no_grad():
        assert torch.equal(member(1), member(1))
        assert not torch.allclose(member(1), member(2))
        assert torch.equal(net(fields, time), net(fields, time))
        assert not torch.allclose(net(fields, time), member(1))
        one = net(fields[:1], time[:1], generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(one, member(1)[:1], rtol=1e-5, atol=1e-5)
        net.train()
        torch.manual_seed(1)
        drawn = net(fields, time)
        assert not torch.equal(drawn, net(fields, time))
        torch.manual_seed(1)
        assert torch.equal(drawn, net(fields, time))


@pytest.mark.parametrize("kind", ["white", "isotropic"])
@pytest.mark.parametrize("grid", [gaussian_grid(16), equiangular_grid(17, 32, poles=True)])
def test_noise_has_unit_variance_and_no_preferred_place(kind, grid):
    noise = Noise(kind, SphericalHarmonics(grid), 50)(40, torch.device("cpu"), torch.Generator().manual_seed(0))
    assert noise.shape == (*grid.shape[::-1], 40, 50)
    by_row = noise.square().mean((0, 2, 3))
    torch.testing.assert_close(by_row, torch.ones_like(by_row), rtol=0, atol=0.08)
    assert noise.mean().abs() < 0.02


def test_isotropic_noise_has_equal_variance_in_every_coefficient():
    transform = SphericalHarmonics(gaussian_grid(8))
    noise = Noise("isotropic", transform, 50)(80, torch.device("cpu"), torch.Generator().manual_seed(0))
    rows = transform.analysis(noise.flatten(2)).square().mean(-1)
    size = rows.view(transform.orders, 2, -1).sum(1)  # |a_lm|^2
    expected = torch.full((transform.degrees, transform.orders), 4 * torch.pi / 64).tril().T
    torch.testing.assert_close(size, expected, rtol=0.12, atol=1e-6)


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({}, "5 channels of labels, .*got 0"),
        ({"labels": torch.zeros(2, 3)}, "got 3"),
        ({"labels": torch.zeros(2, 5), "scalars": torch.zeros(2, 1)}, "0 channels of scalars"),
    ],
)
def test_conditions_that_do_not_fit_are_refused(small_world, told, message):
    net = SFNO(small_world(), embed=4, layers=1, labels=5)
    with pytest.raises(ValueError, match=message):
        net(*inputs(small_world()), **told)


@pytest.mark.slow
def test_compiled_and_plain_networks_agree(small_world):
    torch.manual_seed(0)
    net = SFNO(small_world(), embed=8, layers=1, norm="layer", labels=2)
    fields, time = inputs(small_world())
    answers = []
    for run in (net, torch.compile(net, backend="aot_eager")):
        net.zero_grad()
        output = run(fields, time, labels=torch.ones(2, 2))
        output.square().mean().backward()
        answers.append([output, *(p.grad for p in net.parameters())])
    for expected, compiled in zip(*answers, strict=True):
        torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("portion", [3, 100])
def test_mlp_at_points(bias, portion, monkeypatch):
    monkeypatch.setattr(pointwise, "PORTION", portion)
    torch.manual_seed(0)
    mlp = pointwise.PointwiseMLP(3, 5, bias).double()
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    residual = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.Sequential(*mlp)(x)
    torch.testing.assert_close(mlp(x), expected)
    torch.testing.assert_close(mlp(x, residual), residual + expected)
    assert torch.autograd.gradcheck(lambda x, *_: mlp(x), (x, *mlp.parameters()))
    assert torch.autograd.gradcheck(lambda x, residual, *_: mlp(x, residual), (x, residual, *mlp.parameters()))


@pytest.mark.parametrize("block", ["ace", "makani", "torch_harmonics"])
@pytest.mark.parametrize("operator", ["degree", "diagonal", "mlp"])
def test_half_precision_leaves_the_transforms_in_single(small_world, block, operator):
    world = small_world()
    torch.manual_seed(0)
    net = SFNO(world, block=block, operator=operator, embed=8, layers=2)
    fields, time = inputs(world)
    answers = []
    for enabled in (False, True):
        net.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            output = net(fields, time)
        output.float().square().mean().backward()
        # a bias before a norm has no effect, and a gradient of rounding errors
        gradients = [p.grad.clone() for name, p in net.named_parameters() if not name.endswith("mlp.2.bias")]
        answers.append([output.detach().float(), *gradients])
    for exact, half in zip(*answers, strict=True):
        assert half.dtype == torch.float32
        assert (half - exact).square().sum() < 0.003 * exact.square().sum() + 1e-8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "fno"}, "ace, makani, torch_harmonics"),
        ({"layers": 0}, "got layers 0"),
        ({"embed": -4, "mlp_ratio": 2.0}, "got embed -4, mlp_ratio x embed -8"),
        ({"noise_kind": "pink"}, "noise_kind"),
        ({"scale_factor": 8}, "scale_factor"),
        ({"modes_fraction": 0.0}, "modes_fraction"),
        ({"position_embedding": "sine"}, "position_embedding"),
        ({"norm": "batch"}, "norm"),
        ({"operator": "dense"}, "operator"),
        ({"encoder_layers": -1}, "encoder_layers"),
        ({"noise": 2, "norm": "none"}, "norm='layer'"),
        ({"noise": 2, "scale_factor": 2}, "scale_factor"),
        ({"noise": 2, "noise_kind": "pink"}, "noise_kind"),
    ],
)
def test_bad_options_are_refused(small_world, options, message):
    with pytest.raises(ValueError, match=message):
        SFNO(small_world(), **options)
