"""Choose rows, lead times, units and differences of a score card, as functions of Datasets of scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from emulators.constants import MONTH
from emulators.scores.deterministic import skill
from emulators.variables import Variable, VariableSet

if TYPE_CHECKING:
    import xarray as xr


SIGMA = "\u03c3"
DAY = 86400  # seconds


LENGTHS = {"hours": 3600, "days": DAY, "years": 12 * MONTH}


HEADLINE = (  # (variable, level in hPa), the field's usual order
    ("geopotential", 500),
    ("temperature", 850),
    ("specific_humidity", 700),
    ("u_component_of_wind", 850),
    ("v_component_of_wind", 850),
    ("temperature", 500),
    ("2m_temperature", None),
    ("mean_sea_level_pressure", None),
    ("10m_u_component_of_wind", None),
    ("10m_v_component_of_wind", None),
    ("surface_pressure", None),
)


UNITS = {  # as written in files: (factor, as people read it)
    "1": (1.0, ""),
    "pa": (0.01, "hPa"),
    "kg kg**-1": (1e3, "g/kg"),
    "kg kg-1": (1e3, "g/kg"),
    "kg/kg": (1e3, "g/kg"),
    "m s**-1": (1.0, "m/s"),
    "m s-1": (1.0, "m/s"),
    "m**2 s**-2": (1.0, "m²/s²"),
    "m2 s-2": (1.0, "m²/s²"),
    "m**2 s**-1": (1.0, "m²/s"),
    "j m**-2": (1e-6, "MJ/m²"),
    "j m-2": (1e-6, "MJ/m²"),
    "kg m**-2 s**-1": (DAY, "mm/day"),
    "kg m-2 s-1": (DAY, "mm/day"),
}


@dataclass(frozen=True)
class Row:
    """One line of the card: a variable at a level, and how its numbers are shown (stored value x factor, unit)."""

    variable: str
    level: float | None
    label: str
    factor: float
    unit: str

    def series(self, dataset: xr.Dataset, metric: str = "rmse", region: str = "global", **where: Any) -> np.ndarray:
        """The stored scores by lead time, shape (lead,)."""
        found = dataset[self.variable].sel(metric=metric, region=region, **where)
        return (found if self.level is None else found.sel(level=self.level)).values

    def scale(self, exponent: int) -> float:
        """What a score in the unit's power `exponent` is multiplied with to be shown."""
        return self.factor**exponent


def score_rows(scores: xr.Dataset) -> list[Row]:
    """Every variable and level of a Dataset of scores that was scored."""
    found = []
    for name, array in scores.data_vars.items():
        factor, unit = display_unit(str(name), str(array.attrs.get("units", "")))
        for level in array["level"].values.tolist() if "level" in array.dims else [None]:
            row = Row(str(name), level, row_label(str(name), level, scores), factor, unit)
            if level is None or np.isfinite(array.sel(level=level).values).any() or len(array.level) == 1:
                found.append(row)
    return found


def display_unit(name: str, unit: str) -> tuple[float, str]:
    """(factor, unit) in which a variable is shown."""
    if ("precipitation" in name or "evaporation" in name) and unit == "m":
        return 1e3, "mm"
    return UNITS.get(unit.lower(), (1.0, unit))


def row_label(name: str, level: float | None, dataset: xr.Dataset) -> str:
    """`temperature 850 hPa`, `temperature σ 0.85`, `2m temperature`."""
    plain = name.replace("_", " ").replace("u component of wind", "wind u").replace("v component of wind", "wind v")
    if level is None:
        return plain
    attrs = dataset["level"].attrs
    if "sigma" in str(attrs.get("long_name", "")) + str(attrs.get("standard_name", "")):
        return f"{plain} {SIGMA} {level / 1000 if level > 1.5 else level:g}"
    unit = str(attrs.get("units") or ("hPa" if level > 1.5 else ""))
    return f"{plain} {level:g} {unit}".rstrip()


def _pressure(level: float | None) -> float:
    """A level as a pressure near sea level in hPa; sigma counts as a share of 1000 hPa."""
    if level is None:
        return 0.0
    return level * 1000.0 if level <= 1.5 else level


