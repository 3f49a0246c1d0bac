"""Compare the climate of a free run of many years with the planet's own.

    emul forecast run=outputs/train/planet_sfno_long name=ten_years init=2008-05-19 lead=3650d \
        repeated=[sea_surface_temperature]
    python tests/benchmarks/free_run.py outputs/forecast/ten_years/forecast.zarr PLANET.zarr [--maps maps.png]
        [--years 4]  # only so many of the run, as of one that is still going on

PLANET.zarr is a store of `emul data make data=planet data.trajectories=8`. A year of the planet is the first 365 days
of a trajectory, a year of the run 365 days of lead. The bias of the mean over all years of the run is put beside the
planet's standard deviation between years; both are root mean squares over the globe. Sampling alone gives a run
without bias sqrt(1/m + 1/n) of m and n years.

The figure is the largest ratio of the channels, which the maps show; the bar is 1.
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.pictures.figures import field_scale
from data_pipelines.pictures.maps import field_maps
from data_pipelines.verification.score_rows import Row
from emulators.grid import LatLonGrid

BAR, YEAR = 1.0, np.timedelta64(365, "D")
LEVELS = {"temperature": (500.0, 850.0), "u_component_of_wind": (250.0, 850.0), "v_component_of_wind": (250.0, 850.0)}
FIELDS = ("surface_pressure", "total_precipitation_6hr")


def years(dataset: xr.Dataset, time: str) -> list[slice]:
    """Rows of whole years of 365 days, none across a gap in the times."""
    known = dataset[time].values
    step = np.diff(known).min()
    rows, starts = int(YEAR / step), np.concatenate([[0], np.flatnonzero(np.diff(known) > step) + 1, [known.size]])
    return [
        slice(first, first + rows) for begin, end in pairwise(starts) for first in range(begin, end - rows + 1, rows)
    ]


def annual_means(dataset: xr.Dataset, time: str, name: str, level: float | None) -> np.ndarray:
    """Means of a field over each year, (year, latitude, longitude)."""
    field = dataset[name] if level is None else dataset[name].sel(level=level, method="nearest")
    field = field.transpose(time, "latitude", "longitude")
    return np.stack([field[rows].values.mean(0, dtype=np.float64) for rows in years(dataset, time)])


def draw(path: Path, grid: LatLonGrid, fields: dict[str, np.ndarray], land: np.ndarray) -> None:
    """Maps of the biases in units of the planet's deviation between years at each point."""
    scale = field_scale(list(fields.values()), True)
    row = Row("bias", None, "bias", 1.0, "deviations between years")
    title = "Bias of the free run against the planet's deviation between years"
    field_maps(path, grid, fields, row, dict.fromkeys(fields, scale), title, land, columns=2)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("planet")
    parser.add_argument("--maps", type=Path)
    parser.add_argument("--years", type=int)
    asked = parser.parse_args()
    run, planet = xr.open_zarr(asked.run), xr.open_zarr(asked.planet)
    run = run.isel(time=0).drop_vars("time")
    if asked.years:
        run = run.sel(prediction_timedelta=slice(None, asked.years * YEAR))
    grid = LatLonGrid(planet["latitude"].values, planet["longitude"].values)
    area = grid.weights
    biases, ratios = {}, []
    made, true = len(years(run, "prediction_timedelta")), len(years(planet, "time"))
    print(f"{made} years of the run, {true} of the planet; a run without bias has {np.sqrt(1 / made + 1 / true):.2f}")
    print(f"{'':32s}{'bias':>12s}{'between years':>15s}{'ratio':>8s}{'global bias':>13s}")
    for name, level in [(n, p) for n, ps in LEVELS.items() for p in ps] + [(n, None) for n in FIELDS]:
        ours, theirs = (annual_means(d, t, name, level) for d, t in ((run, "prediction_timedelta"), (planet, "time")))
        bias, spread = ours.mean(0) - theirs.mean(0), theirs.std(0, ddof=1)
        sizes = [float(np.sqrt((area * field**2).mean())) for field in (bias, spread)]
        told = name if level is None else f"{name} {float(planet['level'].sel(level=level, method='nearest')):g}"
        biases[told], ratio = bias / np.maximum(spread, 1e-3 * sizes[1]), sizes[0] / sizes[1]
        ratios.append(ratio)
        print(f"{told:32s}{sizes[0]:12.4g}{sizes[1]:15.4g}{ratio:8.2f}{float((area * bias).mean()):13.3g}")
    if asked.maps:
        draw(asked.maps, grid, biases, planet["land_sea_mask"].values)
    print(f"free_run: {max(ratios):.2f} of the planet's deviation between years at most (bar {BAR:g})")
    return 0 if max(ratios) <= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
