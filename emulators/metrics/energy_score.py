"""Energy score: E|X - y| - E|X - X'| / 2 of whole fields, |x| = sqrt(<x^2>) over area; the CRPS of a map.

E|X - X'| runs over all pairs of members, or, as in WeatherBench 2, over neighbours in the order of the members. It is
taken for each initial time, then averaged. Gneiting & Raftery 2007, doi 10.1198/016214506000001437.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from emulators.scores.ensemble import Kind, energy_from_products, spread_weight
from emulators.scores.interfaces import Metric, Product, Products


class EnergyScore(Metric):
    """Compute the energy score of whole fields.

    pairs: `all`, or `adjacent` as in WeatherBench 2. kind: fair, biased or almost_fair, for all pairs.
    """

    members = 2
    vector = True
    by_init = True
    exponent = 1

    def __init__(self, *, pairs: Literal["all", "adjacent"] = "all", kind: Kind = "fair", alpha: float = 0.95) -> None:
        if pairs not in ("all", "adjacent"):
            raise ValueError(f"`pairs` is all or adjacent; got '{pairs}'.")
        if pairs == "adjacent" and kind != "fair":
            raise ValueError(f"Adjacent pairs make a fair score; got '{kind}'.")
        spread_weight(kind, 2, alpha)  # raises ValueError for an unknown kind
        self.pairs, self.kind, self.alpha = pairs, kind, alpha
        self.definition = f"mean over inits of E|X - y| - E|X - X'| / 2, area norm, {pairs} pairs, {kind}"

    def statistics(
        self, prediction: Tensor, target: Tensor, climatology: Mapping[str, Tensor]
    ) -> dict[str, Tensor | Product | Products]:
        """Return pointwise terms with leading axes of members."""
        error = prediction - target
        if self.pairs == "all":
            return {"member_products": Products(error)}
        adjacent = (prediction[1:] - prediction[:-1]).square() + 0.0 * target
        return {"member_squared_error": Product(error, error), "adjacent_square": adjacent}

    def value(self, means: Mapping[str, Tensor]) -> Tensor:
        """Return the score of each initial time from the means of the terms."""
        if self.pairs == "all":
            return energy_from_products(means["member_products"], self.kind, self.alpha)
        return means["member_squared_error"].sqrt().mean(dim=0) - 0.5 * means["adjacent_square"].sqrt().mean(dim=0)
