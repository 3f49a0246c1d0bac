"""Components that are trained together: gradients through what they exchange, parts at rest, and what is compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emulators.grid import equiangular_grid
from emulators.interfaces import is_fitted_at_once
from emulators.losses.lp import Lp
from emulators.models.persistence import Persistence
from emulators.objectives.forecast import Forecast
from emulators.rollout import rollout
from emulators.state import State, Window
from emulators.steps.coupled import CoupledStep
from emulators.steps.step import Step
from emulators.training.lightning_module import Training
from emulators.training.optimizers import AdamW, Constant, Tuning
from emulators.training.plan import Plan
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

AIR, SEA, FLUX = Variable("air_temperature", "K"), Variable("sea_temperature", "K"), Variable("heat_flux", "W m-2")
COARSE, FINE = equiangular_grid(4), equiangular_grid(6)
DAY = 4  # timesteps of the air in one of the sea
BOTH = ("atmosphere", "ocean")


def made_world(grid: Any, hours: int, **roles: tuple[Variable, ...]) -> World:
    sets = {role: VariableSet(variables) for role, variables in roles.items()}
    scales = {variable.name: Scale(0.0, 1.0, 1.0) for variables in sets.values() for variable in variables}
    return World(grid, timestep=np.timedelta64(hours, "h"), scales=scales, **sets)


class Pointwise(nn.Module):
    """A network of two layers at each point, with dropout."""

    def __init__(self, inputs: int, outputs: int, seed: int) -> None:
        super().__init__()
        draws = torch.Generator().manual_seed(seed)
        self.inner, self.head = nn.Conv2d(inputs, 3, 1), nn.Conv2d(3, outputs, 1)
        self.dropout = nn.Dropout(0.5)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=draws)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        return self.head(self.dropout(torch.tanh(self.inner(fields))))


def apart() -> dict[str, Step]:
    """An air that sees the sea and tells a flux; a sea on a grid and a clock of its own under the mean of that."""
    air = made_world(COARSE, 6, prognostic=(AIR,), diagnostic=(FLUX,), forcing=(SEA,))
    sea = made_world(FINE, 24, prognostic=(SEA,), forcing=(FLUX,))
    return {"atmosphere": Step(air, Pointwise(2, 2, 1)), "ocean": Step(sea, Pointwise(2, 1, 2))}


WORLD = made_world(COARSE, 6, prognostic=(AIR, SEA), diagnostic=(FLUX,))


def together(*trained: str) -> CoupledStep:
    step = CoupledStep(WORLD, Persistence(WORLD), **apart())
    Tuning(trainable=trained or None).choose(step)
    return step


def window(steps: int, dtype: torch.dtype = torch.float32) -> Window:
    draws, start = torch.Generator().manual_seed(5), np.array(["2001-01-01"], "datetime64[s]")

    def drawn(variables: VariableSet, lead: int) -> State:
        values = torch.randn(1, variables.size, *COARSE.shape, generator=draws, dtype=torch.float64)
        return State(values.to(dtype), variables, WORLD.after(start, lead))

    leads = range(1, steps + 1)
    target = tuple(drawn(WORLD.predicted, lead) for lead in leads)
    return Window((drawn(WORLD.prognostic, 0),), target, tuple(drawn(WORLD.forcing, lead) for lead in leads))


def loss_of(step: CoupledStep, steps: int, **options: Any) -> Tensor:
    given = window(steps, next(step.parameters()).dtype)
    return Forecast(WORLD, rollout=steps, **options)(step, given, {"mse": Lp(WORLD)})[0]


@pytest.mark.parametrize("name", BOTH)
def test_gradients_through_the_exchange(name):
    """Of two days, against central differences along drawn directions: air and sea act on each other in both ways."""
    step = together(*BOTH).double().eval()
    loss_of(step, 2 * DAY).backward()
    weights = [*step.components[name].parameters()]
    draws = torch.Generator().manual_seed(7)
    directions = [torch.randn(weight.shape, generator=draws, dtype=torch.float64) for weight in weights]
    slope = sum((weight.grad * along).sum() for weight, along in zip(weights, directions, strict=True))
    losses, reach = [], 1e-5
    for sign in (1.0, -2.0):
        with torch.no_grad():
            for weight, along in zip(weights, directions, strict=True):
                weight += sign * reach * along
            losses.append(loss_of(step, 2 * DAY))
    assert float(slope) == pytest.approx(float(losses[0] - losses[1]) / (2 * reach), rel=1e-7)


def test_the_air_learns_from_the_water():
    """A loss of the sea alone reaches the weights of the air, through the flux between their grids."""
    step = together(*BOTH).eval()
    given = window(DAY)
    sea = list(rollout(step, given.history, given.forcing))[-1]["sea_temperature"]
    sea.square().mean().backward()
    assert all((weight.grad != 0).any() for weight in step.components["atmosphere"].parameters() if weight.ndim > 1)


def test_held_fields_count_when_they_are_new():
    """The loss of a day is that of the air at each lead, and that of the sea at the last."""
    step, given = together(*BOTH).eval(), window(DAY)
    states = list(rollout(step, given.history, given.forcing))
    expected = 0.0
    for lead, (state, target) in enumerate(zip(states, given.target, strict=True), start=1):
        names = ("air_temperature", "heat_flux", *(["sea_temperature"] if lead == DAY else []))
        weights = torch.as_tensor(COARSE.weights)
        expected += sum((weights * (state[n] - target[n]).square()).mean() for n in names) / 3 / DAY
    assert loss_of(step, DAY).item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("trained", [("ocean",), ("atmosphere.head",), BOTH])
def test_parts_at_rest_stay_as_they_were(trained):
    """After optimiser steps with weight decay the weights that are named differ, in forecasts too, and no others."""
    step = CoupledStep(WORLD, Persistence(WORLD), **apart())
    before = {name: weight.clone() for name, weight in step.state_dict().items()}
    plan = Plan(steps=2, batch_size=1)
    training = Training(
        step, Forecast(WORLD, rollout=DAY), {"mse": Lp(WORLD)}, AdamW(lr=0.1), Constant(), plan,
        tuning=Tuning(trainable=trained),
    )  # fmt: skip
    optimizer = training.optimizer(step)
    for number in range(2):
        step.train()
        optimizer.zero_grad()
        training.objective(step, window(DAY), training.losses)[0].backward()
        optimizer.step()
        training.after_step(number + 1)
    for weights in (step.state_dict(), training.forecaster.state_dict()):
        changed = {name for name, weight in weights.items() if not torch.equal(weight, before[name])}
        paths = [".step.network.".join(part.partition(".")[::2]) for part in trained]
        assert changed == {name for name in before if name.startswith(tuple(f"components.{path}" for path in paths))}


def test_parts_at_rest_forecast_as_they_do():
    """Dropout acts in the component that is trained alone; without names all rest, and nothing is to be fitted."""
    step = together("ocean").train()
    modes = {name: step.components[name].step.network.dropout.training for name in BOTH}
    assert modes == {"atmosphere": False, "ocean": True}
    assert not is_fitted_at_once(step)
    assert is_fitted_at_once(together())


def test_before_the_first_step_the_forecast_is_that_of_trained_apart():
    """Each component by itself, under what the other gave it in the coupled forecast, makes the same States."""
    step, given, alone = together(*BOTH).eval(), window(DAY), {n: s.eval() for n, s in apart().items()}
    states = list(rollout(step, given.history, given.forcing))
    assert all(
        torch.equal(a.values, b.values)
        for a, b in zip(states, rollout(together().eval(), given.history, given.forcing), strict=True)
    )
    held = given.history[-1].select(["sea_temperature"])
    own = alone["atmosphere"].world
    seen = [State(held.values, own.forcing, state.time) for state in given.forcing]
    air = list(rollout(alone["atmosphere"], (given.history[-1].select(["air_temperature"]),), seen))
    for state, expected in zip(states, air, strict=True):
        assert torch.equal(state["air_temperature"], expected["air_temperature"])
    component, own = step.components["ocean"], alone["ocean"].world
    flux = torch.stack([state["heat_flux"].double() for state in air]).mean(0)
    forcing = State(component.to_component.totals(flux)[:, None].float(), own.forcing, states[-1].time)
    start = State(component.to_component.totals(held.values).float(), own.prognostic, held.time)
    torch.testing.assert_close(states[-1].carried[0].values, alone["ocean"]((start,), forcing).values)


def test_rollouts_that_do_not_reach_a_trained_component_are_refused():
    Forecast(WORLD).begin(together("atmosphere"))
    Forecast(WORLD, rollout=DAY).begin(together(*BOTH))
    with pytest.raises(ValueError, match="expected 4 timesteps or more, as trained components step no sooner; got 2"):
        Forecast(WORLD, rollout=[[0, 2], [10, 4]]).begin(together("ocean"))
    with pytest.raises(ValueError, match="no weight fits 'lake'; the network's parts are atmosphere, ocean"):
        together("lake")
