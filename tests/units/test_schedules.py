"""Schedules and the optimiser's groups."""

import math

import pytest
import torch

from emulators.optimizers import AdamW
from emulators.schedules import Constant, WarmupCosine, WarmupStableDecay


def test_every_schedule_rises_linearly_first():
    for schedule in (Constant(warmup=9), WarmupCosine(warmup=9), WarmupStableDecay(warmup=9)):
        assert [round(schedule(n, 1000), 12) for n in (0, 4)] == [0.1, 0.5]
        assert schedule(9, 1000) == pytest.approx(1.0)


def test_cosine_ends_at_final():
    schedule = WarmupCosine(warmup=0, final=0.1)
    assert schedule(500, 1000) == pytest.approx(0.55)
    assert schedule(1000, 1000) == pytest.approx(0.1)


def test_cooldown_is_one_minus_sqrt():
    schedule = WarmupStableDecay(cooldown=0.2)
    assert schedule(799, 1000) == 1.0
    assert schedule(850, 1000) == pytest.approx(1 - math.sqrt(0.25))
    assert schedule(1000, 1000) == pytest.approx(0.0)
    with pytest.raises(ValueError, match="share"):
        WarmupStableDecay(cooldown=20)


def test_adamw_decays_matrices_only():
    optimizer = AdamW(lr=0.1, weight_decay=0.5)(torch.nn.Linear(3, 2))
    assert [(g["weight_decay"], len(g["params"])) for g in optimizer.param_groups] == [(0.5, 1), (0.0, 1)]
    with pytest.raises(ValueError, match="positive"):
        AdamW(lr=0.0)
