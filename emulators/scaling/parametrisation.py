"""First weights and learning rates by width, so that the best learning rate of a narrow network is that of a wide one.

    matrix   n_in inputs, n_0 at the base width:  rate of Adam / (n_in / n_0), spread of the base / sqrt(n_in / n_0)
    readout  the same rate,                       spread of the base / (n_in / n_0)
    others   rate and spread of the base

Others are biases, gains of norms, places, kernels of single channels and maps of the fields. Muon's steps have the size
of the rate in the spectral norm at every width, so that matrices that it takes keep theirs and the rest follow Adam's
rules.
Attention whose heads grow wider would need a scale of 1 / d: let their number grow, and keep their width.
Only channels are width: the matrix of a degree or a coefficient has as many inputs as there are channels, a kernel as
many as channels, points of it included.

Yang et al. 2021, arXiv 2203.03466.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from emulators.interfaces import MatrixParameter, optional

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Role(NamedTuple):
    """Tell by which factors the inputs and outputs of a parameter grow over the base."""

    grows_in: float
    grows_out: float

    @property
    def kind(self) -> str:
        """`matrix`, `output`, or `other`, whose inputs do not grow."""
        if self.grows_in == 1.0:
            return "other"
        return "output" if self.grows_out == 1.0 else "matrix"


def roles(network: nn.Module, narrow: nn.Module) -> dict[str, Role]:
    """How each parameter of a network grows, by name, compared with the same network at another width.

    ValueError where they differ in more than widths.
    """
    others, by_name = dict(narrow.named_parameters()), {}
    if others.keys() != dict(network.named_parameters()).keys():
        raise ValueError("parametrisation: expected a base of the same parts; it differs in depth, not in width alone.")
    for module_name, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{module_name}.{name}".lstrip(".")
            by_name[full] = _role(module, parameter, others[full])
    return by_name


def _role(module: nn.Module, parameter: nn.Parameter, narrow: nn.Parameter) -> Role:
    """How one parameter of a module grows."""
    stacked = optional(parameter, MatrixParameter, "matrix_axes")
    if stacked is not None:
        into, out = stacked  # as the products of coefficients are laid out
    elif isinstance(module, TRANSPOSED) and parameter.ndim > 1:
        into, out = 0, 1
    else:
        into, out = 1, 0
    if parameter.ndim < 2:
        return Role(1.0, 1.0)
    grows = [parameter.shape[axis] / narrow.shape[axis] for axis in (into, out)]
    has_axes = stacked is not None or isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
    if not has_axes and grows[0] != 1.0 and grows[1] == 1.0:
        return Role(1.0, 1.0)  # a place or a table, whose last axis is channels
    if parameter.shape[into] == 1 and grows[0] == 1.0:
        return Role(1.0, 1.0)  # kernels of single channels
    return Role(*grows)


class MuP:
    """Scale rates and first weights by width over a base. base: sizes of the base by class of the network."""

    def __init__(self, *, base: Mapping[str, Mapping[str, Any]]) -> None:
        self.base = {name: dict(sizes) for name, sizes in base.items()}

    def sizes(self, network: nn.Module) -> dict[str, Any]:
        """The sizes of the base of a network. ValueError where none are given for its class."""
        name = type(network).__name__
        if name not in self.base:
            raise ValueError(
                f"parametrisation.base: expected sizes of {name} at its base width, such as {{{name}: {{embed: 32}}}}; "
                f"got those of {', '.join(self.base) or 'none'}."
            )
        return self.base[name]

    def apply(self, network: nn.Module, narrow: nn.Module) -> nn.Module:
        """Scale the first weights of a network in place, and tell every parameter its share of the learning rate.

        narrow: the same network at the base width. What is constant stays as it is.
        """
        grown, others = roles(network, narrow), dict(narrow.named_parameters())
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                role, spread = grown[name], _spread(parameter)
                if spread:
                    power = {"matrix": -0.5, "output": -1.0}.get(role.kind, 0.0)
                    parameter.mul_(_spread(others[name]) * role.grows_in**power / spread)
                parameter.rate_share = 1.0 / role.grows_in  # type: ignore[attr-defined]  # for optimisers
        return network


def _spread(parameter: Tensor) -> float:
    return float(parameter.std()) if parameter.numel() > 1 else 0.0


def coordinate_slopes(widths: np.ndarray, sizes: Mapping[str, np.ndarray]) -> dict[str, float]:
    """How the mean size of each part's activations grows with width: slopes of logarithms, 0 where they keep theirs.

    sizes: by part, (width,).
    """
    return {name: float(np.polyfit(np.log(widths), np.log(values), 1)[0]) for name, values in sizes.items()}


def gradient_noise(small: float, large: float, few: int, many: int) -> tuple[float, float]:
    """The simple noise scale tr(S) / |G|^2, near the critical batch size, and |G|^2, from two sizes of batches.

    small, large: mean squared norm of the gradient of `few` and of `many` samples. McCandlish et al. 2018, arXiv
    1812.06162, appendix A. The scale is infinite where the gradient is all noise.
    """
    if not 0 < few < many:
        raise ValueError(f"Expected a larger batch than the small one; got {few} and {many} samples.")
    squared = (many * large - few * small) / (many - few)
    variance = (small - large) / (1.0 / few - 1.0 / many)
    return (variance / squared if squared > 0 else np.inf), squared


def rate_sensitivity(losses: np.ndarray, start: float) -> float:
    """The mean over learning rates of min(final loss, first loss) minus the best: 0 where no rate matters.

    losses: of rates evenly spaced in logarithms, not finite where a run diverged. Wortsman et al. 2023, arXiv
    2309.14322.
    """
    final = np.minimum(np.where(np.isfinite(losses), losses, start), start)
    return float(final.mean() - final.min())
