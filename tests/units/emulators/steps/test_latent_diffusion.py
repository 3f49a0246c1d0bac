"""Autoencoders and diffusion on their latent fields: what is reconstructed, kept, learnt and at rest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from emulators.grid import equiangular_grid
from emulators.losses.lp import Lp
from emulators.models.dcae import DCAE
from emulators.models.ladcast import LaDCast
from emulators.models.unet import UNet
from emulators.objectives.diffusion import Diffusion
from emulators.objectives.forecast import Forecast
from emulators.rollout import Rollout
from emulators.samplers.heun import Heun
from emulators.state import State, Window
from emulators.steps.latent_diffusion import AutoencodingStep, LatentDiffusionStep, latent_world
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import World

FRAMES, LATENTS = 2, 4
OPTIONS = {"frames": FRAMES, "latents": LATENTS, "reduction": 2}


def window(world, weather, leads: int, cases: int = 2) -> Window:
    start = np.datetime64("2001-01-01", "s") + np.arange(cases) * np.timedelta64(1, "D")

    def state(variables, lead) -> State:
        fields = weather(world, variables, 10 + lead + 100 * world.predicted.size, (cases,), torch.float32)
        return replace(fields, time=world.after(start, lead))

    targets = [state(world.predicted, lead) for lead in range(1, leads + 1)]
    return Window(
        tuple(state(world.prognostic, lead) for lead in range(1 - world.history, 1)),
        tuple(targets),
        tuple(
            target.select(world.forcing.names) if world.forcing.names == world.prognostic.names else
            state(world.forcing, lead) for lead, target in enumerate(targets, 1)
        ),
    )  # fmt: skip


def autoencoder(world) -> AutoencodingStep:
    torch.manual_seed(0)
    own = AutoencodingStep.data_world(world, {})
    inner = AutoencodingStep.network_world(own)
    network = DCAE(inner, latents=LATENTS, channels=[8, 8], blocks=[1, 1], kinds=["residual", "attention"], head=8)
    return AutoencodingStep(own, network, truncation=None)


@pytest.fixture
def world(small_world):
    return small_world(history=FRAMES)


def diffusion(world, **options) -> LatentDiffusionStep:
    inner = LatentDiffusionStep.network_world(world, (), OPTIONS)
    torch.manual_seed(1)
    network = options.pop("network", lambda inner: LaDCast(
        inner, frames=FRAMES, heads=2, head=8, dual=1, single=1, rotary=(4, 2, 2)
    ))(inner)  # fmt: skip
    sampler = Heun(world, levels=3)
    given = {"sampler": sampler, "autoencoder": autoencoder(world), "truncation": None, **OPTIONS, **options}
    return LatentDiffusionStep(world, network, **given).eval()


def states(step, given, **options):
    rolled = Rollout(step, step.world, given.history, **options)
    return list(rolled.states(given.forcing))


def test_autoencoder_reconstructs_the_target_at_every_lead(world, weather):
    """What a rollout holds is the reconstruction of the truth at each lead, whatever the start."""
    step = autoencoder(world).eval()
    given = window(step.world, weather, 3)
    for state, target in zip(states(step, given), given.target, strict=True):
        truth = target.select(world.prognostic.names)
        torch.testing.assert_close(state.values, step.decoded(step.encoded(truth)))
        np.testing.assert_array_equal(state.time, target.time)


def test_autoencoder_learns_by_the_plain_objective(world, weather):
    step = autoencoder(world).train()
    given, losses = window(step.world, weather, 1), {"mse": Lp(world, scale="std")}
    optimiser = torch.optim.Adam(step.parameters(), lr=3e-3)
    first = float(Forecast(world)(step, given, losses)[0].detach())
    for _ in range(25):
        optimiser.zero_grad()
        loss = Forecast(world)(step, given, losses)[0]
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.7 * first


def test_a_network_without_latent_fields_is_refused(world):
    with pytest.raises(ValueError, match="take model=dcae"):
        AutoencodingStep(world, UNet(world, channels=[8]))


def test_frames_are_those_of_one_sample(world, weather):
    """Each timestep decodes its own frame of what was sampled with the noise of the first."""
    step, given = diffusion(world), window(world, weather, 2 * FRAMES)
    rolled = states(step, given, members=2, seed=3)
    assert len({float(state.values[0, 0, 0, 0, 0]) for state in rolled}) == 2 * FRAMES
    assert not torch.equal(rolled[0].values[0], rolled[0].values[1])
    single = states(step, given, members=range(1, 2), seed=3)
    for together, alone in zip(rolled, single, strict=True):
        torch.testing.assert_close(together.values[1], alone.values[0], rtol=1e-4, atol=1e-4)


def test_a_rollout_resumed_among_the_frames_is_the_same(world, weather):
    given = window(world, weather, 2 * FRAMES)
    whole = states(diffusion(world), given, members=2)
    for cut in (1, 2, 3):
        first = Rollout(step := diffusion(world), world, given.history, members=2)
        list(first.states(given.forcing[:cut]))
        rest = Rollout(step.train().eval(), world, given.history, members=2)
        rest.restore(first.arrays())
        assert rest.lead == cut
        step.block = None
        for state, expected in zip(rest.states(given.forcing[cut:]), whole[cut:], strict=True):
            torch.testing.assert_close(state.values, expected.values, rtol=0.0, atol=0.0)


def test_weights_changed_between_rollouts_are_seen(world, weather):
    step, given = diffusion(world), window(world, weather, FRAMES)
    before = states(step, given)
    with torch.no_grad():
        step.network.out.weight.mul_(2.0)
    assert not torch.equal(states(step, given)[-1].values, before[-1].values)


def test_only_the_network_learns(world, weather):
    step, given = diffusion(world), window(world, weather, FRAMES)
    step.measure([given])
    step.train()
    assert not step.autoencoder.training
    inner = LatentDiffusionStep.compared_world(world, OPTIONS)
    objective = Diffusion(world, frames=FRAMES, distribution="lognormal")
    objective.begin(step)
    objective(step, given, {"mse": Lp(inner)})[0].backward()
    assert {name.split(".")[0] for name, p in step.named_parameters() if p.grad is not None} == {"network"}


def test_latent_fields_are_scaled(world, weather):
    step, given = diffusion(world), window(world, weather, FRAMES, cases=6)
    step.measure([given])
    latents = step.scaled(given.history[-1])
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(LATENTS), rtol=0.0, atol=1e-4)
    torch.testing.assert_close(latents.std((0, 2, 3), correction=0), torch.full((LATENTS,), 0.5), rtol=1e-3, atol=0.0)
    raw = step.autoencoder.encoded(given.history[-1])
    torch.testing.assert_close(step.unscaled(latents), raw, rtol=1e-3, atol=1e-3)


def test_any_network_denoises(world, weather):
    step = diffusion(world, network=lambda inner: UNet(inner, channels=[8]), norms=4)
    state = states(step, window(world, weather, 1), members=2)[0]
    assert state.values.shape[:2] == (2, 2)
    assert state.values.isfinite().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampler": None}, "take sampler=heun"),
        ({"autoencoder": None}, "parts.autoencoder"),
        ({"latents": 8}, "step.latents=4"),
        ({"frames": 3}, "history=3"),
    ],
)
def test_what_does_not_fit_is_refused(world, options, message):
    with pytest.raises(ValueError, match=message):
        diffusion(world, **options)
    with pytest.raises(ValueError, match="reduction divides"):
        latent_world(world, 1, 1, 3)
    with pytest.raises(ValueError, match=r"objective\.frames=2"):
        Diffusion(world).begin(diffusion(world))


def test_an_autoencoder_of_other_variables_is_no_part(small_world):
    held = autoencoder(small_world())
    assert held.unlike(small_world(history=4)) == []
    assert held.unlike(small_world("equiangular")) == ["grid"]
    assert Step(small_world(), torch.nn.Identity()).unlike(small_world(history=4)) == ["history"]


def test_published_sizes():
    """As many weights as LaDCast's own code has for its configurations."""
    fields = VariableSet(tuple(Variable(f"v{n}") for n in range(89)))
    whole = World(equiangular_grid(120), fields, np.timedelta64(6, "h"))
    with torch.device("meta"):
        networks = DCAE(whole), LaDCast(latent_world_without_level(whole), frames=4)
    assert [sum(p.numel() for p in net.parameters()) for net in networks] == [256_411_145, 374_938_452]


def latent_world_without_level(world: World) -> World:
    inner = latent_world(world, 4, 84, 8)
    return replace(inner, forcing=inner.forcing.select(["known"]))


def test_attention_depends_on_distances_alone():
    """Queries and keys turned by the same shift of longitude have the same products."""
    inner = World(equiangular_grid(4, 8), VariableSet((Variable("v"),)), np.timedelta64(6, "h"))
    rotation = LaDCast(inner, heads=1, head=12, rotary=(4, 4, 4), dual=0, single=1).rotation
    q, k = torch.randn(2, 1, 1, 1, 12, generator=torch.Generator().manual_seed(0))
    q, k = (rotation(x.expand(1, 1, 32, 12)) for x in (q, k))
    products = (q @ k.mT)[0, 0].reshape(4, 8, 4, 8)
    torch.testing.assert_close(products[:, 1, :, 3], products[:, 4, :, 6], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(products[:, 1, :, 3], products[:, 1, :, 4], atol=1e-2)
