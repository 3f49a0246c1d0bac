"""Training in two stages: what is compared, which parts learn from which stage, and what follows what."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.grid import equiangular_grid
from emulators.models.met2net import Met2Net
from emulators.objectives.two_stage import TwoStage
from emulators.state import State, Window
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

HOUR = np.timedelta64(1, "h")
START = np.array(["2001-01-01", "2001-07-01"], dtype="datetime64[s]")
GRID = equiangular_grid(8)
T, P, SUN = (VariableSet((Variable(name),)) for name in ("t", "p", "sun"))
SCALES = {name: Scale(1.0, 2.0, 1.0) for name in ("t", "p", "sun")}
WORLD = World(GRID, T, 6 * HOUR, diagnostic=P, forcing=SUN, history=2, scales=SCALES)


def state(variables: VariableSet, step: int) -> State:
    made = torch.Generator().manual_seed(step)
    return State(torch.randn(2, variables.size, *GRID.shape, generator=made), variables, START + 6 * step * HOUR)


WINDOW = Window(
    (state(T, 0), state(T, 1)),
    tuple(state(WORLD.predicted, n) for n in (2, 3)),
    tuple(state(SUN, n) for n in (2, 3)),
)


def squares(one: State, other: State) -> torch.Tensor:
    assert (one.time == other.time).all()
    return scaled(one).sub(scaled(other)).square().mean((1, 2, 3))


def scaled(of: State) -> torch.Tensor:
    return (of.values - 1.0) / 2.0


def trained(**options) -> tuple[Step, TwoStage]:
    torch.manual_seed(0)
    step = Step(WORLD, Met2Net(WORLD, hidden=4, embed=8, depth=1, heads=2, reach=5), output="absolute")
    objective = TwoStage(WORLD, **options)
    objective.begin(step)
    return step, objective


def test_frames_meet_their_truth_and_latent_fields_that_of_it():
    step, objective = trained(latent=3.0)
    assert objective.longest == objective.length(7) == 2
    total, parts = objective(step, WINDOW, {"mse": squares})
    network, fields = step.network, step.inputs(WINDOW.history, WINDOW.forcing[0])[0]
    truth = torch.stack([scaled(target) for target in WINDOW.target], 1)
    errors = (network.frames(fields) - truth).square().mean((0, 2, 3, 4))  # as long as the copy is one
    after = torch.cat([scaled(target)[:, :1] for target in WINDOW.target] + [fields[:, 2:]], 1)
    gap = network.translator(network.encoded(fields))[:, :1] - network.encoded(after)[:, :1]
    expected = {"latent": gap.square().mean(), "mse_1": errors[0], "mse_2": errors[1]}
    assert parts.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value.detach())
    torch.testing.assert_close(total, errors.mean() + 3.0 * gap.square().mean())


def slopes(step: Step, objective: TwoStage, losses: dict) -> dict[str, torch.Tensor]:
    step.zero_grad()
    objective(step, WINDOW, losses)[0].backward()
    return {name: p.grad.clone() for name, p in step.network.named_parameters() if p.grad is not None}


def test_each_stage_teaches_its_parts_alone():
    step, objective = trained()
    names = {name for name, _ in step.network.named_parameters()}
    between = {name for name in names if name.startswith("translator.")}
    second, both = slopes(step, objective, {}), slopes(step, objective, {"mse": squares})
    assert second.keys() == between
    assert both.keys() == names
    for name in between:  # the first stage adds nothing
        assert torch.equal(second[name], both[name])
    objective.latent = 1e-6
    for name, slope in slopes(step, objective, {"mse": squares}).items():  # the second adds nothing
        assert torch.equal(slope, both[name]) != (name in between and bool(both[name].any()))
    assert not any(p.requires_grad for p in objective.parameters())


def test_the_first_stage_sees_the_translator_at_rest():
    step, objective = trained()
    before = objective(step, WINDOW, {"mse": squares})[1]
    with torch.no_grad():
        step.network.translator.out.weight.add_(1.0)
    moved = objective(step, WINDOW, {"mse": squares})[1]
    assert torch.equal(before["mse_2"], moved["mse_2"])
    assert not torch.equal(before["latent"], moved["latent"])
    at_rest = objective.at_rest.out.weight.clone()
    objective.follow(step)
    torch.testing.assert_close(objective.at_rest.out.weight, at_rest + 0.1)
    assert not torch.equal(before["mse_2"], objective(step, WINDOW, {"mse": squares})[1]["mse_2"])


def test_what_cannot_be_trained_so():
    with pytest.raises(ValueError, match="has no translator"):
        TwoStage(WORLD).begin(Step(WORLD, torch.nn.Identity(), output="absolute"))
    step, objective = trained()
    step.output = "residual"
    with pytest.raises(ValueError, match=r"step\.output=absolute"):
        objective.begin(step)
    with pytest.raises(ValueError, match=r"objective\.momentum"):
        TwoStage(WORLD, momentum=1.0)
