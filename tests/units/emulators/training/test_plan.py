"""Terms of the loss: when each counts, by steps and by shares, and that no step is left without one."""

import pytest
import torch
from torch import nn

from emulators.training.plan import Plan, Term, active, refuse_gaps


class Two(nn.Module):
    def forward(self, prediction, target):
        return torch.full((3,), 2.0)


def terms(**options):
    return {name: Term(Two(), **given) for name, given in options.items()}


def test_a_term_is_its_loss_times_its_weight():
    assert Term(Two(), weight=0.25)(None, None).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("options", "steps", "expected"),
    [
        ({}, 100, (0, 100)),
        ({"end": 30}, 100, (0, 30)),
        ({"start": 30, "end": 300}, 100, (30, 100)),
        ({"start": 0.8}, 100, (80, 100)),
        ({"start": 0.8}, 7, (6, 7)),
        ({"end": 0.8}, 7, (0, 6)),
        ({"start": 0.1, "end": 0.7}, 10, (1, 7)),
        ({"start": 1}, 100, (1, 100)),
        ({"start": 500}, 100, (500, 100)),
    ],
)
def test_spans(options, steps, expected):
    assert Term(Two(), **options).span(steps) == expected


@pytest.mark.parametrize("share", [0.8, 1 / 3, 0.07])
@pytest.mark.parametrize("steps", [1, 7, 100, 1180])
def test_a_switch_leaves_one_loss_at_every_step(share, steps):
    both = terms(mse={"end": share}, amse={"start": share})
    refuse_gaps(both, steps)
    names = ["".join(active(both, step, steps)) for step in range(steps)]
    assert set(names) <= {"mse", "amse"}
    assert names == sorted(names, reverse=True)
    assert names.count("amse") == int(steps * (1 - share) + 1e-9)


def test_gaps_are_refused():
    for options, step in (
        ({"mse": {"end": 50}, "amse": {"start": 60}}, 50),
        ({"mse": {"start": 1}}, 0),
        ({"mse": {"end": 0.5}}, 50),
        ({"mse": {"weight": 0.0}, "amse": {"start": 20}}, 0),
    ):
        with pytest.raises(ValueError, match=f"No loss counts at step {step} of 100"):
            refuse_gaps(terms(**options), 100)
    refuse_gaps(terms(mse={"end": 70}, amse={"start": 60, "end": 90}, mae={"start": 0.9}), 100)


@pytest.mark.parametrize(
    "options", [{"weight": -1.0}, {"weight": float("nan")}, {"start": 1.5}, {"end": 1.0}, {"end": -3}]
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match=r"weight of a loss|whole number of optimiser steps"):
        Term(Two(), **options)


def test_a_divided_batch_says_what_batch_norms_see():
    plain, normed = nn.Linear(2, 2), nn.Sequential(nn.BatchNorm2d(2))
    plan = Plan(batch_size=8, accumulate=2)
    assert plan.division(plain, 2) == "8 = 2 processes x 2 passes x 2 samples"
    assert plan.division(normed, 2).endswith("; batch norms take means of 2, not of 8")
    assert "norms" not in Plan(batch_size=8).division(normed, 1)
