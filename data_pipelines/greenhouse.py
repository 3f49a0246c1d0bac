"""Carbon dioxide of the air by year: the mean of the globe, near enough, in parts per million.

1959 to 2024: annual means at Mauna Loa, good to 0.1 ppm there; they lie as high as those of the globe around 1980 and
2 ppm above them since 2020 (Keeling et al. 1976, doi 10.1111/j.2153-3490.1976.tb00701.x; NOAA Global Monitoring
Laboratory, public domain). Before: smoothed values of the ice of Law Dome every ten years, good to about 1 ppm, as the
ice itself (1.2 ppm; Etheridge et al. 1996, doi 10.1029/95JD03410). A year's mean stands for the middle of the year;
between them values are linear in time, without a season (6 ppm at Mauna Loa, little in the south).
"""

from __future__ import annotations

import numpy as np

EARLIER = {1850: 285.0, 1860: 286.0, 1870: 288.0, 1880: 291.0, 1890: 294.0, 1900: 296.0, 1910: 300.0, 1920: 303.0}
EARLIER |= {1930: 307.0, 1940: 310.0, 1950: 312.0}
FIRST = 1959
MEASURED = (
    315.98, 316.91, 317.64, 318.45, 318.99, 319.62, 320.04, 321.37, 322.18, 323.05, 324.62, 325.68, 326.32, 327.46,
    329.68, 330.19, 331.13, 332.03, 333.84, 335.41, 336.84, 338.76, 340.12, 341.48, 343.15, 344.87, 346.35, 347.61,
    349.31, 351.69, 353.20, 354.45, 355.70, 356.54, 357.21, 358.96, 360.97, 362.74, 363.88, 366.84, 368.54, 369.71,
    371.32, 373.45, 375.98, 377.70, 379.98, 382.09, 384.02, 385.83, 387.64, 390.10, 391.85, 394.06, 396.74, 398.81,
    401.01, 404.41, 406.76, 408.72, 411.65, 414.21, 416.41, 418.53, 421.08, 424.61,
)  # fmt: skip
TABLE = EARLIER | {FIRST + n: value for n, value in enumerate(MEASURED)}


def carbon_dioxide(times: np.ndarray) -> np.ndarray:
    """Parts per million at `times` (datetime64), float64, same shape; ValueError beyond the years of the table."""
    times = np.asarray(times, dtype="datetime64[s]")
    year = times.astype("datetime64[Y]")
    start, end = (edge.astype("datetime64[s]") for edge in (year, year + 1))
    when = year.astype(np.int64) + 1970 + (times - start).astype(np.float64) / (end - start).astype(np.float64)
    first, last = min(TABLE), max(TABLE) + 1
    if times.size and not (first <= when.min() and when.max() < last):
        beyond = times.min() if when.min() < first else times.max()
        raise ValueError(
            f"Carbon dioxide is known here from {first} to {last - 1}; got {beyond}. Give it as a variable of the data."
        )
    return np.interp(when, np.array(list(TABLE)) + 0.5, np.array(list(TABLE.values())))
