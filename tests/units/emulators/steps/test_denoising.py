"""Steps that sample: what they draw from, what they learn, and samples around a forecast."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.layers.convolution import pole_mirror
from emulators.layers.sample_draws import begin_samples
from emulators.losses.lp import Lp
from emulators.models.gencast import GenCast
from emulators.models.linear import Linear
from emulators.models.persistence import Persistence
from emulators.models.sfno import SFNO
from emulators.models.unet import UNet
from emulators.objectives.diffusion import Diffusion
from emulators.rollout import Rollout
from emulators.samplers.ddpm import DDPM
from emulators.samplers.euler import Euler
from emulators.samplers.heun import Heun
from emulators.state import State, Window
from emulators.steps.denoising import DenoisingStep
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale


def unet(world, **options):
    torch.manual_seed(0)
    inner = DenoisingStep.network_world(world, ["forecast"] if "forecast" in options else [])
    return DenoisingStep(world, UNet(inner, channels=[8]), sampler=Euler(world, levels=4), **options).eval()


def window(world, weather, cases: int = 3, seed: int = 1) -> Window:
    def state(variables, number, hours):
        time = np.datetime64("2001-01-01") + np.arange(cases) * np.timedelta64(1, "D") + np.timedelta64(hours, "h")
        return replace(weather(world, variables, seed + number, (cases,), torch.float32), time=time)

    history = (state(world.prognostic, 0, 0),)
    return Window(history, (state(world.predicted, 1, 6),), (state(world.forcing, 2, 6),))


def some(window: Window, cases) -> Window:
    def pick(state: State) -> State:
        return replace(state, values=state.values[cases], time=state.time[cases])

    return Window(*(tuple(pick(s) for s in part) for part in (window.history, window.target, window.forcing)))


def states(step, window, **options):
    rolled = Rollout(step, step.world, window.history, **options)
    return list(rolled.states([window.forcing[0], replace(window.forcing[0], time=window.forcing[0].time + 21600)]))


def test_members_differ_and_are_the_same_however_batched(small_world, weather):
    world = small_world()
    step, whole = unet(world, noise="degree"), window(world, weather)
    many = states(step, whole, members=3, seed=5)[-1].values
    assert not torch.equal(many[0], many[1])
    few = states(step, some(whole, [1]), members=2, seed=5)[-1].values
    torch.testing.assert_close(few[:, 0], many[:2, 1], rtol=1e-6, atol=1e-6 * float(many.abs().max()))
    assert torch.equal(states(step, whole, members=3, seed=5)[-1].values, many)
    assert not torch.equal(states(step, whole, members=3, seed=6)[-1].values, many)


def test_without_members_a_forecast_is_one_and_the_same(small_world, weather):
    step, whole = unet(small_world()), window(small_world(), weather)
    first, second = (states(step, whole)[-1].values for _ in range(2))
    assert torch.equal(first, second)
    assert step.is_random


def test_the_network_is_told_the_level(small_world, weather):
    """By a channel, and by numbers that move its norms; an SFNO's norms forget the channel."""
    world = small_world()
    inner = DenoisingStep.network_world(world)
    assert inner.input_channels == world.input_channels + world.output_channels + 1
    for network in (UNet(inner, channels=[8]), SFNO(inner, embed=8, layers=1)):
        step = DenoisingStep(world, network, sampler=Heun(world)).eval()
        for parameter in step.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        part = window(world, weather)
        known = step.conditions(part.history, part.forcing[0], {})
        x = torch.randn(3, world.output_channels, *world.grid.shape)
        low, high = (step.restored(known, x, torch.full((3,), s)) for s in (0.5, 0.6))
        skip = [1 / (1 + s**2) for s in (0.5, 0.6)]
        out = [(y - c * x) / (s * (1 + s**2) ** -0.5) for y, c, s in zip((low, high), skip, (0.5, 0.6), strict=True)]
        assert not torch.allclose(out[0], out[1], rtol=1e-3)


