"""Optimisers: from a module to the torch optimiser that descends it.

AdamW   theta <- (1 - lr decay) theta - lr m / (sqrt(v) + eps), decay on matrices and kernels only
        (Loshchilov & Hutter 2019, arXiv 1711.05101)
Muon    theta <- (1 - lr decay) theta - lr sqrt(max(1, rows / columns)) orthogonal(momentum) for hidden matrices
        (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv 2502.16982), the rest by
        AdamW
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from emulators.interfaces import MatrixParameter, optional

QUINTIC = (3.4445, -4.7750, 2.0315)  # a x + b x^3 + c x^5, iterated, sends every singular value near 1 (Jordan et al.)


class AdamW:
    """Adam with decoupled weight decay, the decay on matrices and kernels but not on biases and norms."""

    def __init__(
        self, *, lr: float = 1e-3, betas: Sequence[float] = (0.9, 0.95), weight_decay: float = 0.1, eps: float = 1e-8
    ) -> None:
        _refuse_rate("lr", lr)
        self.lr, self.betas, self.weight_decay, self.eps = lr, (betas[0], betas[1]), weight_decay, eps

    def __call__(self, module: nn.Module) -> torch.optim.Optimizer:
        groups = _decayed_apart((p for p in module.parameters() if p.requires_grad), self.weight_decay)
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.eps, fused=True)


class Muon:
    """Orthogonalised momentum for the matrices of the network's inside, AdamW for its ends, norms and biases.

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
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        matrices = [(name, p) for name, p in named if p.ndim >= 2]
        inner = [p for name, p in matrices if self.inside is None or any(word in name for word in self.inside)]
        if not inner:
            parts = dict.fromkeys(name.removeprefix("network.").partition(".")[0] for name, _ in matrices)
            raise ValueError(
                f"optimizer.inside={', '.join(self.inside or [])}: expected words in the names of the inner matrices; "
                f"got no match. The network's parts with matrices are {', '.join(parts)}: name those between its ends."
            )
        chosen = {id(p) for p in inner}
        orthogonal = {"params": inner, "lr": self.lr, "momentum": self.momentum, "weight_decay": self.weight_decay}
        rest = _decayed_apart((p for _, p in named if id(p) not in chosen), self.weight_decay)
        return _Muon([{**orthogonal, "matrices": True}, *({**group, **self.adam} for group in rest)])


class _Muon(torch.optim.Optimizer):
    """Both rules in one optimiser, so that schedules and checkpoints see one."""

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
    """Matrices and kernels with weight decay, biases and norms without."""
    parameters = list(parameters)
    matrices, vectors = [p for p in parameters if p.ndim >= 2], [p for p in parameters if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _refuse_rate(name: str, rate: float) -> None:
    if rate <= 0:
        raise ValueError(f"optimizer.{name} must be positive; got {rate}.")
