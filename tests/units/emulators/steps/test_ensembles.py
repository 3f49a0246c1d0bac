"""Several trainings as one ensemble, of which each member is its own network's; and cases stepped one by one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emul.terminal.verbs import with_seeds
from emulators.constraints.positivity import Positivity
from emulators.layers.noise import DropoutNoise, condition
from emulators.models.sfno import SFNO
from emulators.models.unet import UNet
from emulators.rollout import Rollout
from emulators.samplers.euler import Euler
from emulators.state import State
from emulators.steps.denoising import DenoisingStep
from emulators.steps.dyffusion import DYffusionStep
from emulators.steps.ensembles import CasesApart, SeedEnsemble
from emulators.steps.latent import LatentStep
from emulators.steps.step import Step


@pytest.fixture
def world(small_world):
    return small_world()


def step(world, seed: int, noise: int = 2) -> Step:
    torch.manual_seed(seed)
    network = SFNO(world, embed=6, layers=1, noise=noise)
    for parameter in network.parameters():
        parameter.data.add_(0.05 * torch.randn(parameter.shape))
    rain = [world.predicted.names[-1]]
    return Step(world, network, {"positivity": Positivity(world, variables=rain)}).eval()


def generative(kind, world, seed: int) -> Step:
    """A small step that draws noise by itself, not by its network, with weights by `seed`."""
    torch.manual_seed(seed)
    network = UNet(kind.network_world(world), channels=[8])
    if kind is DYffusionStep:
        network = condition(network, DropoutNoise(world, rate=0.3))
    sampled = {"sampler": Euler(world, levels=3)} if kind is DenoisingStep else {}
    made = kind(world, network, **sampled).eval()
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn(parameter.shape))
    return made


def states(world, which, members: int | range, seed: int = 3, **options) -> list[torch.Tensor]:
    times = np.array(["2001-01-01", "2001-06-01"], "datetime64[s]")
    draw = torch.Generator().manual_seed(0)

    def fields(variables) -> torch.Tensor:
        mean, std = (
            torch.as_tensor(world.scale(variables, k), dtype=torch.float32)[:, None, None] for k in ("mean", "std")
        )
        return mean + std * torch.randn(2, variables.size, *world.grid.shape, generator=draw)

    history = tuple(
        State(fields(world.prognostic), world.prognostic, world.after(times, lead))
        for lead in range(1 - world.history, 1)
    )
    forcing = [State(fields(world.forcing), world.forcing, world.after(times, lead)) for lead in (1, 2)]
    return [
        state.values for state in Rollout(which, world, history, members=members, seed=seed, **options).states(forcing)
    ]


def test_each_member_is_that_of_its_own_network(world):
    steps = [step(world, seed) for seed in (1, 2)]
    alone = [states(world, one, 5) for one in steps]
    together = states(world, SeedEnsemble(steps, 5), 5)
    for lead in (0, 1):
        assert not torch.allclose(alone[0][lead], alone[1][lead])
        torch.testing.assert_close(together[lead][:2], alone[0][lead][:2])
        torch.testing.assert_close(together[lead][2:], alone[1][lead][2:])


def test_members_in_groups_are_those_of_all_together(world):
    """Groups that cut the share of a network, and one that has members of one network only."""
    steps = [step(world, seed) for seed in (1, 2)]
    whole = SeedEnsemble(steps, 5)
    together = states(world, whole, 5)
    for numbers in (range(0, 1), range(1, 4), range(4, 5)):
        part = states(world, whole, numbers)
        for lead in (0, 1):
            torch.testing.assert_close(part[lead], together[lead][numbers.start : numbers.stop])


def test_constraints_act_once_on_all_members(world):
    steps = [step(world, seed) for seed in (1, 2)]
    whole, seen = SeedEnsemble(steps, 4), []
    whole.observer = lambda name, given, state: seen.append((name, tuple(state.lead)))
    values = states(world, whole, 4)[-1]
    assert seen == [("positivity", (4, 2))] * 2
    assert values[:, :, -1].min() >= 0.0
    assert all(one.constraints for one in steps)  # those of the runs themselves are left as they are


def test_deterministic_networks_make_one_member_each(world):
    steps = [step(world, seed, noise=0) for seed in (1, 2, 3)]
    together = states(world, SeedEnsemble(steps, 3), 3)[-1]
    torch.testing.assert_close(together[1], states(world, steps[1], 0)[-1])
    with pytest.raises(ValueError, match="draws no noise"):
        SeedEnsemble(steps, 4)
    assert [len(share) for share in SeedEnsemble(steps, 4, starts_differ=True).shares] == [1, 1, 2]
    with pytest.raises(ValueError, match="at least 3 members"):
        SeedEnsemble(steps, 2)


@pytest.mark.parametrize("kind", [DenoisingStep, LatentStep, DYffusionStep])
def test_members_of_generative_runs_differ_and_are_made_by_seed(small_world, kind):
    world = small_world(history=2 if kind is DYffusionStep else 1)
    steps = [generative(kind, world, seed) for seed in (1, 2)]
    alone = [states(world, one, 4) for one in steps]
    together = states(world, SeedEnsemble(steps, 4), 4)
    for lead in (0, 1):
        scale = alone[0][lead].abs().max()
        torch.testing.assert_close(together[lead][:2], alone[0][lead][:2], rtol=0.0, atol=1e-5 * scale)
        torch.testing.assert_close(together[lead][2:], alone[1][lead][2:], rtol=0.0, atol=1e-5 * scale)
    for one in range(4):
        for other in range(one):
            assert not torch.allclose(together[-1][one], together[-1][other])
    again, others = (states(world, SeedEnsemble(steps, 4), 4, seed=seed)[-1] for seed in (3, 4))
    assert torch.equal(again, together[-1])
    assert not any(torch.allclose(a, b) for a, b in zip(again, others, strict=True))


def test_a_list_of_runs_is_a_run_and_its_seeds():
    words = with_seeds(["run=[out/a,out/b,out/c]", "members=6"])
    assert words == ["run=out/a", "seeds=[out/b,out/c]", "name=a_3_seeds", "members=6"]
    assert with_seeds(["run=out/a"]) == ["run=out/a"]
    assert "name=mine" in with_seeds(["run=[a,b]", "name=mine"])
    with pytest.raises(ValueError, match="several in a list"):
        with_seeds(["run=[a]"])


def test_a_case_by_itself_has_the_same_bits_in_any_company(world):
    apart, seen = CasesApart(step(world, 1)), []
    every = states(world, apart, 5)
    torch.testing.assert_close(every[-1], states(world, step(world, 1), 5)[-1], rtol=1e-4, atol=1e-3)
    for numbers in (range(0, 1), range(1, 3), range(3, 5)):
        some = states(world, apart, numbers)
        for lead in (0, 1):
            assert torch.equal(some[lead], every[lead][numbers.start : numbers.stop])
    apart.observer = lambda name, given, state: seen.append((name, tuple(state.lead), given.origin is state.origin))
    states(world, apart, 2)
    assert seen == [("positivity", (2, 2), True)] * 2
    assert states(world, apart, 0)[-1].shape == every[-1][0].shape
