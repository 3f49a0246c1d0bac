"""Networks on meshes: cells in place of rows and columns, what is learned of places, noise, windows, regions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import build, randomised

from emulators.grid import LatLonGrid, PointGrid, gaussian_grid
from emulators.layers.mesh_coders import channel_numbers
from emulators.layers.noise import VectorNoise, condition
from emulators.models.fgn import FGN
from emulators.models.gencast import GenCast
from emulators.models.graph_efm import GraphEFM
from emulators.models.graph_lam import GraphLAM
from emulators.models.graph_transformer import GraphTransformer
from emulators.models.graphcast import GraphCast
from emulators.models.hi_lam import HiLAM
from emulators.models.keisler import Keisler
from emulators.steps.denoising import DenoisingStep
from emulators.variables import Variable, VariableSet
from emulators.world import World

SETS = (("p", 78), ("f", 10))
SMALL = {"level": 1, "channels": 16, "layers": 2, "heads": 2, "trainable": 2}
TRANSFORMER = {"level": 1, "latent": 8, "layers": 2, "heads": 2, "hops": 1}
NETWORKS = {
    "graph_efm": lambda where: GraphEFM(where, level=2, latent=8, numbers=4, decoder_steps=1),
    "gencast": lambda where: GenCast(where, **TRANSFORMER),
    "fgn": lambda where: FGN(where, **TRANSFORMER, edge=4, everywhere=["2m_temperature"]),
    "graphcast": lambda where: GraphCast(where, level=1, latent=8, steps=2),
    "graph_transformer": lambda where: GraphTransformer(where, **{**SMALL, "trainable": 0}),
    "keisler": lambda where: Keisler(where, level=1, latent=8, steps=2),
    "graph_lam": lambda where: GraphLAM(where, level=2, latent=8, steps=2),
    "hi_lam": lambda where: HiLAM(where, level=2, latent=8, steps=2),
    "hi_lam_parallel": lambda where: HiLAM(where, level=2, latent=8, steps=2, processor="parallel"),
}


@pytest.fixture
def inputs(small_world):
    where = small_world()
    return where, torch.randn(2, where.input_channels, *where.grid.shape), torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize("name", NETWORKS)
def test_cells_are_as_good_as_rows_and_columns(name, inputs):
    """The same points as a list, and in another order."""
    where, fields, time = inputs
    net = randomised(NETWORKS[name](where))
    order = torch.randperm(where.grid.size, generator=torch.Generator().manual_seed(0))
    latitude, longitude = (values[order] for values in where.grid.points)
    cells = replace(where, grid=PointGrid(latitude, longitude, where.grid.weights.ravel()[order]), static_fields=None)
    other = NETWORKS[name](cells)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        expected, got = net(fields, time), other.eval()(fields.flatten(2)[..., order], time)
    torch.testing.assert_close(got, expected.flatten(2)[..., order], rtol=1e-4, atol=1e-5)


def test_places_are_learned(inputs):
    where, fields, time = inputs
    net = GraphTransformer(where, **SMALL)
    net(fields, time).square().sum().backward()
    for part in (net.points, net.nodes, net.inward, net.across, net.outward):
        assert (part.trainable == 0).all()
        assert part.trainable.grad.abs().max() > 0


def test_noise_comes_from_the_generator(inputs):
    where, fields, time = inputs
    net = randomised(GraphTransformer(where, **SMALL, noise=4))

    def run(seed):
        with torch.no_grad():
            return net(fields, time, generator=None if seed is None else torch.Generator().manual_seed(seed))

    assert torch.equal(run(1), run(1))
    assert not torch.allclose(run(1), run(2))
    assert torch.equal(run(None), run(None))


def test_a_window_over_all_nodes_is_full_attention(inputs):
    where, fields, time = inputs
    wide, narrow = (GraphTransformer(where, **SMALL, processor="window", window=n) for n in (41, 5))
    narrow.load_state_dict(wide.state_dict())
    nodes = torch.randn(2, 42, 16)
    block = wide.processor[0].attention
    q, k, v = (part(nodes).unflatten(-1, (2, -1)).transpose(1, 2) for part in (block.q, block.k, block.v))
    full = torch.softmax(q @ k.mT / np.sqrt(8.0), -1)
    apart = (torch.arange(42)[:, None] - torch.arange(42)).abs()
    near = full * (apart <= 5)
    for net, shares in ((wide, full), (narrow, near / near.sum(-1, keepdim=True))):
        expected = block.projection((shares @ v).transpose(1, 2).flatten(2))
        torch.testing.assert_close(block(nodes, net.band), expected, rtol=1e-4, atol=1e-5)
        assert net(fields, time).shape == (2, where.output_channels, *where.grid.shape)


def test_a_region_is_finer(inputs):
    where, fields, time = inputs
    plain, finer = (
        GraphTransformer(where, **SMALL, **more)
        for more in ({}, {"fine": 4, "region": [20.0, 70.0, 350.0, 80.0], "margin": 500.0})
    )
    assert finer.node_count > plain.node_count == 42
    assert finer(fields, time).isfinite().all()
    with pytest.raises(ValueError, match="its level and its region"):
        GraphTransformer(where, **SMALL, fine=4)
    with pytest.raises(ValueError, match="holds points of the grid"):
        GraphTransformer(where, **SMALL, fine=4, region=[1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ValueError, match="graph or window"):
        GraphTransformer(where, **SMALL, processor="both")


def test_gencast_is_told_the_noise_level_by_its_norms_alone(inputs):
    where, _, time = inputs
    told = DenoisingStep.network_world(where)
    net, plain = randomised(GenCast(told, **TRANSFORMER)), GenCast(where, **TRANSFORMER)
    more = torch.randn(2, told.input_channels, *where.grid.shape)
    (channel,) = channel_numbers(told, ["noise_level"])
    with torch.no_grad():
        first, second = (net(more, time, noise_level=torch.full((2,), level)) for level in (-1.0, 2.0))
        more[:, channel] += 1.0
        assert torch.equal(net(more, time, noise_level=torch.full((2,), 2.0)), second)
        assert torch.equal(net(more, time), net(more, time, noise_level=torch.zeros(2)))
    assert not torch.allclose(first, second)
    assert len(net.read) == told.input_channels - 1
    assert len(plain.read) == where.input_channels
    with pytest.raises(ValueError, match="reads; got nothing"):
        channel_numbers(where, ["2m_temperature", "nothing"])


def drawn_by_case(net, fields, time):
    """run(seed): the output of a network that draws; the same by seed, other by another, each case by itself."""

    def run(seed, rows=2):
        generator = None if seed is None else [torch.Generator().manual_seed(seed + row) for row in range(rows)]
        with torch.no_grad():
            return net(fields[:rows], time[:rows], generator=generator)

    assert torch.equal(run(1), run(1))
    assert not torch.allclose(run(1), run(2))
    torch.testing.assert_close(run(1)[:1], run(1, rows=1), rtol=1e-4, atol=1e-5)
    return run


def test_fgn_draws_one_vector_a_case(inputs):
    where, fields, time = inputs
    net = condition(randomised(FGN(where, **TRANSFORMER)), VectorNoise(where)).eval()

    run = drawn_by_case(net, fields, time)
    silent = FGN(where, **TRANSFORMER)
    silent.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("noise_in_norms")})
    with torch.no_grad():
        torch.testing.assert_close(run(None), silent.eval()(fields, time))
    with pytest.raises(ValueError, match=r"Expected 32 numbers of noise.*got 4.*noise.channels=32"):
        condition(FGN(where, **TRANSFORMER), VectorNoise(where, channels=4))(fields, time)


@pytest.mark.parametrize("build", [GenCast, FGN])
def test_portions_change_nothing(inputs, build):
    """Nor do two calls before one gradient, as in a rollout, with other numbers told."""
    where, fields, time = inputs
    whole, portions = (randomised(build(where, **TRANSFORMER, chunks=chunks)) for chunks in (1, 3))
    portions.load_state_dict(whole.state_dict())
    (word,) = build.conditioning
    size = (2,) if build is GenCast else (2, whole.noise)
    told = [{word: torch.randn(size)} for _ in range(2)]
    slopes = []
    for net in (whole, portions):
        out = net(net(fields, time, **told[0])[:, [0] * where.input_channels], time, **told[1])
        learned = [parameter for parameter in net.parameters() if parameter.requires_grad]
        slopes.append([out, *torch.autograd.grad(out.square().sum(), learned)])
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(a.detach().abs().max()))


@pytest.mark.parametrize("merged", [False, True])
def test_graph_efm_draws_latent_numbers(inputs, merged):
    where, fields, time = inputs
    net = randomised(GraphEFM(where, level=2, latent=8, numbers=4, decoder_steps=1, merged=merged))

    run = drawn_by_case(net, fields, time)
    assert torch.equal(run(None), run(None))
    assert net.size == (162 if merged else 42)
    assert {name.split(".")[0] for name, p in net.named_parameters() if not p.requires_grad} == set(net.at_rest)
    with pytest.raises(ValueError, match="isotropic or diagonal"):
        GraphEFM(where, spread="wide")


@pytest.mark.parametrize("spread", ["isotropic", "diagonal"])
def test_divergence_of_latent_numbers(inputs, spread):
    """Of the posterior from the prior, at their values for parameters zero, or one of them."""
    where, fields, time = inputs
    net = GraphEFM(where, level=1, latent=8, numbers=4, decoder_steps=1, spread=spread)
    for part in (net.prior, net.posterior):
        torch.nn.init.zeros_(part.out.out.weight)
        torch.nn.init.zeros_(part.out.out.bias)
    with torch.no_grad():
        net.posterior.out.out.bias[:4] = 0.3
    narrow = 1e-4 + np.log(2.0)
    prior = torch.distributions.Normal(0.0, 1.0 if spread == "isotropic" else narrow)
    expected = 4 * torch.distributions.kl_divergence(torch.distributions.Normal(0.3, narrow), prior)
    truth = torch.randn(2, where.output_channels, *where.grid.shape)
    raw, divergence = net.reconstructed(fields, time, truth)
    assert raw.shape == truth.shape
    torch.testing.assert_close(divergence, expected.expand(2))


def test_published_sizes_of_generative_networks():
    """What the original code counts with its own configuration, 57 and 180 million as published, on a coarser mesh."""

    def variables(**counts):
        return VariableSet(tuple(Variable(f"{name}{n}") for name, many in counts.items() for n in range(many)))

    def count(file, predicted, more, **options):
        forcing, static = variables(f=more - 6, y=6), variables(s=0)
        where = World(gaussian_grid(8), predicted, np.timedelta64(6, "h"), forcing, static=static)
        with torch.device("meta"):
            net = build(file, where, level=1, hops=1, **options)
            if isinstance(net, FGN):
                condition(net, VectorNoise(where))
        return sum(p.numel() for p in net.parameters())

    assert count("gencast", variables(p=84), 180) == 57_492_612
    everywhere = [f"y{n}" for n in range(6)]
    assert count("fgn", variables(p=103), 81, everywhere=everywhere) == 183_785_575
    small = {"latent": 512, "hidden": 2048, "layers": 16, "heads": 4, "everywhere": everywhere}
    assert count("fgn", variables(p=101), 79, **small) == 56_684_133


def test_sweeps_or_parallel(inputs):
    with pytest.raises(ValueError, match="sweeps or parallel"):
        HiLAM(inputs[0], processor="both")


@pytest.mark.parametrize(
    ("build", "states", "columns", "size"),
    [
        (Keisler, 1, 16, 6_762_830),  # 6.7 million as published
        (HiLAM, 2, 82, 1_429_454),  # three levels: 44 interactions of 29,184, and embeddings
        (HiLAM, 2, 244, 1_972_878),
    ],
)
def test_sizes(build, states, columns, size):
    predicted, forcing = (VariableSet(tuple(Variable(f"{kind}{n}") for n in range(many))) for kind, many in SETS)
    grid = gaussian_grid(8) if columns == 16 else LatLonGrid(np.linspace(60, 50, 9), np.linspace(0, 40, columns))
    with torch.device("meta"):
        net = build(World(grid, predicted, np.timedelta64(6, "h"), forcing, history=states))
    assert sum(p.numel() for p in net.parameters()) == size
