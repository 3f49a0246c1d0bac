"""ClimODE: velocities that explain what happened, a planet without seams, draws; and training on a distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from emulators.grid import LatLonGrid, equiangular_grid
from emulators.layers.convolution import pole_mirror
from emulators.losses.gaussian_nll import GaussianNLL
from emulators.models.climode import ClimODE, TowerMirror
from emulators.objectives.forecast import Forecast
from emulators.state import State, Window
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

TINY = {"widths": [8, 8], "blocks": [1, 1, 1], "head_blocks": [1, 1, 1], "dropout": 0.0}
TIME = torch.tensor([1_000_000_000, 1_000_021_600])


def world(grid: LatLonGrid | None = None, history: int = 2, fields: int = 2) -> World:
    variables = VariableSet((Variable("state", "", tuple(range(fields))),))
    scales = {channel: Scale(1.0, 2.0, 0.5) for channel in variables.channels}
    grid = equiangular_grid(8) if grid is None else grid
    return World(grid, variables, np.timedelta64(6, "h"), history=history, scales=scales)


def network(where: World, **options) -> ClimODE:
    torch.manual_seed(0)
    return ClimODE(where, **{**TINY, **options}).eval()


@pytest.mark.parametrize("history", [1, 2, 3])
def test_the_first_velocity_is_the_least_squares_one(history):
    net = network(world(equiangular_grid(6), history), iterations=200)
    states = torch.randn(2, history, 2, 6, 12, generator=torch.Generator().manual_seed(0))
    found = net.first_velocity(states)
    if history == 1:
        assert (found == 0).all()
        return
    times = 6.0 * np.arange(history)
    if history == 2:
        change = (states[:, 1] - states[:, 0]) / 6.0
    else:
        from scipy.interpolate import CubicSpline

        spline = CubicSpline(times, states.double().numpy(), axis=1, bc_type="natural")
        change = torch.as_tensor(spline(times[-1], 1)).float()
    for case, field in np.ndindex(2, 2):
        u = states[case, -1, field][None, None].expand(144, 1, 6, 12)
        unit = torch.eye(144).reshape(144, 2, 6, 12)
        matrix = net.transported(u, unit)[0].reshape(144, 72).T.double()
        goal = change[case, field].flatten().double()
        exact = torch.linalg.solve(matrix.T @ matrix + net.ridge * torch.eye(144), matrix.T @ goal)
        got = found[case, [field, 2 + field]].flatten().double()
        torch.testing.assert_close(got, exact, rtol=1e-3, atol=1e-4 * float(exact.abs().max()))


def test_air_that_goes_east_comes_from_the_west():
    """A wave around the globe that moved by half a column in an hour and a half."""
    where = world(equiangular_grid(16), fields=1)
    net = network(where, iterations=100, ridge=1e-4)
    phase = 2.0 * torch.pi * torch.arange(32) / 32.0
    now, before = (torch.sin(3.0 * (phase - 2.0 * torch.pi / 32.0 * moved)).expand(16, 32) for moved in (2.0, 0.0))
    x, y = net.first_velocity(torch.stack([before, now])[None, :, None])[0]
    change, _ = net.transported(now[None, None], torch.stack([x, y])[None])
    torch.testing.assert_close(change[0, 0], (now - before) / 6.0, atol=2e-2, rtol=0.0)
    assert x.mean() < -0.1


@pytest.mark.parametrize("as_published", [True, False])
def test_the_globe_has_no_seam(as_published):
    net = network(world(equiangular_grid(16)), as_published=as_published)
    u, v = torch.randn(1, 2, 16, 32), torch.randn(1, 4, 16, 32)
    turned = net.transported(u.roll(5, -1), v.roll(5, -1))[0].roll(-5, -1)
    assert torch.allclose(turned, net.transported(u, v)[0], atol=1e-5) != as_published


def test_the_mass_of_what_is_carried_stays():
    """Of a field and its velocity that vanish near the rows at the poles, whose differences are one-sided."""
    where = world(equiangular_grid(16))
    net = network(where)
    inner = torch.zeros(16, 1)
    inner[3:-3] = 1.0
    moved, _ = net.transported(torch.ones(1, 2, 16, 32), torch.randn(1, 4, 16, 32) * inner)
    area = torch.as_tensor(where.grid.weights, dtype=torch.float32)
    assert float((moved * area).mean().abs()) < 1e-6 < float(moved.abs().mean())


def test_draws_follow_mean_and_deviation():
    net = network(world(equiangular_grid(4)))
    fields = torch.randn(2, 4, 4, 8)
    with torch.no_grad():
        mean, deviation = net.emission(fields, TIME)
        assert torch.equal(net(fields, TIME), mean)
        cases, times = fields[:1].expand(200, -1, -1, -1), TIME[:1].expand(200)
        many = net(cases, times, generator=torch.Generator().manual_seed(3))
        pair = net(fields, TIME, generator=[torch.Generator().manual_seed(k) for k in (7, 8)])
        alone = net(fields[1:], TIME[1:], generator=torch.Generator().manual_seed(8))
    torch.testing.assert_close(pair[1:], alone)
    standard = (many - mean[:1]) / deviation[:1]
    assert abs(float(standard.mean())) < 0.02
    assert abs(float(standard.std()) - 1.0) < 0.02


class Known(nn.Module):
    """A mean of nought and a deviation that is learned."""

    def __init__(self, spread: float) -> None:
        super().__init__()
        self.spread = nn.Parameter(torch.tensor(spread))

    def emission(self, fields, time):
        mean = torch.zeros_like(fields)
        return mean, mean + self.spread

    def forward(self, fields, time):
        return self.emission(fields, time)[0]


def window(where: World, leads: int = 1) -> Window:
    generator = torch.Generator().manual_seed(1)

    def state(n: int) -> State:
        values = 1.0 + 3.0 * torch.randn(2, 2, *where.grid.shape, generator=generator)
        return State(values, where.prognostic, np.datetime64("2000-01-01") + np.full(2, 6 * n, "timedelta64[h]"))

    targets = tuple(state(n) for n in range(1, leads + 1))
    forcing = tuple(State(t.values[:, :0], VariableSet(), t.time) for t in targets)
    return Window((state(0),), targets, forcing)


@pytest.mark.parametrize("leads", [1, 2])
def test_the_objective_is_the_likelihood_of_the_networks_own_distribution(leads):
    """Absolute answers in standard deviations: the mean is 1, the deviation twice the network's."""
    where = world(history=1)
    step, seen = Step(where, Known(0.7), output="absolute"), window(where, leads)
    loss = GaussianNLL(where, floor=0.1, variance=0.3, scale="std")
    total, parts = Forecast(where, rollout=leads, emission=True)(step, seen, {"nll": loss})
    area = torch.as_tensor(where.grid.weights, dtype=torch.float32)
    expected = []
    for target in seen.target:
        normal = torch.distributions.Normal(0.0, 0.8)
        score = -normal.log_prob((target.values - 1.0) / 2.0) - 0.5 * np.log(2 * np.pi) - np.log(0.1) + 0.3 * 0.7**2
        expected.append((score * area).mean())
    torch.testing.assert_close(torch.stack([parts[f"nll_{k + 1}"] for k in range(leads)]), torch.stack(expected))
    torch.testing.assert_close(total, torch.stack(expected).mean())
    total.backward()
    assert step.network.spread.grad.abs() > 0


