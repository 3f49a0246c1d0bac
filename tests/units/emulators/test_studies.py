"""Studies of scaling: what they lay out and refuse; small numbers of rates, gradients and activations."""

import numpy as np
import pytest
import torch

from emulators.scaling.study import Cost, Study, formula, text_of
from emulators.scaling.width import (
    activation_sizes,
    best_factor,
    coordinate_slopes,
    critical_batch,
    gradient_noise,
    rate_sensitivity,
)


def study(**changes) -> Study:
    settings = {
        "training": ["data=planet"],
        "widths": [16, 32],
        "shape": {"model.embed": "width", "model.layers": "max(2, width // 8)"},
        "held_out": {"width": 64, "steps": 400},
        "durations": [100, 200],
        "changes": {"objective.rollout": "[[0, 1], [{start}, 2]]"},
    }
    return Study(**settings | changes)


COSTS = {w: Cost(w * w, w * w + w, 10.0 * w, 20.0 * w, 0.01, 1e6) for w in (16, 32, 64)}


def test_a_study_lays_out_trunks_branches_and_the_held_out_run():
    runs = study(seeds=2).planned(COSTS)
    assert [run.kind for run in runs] == ["trunk"] * 4 + ["branch"] * 8 + ["held_out"]
    assert runs[0].starts == (80, 160)
    assert runs[0].steps == 160
    branch = next(run for run in runs if run.kind == "branch" and run.steps == 200)
    assert (branch.start, branch.own_steps, branch.trunk) == (160, 40, "w0016_s0")
    assert branch.operations == 160 * 160.0 + 40 * 320.0
    words = study().words(branch)
    assert {"model.embed=16", "model.layers=2", "objective.rollout=[[0, 1], [160, 2]]", "training.steps=200"} <= {
        *words
    }
    assert "training.keep=[80,160]" in study().words(runs[0])
    budgets = study(durations=[], budgets=[1e3, 4e4])
    assert budgets.lengths(COSTS[16]) == [int(4e4 // 192)]


def test_what_a_study_refuses():
    with pytest.raises(ValueError, match="durations"):
        study(durations=[])
    with pytest.raises(ValueError, match=r"study\.held_out"):
        study(held_out={"width": 64})
    with pytest.raises(ValueError, match="beyond all others"):
        study(held_out={"width": 16, "steps": 10}).planned(COSTS)
    with pytest.raises(ValueError, match="arithmetic"):
        study(shape={"model.embed": "__import__('os')"})
    with pytest.raises(ValueError, match="none pays"):
        study(durations=[], budgets=[1.0]).planned(COSTS)
    with pytest.raises(ValueError, match=r"study\.warmup: expected at most 80 steps.*got 81"):
        study(warmup=81).planned(COSTS)
    assert study(warmup=80).planned(COSTS)
    assert text_of(formula("[width, 2 * width, width / 3]", {"width": 8})) == "[8,16,2.66667]"


ADJUSTED = {"loss": "[mse, amse]", "loss.mse.end": "{start}", "loss.amse.start": "{start}"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": "[amse]"}, r"begin at \{start\}.*got loss=\[amse\]"),
        (ADJUSTED | {"loss": "[amse]"}, r"got loss=\[amse\]"),  # the trunk would lose its own
        (ADJUSTED | {"loss": "[mse, amse, mae]"}, "from the first step"),
        (ADJUSTED | {"loss.mse.weight": "2"}, r"got loss\.mse\.weight=2"),
        ({"objective.rollout": "2"}, r"got objective\.rollout=2"),
        ({"model.embed": "{start}"}, r"keys of objective or loss.*got model\.embed"),
        (ADJUSTED | {"loss.amse.weight": "0.5"}, None),
        ({"loss": "[mse, crps]", "loss.mse.end": "{start}", "loss.crps.start": "{start}"}, None),
    ],
)
def test_changes_of_the_cooldown_leave_the_trunk_as_it_is(changes, said):
    words = ["data=planet", "loss=[mse]"]
    if said is None:
        assert study(training=words, changes=changes).changes == changes
        return
    with pytest.raises(ValueError, match=said):
        study(training=words, changes=changes)


def test_small_numbers_of_hyperparameters():
    widths = np.array([16.0, 32.0, 64.0])
    assert coordinate_slopes(widths, {"flat": np.ones(3), "grows": widths}) == {
        "flat": pytest.approx(0.0, abs=1e-12), "grows": pytest.approx(1.0)
    }  # fmt: skip
    scale, squared = gradient_noise(4.0 + 100.0 / 8, 4.0 + 100.0 / 64, 8, 64)
    assert (scale, squared) == (pytest.approx(25.0), pytest.approx(4.0))
    factors = [0.25, 0.5, 1.0, 2.0, 4.0]
    bowl = np.log2(factors) ** 2
    assert best_factor(factors, bowl + 1.0) == (pytest.approx(1.0), True)
    assert best_factor(factors, (np.log2(factors) - 0.4) ** 2)[0] == pytest.approx(2**0.4)
    assert best_factor(factors, np.array([np.nan, 3.0, 2.0, 1.0, np.inf])) == (2.0, True)
    assert best_factor(factors, np.arange(5.0)) == (0.25, False)
    assert np.isnan(best_factor(factors, np.full(5, np.nan))[0])
    assert rate_sensitivity(np.full(5, 0.3), 1.0) == 0.0
    assert rate_sensitivity(np.array([0.2, 0.2, np.nan, np.inf]), 1.0) == pytest.approx(0.5 * 0.8)


def test_the_noise_of_gradients_is_that_of_samples():
    """Of y = w x with w = 0 and x = 1, gradients are -2 target: mean -2 mu, variance 4 sigma^2."""
    chance = torch.Generator().manual_seed(1)
    line = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    torch.nn.init.zeros_(line.weight)

    def loss():
        target = 0.5 + 1.5 * torch.randn(8, 1, generator=chance, dtype=torch.float64)
        return (line(torch.ones_like(target)) - target).square().mean()

    assert critical_batch(line, [loss] * 4000, samples=8) == pytest.approx((1.5 / 0.5) ** 2, rel=0.1)
    with pytest.raises(ValueError, match="two batches"):
        critical_batch(line, [loss], samples=8)


def test_sizes_of_activations_are_of_the_inner_parts():
    network = torch.nn.ModuleDict(
        {"blocks": torch.nn.Sequential(*(torch.nn.Linear(2, 2, bias=False) for _ in range(2))), "head": torch.nn.Tanh()}
    )
    for part, factor in zip(network["blocks"], (3.0, 5.0), strict=True):
        part.weight.data = factor * torch.eye(2)

    def loss():
        return network["head"](network["blocks"](torch.ones(4, 2))).square().mean()

    resting = torch.optim.SGD(network.parameters(), lr=0.0)
    assert activation_sizes(network, resting, [loss] * 3, ["blocks"]) == {"blocks.0": 3.0, "blocks.1": 15.0}
    assert [*activation_sizes(network, resting, [loss], None)] == ["blocks", "head"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (None, "this study has none"),
        ({"widths": [4], "shape": {}, "factors": [1, 2, 4]}, "two different widths"),
        ({"widths": [4, 8], "shape": {}, "factors": [4, 2, 1]}, "growing"),
        ({"widths": [4, 8], "shape": {}, "factors": [1, 2, 4], "steps": 0}, "at least one step"),
        ({"widths": [4, 8], "shape": {}, "factor": [1, 2, 4]}, "expected some of widths"),
    ],
)
def test_what_a_sweep_over_width_refuses(wrong, said):
    with pytest.raises(ValueError, match=said):
        study(rates=wrong).width_sweep()
