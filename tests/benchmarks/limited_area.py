"""How much a nested regional emulator adds to the global one that drives it, over the interior of its area.

    gain = 1 - RMSE(nested forecast) / RMSE(driving forecast, bilinear at the area's points)

of temperature and both winds, all levels by their mean square, over initial times of the test period. The interval is
that of 2000 resamples of the initial times. Beside it stand the area driven by the truth, and persistence. The step
from the boundary zone into the interior is compared with steps within the interior: a seam would make it rougher than
it is in the truth.

    emul train experiment=planet_lam_globe
    emul train experiment=planet_lam_hi_lam
    python tests/benchmarks/limited_area.py OUTPUTS

OUTPUTS: the folder of both runs, default outputs. The last line names the least gain at 24 h.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.derived.regridding import regridded
from emul.config.build import build
from emul.main import main
from emul.training.runs import open_run

FIELDS = ("temperature", "u_component_of_wind", "v_component_of_wind")
LEADS = (6, 12, 24, 48, 120, 240)  # h
AT, BAR = 24, 25.0
LABELS = ("driving", "nested", "in the truth", "persistence")


def forecasts(outputs: Path) -> dict[str, xr.Dataset]:
    """Make the nested forecast with that which drives it, and that in the truth; or open them."""
    run, globe = outputs / "train/planet_lam_hi_lam", outputs / "train/planet_lam_globe"
    words = ["forecast", f"run={run}", f"output={outputs}"]
    assert main([*words, f"boundary={globe}", "name=nested"]) == 0
    assert main([*words, "name=in_truth"]) == 0
    names = {"driving": "nested_boundary", "nested": "nested", "in the truth": "in_truth"}
    return {label: xr.open_zarr(outputs / "forecast" / name / "forecast.zarr") for label, name in names.items()}


def mean_squares(
    made: dict[str, xr.Dataset], data: xr.Dataset, name: str, lead: np.timedelta64
) -> dict[str, np.ndarray]:
    """Return the squared errors of all forecasts, mean over levels, (time, latitude, longitude)."""
    times = made["nested"]["time"].values
    truth, start = (data[name].sel(time=at).transpose("time", "level", ...).values for at in (times + lead, times))
    fields = {}
    for label, dataset in made.items():
        field = dataset[[name]].sel(prediction_timedelta=lead)
        field = regridded(field, grid_of(data), "bilinear") if label == "driving" else field
        fields[label] = field[name].transpose("time", "level", "latitude", "longitude").values
    fields["persistence"] = start
    return {label: ((field - truth) ** 2).mean(axis=1) for label, field in fields.items()}


def gains(nested: np.ndarray, driving: np.ndarray) -> tuple[float, float, float]:
    """Return the gain in per cent, and the 95 % interval over resampled initial times; arguments (time,)."""
    generator = np.random.default_rng(0)
    draws = generator.integers(0, nested.size, (2000, nested.size))
    resampled = 100 * (1 - np.sqrt(nested[draws].mean(axis=1) / driving[draws].mean(axis=1)))
    low, high = np.quantile(resampled, (0.025, 0.975))
    return 100 * (1 - np.sqrt(nested.mean() / driving.mean())), low, high


def seam(field: np.ndarray, zone: np.ndarray) -> float:
    """Return the mean square of differences across the rim of the zone over that of differences within the interior."""
    across, within = [], []
    for axis in (-2, -1):
        step = np.diff(field, axis=axis) ** 2
        first = np.take(zone, range(zone.shape[axis] - 1), axis=axis)
        second = np.take(zone, range(1, zone.shape[axis]), axis=axis)
        across.append(step[..., first != second].ravel())
        within.append(step[..., ~first & ~second].ravel())
    return float(np.concatenate(across).mean() / np.concatenate(within).mean())


def report(outputs: Path) -> float:
    """Print the tables; return the least gain at 24 h, in per cent."""
    made = forecasts(outputs)
    data = build(open_run(outputs / "train/planet_lam_hi_lam").config.data).dataset()
    zone, area = data["boundary_zone"].values == 1, grid_of(data).weights
    interior, count = np.where(zone, 0.0, area), made["nested"].sizes["time"]
    print(f"interior of {int((~zone).sum())} of {zone.size} points, {count} initial times")
    print(f"{'':22}{'h':>5}{'driving':>10}{'nested':>10}{'in truth':>10}{'persist.':>10}   gain % (95 % interval)")
    at: list[float] = []
    for name in FIELDS:
        for hours in LEADS:
            squares = mean_squares(made, data, name, np.timedelta64(hours, "h"))
            means = {label: (square * interior).sum((1, 2)) / interior.sum() for label, square in squares.items()}
            gain, low, high = gains(means["nested"], means["driving"])
            columns = "".join(
                f"{np.sqrt(means[label].mean()):10.3f}"
                for label in ("driving", "nested", "in the truth", "persistence")
            )
            print(f"{name:22}{hours:5d}{columns}   {gain:5.1f} ({low:.1f} to {high:.1f})")
            at += [gain] if hours == AT else []
    print_seam(made, data, zone)
    return min(at)


def print_seam(made: dict[str, xr.Dataset], data: xr.Dataset, zone: np.ndarray) -> None:
    """Print how rough the step into the interior is, in the nested forecast and in the truth."""
    for hours in (24, 240):
        lead = np.timedelta64(hours, "h")
        nested = made["nested"].sel(prediction_timedelta=lead)
        valid = data.sel(time=made["nested"]["time"].values + lead)
        ratios = []
        for dataset in (nested, valid):
            fields = (dataset[name].transpose("time", "level", ...).values for name in FIELDS)
            ratios.append([seam(field, zone) for field in fields])
        for name, ours, theirs in zip(FIELDS, *ratios, strict=True):
            print(f"step across the rim / within, {hours} h  {name:22} nested {ours:.2f}  truth {theirs:.2f}")
        extremes = [float(np.abs(nested[name]).max() / np.abs(data[name]).max()) for name in FIELDS]
        print(f"largest value / largest in the data, {hours} h  {max(extremes):.2f}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    figure = report(Path(sys.argv[1] if len(sys.argv) > 1 else "outputs"))
    print(f"limited_area: {figure:.1f} % (bar {BAR:.0f} %)")