def test_the_likeliest_deviation_is_that_of_the_errors():
    where = world(history=1)
    seen, loss = window(where), GaussianNLL(where, floor=1e-6, scale="std")
    area = torch.as_tensor(where.grid.weights, dtype=torch.float32)
    errors = (((seen.target[0].values - 1.0) / 2.0).square() * area).mean().sqrt()
    step = Step(where, Known(float(errors)), output="absolute")
    Forecast(where, emission=True)(step, seen, {"nll": loss})[0].backward()
    assert step.network.spread.grad.abs() < 1e-4


def test_members_that_agree_have_a_slope():
    where = world(history=1)
    values = torch.ones(2, 1, 2, *where.grid.shape, requires_grad=True)
    time = np.zeros(1, "datetime64[s]")
    truth = State(torch.zeros(1, 2, *where.grid.shape), where.prognostic, time)
    GaussianNLL(where)(State(values, where.prognostic, time), truth).sum().backward()
    assert torch.isfinite(values.grad).all()


def test_a_network_without_a_distribution_is_refused():
    where = world(history=1)
    step = Step(where, nn.Sequential(), output="absolute")
    with pytest.raises(ValueError, match="writes no distribution"):
        Forecast(where, emission=True).begin(step)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": [1, 1]}, "3 numbers of blocks"),
        ({"step": 0.0}, "a positive step"),
        ({"attention": 2}, "at least 4 channels"),
        ({"as_published": True}, "15x15"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        network(world(), **options)


def test_a_loss_with_wrong_options_is_refused():
    with pytest.raises(ValueError, match="a positive floor"):
        GaussianNLL(world(), floor=0.0)


def test_a_distribution_has_no_members_beside_its_two():
    with pytest.raises(ValueError, match="two members of its own"):
        Forecast(world(), members=3, emission=True)


@pytest.mark.parametrize("moving", [True, False])
def test_components_and_directions_are_turned_beyond_a_pole(moving):
    """A scalar goes on, its gradient and velocity turn round; a wind turns round about zero, its gradient goes on."""
    names = ("temperature", "u_component_of_wind")
    prognostic, forcing = VariableSet(tuple(map(Variable, names))), VariableSet((Variable("eastward_stress"),))
    scales = {name: Scale(6.0, 2.0, 1.0) for name in (*names, "eastward_stress")}
    made = World(equiangular_grid(8), prognostic, np.timedelta64(6, "h"), forcing=forcing, scales=scales)
    known = pole_mirror(made)
    assert known is not None
    turned = TowerMirror(known, fields=2, fixed=1, moving=moving)(torch.ones(1, 48 if moving else 39, 1, 1)).flatten()
    wind = -1.0 - 6.0  # normalised: one deviation above the mean, seen from beyond, is one and twice the mean below
    around = [*[1.0] * 2, wind, *[1.0] * 30] if moving else [*[1.0] * 8, wind, *[1.0] * 24]
    gradients, velocities = [-1.0, 1.0, -1.0, 1.0], [-1.0] * 4
    before = [*[1.0] * 5, *gradients, *velocities] if moving else [1.0] * 4
    assert turned.tolist() == [*before, 1.0, wind, *around]
