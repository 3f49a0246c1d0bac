"""Choose rows, lead times, units and differences of a score card, and measure how fast the errors of a row grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emulators.constants import MONTH
from emulators.variables import VariableSet

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


class Score(NamedTuple):
    """Name a metric in a region. exponent: power of the field's units that it has."""

    metric: str
    region: str
    exponent: int


@dataclass(frozen=True)
class Row:
    """Name one line of a score card: a variable at a level, and how it is shown (stored value x factor, in `unit`)."""

    variable: str
    level: float | None
    label: str
    factor: float
    unit: str

    @property
    def title(self) -> str:
        """`temperature 850 hPa [K]`."""
        return f"{self.label} [{self.unit}]" if self.unit else self.label

    def field(self, dataset: xr.Dataset, suffix: str = "") -> xr.DataArray:
        """The variable (its name followed by `suffix`) at the level of this row."""
        array = dataset[self.variable + suffix]
        return array if self.level is None else array.sel(level=self.level)

    def is_in(self, dataset: xr.Dataset, metric: str | None = None, region: str | None = None) -> bool:
        """True if a Dataset holds this variable and level, and the metric and region where these are given."""
        labels = {"level": self.level, "metric": metric, "region": region}
        return self.variable in dataset and all(
            value is None or (dim in dataset.coords and value in dataset[dim].values) for dim, value in labels.items()
        )

    def series(self, dataset: xr.Dataset, metric: str, region: str, **labels: Any) -> np.ndarray:
        """The stored scores by lead time, shape (lead,)."""
        return self.field(dataset).sel(metric=metric, region=region, **labels).values

    def scale(self, exponent: int) -> float:
        """Factor from stored to shown values for a score in this power of the units."""
        return self.factor**exponent

    def curve(self, dataset: xr.Dataset, score: Score, unit: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Lead times in `unit` and shown scores; None where the Dataset holds none."""
        if not self.is_in(dataset, score.metric, score.region):
            return None
        values = self.series(dataset, score.metric, score.region) * self.scale(score.exponent)
        return (leads_in_unit(unit, dataset["lead_time"].values), values) if np.isfinite(values).any() else None


def score_rows(scores: xr.Dataset) -> list[Row]:
    """Every variable and level that a Dataset of scores holds values of."""
    rows = []
    for name, array in scores.data_vars.items():
        factor, unit = display_unit(str(name), str(array.attrs.get("units", "")))
        for level in array["level"].values.tolist() if "level" in array.dims else [None]:
            row = Row(str(name), level, row_label(str(name), level, scores), factor, unit)
            if level is None or np.isfinite(array.sel(level=level).values).any() or len(array.level) == 1:
                rows.append(row)
    return rows


def display_unit(name: str, unit: str) -> tuple[float, str]:
    """(factor, unit) in which a variable is shown; `unit`: as written in files."""
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
    return f"{plain} {level:g} {'' if unit == '1' else unit}".rstrip()


def _pressure(level: float | None) -> float:
    """A level in hPa; sigma as a fraction of 1000 hPa."""
    if level is None:
        return 0.0
    return level * 1000.0 if level <= 1.5 else level


def headline_rows(rows: Sequence[Row], most: int = 10) -> list[Row]:
    """The rows to show first: headline variables at the levels nearest to the usual ones, then one of each other."""

    def nearest(name: str, pressure: float) -> list[Row]:
        levels = [row for row in rows if row.variable == name]
        return sorted(levels, key=lambda row: abs(_pressure(row.level) - pressure))[:1]

    usual = [row for name, pressure in HEADLINE for row in nearest(name, pressure or 0.0)]
    others = dict.fromkeys(row.variable for row in rows if row.variable not in dict(HEADLINE))
    return [*dict.fromkeys(usual), *(row for name in others for row in nearest(name, 500.0))][:most]


def map_variables(variables: VariableSet, wanted: Sequence | None, most: int = 3) -> VariableSet:
    """The channels to draw maps of: those wanted (names, or name -> levels), else the first `most` of the headline."""
    if wanted is None:
        rows = [Row(v.name, level, "", 1.0, "") for v in variables for level in (v.levels or (None,))]
        pairs = [(row.variable, row.level) for row in headline_rows(rows, most)]
    else:
        pairs = []
        for entry in wanted:
            for name, levels in ({entry: None} if isinstance(entry, str) else dict(entry)).items():
                levels = variables.variable(name).levels if levels is None else levels
                pairs.extend((name, level) for level in levels or (None,))
    by_name: dict[str, list[float]] = {}
    for name, level in pairs:
        by_name.setdefault(name, []).extend([] if level is None else [float(level)])
    return VariableSet(tuple(replace(variables.variable(name), levels=tuple(at)) for name, at in by_name.items()))


def headline_leads(leads: np.ndarray, most: int = 6) -> list[int]:
    """Indices of the lead times to show: days 1 3 5 7 10 15 where they exist, else spread evenly with both ends."""
    seconds = leads.astype("timedelta64[s]").astype(np.int64).tolist()
    if len(seconds) <= most:
        return list(range(len(seconds)))
    usual = [seconds.index(day * DAY) for day in (1, 3, 5, 7, 10, 15) if day * DAY in seconds]
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


FREE = 0.5  # fraction of the saturated error up to which errors grow unhindered


def squared_errors(by_init: xr.Dataset, row: Row, region: str) -> np.ndarray | None:
    """Mean squared errors (init, lead) of one row, NaN where they are not finite; None where there are none."""
    if not row.is_in(by_init, region=region):
        return None
    values = row.field(by_init).sel(statistic="squared_error", region=region).values.astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan) if np.isfinite(values).any() else None


def doubling_time(leads: np.ndarray, errors: np.ndarray, saturation: float) -> float:
    """Time in which errors double, by a line through log2 of those below half the saturation; NaN if they do not."""
    free = np.isfinite(errors) & (errors > 0) & (errors <= FREE * saturation)
    free &= np.cumprod(free).astype(bool)  # up to the first lead beyond it
    rate = np.polyfit(leads[free], np.log2(errors[free]), 1)[0] if free.sum() >= 3 else 0.0
    return float(1.0 / rate) if rate > 0 else np.nan


def crossing(leads: np.ndarray, errors: np.ndarray, other: np.ndarray) -> float:
    """Lead time at which errors reach another curve, linear between leads; -inf before the first, inf if never."""
    gap = errors - other
    beyond = np.flatnonzero(gap >= 0)
    if not beyond.size:
        return np.inf
    at = int(beyond[0])
    if at == 0:
        return -np.inf
    return float(leads[at - 1] + (leads[at] - leads[at - 1]) * gap[at - 1] / (gap[at - 1] - gap[at]))


def relative_spread(errors: np.ndarray) -> float:
    """Standard deviation over initial times divided by the mean; NaN for fewer than two values."""
    finite = errors[np.isfinite(errors)]
    return float(finite.std(ddof=1) / finite.mean()) if finite.size > 1 and finite.mean() > 0 else np.nan
