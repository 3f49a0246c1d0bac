"""Every network in conf/model: shapes, gradients, determinism, batch invariance, state dict, the meta device."""

from __future__ import annotations

import copy
import inspect
from dataclasses import replace
from functools import cache, partial
from importlib import import_module
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from emulators.contracts import example_worlds
from emulators.contracts.parts import MODEL, example_inputs
from emulators.interfaces import NetworkModule, optional
from emulators.layers.convolution import OVER_POLES, Edges
from emulators.layers.sample_draws import begin_samples
from emulators.scaling.parametrisation import MuP, UnitMuP, roles
from emulators.variables import Variable, VariableSet
from emulators.world import Scale
from places import CONF

FILES = sorted((CONF / "model").glob("*.yaml"))
LARGE = 8_000_000  # parameters; larger networks are built on the meta device only
GRIDS = ("gaussian", "equiangular", "equiangular_with_poles", "limited_area")
QUICK = (("gaussian", 1), ("limited_area", 2))  # grids and histories of the fast suite


def options_of(file: Path) -> dict:
    """The options of the network that `file` describes, under a Step with residual output unless it says otherwise."""
    config = OmegaConf.load(file)
    whole = config if "model" in config else OmegaConf.create({"model": config})
    whole = OmegaConf.to_container(OmegaConf.merge({"step": {"output": "residual"}}, whole), resolve=True)
    return dict(whole["model"])


def network(file: Path, world, **changes):
    """The network that `file` describes, with other options."""
    options = {**options_of(file), **changes}
    module, name = options.pop("_target_").rsplit(".", 1)
    target = getattr(import_module(module), name)
    assert set(options) <= set(inspect.signature(target).parameters), f"{file} names unknown options"
    return target(world, **options)


def parameters(module) -> int:
    return sum(p.numel() for p in module.parameters())


@cache
def size(file: Path) -> int:
    """Parameters of a network."""
    with torch.device("meta"):
        return parameters(network(file, world_for(file)))


def world_for(file: Path, grid: str = "gaussian", **changes):
    """A world on a grid, or on one that the network takes, where it takes no rows and columns."""
    config = OmegaConf.load(file)
    module = import_module(config.get("model", config)["_target_"].rpartition(".")[0])
    return example_worlds.small_world(optional(module, NetworkModule, "EXAMPLE_GRID") or grid, **changes)


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def file(request):
    return request.param


@pytest.fixture
def small_world(file):
    return partial(world_for, file)


@pytest.fixture
def build(file):
    def built(world):
        if (file.parent / f"{file.stem}_small.yaml").is_file():
            pytest.skip("the same code as its small form; see test_meta")
        if size(file) > LARGE:
            pytest.skip("too large for a test; see test_meta")
        torch.manual_seed(0)
        return network(file, world)

    return built


@pytest.fixture
def example():
    return example_inputs


@pytest.mark.parametrize(
    ("grid", "history"),
    [
        pytest.param(grid, history, marks=() if (grid, history) in QUICK else pytest.mark.slow)
        for grid in GRIDS
        for history in (1, 2)
    ],
)
def test_shape(build, example, small_world, grid, history):
    world = small_world(grid, history=history)
    try:
        net = build(world)
    except ValueError as refusal:
        if grid != "limited_area" or "limited_area" not in str(refusal):
            raise
        return
    fields, time, target = example(world)
    with torch.no_grad():
        output = net(fields, time)
    assert output.shape == target.shape
    assert output.dtype == torch.float32
    assert torch.isfinite(output).all()


@pytest.mark.parametrize("contract", MODEL, ids=lambda contract: contract.__name__)
def test_contract(build, small_world, contract):
    contract(build, small_world())


