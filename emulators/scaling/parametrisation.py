"""First weights and learning rates by width, so that the best learning rate of a narrow network is that of a wide one.

    matrix   n_in inputs, n_0 at the base width:  rate of Adam / (n_in / n_0), spread of the base / sqrt(n_in / n_0)
    readout  the same rate,                       spread of the base / (n_in / n_0)
    others   rate and spread of the base

Others are biases, gains of norms, places, latents and other tables, kernels of single channels, maps between groups
that grow in number alone, and maps of the fields. Muon's steps have the size of the rate in the spectral norm at every
width, so that matrices that it takes keep theirs and the rest follow Adam's rules.
Attention whose heads grow wider would need a scale of 1 / d: let their number grow, and keep their width.
Only channels are width: the matrix of a degree or a coefficient has as many inputs as there are channels, a kernel as
many as channels, points of it included. Yang et al. 2021, arXiv 2203.03466.

u-muP has no base: every spread and rate follows from the number of inputs itself, so that rates of about 1 fit any
width. Published as multipliers of forward passes, spreads and rates (1 / sqrt(n_in), 1, 1 / sqrt(n_in) of a matrix); as
Adam's steps do not know the size of gradients, a multiplier A, a spread B and a rate C are the same as 1, A B and A C:

    matrix     spread 1 / sqrt(n_in)   rate 1 / n_in                 also kernels of single channels, maps within groups
    readout    spread 1 / n_in         rate 1 / n_in
    first map  spread 1 / sqrt(n_in)   rate 1 / sqrt(n_in n_out)     of the fields; the published rate falls with width
    table      its own spread          rate 1 / sqrt(channels)       places, latents
    the rest   its own values          rate 1                        biases, gains
    and of maps in residual branches   rate / sqrt(blocks)

What begins at zero stays there. Not done: scaling of activations and gradients for low precision, of attention's logits
and of residual sums, whose shares only the forward pass could give. Blake et al. 2024, arXiv 2407.17465.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from emulators.interfaces import MapParameter, MatrixParameter, optional

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


class Role(NamedTuple):
    """Tell how many numbers each output of a map sums over, and by which factors inputs and outputs grow over a base.

    inputs: 0 of what is no map: biases, gains, tables of places.
    """

    grows_in: float
    grows_out: float
    inputs: float = 0.0
    outputs: float = 0.0

    @property
    def kind(self) -> str:
        """`vector`, no map; or `matrix`, `output`, `input`, `fixed`: both sides grow, the inputs, the outputs, none."""
        if not self.inputs:
            return "vector"
        if self.grows_in == 1.0:
            return "fixed" if self.grows_out == 1.0 else "input"
        return "output" if self.grows_out == 1.0 else "matrix"


def roles(network: nn.Module, narrow: nn.Module) -> dict[str, Role]:
    """How each parameter of a network grows, by name, compared with the same network at another width.

    ValueError where they differ in more than widths.
    """
    parameters, others = dict(network.named_parameters()), dict(narrow.named_parameters())
    if parameters.keys() != others.keys():
        raise ValueError("parametrisation: expected a base of the same parts; it differs in depth, not in width alone.")
    holders, narrow_holders = dict(network.named_modules()), dict(narrow.named_modules())
    found = {}
    for name, parameter in parameters.items():
        place = f".{name}".rpartition(".")[0].partition(".parametrizations.")[0][1:]  # of spectral norms, what has one
        pair = (holders[place], parameter), (narrow_holders[place], others[name])
        is_map = _is_map(*pair[0], others[name])
        (into, out), (base_into, base_out) = (_fans(*one) if is_map else (1.0, 1.0) for one in pair)
        found[name] = Role(into / base_into, out / base_out, *(into, out) if is_map else ())
    return found


def _is_map(module: nn.Module, parameter: nn.Parameter, narrow: nn.Parameter) -> bool:
    """Whether a parameter maps inputs to outputs. What says nothing of itself does where both its first axes grow."""
    if parameter.ndim < 2:
        return False
    declared = any(
        optional(parameter, kind, name) is not None
        for kind, name in ((MapParameter, "map_axes"), (MatrixParameter, "matrix_axes"))
    )
    if declared or isinstance(module, (nn.Linear, *CONVOLUTIONS)):
        return True
    return all(parameter.shape[axis] != narrow.shape[axis] for axis in (0, 1))


def _fans(module: nn.Module, parameter: nn.Parameter) -> tuple[float, float]:
    """Of a map, how many numbers an output sums over, and how many outputs read the same inputs."""
    shape = parameter.shape
    matrix = optional(parameter, MatrixParameter, "matrix_axes")
    axes = optional(parameter, MapParameter, "map_axes") or (matrix and tuple((axis,) for axis in matrix))
    if axes:
        into, out = (math.prod(shape[axis] for axis in some) for some in axes)
        return float(into), float(out)
    groups = module.groups if isinstance(module, CONVOLUTIONS) else 1
    if isinstance(module, TRANSPOSED):
        return shape[0] / groups * math.prod(shape[2:]) / math.prod(module.stride), float(shape[1])
    return float(math.prod(shape[1:])), shape[0] / groups


class Widths:
    """Say which options of a network are its width.

    base: {class of the network: {option: its size at the base width}}, of which the first is the width; of a list
    (channels of each level) the size of its first entry, the others in proportion, or the whole list. along: options
    that grow as the width does, such as numbers of heads, where `base` does not give them.
    """

    def __init__(self, *, base: Mapping[str, Mapping[str, Any]], along: Sequence[str] = ()) -> None:
        self.base, self.along = {name: dict(sizes) for name, sizes in base.items()}, tuple(along)

    def sizes(self, network: nn.Module, options: Mapping[str, Any], factor: float | None = None) -> dict[str, Any]:
        """The options of a network at its base width, or at `factor` times its own. options: those it was built with.

        ValueError where none are given for its class.
        """
        name = type(network).__name__
        if name not in self.base:
            raise ValueError(
                f"parametrisation.base: expected sizes of {name} at its base width, such as {{{name}: {{embed: 32}}}}; "
                f"got none. For a network without a width leave parametrisation out."
            )
        defaults = {key: value.default for key, value in inspect.signature(type(network)).parameters.items()}
        if unknown := sorted(self.base[name].keys() - defaults):
            raise ValueError(f"parametrisation.base.{name}: {name} has no option {', '.join(unknown)}.")
        own = {**defaults, **options}
        sizes = dict(self.base[name])
        width = factor or _first(next(iter(sizes.values()))) / _first(own[next(iter(sizes))])
        for key, size in sizes.items():
            if _is_number(size) or (factor and _is_list(size)):
                sizes[key] = _scaled(own[key], factor or size / _first(own[key]))
        for key in self.along:
            if key not in sizes and (_is_number(own.get(key)) or _is_list(own.get(key))):
                sizes[key] = _scaled(own[key], width)
        return sizes


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _first(value: Any) -> float:
    return float(value[0] if _is_list(value) else value)


def _scaled(value: Any, ratio: float) -> Any:
    if _is_list(value):
        return [_scaled(one, ratio) for one in value]
    return max(1, round(value * ratio))


class MuP(Widths):
    """Scale rates and first weights by width over a base, at which nothing changes. base, along: as of Widths."""

    def apply(
        self, network: nn.Module, options: Mapping[str, Any], build: Callable[[dict[str, Any]], nn.Module]
    ) -> nn.Module:
        """Scale the first weights of a network in place, and tell every parameter its share of the learning rate.

        options: those it was built with; build: the same network with others of these. What is constant stays as it is.
        """
        narrow = build(self.sizes(network, options))
        grown, others = roles(network, narrow), dict(narrow.named_parameters())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                role, spread = grown[name], _spread(parameter)
                if spread:
                    power = {"matrix": -0.5, "output": -1.0}.get(role.kind, 0.0)
                    parameter.mul_(_spread(others[name]) * role.grows_in**power / spread)
                parameter.rate_share = 1.0 / role.grows_in  # type: ignore[attr-defined]  # for optimisers
        return network


class UnitMuP(Widths):
    """Give rates and first weights by the number of inputs of each weight.

    base, along: as of Widths, of which the names alone count. branches: words in the names of weights before the number
    of a residual block.
    """

    def __init__(
        self, *, base: Mapping[str, Mapping[str, Any]], along: Sequence[str] = (), branches: Sequence[str] = ()
    ) -> None:
        super().__init__(base=base, along=along)
        words = "|".join(map(re.escape, branches)) or r"\b\B"
        self.block = re.compile(rf"(?:.*\.)?(?:{words})(?:\.\d+)+(?=\.\w+\.)")

    def apply(
        self, network: nn.Module, options: Mapping[str, Any], build: Callable[[dict[str, Any]], nn.Module]
    ) -> nn.Module:
        """Do as MuP.apply."""
        with torch.device("meta"):
            wide = build(self.sizes(network, options, factor=2.0))
        found = roles(network, wide)
        blocks = {name: found_block[0] for name in found if (found_block := self.block.match(name))}
        depth = len(set(blocks.values()))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                role, spread = found[name], _spread(parameter)
                if role.inputs and spread:
                    parameter.mul_(role.inputs ** (-1.0 if role.kind == "output" else -0.5) / spread)
                share = _unit_share(role, parameter)
                share /= math.sqrt(depth) if role.inputs and name in blocks else 1.0
                parameter.rate_share = share  # type: ignore[attr-defined]  # for optimisers
        return network


def _unit_share(role: Role, parameter: Tensor) -> float:
    if role.kind == "vector":
        return parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 1.0
    return (role.inputs * role.outputs) ** -0.5 if role.kind == "input" else 1.0 / role.inputs


def _spread(parameter: Tensor) -> float:
    return float(parameter.std()) if parameter.numel() > 1 else 0.0
