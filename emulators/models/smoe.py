"""A residual network whose first and last layers know where they are: spatial mixtures of experts.

    x = experts(conv(fields));    blocks;    fields = conv(act(norm(experts'(x))))
    experts:  y_r(point) = g_e(point) (K_e x)(point),     e: the expert of rank r by its weight g at that point

The weights g belong to places, not to the fields. Gradients reach the chosen experts alone; answers with the largest
gradients of a sample count as wrong, and their experts receive none (damping). With `classification` weights do not
descend the loss but learn which experts to choose:

    BCE(sigmoid(g), label),   label 1 for chosen and right, 0 for chosen and wrong, (number wrong) / (not chosen) else

Dryden & Hoefler 2022, arXiv 2211.13491, put such layers into the ResNet of Rasp & Thuerey 2021, doi
10.1029/2020MS002405. The layer is at parity with theirs, gradients and damping of errors too; the network is after the
paper, not parity-tested, as its code has not been published. Left open by the paper and chosen here: the places of
the two layers, as many experts chosen as there are channels, twice as many to choose from, routing by classification
with the loss of the labels unweighted, and the blocks of ClimateLearn's ResNet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from emulators.layers.convolution import SLOPE, Convolution, Edges, ResidualPair, pole_mirror
from emulators.world import World

ABOUT = {
    "states": "1",
    "step": "timestep",
    "grid": "any",
    "parity": "the layer: spcl/smoe, 1e-5",
}


PUBLISHED = (  # names of a layer in the published code, and ours
    (r"((?:first|last)_experts)\.smoe\.experts\.weight", r"\1.experts.weight"),
    (r"((?:first|last)_experts)\.gate\.latent_routing", r"\1.gate"),
    (r"((?:stem|norm|head)\.\w+)", r"\1"),
)


class SMoE(nn.Module):
    """Map fields (batch, input channel, lat, lon) to (batch, output channel, lat, lon); the grid is fixed.

    channels: hidden channels. blocks: number of pairs of 3x3 convolutions. experts: number in either layer, more than
    channels. routing, right, damping: see SpatialExperts. dropout: rate in the blocks. edges: padding, see
    emulators.layers.convolution.
    """

    def __init__(
        self,
        world: World,
        *,
        channels: int = 32,
        blocks: int = 4,
        experts: int = 64,
        routing: str = "classification",
        right: float = 0.7,
        damping: bool = True,
        dropout: float = 0.0,
        edges: str | None = None,
    ) -> None:
        super().__init__()
        if blocks < 0 or not 0.0 <= dropout < 1.0:
            raise ValueError(f"Expected no negative number of blocks and a dropout in [0, 1); got {blocks}, {dropout}.")
        rim = Edges(world.lat_lon, edges)
        self.stem = Convolution(world.input_channels, channels, 7, rim, mirror=pole_mirror(world))
        self.first_experts, self.last_experts = (
            SpatialExperts(
                channels, channels, experts, world.lat_lon.shape, rim, routing=routing, right=right, damping=damping
            )
            for _ in range(2)
        )
        self.blocks = nn.Sequential(*(ResidualPair(channels, dropout, rim) for _ in range(blocks)))
        self.norm = nn.BatchNorm2d(channels)
        self.head = Convolution(channels, world.output_channels, 7, rim)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        x = self.blocks(self.first_experts(self.stem(fields)))
        return self.head(F.leaky_relu(self.norm(self.last_experts(x)), SLOPE))


ROUTINGS = ("gradient", "classification")


class SpatialExperts(nn.Module):
    """Apply `experts` convolutions and return the `out` preferred at each point, (batch, out, *shape).

    routing: how the weights g learn, `gradient` or `classification`. right: share of the gradients of a sample, the
    smallest, that count as right. damping: give experts no gradient where they are wrong. Raises ValueError for fewer
    experts than outputs, or options out of range.
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
        ranked: Tensor = _Routing.apply(answers, self.gate, self.out, self.classified, self.right, self.damping)
        return ranked


class _Routing(torch.autograd.Function):
    """Select answers (batch, expert, lat, lon) by the ranks of weights (expert, lat, lon), times the weights."""

    @staticmethod
    def forward(ctx, answers: Tensor, gate: Tensor, out: int, classified: bool, right: float, damping: bool) -> Tensor:
        weights, experts = gate.topk(out, dim=0)
        picked = answers.gather(1, experts.expand(len(answers), -1, -1, -1))
        ctx.save_for_backward(picked, gate, weights, experts)
        ctx.classified, ctx.right, ctx.damping = classified, right, damping
        return picked * weights

    @staticmethod
    @once_differentiable
    def backward(ctx, signal: Tensor) -> tuple[Tensor | None, ...]:
        picked, gate, weights, experts = ctx.saved_tensors
        index = experts.expand(len(picked), -1, -1, -1)
        of_picked = signal * weights
        if ctx.damping:
            of_picked = of_picked * is_right(signal, ctx.right, 1e-3)
        of_answers = of_picked.new_zeros(len(picked), *gate.shape).scatter_(1, index, of_picked)
        of_weights = signal * picked
        if ctx.classified:
            labels = routing_labels(is_right(of_weights, ctx.right, 1e-5), index, len(gate))
            of_gate = (gate.sigmoid() * len(labels) - labels.sum(0)) / labels.numel()
        else:
            of_gate = torch.zeros_like(gate).scatter_(0, experts, of_weights.sum(0))
        return of_answers, of_gate, None, None, None, None


def is_right(signal: Tensor, share: float, tolerance: float) -> Tensor:
    """Return 1 where a gradient is not among the largest of its sample, 0 elsewhere.

    tolerance: in gradients times half their number, which undoes the mean in a mean square loss.
    """
    size = signal.abs().float() * (signal.numel() / 2)
    bound = quantile(size.flatten(1), share) + tolerance
    return (size <= bound[:, None, None, None]).to(signal.dtype)


def quantile(values: Tensor, share: float) -> Tensor:
    """Return torch.quantile of each row of (row, value), at least two values, without sorting them all."""
    place = share * (values.shape[1] - 1)
    below = min(int(place), values.shape[1] - 2)
    larger = values.topk(values.shape[1] - below, dim=1, sorted=False).values
    low, high = larger.topk(2, dim=1, largest=False).values.unbind(1)
    return low.lerp(high, place - below)


def routing_labels(right: Tensor, indices: Tensor, experts: int) -> Tensor:
    """Return the target weights of all experts, (batch, expert, lat, lon), by which of `indices` were right."""
    wrong = right.shape[1] - right.sum(1, keepdim=True)
    return (wrong / (experts - right.shape[1])).repeat(1, experts, 1, 1).scatter_(1, indices, right)
