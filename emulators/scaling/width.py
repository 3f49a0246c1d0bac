"""Learning rates, sizes of activations and critical batches over width: whether what was tuned narrow serves wide.

best rate      minimum of a parabola in log(rate) through the best rate and its two neighbours
sensitivity    mean over rates of min(final score, first score) minus the best (Wortsman et al. 2023, arXiv 2309.14322)
coordinates    mean size of activations after a few steps, ~ width^slope, 0 under muP
               (Yang et al. 2021, arXiv 2203.03466)
noise scale    tr(S) / |G|^2, S the covariance of the gradient of a sample and G its mean: the batch beyond which
               more samples a step bring little (McCandlish et al. 2018, arXiv 1812.06162)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class WidthRun:
    """Hold one training of a sweep of rates over width. factor: of every learning rate; 0: not trained at all."""

    parametrisation: str
    width: int
    factor: float
    seed: int

    @property
    def name(self) -> str:
        """The name of its run folder."""
        return f"{self.parametrisation}_w{self.width:04d}_x{self.factor:g}_s{self.seed}"

    @property
    def values(self) -> dict[str, str]:
        """What a table shows of it."""
        return {key: str(value) for key, value in vars(self).items()}


@dataclass(frozen=True)
class WidthSweep:
    """Hold how learning rates are swept over width.

    widths: of the networks. shape: formulas of `width` by key of the training, in which no depth may change. factors:
    of every learning rate of the study, growing. parametrisations: names of conf/parametrisation, `standard` for none.
    steps: of each training. seeds: of each.
    """

    widths: Sequence[int]
    shape: Mapping[str, str]
    factors: Sequence[float]
    parametrisations: Sequence[str] = ("standard", "mup")
    steps: int = 100
    seeds: int = 1

    def __post_init__(self) -> None:
        if len(set(self.widths)) < 2 or min(self.widths) < 1:
            raise ValueError(f"study.rates.widths: expected two different widths or more; got {list(self.widths)}.")
        if len(self.factors) < 3 or sorted({*self.factors}) != list(self.factors) or self.factors[0] <= 0:
            raise ValueError(
                f"study.rates.factors: expected three or more positive factors, growing; got {list(self.factors)}."
            )
        if self.steps < 1 or self.seeds < 1 or not self.parametrisations:
            raise ValueError("study.rates: expected at least one step, one seed and one parametrisation.")

    def runs(self) -> list[WidthRun]:
        """All trainings, an untrained network of each width among them."""
        return [
            WidthRun(kind, width, factor, seed)
            for kind in self.parametrisations
            for width in self.widths
            for factor in (0.0, *self.factors)
            for seed in range(self.seeds)
        ]


def best_factor(factors: Sequence[float], scores: np.ndarray) -> tuple[float, bool]:
    """The factor with the least score, between the given ones, and whether it lies inside them.

    scores: (factor,), not finite where a run diverged. (nan, False) where all diverged.
    """
    finite = np.where(np.isfinite(scores), scores, np.inf)
    k = int(finite.argmin())
    if not np.isfinite(finite[k]):
        return float("nan"), False
    logs = np.log(np.asarray(factors, dtype=float))
    if k in (0, len(finite) - 1) or not np.isfinite(finite[k + 1]):
        return float(factors[k]), 0 < k < len(finite) - 1
    square, slope, _ = np.polyfit(logs[k - 1 : k + 2] - logs[k], finite[k - 1 : k + 2], 2)
    return float(np.exp(logs[k] - (slope / (2 * square) if square > 0 else 0.0))), True


def rate_sensitivity(scores: np.ndarray, start: float) -> float:
    """The mean over learning rates of min(final score, first score) minus the best: 0 where no rate matters.

    scores: of rates evenly spaced in logarithms, not finite where a run diverged.
    """
    final = np.minimum(np.where(np.isfinite(scores), scores, start), start)
    return float(final.mean() - final.min())


def coordinate_slopes(widths: np.ndarray, sizes: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How the mean size of each part's activations grows with width: slopes of logarithms, 0 where they keep theirs.

    sizes: by part, (width,).
    """
    return {name: float(np.polyfit(np.log(widths), np.log(values), 1)[0]) for name, values in sizes.items()}


def activation_sizes(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    losses: Sequence[Callable[[], Tensor]],
    inside: Sequence[str] | None,
) -> dict[str, float]:
    """Mean sizes of the outputs of a network's inner parts after an optimiser step on each loss but the last.

    The weights change. inside: words in the names of the parts that count; None: those directly below the network.
    """
    for loss in losses[:-1]:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    found: dict[str, list[float]] = {}
    hooks = [
        part.register_forward_hook(
            lambda _, given, out, name=name: found.setdefault(name, []).append(float(_first(out).detach().abs().mean()))
        )
        for name, part in network.named_modules()
        if _is_part(name, part, inside)
    ]
    with torch.no_grad():
        losses[-1]()
    for hook in hooks:
        hook.remove()
    return {name: float(np.mean(values)) for name, values in found.items()}


def _is_part(name: str, part: nn.Module, inside: Sequence[str] | None) -> bool:
    above, _, last = name.rpartition(".")
    if inside is None:
        return bool(name) and not above
    return (last.isdigit() and above.rpartition(".")[2] in inside) or (last in inside and not _is_list(part))


def _is_list(part: nn.Module) -> bool:
    return isinstance(part, nn.ModuleList | nn.Sequential)


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else _first(output[0])


def critical_batch(module: nn.Module, losses: Sequence[Callable[[], Tensor]], samples: int) -> float:
    """The gradient noise scale of a module, in samples. losses: of batches of so many samples each.

    The weights stay as they are. ValueError for fewer than two batches.
    """
    mean: dict[str, Tensor] = {}
    squares = 0.0
    for loss in losses:
        module.zero_grad(set_to_none=True)
        loss().backward()
        grads = {name: p.grad.detach() for name, p in module.named_parameters() if p.grad is not None}
        squares += sum(float(grad.abs().square().sum()) for grad in grads.values())
        mean = {name: mean[name] + grad if name in mean else grad.clone() for name, grad in grads.items()}
    if len(losses) < 2:
        raise ValueError(f"Expected two batches or more to tell the noise of a gradient; got {len(losses)}.")
    large = sum(float((grad / len(losses)).abs().square().sum()) for grad in mean.values())
    return gradient_noise(squares / len(losses), large, samples, samples * len(losses))[0]


def gradient_noise(small: float, large: float, few: int, many: int) -> tuple[float, float]:
    """The simple noise scale tr(S) / |G|^2 and |G|^2, from two sizes of batches.

    small, large: mean squared norm of the gradient of `few` and of `many` samples. McCandlish et al. 2018, appendix A.
    The scale is infinite where the gradient is all noise.
    """
    if not 0 < few < many:
        raise ValueError(f"Expected a larger batch than the small one; got {few} and {many} samples.")
    squared = (many * large - few * small) / (many - few)
    variance = (small - large) / (1.0 / few - 1.0 / many)
    return (variance / squared if squared > 0 else np.inf), squared
