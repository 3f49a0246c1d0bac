"""What a trained network is worth elsewhere: with another variable, a warmer climate, a finer grid, today's analysis.

    python tests/benchmarks/transfer.py [--folder outputs/transfer] [--rows variable climate grid service] [--threads 1]

Trains small SFNOs on planets of five levels by the Python interface; runs that are finished are used again, so that it
goes on where it stopped. Errors are RMSE at 24 h over a trajectory that no training has seen, as ratios averaged over
channels. The rows `service` publish an analysis in GRIB on this machine, as ECMWF does, for `emul forecast` in its own
process; they are left out without ecCodes. The figure is the number of rows that hold.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import xarray as xr

import emul
from data_pipelines.conventions.grib_names import AT_SURFACE, ON_LEVELS
from data_pipelines.derived.regridding import regridded
from data_pipelines.sources.ifs_open import IfsOpen
from emul.config.build import build
from emul.training.runs import Run, read_adapter
from emulators.constants import GRAVITY
from emulators.grids.catalogue import named_grid
from emulators.layers.low_rank import switch

sys.path.insert(0, str(Path(__file__).parents[1]))
from served_analyses import Server, ecmwf_row, message, serving

SFNO = [
    "experiment=planet_sfno", "data.levels=5", "data.trajectories=3", "model.embed=32", "model.layers=3",
    "objective.rollout=1", "training.validate_every=100", "training.validation_cases=16", "schedule.final=0.1",
    "logger=[csv]",
]  # fmt: skip
RAIN = "total_precipitation_6hr"
FIRST = np.datetime64("2001-01-01")
# Weight in the loss of a channel that is new, and rate of what writes it; the learning rate is that of the training.
NEW_CHANNEL = [f"loss.mse.variable_weights={{specific_humidity: 1.5, {RAIN}: 4}}", "tuning.rates={head: 3}"]
# What acts on each point alone: the filters have a matrix for each degree, and an adapter would have a pair for each.
POINTWISE = "adapter.targets=[encoder,blocks.*.skip,blocks.*.mlp,decoder,skip,head]"
# The lead that is scored, every channel with one weight; an average and a warm-up as short as the training.
ROLLED = [
    "training.steps=100", "objective.rollout=4", "objective.scored=last", "optimizer.lr=0.01", "schedule.warmup=10",
    "training.ema=0.9", "loss.mse.level_weights=uniform", "loss.mse.variable_weights=uniform",
]  # fmt: skip
GAP = 10  # days between two trajectories in the store
INITS = 40
Errors = dict[str, np.ndarray]  # RMSE by variable, (level,) or ()


class Table:
    """Print rows, each a figure against its bar, and count those that hold."""

    def __init__(self) -> None:
        self.holding = self.rows = 0

    def add(self, name: str, figure: float, bar: float, least: bool = False) -> None:
        """Print a row. least: the figure must reach the bar; else it must not exceed it."""
        holds = figure >= bar if least else figure <= bar
        self.holding, self.rows = self.holding + bool(holds), self.rows + 1
        relation = ">=" if least else "<="
        print(f"{name:66s} {figure:10.4g}   bar {relation} {bar:<7g} {'ok' if holds else 'FAILS'}", flush=True)


def periods(days: int) -> list[str]:
    """Splits of three trajectories of so many days: to train, to validate, to test."""
    starts = [FIRST + number * (days + GAP) for number in range(3)]
    names = ("train", "validation", "test")
    return [
        f"data.days={days}",
        *(f"data.splits.{name}=[{start},{start + days - 1}]" for name, start in zip(names, starts, strict=True)),
    ]


class Laboratory:
    """Train runs in a folder, once each, and measure their errors at 24 h."""

    def __init__(self, folder: Path, threads: int, seeds: Sequence[int]) -> None:
        self.seeds = seeds
        self.words = [*SFNO, f"output={folder}", f"hardware.threads={threads}"]

    def run(self, name: str, *words: str) -> Run:
        """The run of this name, trained if it is not finished."""
        return emul.train(emul.compose(*self.words, f"name={name}", *words))

    def forecast(self, run: Run) -> xr.Dataset:
        """Forecasts of 24 h from dates of the test trajectory of the run's data."""
        first, last = (np.datetime64(str(day)) for day in run.config.data.splits.test)
        times = np.arange(first + 1, last - 2, np.timedelta64(6, "h"))
        return run.forecast([str(time) for time in times[:: max(1, len(times) // INITS)]], "1d")

    def errors(self, run: Run, forecast: xr.Dataset | None = None) -> Errors:
        """RMSE of a forecast, default the run's own, against the run's data."""
        scores = emul.evaluate(
            self.forecast(run) if forecast is None else forecast, build(run.config.data).dataset(), metrics=["rmse"]
        )
        last = scores.sel(metric="rmse", region="global").isel(lead_time=-1)
        return {str(name): field.values for name, field in last.data_vars.items() if name in run.world.predicted.names}


def ratio(errors: Errors, others: Errors, names: list[str] | None = None) -> float:
    """The mean over channels of the quotient of errors."""
    shared = names or [name for name in errors if name in others]
    return float(np.concatenate([np.atleast_1d(errors[name] / others[name]) for name in shared]).mean())


def variable_rows(lab: Laboratory, table: Table) -> None:
    """A network that gets a new diagnostic variable, against one that had it from the start."""
    days = periods(150)
    base = lab.run("dry", *days, "variables.diagnostic=[]", "training.steps=400")
    before = lab.forecast(base)
    start = [*days, f"from_checkpoint={base.folder}", f"variables.diagnostic=[{RAIN}]"]
    at_once = lab.forecast(lab.run("rain_at_once", *start, "training.steps=0"))
    largest = max(float(abs(at_once[name] - before[name]).max()) for name in before.data_vars)
    table.add("a variable is added: largest change of the old forecast", largest, 0.0)
    old, of_old, of_new = lab.errors(base, before), [], []
    for seed in lab.seeds:
        tuned = lab.errors(lab.run(f"rain_tuned_{seed}", *start, *NEW_CHANNEL, "training.steps=200", f"seed={seed}"))
        words = [*days, f"variables.diagnostic=[{RAIN}]", "training.steps=600", f"seed={seed}"]
        whole = lab.errors(lab.run(f"rain_from_start_{seed}", *words))
        of_old.append(ratio(tuned, old))
        of_new.append(ratio(tuned, whole, [RAIN]))
    print(
        f"    error of the new channel over that of 600 steps, by seed: {', '.join(f'{value:.3f}' for value in of_new)}"
    )
    table.add("after 200 steps: error of the old channels over that before", float(np.mean(of_old)), 1.005)
    table.add("  error of the new one over that of a network of 600 steps", float(np.mean(of_new)), 1.05)


def climate_rows(lab: Laboratory, table: Table) -> None:
    """A warmer planet, 60 days of it: all weights tuned, an adapter, or begun anew, at the same number of steps."""
    base = lab.run("planet", *periods(150), "training.steps=400")
    warm = [*periods(60), "data.warming=4", "training.steps=200"]
    start = [*warm, f"from_checkpoint={base.folder}"]
    unchanged = lab.errors(lab.run("warm_unchanged", *start, "training.steps=0"))
    ways = {
        "full": [*start, "optimizer.lr=0.005"],
        "adapter": [*start, "adapter=lora", "adapter.rank=2", POINTWISE, "optimizer.lr=0.005"],
        "anew": warm,
    }
    errors: dict[str, list[Errors]] = {way: [] for way in ways}
    for way, words in ways.items():
        for seed in lab.seeds:
            run = lab.run(f"warm_{way}_{seed}", *words, f"seed={seed}")
            errors[way].append(lab.errors(run))
    gains = {way: [1 - ratio(one, unchanged) for one in errors[way]] for way in ("full", "adapter")}
    for way, values in gains.items():
        shown = ", ".join(f"{100 * value:.1f}" for value in values)
        print(f"    gain of {way} over the unchanged network, per cent, by seed: {shown}")
    recovered = float(np.mean(gains["adapter"]) / np.mean(gains["full"]))
    table.add("4 K warmer: gain of the adapter over that of all weights", recovered, 0.9, least=True)
    for way in ("full", "adapter"):
        beside = float(np.mean([ratio(one, other) for one, other in zip(errors[way], errors["anew"], strict=True)]))
        table.add(f"  error of {way} over that of networks begun anew", beside, 0.85)
    adapter_rows(lab, table, base)


def adapter_rows(lab: Laboratory, table: Table, base: Run) -> None:
    """What an adapter takes on disk, and what merging it changes."""
    folder = base.folder.with_name(f"warm_adapter_{lab.seeds[0]}")
    sizes = [file.stat().st_size for file in (folder / "adapter.pt", base.file)]
    table.add("size of an adapter over that of the base's checkpoint", sizes[0] / sizes[1], 0.03)
    trained = sum(weight.numel() for weight in read_adapter(folder, base)["weights"].values())
    whole = sum(weight.numel() for weight in base.step.parameters())
    table.add("  parameters that it trains over those of the network", trained / whole, 0.1)
    forecasts = []
    for merge in (False, True):
        run = emul.open_run(base.folder)
        switch(run.step, read_adapter(folder, run), merge=merge)
        forecasts.append(lab.forecast(run))
    apart, merged = forecasts
    difference = max(float(abs(apart[n] - merged[n]).max() / apart[n].std()) for n in apart.data_vars)
    table.add("  merged against apart, largest difference in standard deviations", difference, 1e-6)


def grid_rows(lab: Laboratory, table: Table) -> None:
    """The network of a T21 planet on a T42 one, against its T21 forecast on the finer grid.

    Both without seasons, so that the 30 days that tune it differ from those of the test in the weather alone.
    """
    coarse = lab.run("unseasonal", *periods(150), "data.season=false", "training.steps=400")
    fine = [*periods(30), "data.season=false", "data.truncation=42", f"from_checkpoint={coarse.folder}"]
    at_once = lab.run("fine_at_once", *fine, "transfer.small_scales=damped", "training.steps=0")
    tuned = lab.run("fine_tuned", *fine, *ROLLED)
    dataset = build(at_once.config.data).dataset()
    driven = coarse.forecast(
        lab.forecast(at_once)["time"].values.astype("datetime64[s]").astype(str).tolist(),
        "1d",
        dataset=regridded(dataset, coarse.world.grid, "spectral"),
    )
    finer = regridded(driven, at_once.world.grid, "spectral")
    below = lab.errors(at_once, finer)
    table.add("T42 at once: error over that of the T21 forecast regridded", ratio(lab.errors(at_once), below), 1.0)
    table.add("  with 100 steps of tuning", ratio(lab.errors(tuned), below), 0.9)


LEVELS = [300, 500, 700, 850]  # hPa
SERVED = "360x181_equiangular_with_poles"
DAYS, CYCLE = 10, np.timedelta64(6, "h")


def service_rows(lab: Laboratory, table: Table) -> None:
    """One command from an analysis in GRIB to a forecast of ten days in GRIB and Zarr, and what it refuses by name."""
    if find_spec("cfgrib") is None or find_spec("eccodes") is None:
        print("    service: cfgrib and eccodes are not here (pip install 'emul[grib]'); its rows are left out")
        return
    run = emul.train(
        emul.compose(
            "data=planet_pressure", "data@data.planet=planet_tiny", f"data.levels={LEVELS}", "model=sfno",
            "model.embed=32", "model.layers=2", "variables.diagnostic=[]", "variables.static=[sin_latitude]",
            "variables.forcing=[toa_incident_solar_radiation,sin_year,cos_year]", "training.steps=100", "logger=[csv]",
            "training.validate_every=100", "training.validation_cases=4", *lab.words[-2:], "name=service",
        )
    )  # fmt: skip
    analysis = build(run.config.data).dataset()[list(run.world.prognostic.names)].isel(time=[-1])
    fine = regridded(analysis, named_grid(SERVED), "bilinear").isel(time=0).load()
    latest = np.datetime64(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()), "s").astype("datetime64[h]")
    latest = (latest.astype(np.int64) // 6 * 6).astype("datetime64[h]").astype("datetime64[s]")
    seen = np.datetime64("2001-01-10", "s")
    wrong = fine.assign({"2m_temperature": fine["2m_temperature"] - 273.15})
    refusals = {  # name: what is served, further words, and what the command must say
        "wrong units": (wrong, latest, ["guards.ranges=refuse"], "2m_temperature"),
        "a missing level": (fine.sel(level=LEVELS[:-1]), latest, [], f"t {LEVELS[-1]}"),
        "dates of training": (
            fine, seen, ["guards.training_dates=refuse", f"init={seen}", f"data.dates={seen}"], "from 2001-01-10",
        ),
    }  # fmt: skip
    with serving() as address, tempfile.TemporaryDirectory() as folder:
        words = [f"run={run.folder}", "data=ifs_open", f"data.address={address}", f"data.levels={LEVELS}"]
        words += ["init=latest", "regrid=conservative", "writer=grib", f"lead={DAYS}d"]
        publish(fine, latest)
        seconds, said = ran(Path(folder), "whole", words)
        made = Path(folder, "forecast", "whole")
        store = xr.open_zarr(made / "forecast.zarr") if made.is_dir() else None
        print(f"    from the analysis to {DAYS} days: {seconds:.1f} s" if store is not None else said)
        leads = 0 if store is None else min(store.sizes["prediction_timedelta"], len(list((made / "grib").iterdir())))
        table.add("one command from a GRIB analysis: leads in GRIB and in Zarr", leads, 4 * DAYS, least=True)
        for name, (served, when, more, named) in refusals.items():
            publish(served, when)
            seconds, said = ran(Path(folder), name.replace(" ", "_"), [*words, *more])
            told = named in said and not Path(folder, "forecast", name.replace(" ", "_"), "forecast.zarr").exists()
            print(f"    {name}, after {seconds:.1f} s: {' '.join(said.split())[:300]}")
            table.add(f"  {name}: told by name before the first step", int(told), 1, least=True)


def publish(fields: xr.Dataset, when: np.datetime64) -> None:
    """Serve the fields of a time alone, as ECMWF's open data have them."""
    content, rows = b"", []
    for name, field in fields.data_vars.items():
        if name == "geopotential":
            name, field = "geopotential_height", field / GRAVITY
        short = ON_LEVELS.get(str(name)) or AT_SURFACE[str(name)]
        for level in field["level"].values if "level" in field.dims else [0]:
            values = field.sel(level=level).values if level else field.values
            part = message(short, int(level), when, fields["latitude"].values, fields["longitude"].values, values)
            rows.append(ecmwf_row(short, int(level), len(content), len(part)))
            content += part
    source = IfsOpen(fields=["temperature"], levels=LEVELS, address="")
    file = source.file(when)
    Server.files = {file: content, source.index_address(file): "\n".join(rows).encode()}


def ran(folder: Path, name: str, words: list[str]) -> tuple[float, str]:
    """Run `emul forecast` in a process of its own; seconds, and what it printed."""
    command = [sys.executable, "-m", "emul.main", "forecast", *words, f"output={folder}", f"name={name}", "device=cpu"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / f"cache_{name}"), "no_proxy": "127.0.0.1"}
    start = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return time.perf_counter() - start, done.stdout + done.stderr


ROWS: dict[str, Callable[[Laboratory, Table], None]] = {
    "variable": variable_rows,
    "climate": climate_rows,
    "grid": grid_rows,
    "service": service_rows,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/transfer"), help="where runs are kept")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="groups of rows")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the rows `variable` and `climate`")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lab, table = Laboratory(options.folder, options.threads, options.seeds), Table()
    for name in options.rows:
        ROWS[name](lab, table)
    print(f"transfer: {table.holding} of {table.rows} rows hold (bar {table.rows})")
    return 0 if table.holding == table.rows else 1


if __name__ == "__main__":
    raise SystemExit(main())
