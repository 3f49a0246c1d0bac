"""Published weights under our names.

A network's module lists pairs (pattern of their name, our name) in PUBLISHED; what differs in more than its name it
mends in a function `adapted`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor


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