def test_restoring_at_no_noise_gives_the_target(small_world, weather):
    world = small_world()
    step, part = unet(world), window(world, weather)
    state, weight = step.restore(part.history, part.forcing[0], part.target[0], torch.full((3,), 1e-6))
    scale = float(step.tendency_std.max())
    torch.testing.assert_close(state.values, part.target[0].values, rtol=1e-5, atol=1e-4 * scale)
    assert torch.allclose(weight, torch.full((3,), 1e12), rtol=1e-3)


@pytest.mark.parametrize("distribution", ["rho", "lognormal", "logitnormal", "sampler"])
def test_the_loss_is_finite_has_gradients_and_belongs_to_samples(small_world, weather, distribution):
    world = small_world()
    step, part = unet(world).train(), window(world, weather, cases=4)
    objective = Diffusion(world, distribution=distribution, log_mean=0.0)
    objective.begin(step)

    def loss(cases):
        begin_samples(cases)
        torch.manual_seed(3)
        return objective(step, some(part, cases), {"mse": Lp(world)})[0]

    try:
        whole, halves = loss([0, 1, 2, 3]), (loss([0, 1]) + loss([2, 3])) / 2
    finally:
        begin_samples(())
    whole.backward()
    torch.testing.assert_close(halves, whole, rtol=1e-4, atol=1e-6)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in step.network.parameters())


def test_levels_follow_their_distribution(small_world):
    world = small_world()
    rho = Diffusion(world).levels(4000, [])
    assert float(rho.median()) == pytest.approx(4.3525, rel=0.1)
    assert 0.02 <= rho.min() <= rho.max() <= 88
    log = Diffusion(world, distribution="lognormal").levels(4000, []).log()
    assert float(log.mean()) == pytest.approx(-1.2, abs=0.1)
    assert float(log.std()) == pytest.approx(1.2, abs=0.1)
    own = Diffusion(world, distribution="sampler").levels(100, [3.0, 2.0, 1.0, 0.0])
    assert sorted(set(own.tolist())) == [1.0, 2.0, 3.0]


def test_samples_around_a_forecast(small_world, weather):
    """The scale of the errors is measured; a network that writes nothing leaves the forecast, which never learns."""
    world = small_world()
    plain = Step(world, Persistence(world))
    step = unet(world, forecast=plain, process="flow").train()
    assert not step.forecast.training
    part = window(world, weather)
    step.measure([part, part])
    error = part.target[0].values - plain(part.history, part.forcing[0]).values
    expected = (error.double().square() * torch.from_numpy(world.grid.weights)).mean((0, 2, 3)).sqrt()
    torch.testing.assert_close(step.error_std.flatten().double(), expected, rtol=1e-5, atol=0)
    step.sampler = Euler(world, levels=4, largest=1.0, smallest=0.25, rho=1.0)
    torch.nn.init.zeros_(step.network.head[-1].weight)
    torch.nn.init.zeros_(step.network.head[-1].bias)
    forecast = plain(part.history, part.forcing[0]).values
    got = step.eval()(part.history, part.forcing[0], generator=torch.Generator().manual_seed(1)).values
    torch.testing.assert_close(got, forecast, rtol=1e-5, atol=1e-4 * float(step.error_std.max()))
    _, weight = step.restore(part.history, part.forcing[0], part.target[0], torch.full((3,), 0.25))
    assert torch.equal(weight, torch.full((3,), 3.0))


