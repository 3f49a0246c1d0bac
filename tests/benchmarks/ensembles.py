"""What ensembles are worth: fair CRPS, spread and spectra against a deterministic twin, and what members cost.

    python tests/benchmarks/ensembles.py [planet_ensemble ...] [--twin planet_sfno] [--output outputs] [--speed]

Reads outputs/eval/<name>/scores.nc of each method (with the metrics crps_fair, spread_skill and rmse), baselines.nc of
the first for `perfect_model` and `probabilistic_climatology` where it was scored beside, and that of the twin (mae and
rmse); all on the same dates. Figures are means over the variables and levels of the demo's table; power needs the
forecast of the first method too. --speed: times, in processor seconds on one thread, a training step with two members
and the method's losses against one of the twin, and members of one date against as many deterministic forecasts, over
a day, which needs the runs alone.

The figure is the number of rows of the first method that hold; those that lack their files are said.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

BARS = {1: 0.75, 3: 0.75, 5: 0.72, 10: 0.72}  # fair CRPS over the MAE of the twin, by lead in days
SPREAD, POWER = (0.9, 1.1), (0.9, 1.1)  # spread over skill; power of members over the truth's
STEP, MEMBERS = 2.1, 1.1  # cost of a training step; of 50 members
SMALLEST = slice(15, 22)  # degrees whose power members keep
NAMES = ("temperature", "u_component_of_wind", "v_component_of_wind", "specific_humidity", "surface_pressure")


def headline(scores: xr.Dataset, metric: str, days: int) -> np.ndarray:
    """The global scores of the demo's channels at one lead, (channel,)."""
    found = []
    for name in NAMES:
        field = scores[name].sel(metric=metric, region="global", lead_time=np.timedelta64(days, "D"))
        levels = [field] if "level" not in field.dims else [field.sel(level=p, method="nearest") for p in (500, 850)]
        found += [float(one) for one in levels]
    return np.array(found)


def opened(output: Path, name: str, file: str = "scores.nc") -> xr.Dataset | None:
    path = output / "eval" / name / file
    return xr.open_dataset(path, decode_timedelta=True) if path.is_file() else None


def ratios(scores: xr.Dataset, mae: dict[int, np.ndarray], rmse: dict[int, np.ndarray]) -> list[list[float]]:
    """CRPS over MAE, spread over skill, and RMSE of the mean over that of the twin, each by lead."""
    crps = [float(np.mean(headline(scores, "crps_fair", day) / mae[day])) for day in BARS]
    spread = [float(np.mean(headline(scores, "spread_skill", day))) for day in BARS]
    mean = [float(np.mean(headline(scores, "rmse", day) / rmse[day])) for day in BARS]
    return [crps, spread, mean]


def power_kept(output: Path, name: str, days: int) -> float:
    """Power of members over that of the truth at the smallest scales, mean of temperature and zonal wind at 500 hPa."""
    import torch

    import emul
    from data_pipelines.conventions.attributes import grid_of
    from emulators.sphere.spectra import power
    from emulators.sphere.transform import SphericalHarmonics

    forecast = xr.open_zarr(output / "forecast" / name / "forecast.zarr", decode_timedelta=True)
    truth, ratios = emul.open_data("data=planet"), []
    transform = SphericalHarmonics(grid_of(truth))
    at = forecast.sel(prediction_timedelta=np.timedelta64(days, "D"))
    for variable in NAMES[:2]:
        own = at[variable].sel(level=500, method="nearest").values
        true = truth[variable].sel(level=500, method="nearest").sel(time=at["time"].values + np.timedelta64(days, "D"))
        spectra = [
            power(transform.analysis(torch.from_numpy(f.reshape(-1, *f.shape[-2:])).permute(2, 1, 0))).mean(1)[SMALLEST]
            for f in (own, true.values)
        ]
        ratios.append(float(spectra[0].sum() / spectra[1].sum()))
    return float(np.mean(ratios))


def seconds(work: Callable[[], object], other: Callable[[], object], repeats: int = 15) -> tuple[float, float]:
    """Processor seconds of two works, least of several turns each."""
    taken: list[list[float]] = [[], []]
    for turn in range(repeats + 1):
        for number, call in enumerate((work, other)):
            start = time.process_time()
            call()
            if turn:
                taken[number].append(time.process_time() - start)
    return min(taken[0]), min(taken[1])


