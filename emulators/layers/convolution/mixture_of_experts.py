"""Spatial mixture of experts: at every point a few of many convolutions answer, those that a map of weights prefers.

    y_r(point) = g_e(point) (K_e x)(point),     e: the expert of rank r by its weight g at that point

The weights belong to places, not to what is there. What the loss sends back reaches chosen experts alone; answers with
the largest signals of a sample count as wrong. To their experts nothing is sent (damping). With `classification`
weights do not descend the loss but learn whom to choose:

    BCE(sigmoid(g), label),   label 1 for chosen and right, 0 for chosen and wrong, (number wrong) / (not chosen) else

Dryden & Hoefler 2022, arXiv 2211.13491.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from emulators.layers.convolution.padding import Convolution, Edges

ROUTINGS = ("gradient", "classification")


class SpatialExperts(nn.Module):
    """(batch, into, *shape) -> (batch, out, *shape): `out` of the answers of `experts`, the first in rank first.

    routing: how weights learn, `gradient` or `classification`. right: share of the signals of a sample, the smallest,
    that count as right. damping: whether experts learn nothing from where they are wrong.
    """

    def __init__(
        self,
        into: int,
        out: int,
        experts: int,
        shape: Sequence[int],
        rim: Edges,
        *,
        routing: str = "classification",
        right: float = 0.7,
        damping: bool = True,
    ) -> None:
        super().__init__()
        if experts <= out or routing not in ROUTINGS or not 0.0 <= right <= 1.0:
            raise ValueError(
                f"Expected more experts than the {out} that are chosen, routing to be one of {', '.join(ROUTINGS)} and "
                f"right in [0, 1]; got {experts}, '{routing}' and {right}."
            )
        self.out, self.classified, self.right, self.damping = out, routing == "classification", right, damping
        self.experts = Convolution(into, experts, 3, rim, bias=False)
        bound = math.sqrt(3.0 * experts / out)
        self.gate = nn.Parameter(torch.empty(experts, *shape).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        answers = self.experts(x).to(self.gate.dtype)
        made: Tensor = _Routing.apply(answers, self.gate, self.out, self.classified, self.right, self.damping)
        return made


class _Routing(torch.autograd.Function):
    """Answers (batch, expert, lat, lon) by the ranks of weights (expert, lat, lon), times the weights."""

    @staticmethod
    def forward(ctx, answers: Tensor, gate: Tensor, out: int, classified: bool, right: float, damping: bool) -> Tensor:
        weights, chosen = gate.topk(out, dim=0)
        picked = answers.gather(1, chosen.expand(len(answers), -1, -1, -1))
        ctx.save_for_backward(picked, gate, weights, chosen)
        ctx.classified, ctx.right, ctx.damping = classified, right, damping
        return picked * weights

    @staticmethod
    @once_differentiable
    def backward(ctx, signal: Tensor) -> tuple[Tensor | None, ...]:
        picked, gate, weights, chosen = ctx.saved_tensors
        index = chosen.expand(len(picked), -1, -1, -1)
        of_picked = signal * weights
        if ctx.damping:
            of_picked = of_picked * is_right(signal, ctx.right, 1e-3)
        of_answers = of_picked.new_zeros(len(picked), *gate.shape).scatter_(1, index, of_picked)
        of_weights = signal * picked
        if ctx.classified:
            labels = routing_labels(is_right(of_weights, ctx.right, 1e-5), index, len(gate))
            of_gate = (gate.sigmoid() * len(labels) - labels.sum(0)) / labels.numel()
        else:
            of_gate = torch.zeros_like(gate).scatter_(0, chosen, of_weights.sum(0))
        return of_answers, of_gate, None, None, None, None


def is_right(signal: Tensor, share: float, tolerance: float) -> Tensor:
    """1 where a signal is not among the largest of its sample, 0 elsewhere.

    tolerance: of signals times half their number, which undoes that a loss is a mean of squares.
    """
    size = signal.abs().float() * (signal.numel() / 2)
    bound = quantile(size.flatten(1), share) + tolerance
    return (size <= bound[:, None, None, None]).to(signal.dtype)


def quantile(values: Tensor, share: float) -> Tensor:
    """torch.quantile of each row of (row, value), at least two values, without sorting them all."""
    place = share * (values.shape[1] - 1)
    below = min(int(place), values.shape[1] - 2)
    larger = values.topk(values.shape[1] - below, dim=1, sorted=False).values
    low, high = larger.topk(2, dim=1, largest=False).values.unbind(1)
    return low.lerp(high, place - below)


def routing_labels(right: Tensor, chosen: Tensor, experts: int) -> Tensor:
    """What the weights of all experts should say, (batch, expert, lat, lon), by which of the chosen were right."""
    wrong = right.shape[1] - right.sum(1, keepdim=True)
    return (wrong / (experts - right.shape[1])).repeat(1, experts, 1, 1).scatter_(1, chosen, right)
