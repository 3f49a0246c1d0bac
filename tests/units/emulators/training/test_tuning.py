"""What is trained of a network, at which rates, how far from the start; and thin matrices in place of its weights."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from emulators.contracts.example_worlds import example_state, small_world
from emulators.layers.low_rank import (
    LoRA,
    adapt,
    adapters,
    is_of_adapter,
    remove_adapters,
    switch,
    without_adapters,
)
from emulators.models.sfno import SFNO
from emulators.models.unet import UNet
from emulators.models.vit import ViT
from emulators.steps.step import Step
from emulators.training.fitting import lay_out
from emulators.training.hardware import Hardware
from emulators.training.optimizers import AdamW, Anchor, Muon, Tuning, WarmRestarts

NETWORKS = {
    "sfno": lambda world: SFNO(world, embed=16, layers=2),
    "unet": lambda world: UNet(world, channels=[16, 32], blocks=1),
    "vit": lambda world: ViT(world, embed=16, depth=2, heads=2),
}


def step_of(name):
    torch.manual_seed(0)
    world = small_world()
    return Step(world, NETWORKS[name](world)).eval()


def states(steps=1):
    world = small_world()
    history = (example_state(world, world.prognostic, 0, dtype=torch.float32),)
    forcing = example_state(world, world.forcing, 1, dtype=torch.float32)
    return history, forcing


def drawn(step):
    with torch.no_grad():
        for part in adapters(step).values():
            part.up.normal_(0, 0.05)
    return {name: value.clone() for name, value in step.state_dict().items() if is_of_adapter(name)}


@pytest.mark.parametrize("name", NETWORKS)
def test_an_adapter_begins_as_nothing_is_saved_alone_switched_and_merged(name):
    step, settings = step_of(name), LoRA(rank=2)
    base = {key: value.clone() for key, value in step.state_dict().items()}
    before = step(*states()).values
    named = adapt(step, settings)
    assert torch.equal(step(*states()).values, before)
    kinds = {"sfno": "convolution", "unet": "coarsen", "vit": "qkv"}
    assert any(kinds[name] in weight for weight in named)
    first = {"settings": settings.plain(), "weights": drawn(step)}
    after = step(*states()).values
    assert not torch.equal(after, before)
    assert torch.equal(copy.deepcopy(step)(*states()).values, after)
    (after**2).sum().backward()
    learned = {key for key, weight in step.named_parameters() if weight.grad is not None}
    assert learned == {key for key, weight in step.named_parameters() if weight.requires_grad} != set()
    assert all(is_of_adapter(key) for key in learned)
    kept = without_adapters(step.state_dict())
    assert kept.keys() == base.keys()
    assert all(torch.equal(kept[key], value) for key, value in base.items())
    second = {"settings": LoRA(rank=3).plain(), "weights": None}
    switch(step, None)
    assert torch.equal(step(*states()).values, before)
    adapt(step, LoRA(rank=3))
    second["weights"] = drawn(step)
    switch(step, first)
    torch.testing.assert_close(step(*states()).values, after, rtol=0, atol=0)
    switch(step, second)
    assert not torch.equal(step(*states()).values, after)
    switch(step, first, merge=True)
    assert step.state_dict().keys() == base.keys()
    error = (step(*states()).values - after).abs().amax((0, 2, 3)) / torch.as_tensor(
        step.world.scale(step.world.predicted, "std")
    )
    assert error.max() < 1e-6


def test_adapters_of_a_rollout_differ_by_step_and_are_not_merged():
    step = step_of("vit")
    adapt(step, LoRA(rank=2, leads=2, first=2))
    (history,), forcing = states()
    forcing = replace(forcing, time=step.world.after(history.time))
    before = step((history,), forcing).values
    drawn(step)
    assert torch.equal(step((history,), forcing).values, before)
    made = step((history,), forcing)
    low = next(iter(adapters(step).values()))
    assert low.lead == 0
    later = example_state(step.world, step.world.forcing, 1, dtype=torch.float32)
    later = replace(later, time=step.world.after(history.time, 2))
    step((made,), later)
    assert low.lead == 1
    with pytest.raises(ValueError, match="differ between the steps"):
        remove_adapters(step, merge=True)


def test_adapters_by_step_are_not_computed_again():
    step = step_of("vit")
    adapt(step, LoRA(rank=2, leads=2))
    with pytest.raises(ValueError, match="the adapter of a later step"):
        lay_out(step.networks, Hardware(activation_checkpointing=True))


def test_targets_that_fit_nothing_are_refused():
    with pytest.raises(ValueError, match=r"adapter.targets: expected patterns of weights with more than 2 rows"):
        adapt(step_of("vit"), LoRA(rank=2, targets=["nothing"]))
    assert len(adapt(step_of("vit"), LoRA(rank=2, targets=["blocks.*.mlp"]))) == 4


def test_only_what_is_named_is_trained():
    step = step_of("vit")
    Tuning(trainable=["blocks.1", "head"]).choose(step)
    trained = {name for name, weight in step.named_parameters() if weight.requires_grad}
    assert trained == {name for name, _ in step.named_parameters() if "blocks.1." in name or "head" in name}
    with pytest.raises(ValueError, match=r"no weight fits 'haed'; the network's parts are"):
        Tuning(rates={"haed": 0.1}).choose(step)


@pytest.mark.parametrize("optimizer", [AdamW(lr=1e-2), Muon(lr=1e-2)])
def test_rates_go_by_part_and_depth(optimizer):
    step = step_of("vit")
    made, tuning = optimizer(step), Tuning(rates={"head": 10.0}, depth_decay=0.5)
    before = {id(weight): group["lr"] for group in made.param_groups for weight in group["params"]}
    tuning.set_rates(made, step)
    after = {id(weight): group["lr"] for group in made.param_groups for weight in group["params"]}
    for name, weight in step.named_parameters():
        factor = 10.0 if "head" in name else 0.5 if "blocks.0." in name else 1.0
        assert after[id(weight)] == pytest.approx(factor * before[id(weight)]), name


def test_the_anchor_is_half_the_squared_distance():
    step = step_of("vit")
    anchor = Anchor(3.0)
    anchor.begin(step)
    assert anchor(step) == 0
    with torch.no_grad():
        step.network.head[0].bias.add_(2.0)
    penalty = anchor(step)
    assert penalty.item() == pytest.approx(0.5 * 3.0 * 4.0 * 16)
    penalty.backward()
    torch.testing.assert_close(step.network.head[0].bias.grad, torch.full((16,), 6.0))


def test_the_fisher_information_weighs_the_anchor():
    """For loss y (w . x) of samples x, the gradient of w is y x: the mean of its square is known."""
    step = torch.nn.Linear(3, 1, bias=False)
    anchor = Anchor(2.0)
    anchor.begin(step)
    samples = torch.tensor([[1.0, 2.0, 0.0], [3.0, 0.0, 0.0]])
    anchor.measure(step, (2.0 * step(x).squeeze() for x in samples))
    squares = (2.0 * samples).square().sum(0)
    importance = squares / squares.mean()
    torch.testing.assert_close(anchor.importance_0, importance[None])
    with torch.no_grad():
        step.weight.add_(torch.tensor([1.0, -2.0, 5.0]))
    assert anchor(step).item() == pytest.approx(float(importance[0] + 4 * importance[1]))
    again = Anchor(2.0)
    again.begin(torch.nn.Linear(3, 1, bias=False))
    again.load_state_dict(anchor.state_dict())
    assert again(step) == anchor(step)
    with pytest.raises(ValueError, match="give no weight a gradient"):
        anchor.measure(step, [0.0 * step(samples[0]).squeeze()])


@pytest.mark.parametrize("options", [{"importance": "fisher"}, {"anchor": 1.0, "importance_samples": 0}])
def test_an_importance_that_cannot_be(options):
    with pytest.raises(ValueError, match="importance"):
        Tuning(**options)


def test_a_schedule_that_warms_up_again():
    schedule = WarmRestarts(warmup=4, restarts=[0.5], shrink=0.5)
    rates = [schedule(n, 100) for n in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates[:50]) == pytest.approx(1.0, rel=0.01)
    assert rates[49] < 0.01
    assert rates[50] == pytest.approx(0.1)
    assert max(rates[50:]) == pytest.approx(0.5, rel=0.01)
