"""Low-rank adapters: a trained weight rests, and the product of two thin matrices is added to it.

    W = W_0 + (alpha / rank) B A,    B (rows, rank) begins at 0, A (rank, columns) at random

Hu et al. 2022, arXiv 2106.09685. A kernel is the matrix (out, everything else); a weight that is a stack of matrices,
such as one for each degree of a spherical convolution, has a pair for each. With several `leads` there is a pair for
each step of a rollout, the last for all that follow, as in Aurora (Bodnar et al. 2025, arXiv 2405.13063).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from emulators.interfaces import MatrixParameter, optional
from emulators.world import timesteps_between

INSIDE = ".parametrizations."
HOLDERS = re.compile(r"^(?:components\.([^.]+\.)step\.)?(?:network\.)?")


@dataclass(frozen=True)
class LoRA:
    """Say which weights get an adapter, and of what size.

    rank: of the added matrix. alpha: its factor is alpha / rank. targets: patterns of names of weights, or of the parts
    that hold them; of these all matrices and kernels larger than the rank. leads: pairs, one for each step of a
    rollout. first: the step of a rollout from which they act; 2: from the second.
    """

    rank: int = 8
    alpha: float = 8.0
    targets: Sequence[str] = ("*",)
    leads: int = 1
    first: int = 1

    def __post_init__(self) -> None:
        if min(self.rank, self.leads, self.first) < 1:
            raise ValueError(f"adapter: rank, leads and first are at least 1; got {self}.")

    @property
    def goes_by_lead(self) -> bool:
        """Whether it differs between the steps of a rollout, so that it cannot be merged into the weights."""
        return (self.leads, self.first) != (1, 1)

    def plain(self) -> dict[str, Any]:
        """Return the settings as numbers and texts."""
        return {**asdict(self), "targets": list(self.targets)}


class LowRank(nn.Module):
    """Add the product of two thin matrices to a weight of shape `shape`. axes: of rows and columns, None: (out, rest).

    lead: the step of the rollout that is being made, from 0.
    """

    def __init__(self, shape: Sequence[int], axes: tuple[int, int] | None, settings: LoRA) -> None:
        super().__init__()
        self.axes, self.settings, self.lead = axes, settings, 0
        *stack, rows, columns = _matrices(torch.empty(shape, device="meta"), axes).shape
        down = torch.randn(settings.leads, *stack, settings.rank, columns) * columns**-0.5
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(torch.zeros(settings.leads, *stack, rows, settings.rank))

    def forward(self, weight: Tensor) -> Tensor:
        if self.lead + 1 < self.settings.first:
            return weight
        pair = min(self.lead, self.settings.leads - 1)
        added = (self.settings.alpha / self.settings.rank) * (self.up[pair] @ self.down[pair])
        if self.axes is None:
            return weight + added.view(weight.shape)
        return weight + added.movedim((-2, -1), self.axes)


def _matrices(weight: Tensor, axes: tuple[int, int] | None) -> Tensor:
    return weight.flatten(1) if axes is None else weight.movedim(axes, (-2, -1))


def adapt(step: nn.Module, settings: LoRA) -> list[str]:
    """Give the weights that `settings.targets` names adapters, and let all else rest; the names of these weights.

    ValueError where there are none. The Step tells its adapters which step of a rollout it makes.
    """
    adapted = []
    for path, module in list(step.named_modules()):
        for name, weight in list(module.named_parameters(recurse=False)):
            full = f"{path}.{name}" if path else name
            axes = optional(weight, MatrixParameter, "matrix_axes")
            is_matrix = weight.ndim >= 2 and not weight.is_complex() and not isinstance(module, nn.ParameterList)
            if is_matrix and matches(full, settings.targets):
                if min(_matrices(weight, axes).shape[-2:]) > settings.rank:
                    adapted.append((module, name, full, LowRank(weight.shape, axes, settings)))
    if not adapted:
        raise ValueError(
            f"adapter.targets: expected patterns of weights with more than {settings.rank} rows and columns, got "
            f"{', '.join(settings.targets)}; parts are {', '.join(dict(step.named_children()))}: take a smaller rank?"
        )
    step.requires_grad_(False)
    for module in step.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.0  # its statistics belong to the base, which rests
    for module, name, _, low_rank in adapted:
        parametrize.register_parametrization(module, name, low_rank.to(module.get_parameter(name)), unsafe=True)
    if settings.goes_by_lead:
        step.register_forward_pre_hook(_tell_lead, with_kwargs=True)
    return [full for _, _, full, _ in adapted]


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name, or its short form, is one of the patterns (`*`, `?`), or lies in a part that is."""
    names = name, short_name(name)
    return any(fnmatch.fnmatchcase(n, p) or fnmatch.fnmatchcase(n, f"{p}.*") for n in names for p in patterns)


