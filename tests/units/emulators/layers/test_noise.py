"""Noise in norms or input of networks: its statistics, what it leaves as it is at first, and what it reaches."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from emul.config.build import build, build_network
from emulators.layers.conditioned_norms import NormShift, Pooled, token_grid
from emulators.layers.field_norms import Noise
from emulators.layers.noise import (
    DropoutNoise,
    FieldNoise,
    NoiseInFields,
    VectorNoise,
    condition,
    scale_noise,
    with_scaled_noise,
)
from emulators.models.fgn import FGN
from emulators.models.graphcast import GraphCast
from emulators.models.unet import UNet
from emulators.rollout import generators
from emulators.sphere.transform import SphericalHarmonics
from emulators.steps.step import Step
from emulators.training.fitting import lay_out
from emulators.training.hardware import Hardware
from places import CONF

SMALL = {
    "sfno": {"embed": 8, "layers": 1},
    "swin": {"embed": 8, "depth": 2, "heads": 2, "window": [2, 4]},
    "stormer": {"embed": 8, "depth": 1, "heads": 2},
    "vit": {"embed": 8, "depth": 1, "heads": 2},
    "unet": {"channels": [8, 8], "blocks": 1},
    "convnext_unet": {"channels": [8, 8], "dilation": [1, 2]},
}
KINDS = ("vector", "point", "degree", "coefficient", "length")


def parts(model: str, kind: str, drawn: dict | None = None, **more) -> dict:
    config = {
        "model": OmegaConf.load(CONF / f"model/{model}.yaml"),
        "noise": OmegaConf.load(CONF / f"noise/{kind}.yaml"),
    }
    config["model"].update(SMALL.get(model, {}) | more)
    config["noise"].update(drawn or {})
    return config


def example(world, batch: int = 2):
    fields = torch.randn(batch, world.input_channels, *world.grid.shape, generator=torch.Generator().manual_seed(0))
    return fields, torch.zeros(batch, dtype=torch.int64)


def wake(network) -> None:
    """Give the maps of the noise weights, as training does."""
    moved = (part for part in network.modules() if isinstance(part, NormShift | NoiseInFields))
    for number, part in enumerate(moved):
        part.linear.weight.data.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(number))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", SMALL)
def test_members_begin_alike_and_go_apart(small_world, model, kind):
    world = small_world()
    torch.manual_seed(0)
    config = parts(model, kind)
    plain = build(config["model"], world)
    for parameter in plain.parameters():  # some networks start with a zero output
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    network = build_network(config, world).eval()
    network.load_state_dict({**network.state_dict(), **plain.state_dict()})
    fields, time = example(world)
    draw = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    with torch.no_grad():
        expected = plain.eval()(fields, time)
        torch.testing.assert_close(network(fields, time), expected)
        torch.testing.assert_close(network(fields, time, generator=draw), expected)  # zero at the start
        wake(network)
        torch.testing.assert_close(network(fields, time), expected)  # without a generator there is no noise
        same = fields[:1].expand(2, -1, -1, -1)
        one, other = network(same, time, generator=[torch.Generator().manual_seed(seed) for seed in (1, 2)])
        again = network(same[:1], time[:1], generator=[torch.Generator().manual_seed(1)])[0]
    assert (one - other).abs().max() > 1e-4
    torch.testing.assert_close(one, again, rtol=1e-4, atol=1e-5)  # a member is its generator's alone


@pytest.mark.parametrize("model", SMALL)
def test_gradients_reach_the_maps_and_the_copy_has_its_own(small_world, model):
    world = small_world()
    network = build_network(parts(model, "vector"), world)
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    fields, time = example(world)
    twin = copy.deepcopy(network)
    network(fields, time).square().sum().backward()
    maps = [part.linear.weight for part in network.modules() if isinstance(part, NormShift)]
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in maps)
    shifts = [part for part in twin.modules() if isinstance(part, NormShift)]
    assert all(part.values is None for part in shifts)
    twin(fields, time)
    assert all(part.values is not None for part in shifts)


def test_gradients_reach_the_map_to_the_input_of_a_network_without_norms(small_world):
    world = small_world()
    network = build_network(parts("linear", "length"), world)
    fields, time = example(world)
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    network(fields, time=time).square().sum().backward()
    assert network.noise_in_fields.linear.weight.grad.abs().min() > 0
    by_name = {"fields": fields, "time": time, "generator": torch.Generator().manual_seed(3)}
    one = network(fields, time, generator=torch.Generator().manual_seed(3))
    assert torch.equal(network(**by_name), one)
    assert not torch.equal(network.eval()(fields, time), one)


def test_noise_in_the_input_is_a_linear_map_of_the_fields_drawn(small_world):
    world = small_world()
    network, seen = torch.nn.Module(), []
    network.forward = lambda fields, time: seen.append(fields)
    noise = FieldNoise(world, spectrum="point", channels=3, enters="input")
    wake(condition(network, noise))
    fields, time = example(world)
    network(fields, time, generator=torch.Generator().manual_seed(1))
    drawn = noise(2, fields.device, torch.Generator().manual_seed(1))
    expected = torch.einsum("oc,bcyx->boyx", network.noise_in_fields.linear.weight, drawn)
    torch.testing.assert_close(seen[0] - fields, expected, rtol=1e-4, atol=1e-5)


def test_norms_may_be_chosen_by_name(small_world):
    world = small_world()
    network = build_network(parts("sfno", "degree", {"norms": ["0.norm_in"]}, layers=2), world)
    assert [part.name for part in network.noise_in_norms.maps] == ["blocks.0.norm_in"]
    with pytest.raises(
        ValueError, match=r"none of the norms of SFNO; these are blocks\.0\.norm_in, blocks\.0\.norm_out"
    ):
        build_network(parts("sfno", "degree", {"norms": ["middle"]}), world)


@pytest.mark.parametrize("is_trained", [True, False])
@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        ("grid_first", (8, 4, 3, 5)),
        ("channels_last", (3, 4, 8, 5)),
        ("channels_last", (3, 32, 5)),
        ("channels_first", (3, 5, 4, 8)),
    ],
)
def test_a_shift_alone_is_that_of_a_scale_of_one(layout, shape, is_trained):
    both, alone = (NormShift("norm", 2, 5, layout, scale) for scale in (True, False))
    alone.linear.weight.data.normal_()
    both.linear.weight.data[5:] = alone.linear.weight.data
    normed = torch.randn(shape)
    for field in (torch.randn(3, 2, 4, 8), torch.randn(3, 2)):
        both.values = alone.values = Pooled(field)
        with torch.set_grad_enabled(is_trained):
            expected, found = both(normed), alone(normed.clone())
        torch.testing.assert_close(found, expected)
        assert (found - normed).abs().min() > 0


def test_a_constant_vector_makes_no_small_scales(small_world):
    """One vector for the globe cannot itself make noise from point to point: a smooth state stays smooth."""
    world = small_world()
    network = build_network(parts("sfno", "vector", position_embedding="none"), world).eval()
    wake(network)
    _, time = example(world)
    flat = torch.ones(2, world.input_channels, *world.grid.shape)
    with torch.no_grad():
        out = network(flat, time, generator=generators(0, range(2), np.array(["2001-01-01"], "datetime64[s]")))
    rough = out.diff(dim=-1).abs().max()
    assert rough < 1e-4


def test_spectra_of_the_fields():
    from emulators.grid import gaussian_grid

    transform = SphericalHarmonics(gaussian_grid(16, 32))
    draw = torch.Generator().manual_seed(0)
    degree, radius = np.arange(transform.degrees), 6371.0
    for kind, lengths, expected in (
        ("degree", (), np.ones(transform.degrees)),
        ("isotropic", (), 2 * degree + 1.0),
        ("length", (900.0,), (2 * degree + 1) * np.exp(-0.5 * degree * (degree + 1) * (900.0 / radius) ** 2)),
    ):
        fields = Noise(kind, transform, 4, lengths)(600, torch.device("cpu"), draw)
        numbers = transform.analysis(fields.flatten(2)).reshape(transform.orders, 2, transform.degrees, -1)
        twice = torch.where(torch.arange(transform.orders)[:, None, None] > 0, 2.0, 1.0)
        power = (numbers.square().sum(1) * twice).mean(-1).sum(0).numpy() / (4 * np.pi)
        np.testing.assert_allclose(power, expected / expected.sum(), rtol=0.09, err_msg=kind)
        assert float(fields.var()) == pytest.approx(1.0, abs=0.03)


def test_fields_take_their_lengths_in_turn(small_world):
    noise = FieldNoise(small_world(), spectrum="length", channels=3, lengths=[4000.0, 0.0])
    fields = noise(200, torch.device("cpu"), torch.Generator().manual_seed(0))
    near = [float((fields[:, n, ..., 1:] * fields[:, n, ..., :-1]).mean()) for n in range(3)]
    assert near[0] == pytest.approx(near[2], abs=0.05)
    assert near[0] > 0.8 > 0.6 > near[1]


def draws(network) -> torch.Tensor:
    """What the network draws for the norms, for two cases."""
    noise = network.noise_in_norms.noise
    return noise(2, torch.device("cpu"), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", ["vector", "point", "degree"])
def test_noise_is_scaled_by_one_factor(small_world, kind):
    world, drawn = small_world(), {"embedding": "none"}
    once, thrice = (build_network(parts("unet", kind, drawn), world) for _ in range(2))
    scale_noise(thrice, 3)
    torch.testing.assert_close(draws(thrice), 3.0 * draws(once))


def test_noise_is_scaled_by_degree_linearly_between_pairs(small_world):
    world = small_world()
    once, scaled = (build_network(parts("sfno", "degree", {"embedding": "none"}), world) for _ in range(2))
    scale_noise(scaled, [[2, 1.5], [4, 0.5]])
    transform = SphericalHarmonics(world.grid)
    before, after = (transform.analysis(draws(network).permute(3, 2, 0, 1).flatten(2)) for network in (once, scaled))
    factors = torch.tensor([1.5, 1.5, 1.5, 1.0, 0.5, 0.5])[None, :, None]
    torch.testing.assert_close(after[:, :6], factors * before[:, :6], atol=1e-5, rtol=1e-4)


def test_the_white_noise_of_a_network_of_its_own_is_scaled(small_world):
    world = small_world()
    once, twice = (build(parts("sfno", "degree", noise=3, noise_kind="white")["model"], world) for _ in range(2))
    scale_noise(twice, 2.0)
    drawn = [network.noise(2, torch.device("cpu"), torch.Generator().manual_seed(0)) for network in (once, twice)]
    torch.testing.assert_close(drawn[1], 2.0 * drawn[0])


def test_a_copy_with_scaled_noise_shares_the_weights_and_leaves_the_first_as_it_is(small_world):
    world = small_world()
    step = Step(world, build_network(parts("unet", "degree", {"embedding": "none"}), world))
    before = draws(step.network)
    twice = with_scaled_noise(step, 2.0)
    torch.testing.assert_close(draws(twice.network), 2.0 * before)
    torch.testing.assert_close(draws(with_scaled_noise(twice, 0.5).network), before)
    assert torch.equal(draws(step.network), before)
    assert all(a is b for a, b in zip(step.parameters(), twice.parameters(), strict=True))
    assert with_scaled_noise(step, 1.0) is step
    quiet = Step(world, UNet(world, channels=[8]))
    scale_noise(quiet.network, 1.0)  # nothing to do
    with pytest.raises(ValueError, match="draws no noise whose size"):
        with_scaled_noise(quiet, 2.0)


def test_what_noise_cannot_be_scaled_by(small_world):
    world = small_world()
    fields, vector, dropout = (build_network(parts("unet", kind), world) for kind in ("degree", "vector", "dropout"))
    for network, factors, match in (
        (fields, [], "expected a number of 0 or more, or pairs"),
        (fields, -1.0, "expected a number of 0 or more, or pairs"),
        (fields, [[5, 1.0], [3, 2.0]], "of increasing degree"),
        (fields, [[5, 1.0, 2.0]], "of increasing degree"),
        (vector, [[0, 1.0], [5, 2.0]], "not drawn by degree"),
        (dropout, 1.5, "UNet draws no noise whose size can be changed"),
    ):
        with pytest.raises(ValueError, match=match):
            scale_noise(network, factors)


def test_refusals(small_world):
    world = small_world()
    with pytest.raises(ValueError, match="noise of its own"):
        build_network(parts("sfno", "vector", noise=2), world)
    with pytest.raises(ValueError, match="no norms"):
        condition(build(OmegaConf.load(CONF / "model/linear.yaml"), world), VectorNoise(world))
    for match, options in (
        ("spectrum", {"spectrum": "pink"}),
        ("enters", {"spectrum": "point", "enters": "output"}),
        ("lengths are those", {"spectrum": "point", "lengths": [500.0]}),
        ("lengths are those", {"spectrum": "length"}),
        ("0 km or more", {"spectrum": "length", "lengths": [-1.0]}),
        ("goes with enters=norms", {"spectrum": "point", "enters": "input", "norms": ["norm"]}),
    ):
        with pytest.raises(ValueError, match=match):
            FieldNoise(world, **options)
    with pytest.raises(ValueError, match="global grid"):
        FieldNoise(small_world("limited_area"), spectrum="degree")


def test_fields_of_noise_have_no_place_on_a_mesh(small_world):
    world = small_world()
    network = GraphCast(world, level=1, latent=8, steps=1)
    with pytest.raises(ValueError, match="GraphCast has norms on a mesh"):
        condition(network, FieldNoise(world, spectrum="point"))
    condition(copy.deepcopy(network), VectorNoise(world))
    condition(network, FieldNoise(world, spectrum="point", enters="input"))


@pytest.mark.parametrize("noise", [VectorNoise, DropoutNoise])
def test_noise_on_a_mesh_is_drawn_case_by_case(small_world, noise):
    """What is embedded once for all cases is moved by the noise of each."""
    world = small_world()
    network = condition(GraphCast(world, level=1, latent=8, steps=1), noise(world)).eval()
    with torch.no_grad():
        for shift in network.get_submodule("noise_in_norms").maps:
            for parameter in shift.parameters():
                parameter.normal_()
    fields, time = torch.randn(1, world.input_channels, *world.grid.shape).expand(3, -1, -1, -1), torch.zeros(3)
    draws = [torch.Generator().manual_seed(seed) for seed in (1, 2, 1)]
    with torch.no_grad():
        out = network(fields, time, generator=draws)
    torch.testing.assert_close(out[0], out[2], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(out[0], out[1], rtol=1e-3, atol=1e-3)


def test_token_grid_has_the_proportion_of_the_points():
    assert token_grid(512, (32, 64)) == (16, 32)
    assert token_grid(17 * 32, (33, 64)) == (17, 32)


@pytest.mark.parametrize("model", ["sfno", "unet", "vit"])
def test_dropout_stays_on_for_members_and_leaves_out_its_share(model, small_world):
    world = small_world()
    torch.manual_seed(0)
    network = build_network(parts(model, "dropout"), world)
    assert [name for name, _ in network.named_parameters() if "noise" in name] == []
    fields, time = torch.randn(3, world.input_channels, *world.grid.shape), torch.zeros(3, dtype=torch.int64)
    network = copy.deepcopy(network).eval()

    def forecast(rows, seeds):
        with torch.no_grad():
            return network(fields[rows], time[rows], generator=[torch.Generator().manual_seed(s) for s in seeds])

    with torch.no_grad():
        assert torch.equal(network(fields, time), network(fields, time))
    whole = forecast([0, 1, 2], [1, 2, 3])
    torch.testing.assert_close(forecast([1], [2])[0], whole[1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(forecast([1], [4])[0], whole[1], rtol=1e-3)
    factors = DropoutNoise(world, rate=0.25)(50, torch.device("cpu"), torch.Generator().manual_seed(0), 200)
    assert factors.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.02)


def test_dropout_of_all_is_refused(small_world):
    with pytest.raises(ValueError, match=r"noise\.rate between 0 and 1; got 1"):
        DropoutNoise(small_world(), rate=1.0)


def test_norms_that_are_computed_again_would_see_later_noise(small_world):
    world = small_world()
    for noise in (VectorNoise(world), DropoutNoise(world)):
        with pytest.raises(ValueError, match=r"model\.chunks=1"):
            condition(GraphCast(world, level=1, latent=8, steps=1, chunks=2), noise)


@pytest.mark.parametrize("kind", [VectorNoise, DropoutNoise])
def test_activations_are_not_computed_again_with_later_noise(small_world, kind):
    world = small_world()
    net = condition(FGN(world, level=1, latent=8, layers=1, heads=2, hops=1), kind(world))
    with pytest.raises(ValueError, match="noise of a later step"):
        lay_out([net], Hardware(activation_checkpointing=True))
