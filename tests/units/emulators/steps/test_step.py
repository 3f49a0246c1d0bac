"""Step, rollout and the forecast objective against what they must do by definition."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.grid import gaussian_grid
from emulators.models.persistence import Persistence
from emulators.models.sfno import SFNO
from emulators.objectives.forecast import Forecast
from emulators.rollout import generators, rollout
from emulators.state import State, Window
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World, hours_of

TIME = np.array(["2001-01-01", "2001-07-01"], dtype="datetime64[s]")


def a_world(history: int = 1, diagnostic: bool = True) -> World:
    prognostic = VariableSet((Variable("temperature", "K", (500.0, 850.0)), Variable("surface_pressure", "Pa")))
    rain = VariableSet((Variable("total_precipitation_6hr", "m"),)) if diagnostic else VariableSet()
    forcing = VariableSet((Variable("toa_incident_solar_radiation", "W m-2"),))
    static = VariableSet((Variable("sin_latitude"),))
    names = [*prognostic.channels, *rain.channels, *forcing.channels, *static.channels]
    return World(
        grid=gaussian_grid(4),
        prognostic=prognostic,
        diagnostic=rain,
        forcing=forcing,
        static=static,
        static_fields=np.ones((1, 4, 8), dtype=np.float32),
        timestep=np.timedelta64(6, "h"),
        history=history,
        scales={name: Scale(10.0 + i, 2.0 + i, 0.5 + i) for i, name in enumerate(names)},
    )


class Constant(torch.nn.Module):
    """Writes the same number everywhere and remembers what it was given."""

    def __init__(self, world: World, value: float) -> None:
        super().__init__()
        self.size, self.value = world.output_channels, torch.nn.Parameter(torch.tensor(value))

    def forward(self, fields, time):
        self.fields, self.time = fields, time
        return self.value.expand(fields.shape[0], self.size, *fields.shape[2:])


def states(world: World, variables: VariableSet, lead=(2,), time=TIME) -> State:
    generator = torch.Generator().manual_seed(1)
    return State(torch.randn(*lead, variables.size, *world.grid.shape, generator=generator) + 20, variables, time)


class Mixing(torch.nn.Module):
    """A linear map at every point; the time is not looked at."""

    def __init__(self, weight) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, fields, time):
        return torch.einsum("oi,bi...->bo...", self.weight, fields)


@pytest.mark.parametrize("output", ["residual", "absolute"])
def test_a_network_may_have_its_channels_in_its_own_order(output):
    world = a_world(history=2)
    temperature, pressure = ["temperature_500", "temperature_850"], "surface_pressure"
    sun, static, rain = "toa_incident_solar_radiation", "sin_latitude", "total_precipitation_6hr"
    reads = [sun, pressure, temperature[1], static, temperature[1], temperature[0], pressure, temperature[0]]
    read = [6, 2, 1, 7, 4, 0, 5, 3]  # a channel that is named twice: the older state first
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    ours = Step(world, Mixing(weight), output=output)
    written = [3, 0, 2, 1]
    writes = [rain, temperature[0], pressure, temperature[1]]
    theirs = Step(world, Mixing(weight[written][:, read]), output=output, reads=reads, writes=writes)
    now = states(world, world.prognostic)
    history = replace(now, values=now.values.flip(0)), now
    forcing = states(world, world.forcing)
    expected = ours(history, forcing)
    torch.testing.assert_close(theirs(history, forcing).values, expected.values)
    fields, time = theirs.inputs(history, forcing)
    torch.testing.assert_close(theirs.target(expected, history[-1]), theirs.network(fields, time))


@pytest.mark.parametrize(
    ("named", "said"),
    [
        (["sin_latitude", "humidity"], "none of them are humidity; not named are temperature_500"),
        (["temperature_500"] * 2, "not named are .*surface_pressure.*; too often named are temperature_500"),
        ("temperature_500", "be a list of channels; got 'temperature_500'"),
    ],
)
def test_channels_that_are_not_those_of_the_world_are_refused(named, said):
    world = a_world()
    with pytest.raises(ValueError, match=rf"step\.reads should .*{said}"):
        Step(world, Constant(world, 0.0), reads=named)
    every = [*world.predicted.channels, world.predicted.channels[0]]
    with pytest.raises(
        ValueError, match=r"step\.writes should name the 4 channels.*; too often named are temperature_500"
    ):
        Step(world, Constant(world, 0.0), writes=every)


def test_residual_output_adds_tendency_std_and_diagnostics_are_absolute():
    world = a_world()
    step = Step(world, Constant(world, 2.0))
    before, forcing = states(world, world.prognostic), states(world, world.forcing)
    after = step((before,), forcing)
    assert after.variables == world.predicted
    np.testing.assert_array_equal(after.time, forcing.time)
    change = after["temperature"] - before["temperature"]
    torch.testing.assert_close(change[:, 1], torch.full_like(change[:, 1], 2.0 * 1.5))
    rain = after["total_precipitation_6hr"]
    torch.testing.assert_close(rain, torch.full_like(rain, 13.0 + 2.0 * 5.0))


def test_absolute_output_is_denormalised():
    world = a_world()
    step = Step(world, Constant(world, -1.0), output="absolute")
    after = step((states(world, world.prognostic),), states(world, world.forcing))
    torch.testing.assert_close(after["surface_pressure"], torch.full((2, 4, 8), 12.0 - 4.0))


def test_the_network_reads_history_forcing_and_static_in_order():
    world = a_world(history=2)
    step = Step(world, Constant(world, 0.0))
    older, newer = (
        states(world, world.prognostic),
        states(world, world.prognostic).with_(surface_pressure=torch.zeros(2, 4, 8)),
    )
    step((older, newer), states(world, world.forcing))
    fields = step.network.fields
    assert fields.shape == (2, world.input_channels, 4, 8)
    torch.testing.assert_close(fields[:, 5], torch.full((2, 4, 8), (0.0 - 12.0) / 4.0))
    torch.testing.assert_close(fields[:, 2], (older["surface_pressure"] - 12.0) / 4.0)
    torch.testing.assert_close(fields[:, -1], torch.full((2, 4, 8), (1.0 - 15.0) / 7.0))
    assert step.network.time.tolist() == TIME.astype("int64").tolist()


def test_members_are_a_leading_dimension():
    world = a_world()
    step = Step(world, Constant(world, 1.0))
    before = states(world, world.prognostic, lead=(3, 2))
    after = step((before,), states(world, world.forcing))
    assert after.lead == (3, 2)
    alone = step((State(before.values[1], before.variables, TIME),), states(world, world.forcing))
    torch.testing.assert_close(after.values[1], alone.values)
    assert step.network.time.tolist() == TIME.astype("int64").tolist()


@pytest.mark.parametrize("output", ["residual", "absolute"])
def test_target_inverts_outputs(output):
    world = a_world()
    step = Step(world, Constant(world, 0.0), output=output)
    before, truth = states(world, world.prognostic), states(world, world.predicted)
    raw = step.target(truth, before)
    torch.testing.assert_close(step.outputs(raw, before.values), truth.values)


def test_unknown_output_is_refused():
    with pytest.raises(ValueError, match="residual"):
        Step(a_world(), Constant(a_world(), 0.0), output="delta")


def test_rollout_feeds_its_own_output_and_keeps_the_history():
    world = a_world(history=2, diagnostic=False)
    seen = []

    def step(history, forcing):
        seen.append([float(s.values.mean()) for s in history])
        return State(history[-1].values + 1, world.prognostic, forcing.time)

    zero = State(torch.zeros(1, 3, 4, 8), world.prognostic, TIME[:1])
    one = State(torch.ones(1, 3, 4, 8), world.prognostic, TIME[:1])
    empty = State(torch.zeros(1, 0, 4, 8), VariableSet(), TIME[:1])
    made = list(rollout(step, (zero, one), [empty] * 3))
    assert [float(s.values.mean()) for s in made] == [2.0, 3.0, 4.0]
    assert seen == [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]


def test_gradients_run_through_the_whole_chain():
    """Three steps of the same constant c away from the truth: errors c, 2c, 3c, hence dL/dc = 2c (1 + 4 + 9) / 3."""
    world = a_world(diagnostic=False)
    network = Constant(world, 0.1)
    step = Step(world, network)
    start = states(world, world.prognostic)
    window = Window((start,), (start,) * 3, (states(world, world.forcing),) * 3)

    def squared(prediction, target):
        return (((prediction.values - target.values) / step.tendency_std) ** 2).mean((1, 2, 3))

    loss, parts = Forecast(world)(step, window, {"mse": squared})
    loss.backward()
    torch.testing.assert_close(loss.detach(), torch.tensor(0.01 * 14 / 3), rtol=1e-4, atol=0)
    torch.testing.assert_close(network.value.grad, torch.tensor(0.2 * 14 / 3), rtol=1e-3, atol=0)
    assert set(parts) == {"mse_1", "mse_2", "mse_3"}


def test_curriculum():
    objective = Forecast(a_world(), rollout=[[0, 1], [100, 2], [50, 3]])
    assert [objective.length(n) for n in (0, 49, 50, 99, 100, 10**6)] == [1, 1, 3, 3, 2, 2]
    assert objective.longest == 3
    for bad in ([[5, 1]], [[0, 0]], [[0, 1, 2]], [1, 2], [], {0: 1, 50: 2}, 0):
        with pytest.raises(ValueError, match="rollout"):
            Forecast(a_world(), rollout=bad)


def test_state_views_selection_and_replacement():
    world = a_world()
    state = states(world, world.predicted)
    assert state["temperature"].shape == (2, 2, 4, 8)
    assert state["surface_pressure"].shape == (2, 4, 8)
    assert state["temperature"].data_ptr() == state.values.data_ptr()
    other = state.with_(surface_pressure=torch.zeros(2, 4, 8))
    assert float(other["surface_pressure"].abs().max()) == 0 < float(state["surface_pressure"].abs().min())
    picked = state.select(["total_precipitation_6hr", "temperature"])
    torch.testing.assert_close(picked.values[:, 1:], state["temperature"])
    with pytest.raises(KeyError, match="humidity"):
        state.with_(humidity=torch.zeros(2, 4, 8))
    with pytest.raises(ValueError, match="channels"):
        State(torch.zeros(2, 7, 4, 8), world.predicted, TIME)


def test_world_survives_a_checkpoint():
    world = a_world(history=2)
    again = World.from_plain(world.plain())
    assert again.grid.same_as(world.grid)
    assert (again.prognostic, again.forcing, again.scales) == (world.prognostic, world.forcing, world.scales)
    assert (again.history, again.timestep, again.vertical) == (2, world.timestep, world.vertical)
    np.testing.assert_array_equal(again.static_fields, world.static_fields)


def test_months_keep_the_day():
    world = World(gaussian_grid(4), a_world().prognostic, np.timedelta64(12, "M"))
    after = world.after(np.datetime64("1948-01-15T12", "s"), 2)
    assert after == np.datetime64("1950-01-15T12", "s")
    assert world.lead_time(2) == np.timedelta64(2 * 31557600, "s")
    assert hours_of(world.timestep) == 8766.0


def test_members_of_a_network_with_noise_are_made_one_by_one_or_together():
    grid, field = gaussian_grid(4), VariableSet((Variable("temperature", "K"),))
    world = World(grid, field, np.timedelta64(6, "h"), scales={"temperature": Scale(0.0, 1.0, 1.0)})
    torch.manual_seed(0)
    net = SFNO(world, embed=4, layers=1, norm="layer", noise=2, labels=1)
    for name, parameter in net.named_parameters():
        if "maps.noise" in name or "maps.labels" in name:
            torch.nn.init.normal_(parameter)
    step = Step(world, net).eval()
    inits = np.array(["2001-01-01", "2001-01-06"], "datetime64[s]")
    start = State(torch.randn(2, 1, *grid.shape), field, inits)
    forcings = [State(torch.zeros(2, 0, *grid.shape), VariableSet(()), inits + n * world.timestep) for n in (1, 2)]

    def forecast(members, cases=slice(None), label=1.0):
        known = replace(start, values=start.values[cases].expand(len(members), -1, -1, -1, -1), time=inits[cases])
        told = {"generator": generators(7, members, inits[cases]), "labels": torch.full((1,), label)}
        prescribed = [replace(f, values=f.values[cases], time=f.time[cases]) for f in forcings]
        with torch.no_grad():
            return torch.stack([state.values for state in rollout(step, (known,), prescribed, **told)])

    together = forecast(range(3))
    assert together.shape == (2, 3, 2, 1, *grid.shape)
    torch.testing.assert_close(forecast([2], slice(1, 2)), together[:, 2:, 1:])
    assert not torch.allclose(together[:, 0], together[:, 1])
    assert not torch.allclose(forecast(range(3), label=0.0), together)
    with pytest.raises(ValueError, match="takes no generator"):
        next(rollout(Step(world, Persistence(world)), (start,), forcings, generator=torch.Generator()))
