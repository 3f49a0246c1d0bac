"""What is made of fields over a timestep that holds several shorter ones: their mean, sum or last value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

OVER = ("mean", "sum", "last")


@dataclass(frozen=True)
class Accumulation:
    """Add terms, {name of a field: factor}, and take the mean, the sum or the last value `over` a timestep."""

    over: str
    terms: Mapping[str, float]

    @classmethod
    def declared(cls, key: str, given: Any) -> Accumulation:
        """Return what a configuration declares, {mean: name} or {mean: {name: factor}}; ValueError for anything else.

        key: of the entry, for the error.
        """
        entry = dict(given) if isinstance(given, Mapping) else {}
        over = next(iter(entry), None)
        if len(entry) != 1 or over not in OVER:
            raise ValueError(f"{key}: expected {' or '.join(f'{{{kind}: name}}' for kind in OVER)}; got {given}.")
        terms = {entry[over]: 1.0} if isinstance(entry[over], str) else entry[over]
        if not isinstance(terms, Mapping) or not terms:
            raise ValueError(f"{key}.{over}: expected a name or {{name: factor}}; got {entry[over]}.")
        return cls(str(over), {str(name): float(factor) for name, factor in terms.items()})