def headline_rows(every: Sequence[Row], most: int = 10) -> list[Row]:
    """The rows to show first: the field's headline variables at the levels nearest to the usual ones, then others."""
    chosen: list[Row] = []
    for name, pressure in HEADLINE:
        there = [row for row in every if row.variable == name]
        there.sort(key=lambda row: abs(_pressure(row.level) - (pressure or 0.0)))
        chosen.extend(row for row in there[:1] if row not in chosen)
    represented = {row.variable for row in chosen}
    others: dict[str, list[Row]] = {}
    for row in every:
        if row.variable not in represented:
            others.setdefault(row.variable, []).append(row)
    chosen.extend(min(group, key=lambda row: abs(_pressure(row.level) - 500.0)) for group in others.values())
    return chosen[:most]


def map_variables(variables: VariableSet, wanted: Sequence | None, most: int = 3) -> VariableSet:
    """The channels of which maps are drawn: those wanted, else the first of the headline."""
    if wanted is None:
        every = [Row(v.name, level, "", 1.0, "") for v in variables for level in (v.levels or (None,))]
        pairs = [(row.variable, row.level) for row in headline_rows(every, most)]
    else:
        pairs = []
        for entry in wanted:
            for name, levels in ({entry: None} if isinstance(entry, str) else dict(entry)).items():
                have = variables.variable(name).levels
                pairs.extend((name, level) for level in (levels if levels is not None else have) or (None,))
    by_name: dict[str, list[float]] = {}
    for name, level in pairs:
        by_name.setdefault(name, []).extend([] if level is None else [float(level)])
    return VariableSet(
        tuple(Variable(name, variables.variable(name).units, tuple(levels)) for name, levels in by_name.items())
    )


def headline_leads(leads: np.ndarray, most: int = 6) -> list[int]:
    """Indices of the leads to show: days 1 3 5 7 10 15 where they exist, else spread evenly with both ends."""
    seconds = leads.astype("timedelta64[s]").astype(np.int64)
    usual = [
        int(np.flatnonzero(seconds == day * DAY)[0]) for day in (1, 3, 5, 7, 10, 15) if (seconds == day * DAY).any()
    ]
    if len(seconds) <= most:
        return list(range(len(seconds)))
    if len(usual) >= 2:
        return usual[:most]
    return sorted(set(np.linspace(0, len(seconds) - 1, most).round().astype(int).tolist()))


def lead_axis(leads: np.ndarray) -> tuple[np.ndarray, str]:
    """Lead times as numbers, and their unit: hours, days or years."""
    longest = leads.astype("timedelta64[s]").astype(np.int64).max()
    unit = "hours" if longest <= 2 * DAY else "days" if longest <= 100 * DAY else "years"
    return leads_in_unit(unit, leads), unit


def leads_in_unit(unit: str, leads: np.ndarray) -> np.ndarray:
    """Lead times in hours, days or years."""
    return leads.astype("timedelta64[s]").astype(np.float64) / LENGTHS[unit]


def relative_difference(
    row: Row,
    scores: xr.Dataset,
    others: xr.Dataset | None,
    source: str,
    metric: str = "rmse",
    region: str = "global",
) -> np.ndarray | None:
    """Loss of the forecast less that of another source, as a share of the latter's, by lead; None where there is none.

    loss: |score - perfect|; RMSE itself, 1 - ACC; negative is better.
    """
    if others is None or source not in others["source"].values or row.variable not in others:
        return None
    if metric not in others["metric"].values or region not in others["region"].values:
        return None
    perfect = json.loads(scores.attrs["perfect"])[metric]
    with np.errstate(divide="ignore", invalid="ignore"):
        return -skill(row.series(scores, metric, region), row.series(others, metric, region, source=source), perfect)


def significance(
    row: Row, judged: xr.Dataset | None, source: str, metric: str = "rmse", region: str = "global"
) -> list[bool | None]:
    """By lead whether the difference to a source is significant; None where it was not judged. Empty: not at all."""
    if judged is None or row.variable not in judged or source not in judged["source"].values:
        return []
    if metric not in judged["metric"].values or region not in judged["region"].values:
        return []
    low, high = (row.series(judged, metric, region, source=source, estimate=end) for end in ("low", "high"))
    return [bool(a > 0 or b < 0) if np.isfinite(a) and np.isfinite(b) else None for a, b in zip(low, high, strict=True)]