def costs(output: Path, name: str, twin: str) -> tuple[float, float]:
    """Cost of a training step with two members over one without, and of 50 members over 50 forecasts."""
    import torch

    import emul
    from emul.config.build import build_loss_terms
    from emulators.objectives.forecast import Forecast
    from emulators.rollout import Rollout
    from emulators.state import State, Window

    torch.set_num_threads(1)
    ours, theirs = (emul.open_run(str(output / "train" / one)) for one in (name, twin))
    world, archive = ours.world, ours.archive()
    start = np.datetime64("2004-03-01", "s")
    many = start + np.arange(50) * np.timedelta64(1, "D")
    four, next_four = many[:4], world.after(many[:4], 1)

    def window() -> Window:
        return Window(
            archive.history(four), (archive.states(next_four, world.predicted),), (archive.forcing(next_four),)
        )

    batch = window()

    def training(run: Any, objective: Forecast) -> Callable[[], object]:
        step, losses = run.step.train(), build_loss_terms(run.config.loss, world)
        for parameter in step.parameters():
            parameter.requires_grad_(True)

        def work() -> None:
            step.zero_grad()
            objective(step, batch, losses)[0].backward()

        return work

    two, one = seconds(training(ours, Forecast(world, members=2)), training(theirs, Forecast(world)))
    for run in (ours, theirs):
        run.step.eval()

    def forecast(run: object, inits: np.ndarray, members: int) -> Callable[[], object]:
        history = archive.history(inits)
        prescribed: list[State] = [archive.forcing(world.after(inits, lead)) for lead in range(1, 5)]
        return lambda: list(Rollout(run.step, world, history, members=members).states(prescribed))  # type: ignore[attr-defined]

    ensemble, single = seconds(forecast(ours, many[:1], 50), forecast(theirs, many, 0), 3)
    return two / one, ensemble / single


def cost_rows(output: Path, name: str, twin: str) -> list[bool]:
    """Whether training steps and members cost no more than their bars; the costs are printed."""
    step, members = costs(output, name, twin)
    print(f"a training step with 2 members costs {step:.2f} times the deterministic one (bar {STEP})")
    print(f"50 members of one date cost {members:.2f} times 50 deterministic forecasts (bar {MEMBERS})")
    return [step <= STEP, members <= MEMBERS]


def judged(output: Path, name: str, figures: list[list[float]], beside: xr.Dataset | None) -> list[bool]:
    """Whether the first method is as good as it should be, bar by bar."""
    crps, spread, mean = figures
    rows = [value <= bar for value, bar in zip(crps, BARS.values(), strict=True)]
    rows += [SPREAD[0] <= value <= SPREAD[1] for value in spread]
    rows += [value <= 1.0 for value in mean]
    if (output / "forecast" / name / "forecast.zarr").exists():
        kept = [power_kept(output, name, day) for day in (1, 5, 10)]
        print(f"power of members over the truth's, degrees 15 to 21, 1, 5, 10 d: {' '.join(f'{k:.2f}' for k in kept)}")
        rows += [POWER[0] <= k <= POWER[1] for k in kept]
    else:
        print("power of members: not looked at, the forecast is not there")
    if beside is not None and "probabilistic_climatology" in beside["source"].values:
        scores = opened(output, name)
        assert scores is not None
        ours, climate = (headline(d, "crps_fair", 9) for d in (scores, beside.sel(source="probabilistic_climatology")))
        print(f"CRPS over that of the climatological ensemble at 9 d: {np.mean(ours / climate):.3f} (bar 1)")
        rows.append(bool(np.mean(ours / climate) <= 1.0))
    else:
        print("the climatological ensemble was not scored beside")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", default=["planet_ensemble"], help="the best one first")
    parser.add_argument("--twin", default="planet_sfno", help="the deterministic run")
    parser.add_argument("--output", type=Path, default=Path("outputs"))
    parser.add_argument("--speed", action="store_true")
    asked = parser.parse_args()
    twin, best = opened(asked.output, asked.twin), opened(asked.output, asked.methods[0])
    rows = cost_rows(asked.output, asked.methods[0], asked.twin) if asked.speed else []
    if twin is None or best is None:
        print(f"ensembles: skipped, no scores of {asked.twin} and {asked.methods[0]} in {asked.output / 'eval'}")
        return 0 if all(rows) else 1
    mae, rmse = ({day: headline(twin, metric, day) for day in BARS} for metric in ("mae", "rmse"))
    scores = {name: opened(asked.output, name) for name in asked.methods}
    beside = opened(asked.output, asked.methods[0], "baselines.nc")
    for name in ("perfect_model", "probabilistic_climatology"):
        if beside is not None and name in beside["source"].values:
            scores[name] = beside.sel(source=name)
    print(
        f"at {', '.join(map(str, BARS))} d".ljust(26) + "CRPS / MAE of twin       spread / skill           RMSE / twin"
    )
    for name, own in scores.items():
        cells = ["no scores"] if own is None else [" ".join(f"{v:.3f}" for v in vs) for vs in ratios(own, mae, rmse)]
        print(f"{name:26s}" + "  ".join(cells))
    rows += judged(asked.output, asked.methods[0], ratios(best, mae, rmse), beside)
    print(f"ensembles: {sum(rows)} of {len(rows)} rows of {asked.methods[0]} hold (bar {len(rows)})")
    return 0 if all(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
