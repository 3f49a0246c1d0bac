"""Scores of a climate, from maps of time means and series of area means.

    NRMSE = NRMSE_s + 5 NRMSE_g
    NRMSE_s = sqrt <(mean_t f - mean_t o)^2> / |<mean_t o>|        NRMSE_g = sqrt mean_t (<f> - <o>)^2 / |<mean_t o>|

with < > the area mean and t whole years: ClimateBench, Watson-Parris et al. 2022, doi 10.1029/2021MS002954, whose
fields are departures from the preindustrial climate. Nino 3.4: the departure of the sea surface temperature from its
monthly climatology over 5 S to 5 N, 170 W to 120 W, smoothed over 5 months (Trenberth 1997,
doi 10.1175/1520-0477(1997)078<2771:TDOENO>2.0.CO;2).
"""

from __future__ import annotations

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
    found = np.tensordot(centred, about, axes=1) / np.square(centred).sum()
    rest = np.square(about - np.multiply.outer(centred, found)).sum(axis=0) / (len(times) - 2)
    return found, np.sqrt(rest / np.square(centred).sum())


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
