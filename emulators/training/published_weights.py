"""Published weights under our names.

A network's module lists pairs (pattern of their name, our name) in PUBLISHED; what differs in more than its name it
mends in a function `adapted`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import ModuleType

from torch import Tensor, nn

from emulators.interfaces import NetworkModule, optional

# What networks keep beside their weights and make anew: masks, indices, coordinates, counters.
TABLES = re.compile(
    r"(.*\.)?(attn_mask|relative_position_index|relative_coords_table|earth_position_index|num_batches_tracked|"
    r"position_index|mask)"
)


def renamed(theirs: Mapping[str, Tensor], table: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
    """The state dict under our names; ValueError names what no pattern knows."""
    ours, unknown = {}, []
    for name, value in theirs.items():
        for pattern, replacement in table:
            if match := re.fullmatch(pattern, name):
                ours[match.expand(replacement)] = value
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"These weights are not the published ones of this network: it has no place for {', '.join(unknown[:5])}"
            f"{' and others' if len(unknown) > 5 else ''}."
        )
    return ours


def converted(theirs: Mapping[str, Tensor], module: ModuleType) -> dict[str, Tensor]:
    """Published weights as the state dict of the network that `module` holds; ValueError where they are others."""
    weights = {name: value for name, value in theirs.items() if not TABLES.fullmatch(name)}
    table, adapt = (optional(module, NetworkModule, name) for name in ("PUBLISHED", "adapted"))
    weights = renamed(weights, table) if table else weights
    return adapt(weights) if adapt is not None else weights


def fill(network: nn.Module, weights: Mapping[str, Tensor], additions: Sequence[str] = ()) -> None:
    """Put weights into a network that has these names and shapes; ValueError tells all that differ.

    additions: parts, as names begin, that stay as they are where there are no weights for them.
    """
    own = network.state_dict()
    learned = {name for name, _ in network.named_parameters()} | {name for name in own if "running_" in name}
    learned -= {name for name in own if name.startswith(tuple(additions))}
    faults = [f"{name}: expected {_shape(own[name])}, got nothing" for name in own if name in learned - set(weights)]
    for name, value in weights.items():
        if name not in own:
            faults.append(f"{name}: expected nothing, got {_shape(value)}")
        elif own[name].shape != value.shape:
            faults.append(f"{name}: expected {_shape(own[name])}, got {_shape(value)}")
    if faults:
        more = f"; and {len(faults) - 6} more" if len(faults) > 6 else ""
        raise ValueError("; ".join(faults[:6]) + more)
    network.load_state_dict(dict(weights), strict=False)


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"
