"""Scores of a climate, from maps of time means and series of area means.

    NRMSE = NRMSE_s + 5 NRMSE_g
    NRMSE_s = sqrt <(mean_t f - mean_t o)^2> / |<mean_t o>|        NRMSE_g = sqrt mean_t (<f> - <o>)^2 / |<mean_t o>|

with < > the area mean and t whole years: ClimateBench, Watson-Parris et al. 2022, doi 10.1029/2021MS002954, whose
fields are departures from the preindustrial climate. Nino 3.4: the departure of the sea surface temperature from its
monthly climatology over 5 S to 5 N, 170 W to 120 W, smoothed over 5 months (Trenberth 1997,
doi 10.1175/1520-0477(1997)078<2771:TDOENO>2.0.CO;2).

The response to a forcing that is switched on and held, T being the warming of the globe and N what it gains through the
top of the atmosphere:

    N = F - lambda T,  sensitivity F / lambda            Gregory et al. 2004, doi 10.1029/2003GL018747
    T(t) = T_e (1 - exp(-t / tau))                       one layer of heat, tau its e-folding time
    pattern = departure at each point / T
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ALPHA = 5.0  # weight of the global part of the NRMSE
NINO_REGION = "nino-3.4"
NINO_MONTHS = 5
YEAR = 365 * 86_400  # s
WHOLE = 0.98  # share of a year that makes it whole


def area_rmse(difference: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Root of the mean square of maps (..., point) with weights (point, region), missing points left out."""
    return np.sqrt(area_mean(np.square(difference), weights))


def area_mean(maps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means of maps (..., point) with weights (point, region), missing points left out: (..., region)."""
    valid = ~np.isnan(maps)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(valid, maps, 0.0) @ weights / (valid @ weights)


def nrmse_spatial(forecast: np.ndarray, truth: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The spatial part of NRMSE, from maps of the time mean (..., point), by region."""
    return area_rmse(forecast - truth, weights) / np.abs(area_mean(truth, weights))


def nrmse_global(forecast: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The global part of NRMSE, from yearly area means (year, ...)."""
    return np.sqrt(np.square(forecast - truth).mean(axis=0)) / np.abs(truth.mean(axis=0))


def slope(times: np.ndarray, series: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The slope of a straight line by least squares through a series (time, ...), and its standard error.

    The error takes the departures from the line as independent.
    """
    centred = times - times.mean()
    about = series - series.mean(axis=0)
    trend = np.tensordot(centred, about, axes=1) / np.square(centred).sum()
    rest = np.square(about - np.multiply.outer(centred, trend)).sum(axis=0) / (len(times) - 2)
    return trend, np.sqrt(rest / np.square(centred).sum())


def whole_years(times: np.ndarray) -> np.ndarray:
    """The years that sorted distinct `times` (datetime64[s]) cover."""
    if times.size < 2:
        return np.empty(0, dtype=np.int64)
    step = float(np.median(np.diff(times).astype(np.int64)))
    years, counts = np.unique(times.astype("datetime64[Y]").astype(int) + 1970, return_counts=True)
    return years[counts * step >= WHOLE * YEAR]


def nino_index(means: np.ndarray, months: np.ndarray) -> np.ndarray:
    """The index from monthly area means (month, ...) at `months` since 1970; NaN where a month beside is missing."""
    index = np.full(means.shape, np.nan)
    for month in range(12):
        rows = months % 12 == month
        if rows.any():
            index[rows] = means[rows] - means[rows].mean(axis=0)
    half = NINO_MONTHS // 2
    smooth = np.full(means.shape, np.nan)
    for row in range(half, len(months) - half):
        if months[row + half] - months[row - half] == 2 * half:
            smooth[row] = index[row - half : row + half + 1].mean(axis=0)
    return smooth


class Sensitivity(NamedTuple):
    """Hold forcing F in W m-2, feedback lambda in W m-2 K-1, and F / lambda in K with its standard error."""

    forcing: float
    feedback: float
    warming: float
    error: float


def sensitivity(warming: np.ndarray, imbalance: np.ndarray) -> Sensitivity:
    """Regress the imbalance at the top on the warming, both annual means (year,) since a forcing was switched on.

    Raises ValueError for fewer than three years, or a warming that does not change.
    """
    if len(warming) < 3 or not np.ptp(warming) > 0.0:
        raise ValueError(f"Expected at least 3 years whose warming differs; got {len(warming)}.")
    slopes, errors = slope(warming, imbalance)
    forcing = float(imbalance.mean() - slopes * warming.mean())
    reached = -forcing / float(slopes)
    spread = (imbalance - forcing - slopes * warming).std(ddof=2)  # of the departures from the line
    lever = np.square(reached - warming.mean()) * np.square(errors) + np.square(spread) / len(warming)
    return Sensitivity(forcing, -float(slopes), reached, float(np.sqrt(lever) / abs(slopes)))


def e_folding(times: np.ndarray, warming: np.ndarray) -> tuple[float, float]:
    """Fit T_e (1 - exp(-t / tau)) by least squares; return T_e, and tau in the units of `times`.

    times: since the forcing was switched on, middles of means. warming: (time,). The time is sought between a tenth of
    the first and a hundred times the last; at either end it is not determined, and NaN. Raises ValueError for fewer
    than three times.
    """
    if len(times) < 3 or not (times > 0.0).all():
        raise ValueError(f"Expected at least 3 times after the start; got {times[:3].tolist()}.")
    scales = np.geomspace(0.1 * times[0], 100.0 * times[-1], 4001)
    shapes = -np.expm1(-times / scales[:, None])
    reached = (shapes @ warming) / np.square(shapes).sum(axis=1)
    best = int(np.square(warming - reached[:, None] * shapes).sum(axis=1).argmin())
    inside = 0 < best < len(scales) - 1
    return float(reached[best]), float(scales[best]) if inside else float("nan")


def pattern_correlation(left: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float:
    """Return the correlation over the area of two maps (point,) with weights (point,); missing points are left out.

    NaN for a map that is the same everywhere, or missing.
    """
    used = np.isfinite(left) & np.isfinite(right)
    same = not used.any() or any(np.ptp(field[used]) == 0.0 for field in (left, right))
    if same:  # else the rounding of the mean would be a pattern
        return float("nan")
    area = weights[used] / weights[used].sum()
    first, second = (field[used] - area @ field[used] for field in (left, right))
    return float((area * first) @ second / np.sqrt((area @ first**2) * (area @ second**2)))
