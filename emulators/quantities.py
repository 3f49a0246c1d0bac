"""The quantities of a ledger: what each is called, its units, and what it is the sum or difference of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """One column of a ledger. adds_up: what is made in each timestep, to be summed for a drift; `a_year` its units."""

    units: str
    long_name: str
    definition: str
    a_year: str
    adds_up: bool = True


QUANTITIES = {
    "air_drift": Quantity(
        "1", "mass of all air, since the start", "(M(after) - M(start)) / M(start), M = <sum dp> / g", "1 year-1", False
    ),
    "dry_air_drift": Quantity(
        "1",
        "mass of dry air, since the start",
        "(M(after) - M(start)) / M(start), M = <sum (1 - q) dp> / g, q all water that is predicted on levels; "
        "<sum dp> / g where surface pressure is the weight of dry air",
        "1 year-1",
        False,
    ),
    "moisture_residual": Quantity(
        "kg m-2", "water made in a timestep", "W(after) - W(before) - <E - P>, W = <sum q dp> / g", "kg m-2 year-1"
    ),
    "moisture_residual_relative": Quantity(
        "1",
        "the same, as a share of precipitation",
        "(W(after) - W(before) - <E - P>) / <P>; missing where <P> is not above zero",
        "1",
    ),
    "energy_residual": Quantity(
        "W m-2", "energy made", "(H(after) - H(before) - <G>) / dt, G all radiation, heat and friction", "W m-2"
    ),
}
BUDGETED = {"dry_air": ("air_drift", "dry_air_drift"), "energy": ("energy_residual",)}
BUDGETED |= {"moisture": ("moisture_residual", "moisture_residual_relative")}