def short_name(name: str) -> str:
    """The name of a weight without the words for what holds it: `blocks.0.weight`, of a component `ocean.head.bias`."""
    return HOLDERS.sub(lambda match: match[1] or "", name)


def _tell_lead(step: Any, inputs: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
    """Tell the adapters of a Step which step of the rollout is made."""
    history, forcing = (keywords.get(key, value) for key, value in zip(("history", "forcing"), inputs, strict=False))
    lead = timesteps_between(step.world.timestep, history[-1].start.time, forcing.time) - 1
    for adapter in adapters(step).values():
        adapter.lead = lead


def adapters(module: nn.Module) -> dict[str, LowRank]:
    """The adapters of a module by name."""
    return {name: submodule for name, submodule in module.named_modules() if isinstance(submodule, LowRank)}


def is_of_adapter(name: str) -> bool:
    """Whether a weight belongs to an adapter, by its name in a state dict."""
    return INSIDE in name and not name.endswith(".original")


def without_adapters(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the base, under the names that they have without adapters; no counters of batches."""
    base = {}
    for name, value in weights.items():
        if INSIDE not in name and not name.endswith(".num_batches_tracked"):
            base[name] = value
        elif name.endswith(".original"):
            base[name.replace(INSIDE, ".").removesuffix(".original")] = value
    return base


def with_low_rank_updates(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with the updates B A added that stand beside them as `low_rank.0.A` and `low_rank.0.B`.

    Raises ValueError if each step of a rollout has its own.
    """
    merged = {name: value for name, value in weights.items() if ".low_rank." not in name}
    for name in [name for name in weights if name.endswith(".B")]:
        layer, number = name.split(".low_rank.")
        if number != "0.B":
            raise ValueError("Expected low-rank updates that are the same at every step; got one for each.")
        merged[f"{layer}.weight"] = merged[f"{layer}.weight"] + weights[name] @ weights[f"{name[:-1]}A"]
    return merged


def with_adapter_names(weights: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """The weights of a base, under the names that they have in a module with adapters."""
    inside = {name.replace(INSIDE, ".").removesuffix(".original"): name for name in module.state_dict()}
    return {inside.get(name, name): value for name, value in weights.items()}


def remove_adapters(module: nn.Module, merge: bool = False) -> None:
    """Take the adapters away; merge: what they add stays in the weights. ValueError for what differs by lead."""
    low_ranks = adapters(module)
    if merge and any(submodule.settings.goes_by_lead for submodule in low_ranks.values()):
        raise ValueError("Adapters that differ between the steps of a rollout cannot be merged into one weight.")
    for name in {name.partition(".parametrizations.")[0] for name in low_ranks}:
        submodule = module.get_submodule(name)
        for weight in list(submodule.parametrizations):  # type: ignore[union-attr, arg-type]
            original = submodule.parametrizations[weight].original  # type: ignore[index, union-attr]
            attributes = dict(vars(original))
            parametrize.remove_parametrizations(submodule, weight, leave_parametrized=merge)
            vars(submodule.get_parameter(weight)).update(attributes)
    for handle, hook in list(module._forward_pre_hooks.items()):
        if hook is _tell_lead:
            del module._forward_pre_hooks[handle]
            module._forward_pre_hooks_with_kwargs.pop(handle, None)


def switch(step: nn.Module, saved: Mapping[str, Any] | None, merge: bool = False) -> None:
    """Put a saved adapter {settings, weights} in place of the one that there is; None: the base alone.

    merge: into the weights, which then cannot be had back.
    """
    remove_adapters(step)
    if saved is None:
        return
    adapt(step, LoRA(**saved["settings"]))
    step.load_state_dict({**step.state_dict(), **saved["weights"]})
    if merge:
        remove_adapters(step, merge=True)
