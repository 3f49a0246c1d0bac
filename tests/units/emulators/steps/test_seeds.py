"""Further members from a few: the closed form of a Gaussian ensemble, and what training and samples draw from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.grid import gaussian_grid
from emulators.losses.lp import Lp
from emulators.models.unet import UNet
from emulators.objectives.diffusion import Diffusion
from emulators.rollout import Rollout
from emulators.samplers.heun import Heun
from emulators.state import State, Window
from emulators.steps.denoising import SeedsStep
from emulators.variables import Variable, VariableSet, member_name
from emulators.world import Scale, World

SEEDS, MEMBERS, SPREAD = 2, 4, 1.5  # SPREAD: of the centres of ensembles, whose members differ by 1 from theirs
OPTIONS = {"seeds": SEEDS, "members": MEMBERS}


@pytest.fixture
def world():
    """A World of one variable x beside its members, all of mean 0 and standard deviation 1."""
    names = ["x", "season", *(member_name(n, "x") for n in range(1, MEMBERS + 1))]
    scales = {name: Scale(0.0, 1.0, 1.0) for name in names}
    forcing = VariableSet((Variable("season"),))
    plain = World(
        gaussian_grid(16), VariableSet((Variable("x"),)), np.timedelta64(6, "h"), forcing=forcing, scales=scales
    )
    return SeedsStep.data_world(plain, OPTIONS)


def window(world, cases: int = 2) -> Window:
    generator = torch.Generator().manual_seed(0)
    time = np.datetime64("2001-01-01", "s") + np.arange(cases) * np.timedelta64(1, "D")
    centre = SPREAD * torch.randn(cases, 1, *world.grid.shape, generator=generator)
    fields = centre + torch.randn(cases, MEMBERS + 1, *world.grid.shape, generator=generator)
    prescribed = torch.cat([torch.zeros_like(centre), fields[:, 1:]], 1)
    later = time + np.timedelta64(6, "h")
    return Window(
        (State(fields[:, :1], world.prognostic, time),),
        (State(fields[:, :1], world.predicted, later),),
        (State(prescribed, world.forcing, later),),
    )


def seeded(world, network=None, **options) -> SeedsStep:
    torch.manual_seed(0)
    inner = SeedsStep.network_world(world, (), OPTIONS)
    network = network or UNet(inner, channels=[8])
    return SeedsStep(world, network, sampler=options.pop("sampler", Heun(world, levels=3)), **OPTIONS, **options).eval()


def sampled(step, given, members: int) -> torch.Tensor:
    (state,) = Rollout(step, step.world, given.history, members=members).states(given.forcing)
    return state.values


class Exact(torch.nn.Module):
    """The restored field of a Gaussian ensemble, written as the network of an EDM restores it."""

    def forward(self, fields, time):
        """fields: mean of seeds, season, seeds, scaled noisy field, noise level."""
        mean, noisy, level = fields[:, :1], fields[:, -2:-1], (4.0 * fields[:, -1:]).exp()
        whole = level.square() + 1.0
        x = noisy * whole.sqrt()
        centre, variance = (share() - 1.0) * mean, 1.0 + SPREAD**2 / (1.0 + SEEDS * SPREAD**2)
        clean = centre + variance / (variance + level.square()) * (x - centre)
        return (clean - x / whole) * whole.sqrt() / level


def share() -> float:
    """By what the mean of seeds is multiplied to expect another member."""
    return SEEDS * SPREAD**2 / (1.0 + SEEDS * SPREAD**2)


def test_members_of_a_gaussian_ensemble_have_its_distribution(world):
    """Given K seeds of N(m, 1), m of N(0, s^2): mean K s^2 / (1 + K s^2) of theirs, variance 1 + s^2 / (1 + K s^2)."""
    given = window(world)
    step = seeded(world, Exact(), norms=0, truncation=None, sampler=Heun(world, levels=60))
    members = sampled(step, given, 60)
    seeds = given.forcing[0].values[:, 1 : 1 + SEEDS].mean(1, keepdim=True)
    error = members - share() * seeds
    slope = float((members.mean(0) * seeds).sum() / seeds.square().sum())
    assert slope == pytest.approx(share(), abs=0.02)
    assert float(error.mean()) == pytest.approx(0.0, abs=0.02)
    assert float(error.std()) == pytest.approx((1.0 + SPREAD**2 / (1.0 + SEEDS * SPREAD**2)) ** 0.5, rel=0.03)


def test_samples_depend_on_the_seeds_alone(world):
    step, given = seeded(world), window(world)
    before = sampled(step, given, 3)
    assert not torch.equal(before[0], before[1])
    others, seeds = (given.forcing[0].values.clone() for _ in range(2))
    others[:, 1 + SEEDS :] = 0.0
    seeds[:, SEEDS] = 0.0
    forcing = given.forcing[0]
    assert torch.equal(sampled(step, replace(given, forcing=(replace(forcing, values=others),)), 3), before)
    assert not torch.equal(sampled(step, replace(given, forcing=(replace(forcing, values=seeds),)), 3), before)


def drawn(step, given) -> torch.Tensor:
    """Targets of training, (draw, case, channel, *grid)."""
    return torch.stack([step.restored_pair(given, torch.full((2,), 0.5))[1].values for _ in range(40)])


@pytest.mark.parametrize(("truth", "sources"), [(0.0, {1, 2, 3, 4}), (1.0, {0}), (0.5, {0, 1, 2, 3, 4})])
def test_targets_are_members_or_the_truth(world, truth, sources):
    given = window(world)
    torch.manual_seed(1)
    targets = drawn(seeded(world, truth=truth).train(), given)
    all_fields = torch.cat([given.target[0].values, given.forcing[0].values[:, 1:]], 1)[None]
    places = (targets - all_fields).abs().flatten(3).sum(-1).argmin(-1)
    assert set(places.flatten().tolist()) == sources
    assert (targets - all_fields).abs().flatten(3).sum(-1).amin() == 0.0


def test_it_learns(world):
    step, given = seeded(world).train(), window(world)
    step.measure([given])
    members = given.forcing[0].values[:, 1:]
    error = members[:, SEEDS] - members[:, :SEEDS].mean(1)
    area = torch.as_tensor(world.grid.weights)
    assert float(step.error_std) == pytest.approx(float((error.square() * area).mean().sqrt()), rel=1e-5)
    objective, optimiser = Diffusion(world), torch.optim.Adam(step.parameters(), lr=1e-2)
    objective.begin(step)
    values = []
    for number in range(30):
        torch.manual_seed(number % 5)
        optimiser.zero_grad()
        loss = objective(step, given, {"mse": Lp(world)})[0]
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert sum(values[-5:]) < 0.9 * sum(values[:5])


def test_fewer_members_than_seeds_are_refused(world):
    with pytest.raises(ValueError, match="must be more than"):
        SeedsStep.network_world(world, (), {"seeds": 4, "members": 4})
    with pytest.raises(ValueError, match=r"step\.truth"):
        seeded(world, truth=2.0)
