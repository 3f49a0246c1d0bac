"""Optimisers, schedules of the learning rate, and which weights of a trained network are changed, and how fast.

AdamW   theta <- (1 - lr decay) theta - lr m / (sqrt(v) + eps), decay on matrices and kernels only
        (Loshchilov & Hutter 2019, arXiv 1711.05101)
Muon    theta <- (1 - lr decay) theta - lr sqrt(max(1, rows / columns)) orthogonal(momentum) for hidden matrices
        (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv 2502.16982), the rest by
        AdamW

A schedule is a factor of the base rate, a pure function of the optimiser step. Tuning changes some weights only:

    rate(theta) = lr * rates[pattern] * depth_decay^(depth - 1 - k)    k: number of the block that holds theta
    loss + anchor / 2 * sum f (theta - theta_0)^2
        f = 1: L2-SP (Li et al. 2018, arXiv 1802.01483)
        f = the Fisher information: EWC (Kirkpatrick et al. 2017, doi 10.1073/pnas.1611835114)

The last block and all outside of the blocks have depth_decay^0 (after Howard & Ruder 2018, arXiv 1801.06146).
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from emulators.interfaces import MatrixParameter, ScaledParameter, optional
from emulators.layers.low_rank import adapters, matches, short_name

QUINTIC = (3.4445, -4.7750, 2.0315)  # a x + b x^3 + c x^5, iterated, sends every singular value near 1 (Jordan et al.)


class AdamW:
    """Build Adam with decoupled weight decay, the decay on matrices and kernels but not on biases and norms."""

    def __init__(
        self, *, lr: float = 1e-3, betas: Sequence[float] = (0.9, 0.95), weight_decay: float = 0.1, eps: float = 1e-8
    ) -> None:
        _refuse_rate("lr", lr)
        self.lr, self.betas, self.weight_decay, self.eps = lr, (betas[0], betas[1]), weight_decay, eps

    def __call__(self, module: nn.Module) -> torch.optim.Optimizer:
        groups = _decayed_apart((p for p in module.parameters() if p.requires_grad), self.weight_decay)
        groups = [{**group, "lr": self.lr * group.pop("share")} for group in groups]
        fused = not any(p.is_complex() for group in groups for p in group["params"])  # torch fuses real ones only
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=fused)


class Muon:
    """Build Muon: orthogonalised momentum for the matrices inside the network, AdamW for its ends, norms and biases.

    lr: of the inner matrices, a length of step in units of their singular values. adam_lr, betas, eps: of the rest.
    inside: the word, or words, in a parameter's name that tell the network's inside from its ends; None: all of it is
    inside. A parameter with the attribute `matrix_axes` is a stack of matrices over these axes (of complex weights the
    real and the imaginary parts each by themselves); a kernel is the matrix (out, everything else).
    """

    def __init__(
        self,
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.05,
        adam_lr: float = 3e-3,
        betas: Sequence[float] = (0.9, 0.95),
        eps: float = 1e-8,
        inside: str | Sequence[str] | None = "blocks",
    ) -> None:
        _refuse_rate("lr", lr)
        _refuse_rate("adam_lr", adam_lr)
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.inside = [inside] if isinstance(inside, str) else inside
        self.adam: dict[str, Any] = {"lr": adam_lr, "betas": (betas[0], betas[1]), "eps": eps, "matrices": False}

    def __call__(self, module: nn.Module) -> torch.optim.Optimizer:
        parameters = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        matrices = [(name, p) for name, p in parameters if p.ndim >= 2]
        inner = [p for name, p in matrices if self.inside is None or any(word in name for word in self.inside)]
        if not inner:
            parts = dict.fromkeys(name.removeprefix("network.").partition(".")[0] for name, _ in matrices)
            raise ValueError(
                f"optimizer.inside={', '.join(self.inside or [])}: expected words in the names of the inner matrices; "
                f"got no match. The network's parts with matrices are {', '.join(parts)}: name those between its ends."
            )
        inner_ids = {id(p) for p in inner}
        orthogonal = {"params": inner, "lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        rest = _decayed_apart((p for _, p in parameters if id(p) not in inner_ids), self.weight_decay)
        return _Muon([{**orthogonal, "matrices": True}, *map(self._by_adam, rest)])

    def _by_adam(self, group: dict[str, Any]) -> dict[str, Any]:
        share = group.pop("share")
        return {**group, **self.adam, "lr": share * self.adam["lr"]}


class _Muon(torch.optim.Optimizer):
    """Join both rules in one optimiser, so that schedules and checkpoints see one."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            (self._descend_matrices if group["matrices"] else self._descend_rest)(group)
        return loss

    def _descend_matrices(self, group: dict[str, Any]) -> None:
        alike = defaultdict(list)  # matrices of one shape are orthogonalised together
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1.0 - group["momentum"])
            ahead = parameter.grad.lerp(state["momentum"], group["momentum"])
            stack = _as_matrices(ahead, optional(parameter, MatrixParameter, "matrix_axes"))
            alike[stack.shape[-2:]].append((parameter, stack))
        for (rows, columns), members in alike.items():
            sizes = [stack.shape[:-2].numel() for _, stack in members]
            directions = orthogonal(torch.cat([stack.reshape(-1, rows, columns) for _, stack in members])).split(sizes)
            rate = group["lr"] * max(1.0, rows / columns) ** 0.5
            for (parameter, stack), direction in zip(members, directions, strict=True):
                update = _from_matrices(direction.view(stack.shape), parameter)
                parameter.mul_(1.0 - group["lr"] * group["weight_decay"]).add_(update, alpha=-rate)

    def _descend_rest(self, group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for parameter in group["params"]:
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if not state:
                state.update(count=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
            state["count"] += 1
            state["mean"].lerp_(parameter.grad, 1.0 - first)
            state["square"].lerp_(parameter.grad.square(), 1.0 - second)
            size = (state["square"] / (1.0 - second ** state["count"])).sqrt_().add_(group["eps"])
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            parameter.addcdiv_(state["mean"], size, value=-group["lr"] / (1.0 - first ** state["count"]))


def orthogonal(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Roughly the nearest semi-orthogonal matrices, with singular values of 0.7 to 1.2; (stack, rows, columns)."""
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    a, b, c = QUINTIC
    for _ in range(iterations):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def _as_matrices(tensor: Tensor, axes: tuple[int, int] | None) -> Tensor:
    return tensor.flatten(1) if axes is None else tensor.movedim(axes, (-2, -1))


def _from_matrices(matrices: Tensor, parameter: Tensor) -> Tensor:
    axes = optional(parameter, MatrixParameter, "matrix_axes")
    return matrices.view_as(parameter) if axes is None else matrices.movedim((-2, -1), axes)


def _decayed_apart(parameters: Iterable[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels with weight decay, biases and norms without, each by their share of the learning rate.

    What a step takes off a weight, rate x decay, is the same at every share.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for parameter in parameters:
        share = optional(parameter, ScaledParameter, "rate_share")
        groups.setdefault((parameter.ndim < 2, share), []).append(parameter)
    return [
        {"params": group, "weight_decay": 0.0 if is_vector else decay / share, "share": share}
        for (is_vector, share), group in sorted(groups.items(), key=lambda pair: (pair[0][0], -pair[0][1]))
    ]


def _refuse_rate(name: str, rate: float) -> None:
    if rate <= 0:
        raise ValueError(f"optimizer.{name} must be positive; got {rate}.")


class _Warmup:
    """Rise linearly over the first `warmup` steps, shared by all schedules; below 1 a share of all steps."""

    def __init__(self, *, warmup: float = 0) -> None:
        if warmup < 0 or (warmup > 1 and warmup != int(warmup)):
            raise ValueError(
                f"schedule.warmup is a whole number of optimiser steps, or a share of them below 1; got {warmup}."
            )
        self.warmup = warmup

    def warm_steps(self, steps: int) -> int:
        """Steps of the warm-up in a training of `steps`."""
        return int(self.warmup) if self.warmup >= 1 else math.ceil(self.warmup * steps - 1e-9)

    def rise(self, step: int, steps: int) -> float:
        return min(1.0, (step + 1) / (self.warm_steps(steps) + 1))


class Constant(_Warmup):
    """Keep the base rate after the warm-up."""

    def __call__(self, step: int, steps: int) -> float:
        return self.rise(step, steps)


class WarmupCosine(_Warmup):
    """Descend half a cosine from 1 to `final` after the warm-up (Loshchilov & Hutter 2017, arXiv 1608.03983)."""

    def __init__(self, *, warmup: float = 0, final: float = 0.0) -> None:
        super().__init__(warmup=warmup)
        self.final = final

    def __call__(self, step: int, steps: int) -> float:
        warm = self.warm_steps(steps)
        progress = min(1.0, max(0.0, (step - warm) / max(1, steps - warm)))
        return self.rise(step, steps) * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress)))


class WarmupStableDecay(_Warmup):
    """Warm up, hold the rate, then cool down as 1 - sqrt(progress) over the last `cooldown` share of the steps.

    Hägele et al. 2024, arXiv 2405.18392.
    """

    def __init__(self, *, warmup: float = 0, cooldown: float = 0.2, final: float = 0.0) -> None:
        super().__init__(warmup=warmup)
        if not 0 <= cooldown <= 1:
            raise ValueError(f"schedule.cooldown is a share of the steps, 0 to 1; got {cooldown}.")
        self.cooldown, self.final = cooldown, final

    def __call__(self, step: int, steps: int) -> float:
        start = steps - round(steps * self.cooldown)  # whole, so that a training may branch off there
        if step < start:
            return self.rise(step, steps)
        progress = min(1.0, (step - start) / max(1, steps - start))
        return self.rise(step, steps) * (self.final + (1 - self.final) * (1 - math.sqrt(progress)))


class WarmRestarts(_Warmup):
    """Warm up and descend half a cosine, anew at each of `restarts`, from a peak that shrinks by `shrink` each time.

    Continual training on data that come later (Ibrahim et al. 2024, arXiv 2403.08763; Loshchilov & Hutter 2017).
    restarts: optimiser steps, or shares of the training below 1.
    """

    def __init__(
        self, *, warmup: float = 0, final: float = 0.0, restarts: Sequence[float] = (0.5,), shrink: float = 1.0
    ) -> None:
        super().__init__(warmup=warmup)
        if any(start <= 0 for start in restarts) or not 0 < shrink <= 1:
            raise ValueError(f"schedule: expected positive restarts and a shrink in (0, 1]; got {restarts}, {shrink}.")
        self.final, self.restarts, self.shrink = final, restarts, shrink

    def __call__(self, step: int, steps: int) -> float:
        starts = sorted({0, *(int(start if start >= 1 else start * steps) for start in self.restarts)})
        cycle = max(number for number, start in enumerate(starts) if start <= step)
        end = starts[cycle + 1] if cycle + 1 < len(starts) else steps
        within = WarmupCosine(warmup=self.warmup, final=self.final)
        return self.shrink**cycle * within(step - starts[cycle], max(1, end - starts[cycle]))


@dataclass(frozen=True)
class Tuning:
    """Say which weights are trained, at what rates, and what holds them to where they began.

    trainable: patterns of names of weights or parts (`blocks.*`, `head`; of components `ocean`, `ocean.head`); null:
    all but the trained Steps that a Step holds, or with an adapter it alone.
    rates: {pattern: factor of the learning rate}; the first that fits counts. depth_decay: factor of the rate from a
    block to the one before it. anchor: weight of the squared distance from the weights at the start; 0: none.
    importance: of each weight in that distance, `uniform` or `fisher`; importance_samples: windows that it is estimated
    from.
    """

    trainable: Sequence[str] | None = None
    rates: Mapping[str, float] = field(default_factory=dict)
    depth_decay: float = 1.0
    anchor: float = 0.0
    importance: Literal["uniform", "fisher"] = "uniform"
    importance_samples: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.depth_decay <= 1:
            raise ValueError(f"tuning.depth_decay is a factor in (0, 1]; got {self.depth_decay}.")
        if self.anchor < 0 or any(rate <= 0 for rate in self.rates.values()):
            raise ValueError(f"tuning: expected an anchor of at least 0 and positive rates; got {self}.")
        if self.importance_samples < 1 or (self.importance == "fisher" and not self.anchor):
            raise ValueError(
                "tuning: expected importance_samples of at least 1, and with importance=fisher an anchor above 0; got "
                f"{self}."
            )

    def choose(self, step: nn.Module) -> None:
        """Let all weights of a Step rest but those that `trainable` names, and its adapters.

        ValueError for a pattern that fits no weight.
        """
        names = [name for name, _ in step.named_parameters()]
        for pattern in (*(self.trainable or ()), *self.rates):
            if not any(matches(name, [pattern]) for name in names):
                parts = dict.fromkeys(short_name(name).partition(".")[0] for name in names)
                raise ValueError(f"tuning: no weight fits '{pattern}'; the network's parts are {', '.join(parts)}.")
        if self.trainable is None:
            return
        adapter_weights = {
            f"{path}.{name}" for path, low in adapters(step).items() for name, _ in low.named_parameters()
        }
        for name, weight in step.named_parameters():
            weight.requires_grad_(name in adapter_weights or matches(name, self.trainable))

    def rate(self, name: str, depths: Mapping[str, int]) -> float:
        """The factor of the learning rate of a weight. depths: the number of blocks by the name of their list."""
        factor = next((rate for pattern, rate in self.rates.items() if matches(name, [pattern])), 1.0)
        place = re.match(r"(.*?)\.(\d+)\.", name)
        below = depths[place[1]] - 1 - int(place[2]) if place and place[1] in depths else 0
        return factor * self.depth_decay**below

    def set_rates(self, optimizer: torch.optim.Optimizer, step: nn.Module) -> None:
        """Divide the groups of an optimiser by the factors of their weights' rates."""
        if not self.rates and self.depth_decay == 1:
            return
        depths = {name: len(module) for name, module in step.named_modules() if isinstance(module, nn.ModuleList)}
        factors = {id(weight): self.rate(name, depths) for name, weight in step.named_parameters()}
        groups: list[dict[str, Any]] = []
        for group in optimizer.param_groups:
            for factor in sorted({factors[id(weight)] for weight in group["params"]}):
                weights = [weight for weight in group["params"] if factors[id(weight)] == factor]
                groups.append({**group, "params": weights, "lr": group["lr"] * factor})
        optimizer.param_groups[:] = groups


class Anchor(nn.Module):
    """Hold trained weights to where they began: weight / 2 times the sum of f (theta - theta_0)^2.

    The start and the importance f of each weight, which is 1 until it is measured, are state.
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def begin(self, step: nn.Module) -> None:
        """Take the weights that are trained as the start, all as important."""
        for number, parameter in enumerate(_trained(step)):
            self.register_buffer(f"start_{number}", parameter.detach().clone())
            self.register_buffer(f"importance_{number}", torch.ones_like(parameter, dtype=_real(parameter)))

    def measure(self, step: nn.Module, losses: Iterable[Tensor]) -> None:
        """Set the importance of each weight to its diagonal Fisher information, scaled to a mean of 1 over all weights.

        losses: one of each sample, which its gradient is taken of. ValueError where no weight has a gradient.
        """
        weights = _trained(step)
        squares = [torch.zeros_like(weight, dtype=_real(weight)) for weight in weights]
        for loss in losses:
            gradients = torch.autograd.grad(loss, weights, allow_unused=True)
            for square, gradient in zip(squares, gradients, strict=True):
                if gradient is not None:
                    square += gradient.abs().square()
        mean = torch.cat([square.flatten() for square in squares]).mean()
        if not mean > 0:
            raise ValueError("tuning.importance=fisher: the old data give no weight a gradient; take uniform.")
        for number, square in enumerate(squares):
            self.get_buffer(f"importance_{number}").copy_(square / mean)

    def forward(self, step: nn.Module) -> Tensor:
        """The penalty, a number."""
        distances = [
            (self.get_buffer(f"importance_{n}") * (now - self.get_buffer(f"start_{n}")).abs().square()).sum()
            for n, now in enumerate(_trained(step))
        ]
        return 0.5 * self.weight * torch.stack(distances).sum()


def _real(tensor: Tensor) -> torch.dtype:
    return tensor.abs().dtype if tensor.is_complex() else tensor.dtype


def _trained(step: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in step.parameters() if parameter.requires_grad]
