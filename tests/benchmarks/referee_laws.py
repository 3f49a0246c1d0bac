"""Rows of the referee on laws, intervals, batches, winds and the gradient of the CRPS."""

from __future__ import annotations

import torch
from referee import Row

from emulators.scores.ensemble import mean_difference


def coinciding_members() -> Row:
    """The gradient of E|x - x'| with respect to each of four members that are all alike, and one that is not."""
    members = torch.tensor([1.0, 1.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(mean_difference(members), members)
    expected = torch.tensor([-1.0, -1.0, -1.0, 3.0], dtype=torch.float64)
    expected = expected / expected[3] * gradient[3]
    return Row(float((gradient - expected).abs().max()), 1e-12, True, "gradients of members that coincide, apart")


ROWS = {10: coinciding_members}