def test_wrong_parts_are_refused(small_world):
    world = small_world()
    inner = DenoisingStep.network_world(world)
    with pytest.raises(ValueError, match="take sampler="):
        DenoisingStep(world, UNet(inner, channels=[8]))
    with pytest.raises(ValueError, match=r"Heun samples process=edm; got step\.process=flow"):
        DenoisingStep(world, UNet(inner, channels=[8]), sampler=Heun(world), process="flow")
    with pytest.raises(ValueError, match="take step=denoising"):
        Diffusion(world).begin(Step(world, UNet(world, channels=[8])))
    with pytest.raises(ValueError, match=r"no norms"):
        DenoisingStep(world, Linear(inner), sampler=DDPM(world))
    assert DenoisingStep(world, Linear(inner), sampler=DDPM(world), norms=0).embedding is None


def test_the_forecast_around_which_samples_are_is_turned_beyond_a_pole_as_the_state(small_world):
    plain = small_world()
    winds = VariableSet((Variable("u_component_of_wind", "m s-1", (500.0, 850.0)),))
    scales = {**plain.scales, **{channel: Scale(8.0 + n, 3.0, 1.0) for n, channel in enumerate(winds.channels)}}
    world = replace(plain, prognostic=winds + plain.prognostic, scales=scales)
    offsets = pole_mirror(DenoisingStep.network_world(world, ["forecast"])).offsets.flatten()
    start = world.prognostic.size + world.forcing.size
    assert offsets[:2].tolist() == offsets[start : start + 2].tolist()
    assert offsets[:2].tolist() == pytest.approx([-16.0 / 3.0, -18.0 / 3.0])
    assert not offsets[start + world.predicted.size :].any()  # noise about zero


def test_a_network_that_takes_the_level_is_told_it(small_world, weather):
    world = small_world()
    options = {"level": 1, "latent": 8, "layers": 1, "heads": 2, "hops": 1}
    net = GenCast(DenoisingStep.network_world(world), **options)
    step, whole = DenoisingStep(world, net, sampler=Euler(world, levels=4)), window(world, weather)
    assert step.embedding is None
    assert len(step.shifts) == 0
    seen = []
    handle = net.register_forward_pre_hook(lambda _, args, told: seen.append(told["noise_level"]), with_kwargs=True)
    assert step.eval()(whole.history, whole.forcing[0]).values.isfinite().all()
    handle.remove()
    assert [float(level[0].exp()) for level in seen] == pytest.approx(step.sampler.levels[:-1], rel=1e-5)
    total, _ = Diffusion(world)(step.train(), whole, {"mse": Lp(world)})
    total.backward()
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


class Permuted(torch.nn.Module):
    """A network that reads and writes the channels of another in an order of its own."""

    def __init__(self, net, read, written):
        super().__init__()
        self.net, self.read, self.written = net, read, written

    def forward(self, fields, time):
        return self.net(fields[:, torch.argsort(self.read)], time)[:, self.written]


@pytest.mark.parametrize("around", [False, True])
def test_channels_in_the_order_of_the_network(small_world, weather, around):
    world, forecast = small_world(), {}
    if around:
        forecast = {"forecast": Step(world, Persistence(world))}
    plain, whole = unet(world, norms=0, **forecast), window(world, weather)
    inner, written = DenoisingStep.network_world(world, list(forecast)), world.predicted.channels
    own = world.prognostic.channels * world.history + inner.forcing.channels + world.static.channels
    read, write = (torch.randperm(len(names), generator=torch.Generator().manual_seed(1)) for names in (own, written))
    names = {"reads": [own[n] for n in read], "writes": [written[n] for n in write]}
    other = DenoisingStep(
        world, Permuted(plain.network, read, write), sampler=Euler(world, levels=4), norms=0, **names, **forecast
    ).eval()
    got, expected = (step(whole.history, whole.forcing[0]).values for step in (other, plain))
    torch.testing.assert_close(got, expected)
    conditions = other.conditions(whole.history, whole.forcing[0], {})
    clean = other.normalised(whole.target[0], conditions)
    torch.testing.assert_close(clean, plain.normalised(whole.target[0], conditions)[:, write])
    torch.testing.assert_close(other.placed(clean, conditions).values, whole.target[0].values, rtol=1e-4, atol=1e-4)
