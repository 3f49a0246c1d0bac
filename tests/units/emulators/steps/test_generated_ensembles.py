"""DYffusion and variational ensembles: their algebra, what draws noise, and what each stage of training moves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.layers.noise import DropoutNoise, condition
from emulators.losses.crps import CRPS
from emulators.losses.lp import Lp
from emulators.models.graph_efm import GraphEFM
from emulators.models.unet import UNet
from emulators.objectives.dyffusion import DYffusion
from emulators.objectives.variational import Variational
from emulators.rollout import Rollout
from emulators.state import State, Window
from emulators.steps.dyffusion import DYffusionStep
from emulators.steps.latent import LatentStep, gaussian_divergence
from emulators.steps.step import Step

HORIZON = 3


def window(world, weather, leads: int, cases: int = 2) -> Window:
    start = np.datetime64("2001-01-01", "s") + np.arange(cases) * np.timedelta64(1, "D")

    def state(variables, lead) -> State:
        fields = weather(world, variables, 10 + lead + 100 * variables.size, (cases,), torch.float32)
        return replace(fields, time=world.after(start, lead))

    leading = range(1, leads + 1)
    return Window(
        tuple(state(world.prognostic, lead) for lead in range(1 - world.history, 1)),
        tuple(state(world.predicted, lead) for lead in leading),
        tuple(state(world.forcing, lead) for lead in leading),
    )


def dyffusion(world, **options) -> DYffusionStep:
    torch.manual_seed(0)
    network = UNet(DYffusionStep.network_world(world), channels=[8])
    if options.pop("noisy", False):
        network = condition(network, DropoutNoise(world, rate=0.3))
    return DYffusionStep(world, network, **options).eval()


def moved(step, objective, losses, given) -> set[str]:
    step.train().zero_grad()
    objective(step, given, losses)[0].backward()
    return {name.split(".")[0] for name, p in step.named_parameters() if p.grad is not None and p.grad.any()}


def test_cold_sampling_telescopes_where_interpolation_is_exact(small_world, weather):
    """With the line as interpolation and one forecast of the horizon, x_s is the line at every s."""
    world = small_world(history=HORIZON)
    step, given = dyffusion(world, truncation=None), window(world, weather, HORIZON + 1)
    for parameter in step.interpolator.parameters():
        torch.nn.init.zeros_(parameter)
    end, size = given.target[HORIZON - 1], world.prognostic.size
    step.forecast = lambda state, forcing, passed: replace(end, time=forcing.time)
    found = list(Rollout(step, world, given.history).states(given.forcing))
    first, last = given.history[-1].values, end.values[:, :size]
    scale = torch.as_tensor(world.scale(world.prognostic, "std"))[:, None, None]
    for s in range(1, HORIZON + 1):
        line = torch.lerp(first, last, s / HORIZON)
        torch.testing.assert_close(found[s - 1].values[:, :size] / scale, line / scale, rtol=1e-4, atol=1e-4)
    onward = torch.lerp(found[HORIZON - 1].values[:, :size], last, 1 / HORIZON)  # the next horizon starts there
    torch.testing.assert_close(found[HORIZON].values[:, :size] / scale, onward / scale, rtol=1e-4, atol=1e-4)


def test_members_of_dyffusion_differ_by_dropout_of_the_interpolator_alone(small_world, weather):
    world = small_world(history=HORIZON)
    noisy, given = dyffusion(world, noisy=True), window(world, weather, 2)
    assert noisy.is_random
    assert not dyffusion(world).is_random
    for parameter in [*noisy.interpolator.parameters(), *noisy.interpolator_time.parameters()]:
        torch.nn.init.normal_(parameter, std=0.3)
    members = list(Rollout(noisy, world, given.history, members=2, seed=1).states(given.forcing))[-1].values
    assert not torch.equal(members[0], members[1])
    state = given.history[-1]
    same = [noisy.forecast(state, given.forcing[0], 0).values for _ in range(2)]
    assert torch.equal(*same)
    with pytest.raises(ValueError, match="to a horizon of `history` timesteps; got 1"):
        dyffusion(small_world())


def test_each_stage_of_dyffusion_moves_its_own_network(small_world, weather):
    world = small_world(history=HORIZON)
    step, given = dyffusion(world, noisy=True), window(world, weather, HORIZON)
    objective, losses = DYffusion(world, interpolation_steps=5), {"mae": Lp(world, p=1.0)}
    assert objective.longest == HORIZON
    objective.begin(step)
    for number, parts in ((4, {"interpolator", "interpolator_time"}), (5, {"network", "forecaster_time"})):
        objective.at(number)
        assert moved(step, objective, losses, given) == parts
    with pytest.raises(ValueError, match="take step=dyffusion"):
        objective.begin(Step(small_world(), UNet(small_world(), channels=[8])))


def latent(world) -> LatentStep:
    torch.manual_seed(0)
    return LatentStep(world, UNet(LatentStep.network_world(world), channels=[8]), hidden=4).eval()


def test_the_divergence_is_that_of_normal_distributions():
    zero = torch.zeros(3)
    assert not gaussian_divergence(zero, zero, zero, zero).any()
    torch.testing.assert_close(gaussian_divergence(zero + 1, zero, zero, zero), zero + 0.5)
    q, p = (torch.distributions.Normal(m, s) for m, s in ((0.3, 0.5), (-1.0, 2.0)))
    found = gaussian_divergence(q.loc, q.scale.log(), p.loc, p.scale.log())
    torch.testing.assert_close(found, torch.distributions.kl_divergence(q, p))


def test_a_variational_ensemble_draws_from_the_prior_and_learns_from_the_posterior(small_world, weather):
    world = small_world()
    step, given = latent(world), window(world, weather, 2)
    state, divergence = step.reconstructed(given.history, given.forcing[0], given.target[0])
    assert not divergence.any()
    assert torch.equal(state.values, step(given.history, given.forcing[0]).values)  # both means are 0 at first
    objective, losses = Variational(world, rollout=2, divergence=0.1), {"crps": CRPS(world, kind="fair")}
    objective.begin(step)
    for parameter in step.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    assert moved(step, objective, losses, given) == {"network", "prior", "posterior"}
    _, parts = objective(step, given, losses)
    assert set(parts) == {"crps_1", "crps_2", "divergence_1", "divergence_2"}
    assert parts["divergence_1"] > 0.0
    members = list(Rollout(step.eval(), world, given.history, members=3, seed=2).states(given.forcing))[-1].values
    assert not torch.equal(members[0], members[1])
    with pytest.raises(ValueError, match="take step=latent"):
        objective.begin(Step(world, UNet(world, channels=[8])))


def test_a_network_with_latent_numbers_learns_from_its_posterior(small_world, weather):
    world = small_world()
    step = Step(world, GraphEFM(world, level=1, latent=8, numbers=4, decoder_steps=1))
    given, losses = window(world, weather, 2), {"crps": CRPS(world, kind="fair")}
    objective = Variational(world, rollout=2, divergence=0.1)
    assert not all(p.requires_grad for p in step.parameters())
    objective.begin(step)
    total, parts = objective(step.train(), given, losses)
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in step.parameters())
    assert parts["divergence_1"] > 0.0
    members = list(Rollout(step.eval(), world, given.history, members=3, seed=2).states(given.forcing))[-1].values
    assert not torch.equal(members[0], members[1])
