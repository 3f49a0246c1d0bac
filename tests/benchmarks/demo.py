"""What the emulator of `make demo` is worth: skill against persistence and climatology, from 1 day ahead to 5.

Reads the scores that `make demo` leaves in outputs/eval/planet_sfno (or the folder given as argument). Every prognostic
variable, at the levels nearest 500 and 850 hPa, area means over the globe, a year of weather of which the emulator saw
nothing. A baseline is beaten up to the lead until which every difference is significant.
"""

import sys
from pathlib import Path

import numpy as np
import xarray as xr

BAR = 45.0  # per cent
PROGNOSTIC = (
    "temperature",
    "u_component_of_wind",
    "v_component_of_wind",
    "specific_humidity",
    "surface_pressure",
)


def channels(scores: xr.Dataset) -> list[tuple[str, xr.DataArray]]:
    """The global RMSE of each judged channel, by lead time."""
    found = []
    for name in PROGNOSTIC:
        rmse = scores[name].sel(metric="rmse", region="global")
        levels = [rmse] if "level" not in rmse.dims else [rmse.sel(level=p, method="nearest") for p in (500, 850)]
        found += [(f"{name} {float(r.level):g}" if "level" in r.coords else name, r) for r in levels]
    return found


def beaten_until(judged: xr.DataArray, longest: np.timedelta64) -> tuple[float, bool]:
    """Hours up to which every difference is significantly in favour, and whether one is significantly against.

    judged: (estimate, lead) of a channel.
    """
    some = judged.sel(lead_time=slice(None, longest))
    significant, difference = (some.sel(estimate=name).values for name in ("significant", "difference"))
    ahead = np.cumprod((significant == 1) & (difference < 0)).astype(bool)
    hours = some["lead_time"].values / np.timedelta64(1, "h")
    return float(hours[ahead].max(initial=0.0)), bool(((significant == 1) & (difference > 0)).any())


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/eval/planet_sfno")
    if not (folder / "differences.nc").is_file():
        print(f"demo: skipped, no scores in {folder}; run make demo first")
        return 0
    scores, baselines, judged = (xr.open_dataset(folder / f"{n}.nc") for n in ("scores", "baselines", "differences"))
    sources = ("persistence", "climatology")
    other, verdicts = ({s: dict(channels(d.sel(source=s))) for s in sources} for d in (baselines, judged))
    day, five = np.timedelta64(1, "D"), np.timedelta64(5, "D")
    print(f"{'':24s} {'skill 24 h':>10s} {'72 h':>6s} {'120 h':>6s}   RMSE / climatology at 120 h; beats persistence,")
    print(f"{'':52s} climatology until")
    first, worse, to_five = {}, [], 0
    for name, rmse in channels(scores):
        skill = 100 * (1 - rmse / other["persistence"][name])
        ratio = float((rmse / other["climatology"][name]).sel(lead_time=five))
        picked = [float(skill.sel(lead_time=n * day)) for n in (1, 3, 5)]
        found = {source: beaten_until(verdicts[source][name], five) for source in sources}
        first[name] = picked[0]
        worse += [f"{name} than {source}" for source, (_, against) in found.items() if against]
        to_five += found["climatology"][0] >= 120
        until = " ".join(f"{hours:4.0f} h" for hours, _ in found.values())
        print(f"{name:24s} {picked[0]:8.1f} % {picked[1]:4.0f} % {picked[2]:4.0f} %   {ratio:.2f}  {until}")
    print(f"climatology is beaten at every lead to 5 days in {to_five} of {len(first)} channels")
    print(f"significantly worse within 5 days: {', '.join(worse) or 'none'}")
    least = min(first.values())
    print(f"demo: {least:.1f} % (bar {BAR:g} %)")
    return 0 if least >= BAR and not worse else 1


if __name__ == "__main__":
    raise SystemExit(main())