@pytest.mark.slow
def test_what_is_drawn_in_training_belongs_to_the_sample(build, example, small_world):
    """Noise, dropout and dropped paths of four samples are those of the same samples in two halves."""
    net = build(small_world()).train()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))  # no path is closed by zeros
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()  # its means are those of the pass
    fields, time, _ = example(small_world(), batch=4)

    def drawn(some):
        begin_samples(some)
        torch.manual_seed(5)
        with torch.no_grad():
            return copy.deepcopy(net)(fields[some], time[some])  # spectral norms change in each pass

    try:
        whole, halves = drawn(range(4)), torch.cat([drawn(range(2)), drawn(range(2, 4))])
    finally:
        begin_samples(())
    torch.testing.assert_close(halves, whole, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_winds_seen_from_beyond_a_pole_are_turned(build, example, small_world, monkeypatch):
    """No network pads the winds that it reads over a pole as they are."""
    plain = small_world()
    winds = VariableSet(tuple(Variable(f"{c}_component_of_wind", "m s-1", (500.0, 850.0)) for c in "uv"))
    scales = {**plain.scales, **{channel: Scale(5.0 + n, 3.0, 1.0) for n, channel in enumerate(winds.channels)}}
    world = replace(plain, prognostic=plain.prognostic + winds, scales=scales)
    net = build(world).eval()
    fields, time, _ = example(world)
    wind, pad, unturned = fields[:, world.prognostic.slice("v_component_of_wind").start], Edges.pad, []

    def spied(self, x, north, south, west, east, *, mirror=None):
        if self.kind in OVER_POLES and (north or south) and mirror is None and x.shape[-2:] == wind.shape[-2:]:
            unturned.extend(channel for channel in range(x.shape[1]) if torch.equal(x[:, channel], wind))
        return pad(self, x, north, south, west, east, mirror=mirror)

    monkeypatch.setattr(Edges, "pad", spied)
    with torch.no_grad():
        net(fields, time)
    assert not unturned


@pytest.mark.slow
def test_one_graph_for_the_compiler(build, example, small_world):
    """Without a break, and giving the same."""
    net = build(small_world()).eval()
    fields, time, _ = example(small_world())
    torch._dynamo.reset()
    graph = torch.compile(net, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(graph(fields, time), net(fields, time), rtol=1e-4, atol=1e-5)


def test_meta(file, small_world):
    with torch.device("meta"):
        net = network(file, small_world())
    assert all(p.device.type == "meta" for p in net.parameters())


@pytest.mark.slow
def test_widths(build, file, small_world):
    """Each network has a base width, at which nothing changes; what maps, reads and writes its channels is found."""
    world, options = small_world(), options_of(file)
    settings = OmegaConf.to_container(OmegaConf.load(CONF / "parametrisation" / "mup.yaml"))
    rule = MuP(base=settings["base"], along=settings["along"])
    net = build(world)
    if not any(p.requires_grad for p in net.parameters()) or hasattr(net, "fit"):
        with pytest.raises(ValueError, match=f"sizes of {type(net).__name__} at"):
            rule.sizes(net, options)
        return
    with torch.device("meta"):
        wide = network(file, world, **rule.sizes(net, options, 2.0))
    found = roles(wide, net)
    assert {"matrix", "output", "input", "vector"} <= {role.kind for role in found.values()}
    assert all(role.kind == "vector" for name, role in found.items() if wide.get_parameter(name).ndim < 2)
    base = rule.sizes(net, options)
    made, plain = (seeded(file, world, **base) for _ in range(2))
    rule.apply(made, {**options, **base}, lambda sizes: seeded(file, world, **sizes))
    for (name, parameter), same in zip(made.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(parameter, same), name
        assert parameter.rate_share == 1.0, name
    rule.apply(net, options, lambda sizes: seeded(file, world, **sizes))
    assert all(p.rate_share == 1.0 for p in net.parameters() if p.ndim < 2)
    unit = UnitMuP(base=settings["base"], along=settings["along"])
    unit.apply(net, options, lambda sizes: seeded(file, world, **sizes))
    shares = [p.rate_share for name, p in net.named_parameters() if found[name].kind == "matrix"]
    assert 0.0 < max(shares) <= 0.5
    assert all(torch.isfinite(p).all() for p in net.parameters())


def seeded(file: Path, world, **changes):
    torch.manual_seed(0)
    return network(file, world, **changes)


def test_fit_beats_zero(build, example, small_world):
    """A closed form lowers the error on what it was fitted to."""
    net = build(small_world())
    if not hasattr(net, "fit"):
        pytest.skip("trained by gradients")
    fields, time, target = example(small_world(), batch=12)
    target = 0.5 + 0.1 * target
    net.fit((fields[i : i + 4], time[i : i + 4], target[i : i + 4]) for i in range(0, 12, 4))
    with torch.no_grad():
        assert (net(fields, time) - target).square().mean() < 0.1 * target.square().mean()
