"""How fast forecasts are scored: 240x121, 3 variables on 13 levels, 20 initial times by 10 leads (0.9 GB), 4 regions.

MSE, bias, MAE and ACC from Zarr stores in the WeatherBench 2 layout, each run in a process of its own: seconds from
opening the stores to the scores, and the most memory it held; then four times the initial times. Then the full set of
ensemble scores for 50 members on 64x32; then what verification adds to the rollout of an SFNO on 64x128 that feeds it
(73 channels, RMSE, MAE, bias and ACC over 4 regions; at most 10 %). The figure is the time of WeatherBench-X over ours;
PEERS_PYTHON names a Python that has weatherbenchX (and scoringrules and xskillscore for the ensembles), without it
there is no figure.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr

BAR = 7.0
ONLINE = 0.1  # of the rollout
ROUNDS = int(os.environ.get("ROUNDS", 3))
VARIABLES = ("geopotential", "temperature", "u_component_of_wind")
REGIONS = {
    "global": ((-90, 90), (0, 360)),
    "tropics": ((-20, 20), (0, 360)),
    "northern-hemisphere": ((20, 90), (0, 360)),
    "europe": ((35, 75), (347.5, 42.5)),
}
START = np.datetime64("2020-01-01", "ns")


def write(folder: Path, inits: int) -> None:
    """Forecast, truth and climatology of smooth noise."""
    noise = np.random.default_rng(0).standard_normal((13, 121, 240), dtype=np.float32)
    grid = {"latitude": np.linspace(-90, 90, 121), "longitude": 1.5 * np.arange(240), "level": 50 + 75 * np.arange(13)}
    times = START + np.arange(inits + 20) * np.timedelta64(12, "h")
    leads = (np.arange(1, 11) * np.timedelta64(24, "h")).astype("timedelta64[ns]")
    days = ((times - START) // np.timedelta64(24, "h")).astype(int) + 1
    stores = {
        "forecast": ({"time": times[:inits], "prediction_timedelta": leads}, 1.1),
        "truth": ({"time": times}, 1.0),
        "climatology": ({"hour": np.array([0, 12]), "dayofyear": np.unique(days)}, 0.5),
    }
    for name, (axes, scale) in stores.items():
        shape = tuple(len(axis) for axis in axes.values())
        dims, path = (*axes, "level", "latitude", "longitude"), folder / f"{name}.zarr"
        chunks = (*(1,) * len(axes), 13, 121, 240)
        coords = {**axes, **grid}
        for variable in VARIABLES:
            values = np.empty((*shape, 13, 121, 240), dtype=np.float32)
            for place in np.ndindex(*shape):
                values[place] = scale * np.roll(noise, sum(place) * 7, axis=-1)
            field = xr.Dataset({variable: (dims, values)}, coords)
            encoding = {variable: {"chunks": chunks, "compressors": None}}
            field.to_zarr(path, mode="a", encoding=encoding, consolidated=True, zarr_format=2)


def ours(folder: Path) -> dict[str, float]:
    import dask.array  # noqa: F401  imports count for neither side
    import zarr  # noqa: F401

    from data_pipelines.opening.datasets import open_dataset
    from data_pipelines.opening.forecasts import open_forecast
    from data_pipelines.verification.baselines import ClimatologyFile
    from data_pipelines.verification.pairs import CachedClimatology, Pairs
    from emulators.metrics.acc import ACC
    from emulators.metrics.bias import Bias
    from emulators.metrics.mae import MAE
    from emulators.metrics.mse import MSE
    from emulators.verification.scorecard import Scorecard
    from emulators.world import World

    begin = time.perf_counter()
    pairs = Pairs(open_forecast(folder / "forecast.zarr"), open_dataset(folder / "truth.zarr"), megabytes=64)
    climatology = ClimatologyFile(folder / "climatology.zarr", pairs.variables, pairs.grid)
    normals = CachedClimatology(climatology, 24)
    metrics = {"mse": MSE(), "bias": Bias(), "mae": MAE(), "acc": ACC()}
    world = World(pairs.grid, pairs.variables, pairs.leads[0])
    card = Scorecard(world, pairs.variables, metrics, list(REGIONS), list(pairs.leads))
    for pair in pairs:
        card.add(pair.prediction, pair.target, pair.lead, normals(pair.target.time))
    scores = card.scores()
    return result(begin, scores["geopotential"].sel(metric="mse", region="tropics").values)


def peer(folder: Path) -> dict[str, float]:
    from weatherbenchX import aggregation, binning, time_chunks, weighting
    from weatherbenchX.data_loaders import xarray_loaders
    from weatherbenchX.metrics import base, deterministic

    begin = time.perf_counter()
    forecast = xarray_loaders.PredictionsFromXarray(path=str(folder / "forecast.zarr"), variables=VARIABLES)
    truth = xarray_loaders.TargetsFromXarray(path=str(folder / "truth.zarr"), variables=VARIABLES)
    climatology = xr.open_zarr(folder / "climatology.zarr").compute()
    metrics = {
        "mse": deterministic.MSE(),
        "bias": deterministic.Bias(),
        "mae": deterministic.MAE(),
        "acc": deterministic.ACC(climatology),
    }
    aggregator = aggregation.Aggregator(
        reduce_dims=["init_time", "latitude", "longitude"],
        bin_by=[binning.Regions(REGIONS)],
        weigh_by=[weighting.GridAreaWeighting()],
    )
    store = xr.open_zarr(folder / "forecast.zarr")
    chunks = time_chunks.TimeChunks(
        store["time"].values, store["prediction_timedelta"].values, init_time_chunk_size=1, lead_time_chunk_size=10
    )
    total = None
    for inits, leads in chunks:
        statistics = base.compute_unique_statistics_for_all_metrics(
            metrics, forecast.load_chunk(inits, leads), truth.load_chunk(inits, leads)
        )
        state = aggregator.aggregate_statistics(statistics)
        total = state if total is None else total + state
    values = total.metric_values(metrics)
    found = values["mse.geopotential"].sel(region="tropics").transpose("lead_time", "level").values
    return result(begin, found)


def result(begin: float, check: np.ndarray) -> dict[str, float]:
    seconds = time.perf_counter() - begin
    status = Path("/proc/self/status").read_text()  # ru_maxrss would count what the parent held when it forked
    peak = int(status.split("VmHWM:")[1].split()[0]) / 2**20
    return {"seconds": seconds, "gigabytes": peak, "check": float(np.mean(check))}


def ensembles() -> dict[str, float]:
    """Ours: every ensemble score of two fields from arrays, ten leads after another."""
    import torch

    from emulators.grid import equiangular_grid
    from emulators.metrics.brier import Brier
    from emulators.metrics.crps import CRPS
    from emulators.metrics.debiased import DebiasedError
    from emulators.metrics.energy_score import EnergyScore
    from emulators.metrics.rank_histogram import RankHistogram
    from emulators.metrics.rmse import RMSE
    from emulators.metrics.rps import RPS
    from emulators.metrics.spread import Spread
    from emulators.metrics.spread_skill import SpreadSkill
    from emulators.state import State
    from emulators.variables import Variable, VariableSet
    from emulators.verification.scorecard import Scorecard
    from emulators.world import World

    variables = VariableSet((Variable("2m_temperature", "K"),))
    world = World(equiangular_grid(32), variables, np.timedelta64(6, "h"))
    metrics = {
        "crps": CRPS(), "spread": Spread(), "rmse": RMSE(), "debiased": DebiasedError(), "ratio": SpreadSkill(),
        "ranks": RankHistogram(), "energy": EnergyScore(), "brier": Brier(threshold=1.0),
        "rps": RPS(quantiles=[0.1, 0.5, 0.9]),
    }  # fmt: skip
    fields = drawn()
    begin = time.perf_counter()
    card = Scorecard(world, variables, metrics, ["global"], 10)
    times = np.arange(20).astype("datetime64[s]")
    for lead in range(10):
        members, truth = (torch.from_numpy(field[..., lead, :, :, :]) for field in fields[:2])
        normals = {f"quantile_{q:g}": torch.full_like(truth, z) for q, z in ((0.1, -1.28), (0.5, 0.0), (0.9, 1.28))}
        card.add(State(members, variables, times), State(truth, variables, times), lead, normals)
    return result(begin, card.value("crps"))


def drawn() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    sizes = (50, 20, 10, 1, 32, 64), (20, 10, 1, 32, 64)
    members, truth = (generator.standard_normal(size, dtype=np.float32) for size in sizes)
    return members, truth


def ensemble_peers() -> dict[str, float]:
    """The same scores by scoringrules and xskillscore."""
    import scoringrules
    import xskillscore

    members, truth = drawn()
    begin = time.perf_counter()
    weights = np.cos(np.deg2rad(np.linspace(-87.1875, 87.1875, 32)))[:, None]
    crps = scoringrules.crps_ensemble(truth, members, m_axis=0, estimator="fair")
    crps = (crps * weights).mean() / weights.mean()
    flat = members.reshape(50, 20, 10, -1), truth.reshape(20, 10, -1)
    scoringrules.es_ensemble(flat[1], flat[0], m_axis=0, v_axis=-1)
    dims = ("member", "init", "lead", "channel", "lat", "lon")
    forecast, target = xr.DataArray(members, dims=dims), xr.DataArray(truth, dims=dims[1:])
    over = ["init", "lat", "lon"]
    area = xr.DataArray(np.broadcast_to(weights, (20, 32, 64)), dims=over)
    xskillscore.rank_histogram(target, forecast, dim=over)
    xskillscore.rmse(target, forecast.mean("member"), dim=over, weights=area)
    forecast.var("member", ddof=1).mean(over)
    xskillscore.brier_score(target > 1.0, forecast > 1.0, dim=over, weights=area)
    edges = xr.DataArray([-1.28, 0.0, 1.28], dims="category_edge", coords={"category_edge": [-1.28, 0.0, 1.28]})
    xskillscore.rps(target, forecast, category_edges=edges, dim=over, weights=area)
    return result(begin, np.asarray(crps))


def online() -> dict[str, float]:
    """Seconds of a rollout of four leads without and with the scorecard that it feeds, the best of three."""
    import torch

    from emulators.grid import gaussian_grid
    from emulators.metrics.acc import ACC
    from emulators.metrics.bias import Bias
    from emulators.metrics.mae import MAE
    from emulators.metrics.rmse import RMSE
    from emulators.models.sfno import SFNO
    from emulators.rollout import rollout
    from emulators.state import State
    from emulators.steps.step import Step
    from emulators.variables import Variable, VariableSet
    from emulators.verification.scorecard import Scorecard
    from emulators.world import Scale, World

    channels = VariableSet((Variable("t", "", tuple(range(73))),))
    scales = {channel: Scale(0.0, 1.0, 1.0) for channel in channels.channels}
    world = World(gaussian_grid(64), channels, np.timedelta64(6, "h"), scales=scales)
    step = Step(world, SFNO(world, embed=256, layers=8)).eval()
    metrics = {"rmse": RMSE(), "mae": MAE(), "bias": Bias(), "acc": ACC()}
    times = np.zeros(1, "datetime64[s]")
    first, truth, normal = (State(torch.randn(1, 73, 64, 128), channels, times) for _ in range(3))
    forcing = State(torch.zeros(1, 0, 64, 128), VariableSet(), times)

    def seconds(card: Scorecard | None) -> float:
        begin = time.perf_counter()
        with torch.inference_mode():
            for lead, state in enumerate(rollout(step, (first,), [forcing] * 4)):
                if card is not None:
                    card.add(state, truth, lead, normal)
        return time.perf_counter() - begin

    seconds(Scorecard(world, channels, metrics, list(REGIONS), 4))
    runs = [(seconds(None), seconds(Scorecard(world, channels, metrics, list(REGIONS), 4))) for _ in range(3)]
    alone, verified = (min(run[side] for run in runs) for side in (0, 1))
    return {"seconds": verified, "gigabytes": 0.0, "check": verified / alone - 1.0}


def run(kind: str, folder: str, python: str = sys.executable) -> dict[str, float] | None:
    """One run in its own process; None where the peer is not there."""
    done = subprocess.run([python, __file__, kind, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{kind} did not run: {done.stderr.strip().splitlines()[-1] if done.stderr else done.returncode}")
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def table(name: str, kinds: dict[str, str], folder: str, rounds: int) -> dict[str, float]:
    """Median seconds of each kind, in alternation."""
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for kind, python in kinds.items():
            found = run(kind, folder, python)
            if found is not None:
                runs.setdefault(kind, []).append(found)
    medians = {}
    for kind, found in runs.items():
        medians[kind] = float(np.median([one["seconds"] for one in found]))
        peak = max(one["gigabytes"] for one in found)
        print(f"{name:28s} {kind:16s} {medians[kind]:7.2f} s {peak:6.2f} GB   check {found[0]['check']:.6g}")
    return medians


def main() -> int:
    other = os.environ.get("PEERS_PYTHON")
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), 20)
        kinds = {"ours": sys.executable} | ({"peer": other} if other else {})
        first = table("20 initial times", kinds, folder, ROUNDS)
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), 80)
        more = table("80 initial times", {"ours": sys.executable}, folder, 1)
    if "ours" in more and "ours" in first:
        print(f"four times the initial times: {more['ours'] / first['ours']:.1f} times the time")
    kinds = {"ensembles": sys.executable} | ({"ensemble_peers": other} if other else {})
    ensemble = table("50 members, 64x32", kinds, "", ROUNDS)
    if "ensemble_peers" in ensemble:
        print(f"ensembles: {ensemble['ensemble_peers'] / ensemble['ensembles']:.1f} times faster than both packages")
    share = run("online", "")
    if share is not None:
        print(f"verification adds {100 * share['check']:.1f} % to a rollout (bar {100 * ONLINE:g} %)")
    if "peer" not in first:
        print("verification: skipped, no weatherbenchX to compare with (PEERS_PYTHON names a Python that has it)")
        return 0
    figure = first["peer"] / first["ours"]
    print(f"verification: {figure:.1f} times faster than WeatherBench-X (bar {BAR:g})")
    return 0 if figure >= BAR and share is not None and share["check"] <= ONLINE else 1


if __name__ == "__main__":
    if len(sys.argv) > 2:
        kind, where = sys.argv[1], Path(sys.argv[2])
        made = {"ours": ours, "peer": peer}
        alone = {"ensembles": ensembles, "ensemble_peers": ensemble_peers, "online": online}
        print(json.dumps(made[kind](where) if kind in made else alone[kind]()))
        raise SystemExit(0)
    raise SystemExit(main())
