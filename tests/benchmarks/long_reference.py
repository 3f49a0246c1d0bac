"""How near a trained emulator of the planet comes to its limit of predictability, and to peers trained as long.

    python tests/benchmarks/long_reference.py outputs/eval/planet_sfno [--twins FILE]
        [--peer LUCIE=outputs/eval/lucie ...] [--truncation 21]

Folders are those of `emul eval`; the file of twins is what `emul data predictability` names. It prints RMSE as a
multiple of the twins' by lead, and as a share of the climatology's (the twins' saturation over root 2); power beyond
the truncation of the planet, in shares of the truth's; RMSE at 24 h against each peer, with the interval of the
difference at 95 % over the initial times that both have. README.md here has the commands that train peers.

The figure is the least reduction of RMSE at 24 h, in per cent of the peer's; without peers it is the largest of the
shares of power, against 2.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import xarray as xr
from demo import channels

from emulators.metrics.rmse import RMSE
from emulators.statistics.significance import Significance, paired_difference

BAR, POWER = 25.0, 2.0
DAY = np.timedelta64(1, "D")


def opened(folder: str, group: str | None = None) -> xr.Dataset:
    return xr.open_dataset(Path(folder) / "scores.nc", group=group)


def against_twins(scores: xr.Dataset, twins: xr.Dataset) -> None:
    """Print RMSE over the twins', and in brackets over the climatology's, by lead."""
    leads = [lead for lead in scores["lead_time"].values if lead % DAY == 0 and lead in twins["lead_time"].values]
    told = f"forgetting {twins.attrs['forgotten']}" if twins.attrs.get("forgotten") else "knowing the whole state"
    print(f"RMSE over that of twins {told} (over the climatology's), {scores.attrs['number_of_inits']} initial times")
    print(f"{'':26s}" + "".join(f"{lead // DAY:>11d} d" for lead in leads))
    for name, rmse in channels(scores):
        known = twins[name.split()[0]].sel(region="global")
        if "level" in known.dims:
            known = known.sel(level=float(rmse["level"]))
        cells = []
        for lead in leads:
            error, (twin, most) = (
                float(rmse.sel(lead_time=lead)),
                (float(known.sel(source=source, lead_time=lead)) for source in ("twin", "saturation")),
            )
            cells.append(f"{error / twin:6.1f} ({error / most * np.sqrt(2.0):.2f})")
        print(f"{name:26s}" + "".join(f"{cell:>13s}" for cell in cells))


def power_beyond(spectra: xr.Dataset, truncation: int) -> float:
    """Print the power beyond a degree in shares of the truth's at the last lead; the largest share."""
    last, largest = spectra["lead_time"].values[-1], 0.0
    for name, field in spectra.data_vars.items():
        if "source" not in field.dims or "total_wavenumber" not in field.dims:
            continue
        power = field.sel(lead_time=last)
        whole, beyond = (
            power.sel(total_wavenumber=slice(first, None)).sum("total_wavenumber", skipna=False)
            for first in (1, truncation + 1)
        )
        made, true = (np.atleast_1d(beyond.sel(source=source).values) for source in ("forecast", "truth"))
        floor = 1e-9 * np.atleast_1d(whole.sel(source="truth").values)
        share = np.nanmax(made / np.maximum(true, floor), initial=0.0)
        largest = max(largest, share)
        degree = np.nanmin(spectra[f"{name}_last_degree"].sel(lead_time=last).values)
        print(f"{name:26s} {share:6.2f} of the truth's power beyond degree {truncation}, resolved to {degree:.0f}")
    print(f"at a lead of {last // DAY} days")
    return float(largest)


def against_peer(ours: str, theirs: str, name: str) -> float:
    """Print how much lower the RMSE is at 24 h than the peer's; the least of the channels, per cent."""
    files = [xr.open_dataset(Path(folder) / "by_init.nc") for folder in (ours, theirs)]
    both = [dataset.sel(region="global", lead_time=DAY) for dataset in files]
    times = np.intersect1d(*(dataset["time"].values for dataset in both))
    least = np.inf
    print(f"RMSE at 24 h, lower than that of {name} by per cent, {times.size} initial times")
    for channel, _ in channels(opened(ours)):
        variable, *level = channel.split()
        squares = []
        for dataset in both:
            field = dataset[variable].sel(statistic="squared_error", time=times)
            squares.append({"squared_error": (field.sel(level=float(level[0])) if level else field).values})
        reference = np.sqrt(squares[1]["squared_error"].astype(float).mean())
        found = paired_difference(RMSE(), *squares, Significance())
        value, low, high = (-100.0 * float(x) / reference for x in (found.value, found.high, found.low))
        least = min(least, value)
        told = f"{low:.1f} to {high:.1f}" if np.isfinite(low) else "too few effective initial times for an interval"
        print(f"{channel:26s} {value:6.1f} % ({told})")
    return least


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("ours")
    parser.add_argument("--twins")
    parser.add_argument("--peer", action="append", default=[])
    parser.add_argument("--truncation", type=int, default=21)
    asked = parser.parse_args()
    if asked.twins:
        against_twins(opened(asked.ours), xr.open_dataset(asked.twins))
    share = power_beyond(opened(asked.ours, "spectra"), asked.truncation)
    least = min((against_peer(asked.ours, *peer.split("=", 1)[::-1]) for peer in asked.peer), default=None)
    if least is None:
        print(f"long_reference: {share:.2f} of the truth's power at most (bar {POWER:g})")
        return 0 if share <= POWER else 1
    print(f"long_reference: {least:.1f} % lower RMSE at 24 h at least (bar {BAR:g}); power {share:.2f} (bar {POWER:g})")
    return 0 if least >= BAR and share <= POWER else 1


if __name__ == "__main__":
    raise SystemExit(main())
