"""Air and water trained apart, then coupled as one run: forecast, resumed, with members, scored, on a coarse planet."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.files import checkpoints
from data_pipelines.forecasts import production
from data_pipelines.forecasts.manifest import read_manifest
from emul.config.compose import compose
from emul.eval import evaluate
from emul.forecast import forecast
from emul.train import train
from emul.training.runs import open_run

SMALL = ["hardware=debug", "training.steps=2", "training.batch_size=2", "training.validation_cases=1"]
DAY = "init=2001-02-10"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("components")


@pytest.fixture(scope="module")
def runs(folder):
    """Air and water, each trained by itself."""
    air = train(compose("train", ["experiment=planet_air", "data=planet_tiny", *SMALL, f"output={folder}"]))
    words = ["experiment=planet_water", "data@data.source=planet_tiny", *SMALL, f"output={folder}"]
    return air, train(compose("train", words))


def joined(folder, runs, *words: str):
    parts = [f"parts.atmosphere={runs[0]}", f"parts.ocean={runs[1]}"]
    texts = ["experiment=planet_coupled", "data=planet_tiny", *parts, *SMALL, f"output={folder}", *words]
    return train(compose("train", texts))


@pytest.fixture(scope="module")
def coupled(folder, runs):
    return joined(folder, runs)


def made(folder, run, *words: str) -> xr.Dataset:
    target = forecast(compose("forecast", [f"run={run}", f"output={folder}", DAY, *words]))
    with xr.open_zarr(target / "forecast.zarr") as stored:
        return stored.load()


@pytest.mark.slow
def test_one_run_of_two(folder, runs, coupled):
    """The run holds the weights of both and needs theirs no longer; the water steps once a day."""
    weights = checkpoints.load(coupled / "checkpoints" / "last.ckpt")["emul"]["weights"]
    own = checkpoints.load(runs[1] / "checkpoints" / "best.ckpt")["emul"]["weights"]
    assert all(torch.equal(weights[f"components.ocean.step.{name}"], value) for name, value in own.items())
    hidden = [run.rename(run.with_name(f"{run.name}_elsewhere")) for run in runs]
    try:
        fields = made(folder, coupled, "lead=60h", "name=whole")
    finally:
        for run, path in zip(runs, hidden, strict=True):
            path.rename(run)
    water = fields["sea_surface_temperature"].isel(time=0)
    changed = [bool((water[n] != water[n - 1]).any()) for n in range(1, 10)]
    assert changed == [number in (3, 7) for number in range(1, 10)]


@pytest.mark.slow
def test_water_that_a_forecast_of_the_air_forces_is_that_of_the_coupled_run(folder, runs, coupled):
    """Over its first step, in which the air sees the water as it was: held, else the air knows the future."""
    marks = []
    for held in ([], ["held=[sea_surface_temperature]"]):
        made(folder, runs[0], "lead=24h", "name=air", "resume=anew", *held)
        water = made(folder, runs[1], "lead=1d", "name=driven", "resume=anew", f"forcing={folder / 'forecast' / 'air'}")
        marks.append(read_manifest(folder / "forecast" / "driven")["marks"].get("future_forcing", []))
    assert "sea_surface_temperature is read from the data" in marks[0][0]
    assert not marks[1]
    together = made(folder, coupled, "lead=24h", "name=day")["sea_surface_temperature"].isel(prediction_timedelta=3)
    alone = water["sea_surface_temperature"].isel(prediction_timedelta=0)
    np.testing.assert_allclose(alone.values, together.transpose(*alone.dims).values, rtol=1e-6)


@pytest.mark.slow
def test_trained_together(folder, runs):
    """The water under air at rest, then both, each training from the one before; no others' weights change."""
    ocean, jointly = "tuning.trainable=[ocean]", "tuning.trainable=[atmosphere,ocean]"
    wet = joined(folder, runs, ocean, "training.keep=[1]", "name=wet")
    both = joined(folder, runs, jointly, f"from_checkpoint={wet}", "training.ema=null", "name=both")
    files = [(run, "best") for run in runs] + [(run, "last") for run in (wet, both)]
    air, water, *coupled = (checkpoints.load(r / "checkpoints" / f"{n}.ckpt")["emul"]["weights"] for r, n in files)
    for before, name, changed in ((air, "atmosphere", (False, True)), (water, "ocean", (True, True))):
        for weights, expected in zip(coupled, changed, strict=True):
            pairs = [(value, weights[f"components.{name}.step.{key}"]) for key, value in before.items()]
            assert any(not torch.equal(*pair) for pair in pairs) == expected
    assert np.isfinite(made(folder, both, "lead=30h")["sea_surface_temperature"]).all()
    again = joined(folder, runs, ocean, f"continue_from={wet / 'checkpoints' / 'step_1.ckpt'}", "name=again")
    resumed = checkpoints.load(again / "checkpoints" / "last.ckpt")["emul"]["weights"]
    assert all(torch.equal(value, coupled[0][name]) for name, value in resumed.items())


@pytest.mark.slow
def test_the_water_is_as_by_itself(folder, runs, coupled):
    """Given what the coupled air has given it, the ocean alone makes the same step."""
    fields = made(folder, coupled, "lead=1d", "name=day").isel(time=0)
    run, ocean = open_run(coupled), open_run(runs[1])
    start = run.archive().states(np.datetime64("2001-02-10"), run.world.prognostic)
    sums = [fields[f"{name}_6hr"].sum("prediction_timedelta").values for name in (
        "evaporation", "sensible_heat_flux", "surface_heat_supply")]  # fmt: skip
    forcing = torch.from_numpy(np.stack(sums))
    step, known = ocean.step, start.select(["sea_surface_temperature"])
    given = type(start)(forcing[None], step.world.forcing, start.time[None] + np.timedelta64(1, "D"))
    known = type(start)(known.values[None], known.variables, known.time[None])
    with torch.inference_mode():
        alone = step((known,), given)["sea_surface_temperature"][0].numpy()
    found = fields["sea_surface_temperature"].isel(prediction_timedelta=-1).values
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_killed_forecast_goes_on_with_the_same_bits(folder, coupled, monkeypatch):
    """Between two steps of the water, from what is saved."""
    short = ["lead=54h", "segment=3", "writer.chunk_megabytes=1e-4"]
    whole = made(folder, coupled, "lead=54h", "name=at_once")
    write, count = production.Segments.write, []

    def killed(self, *given):
        write(self, *given)
        count.append(1)
        if len(count) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(production.Segments, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            made(folder, coupled, "name=killed", *short)
    resumed = made(folder, coupled, "name=killed", *short)
    for name in ("temperature", "sea_surface_temperature"):
        np.testing.assert_array_equal(resumed[name].values, whole[name].values)


@pytest.mark.slow
def test_scores_and_members(folder, coupled):
    made(folder, coupled, "lead=30h", "members=2", "perturbation=gaussian")
    evaluate(compose("eval", [f"run={coupled}", f"output={folder}", "metric=[rmse,spread]", "pictures=false"]))
    with xr.open_dataset(folder / "eval" / coupled.name / "scores.nc") as scores:
        assert (scores["sea_surface_temperature"].sel(metric="spread", region="global") > 0).all()
        assert np.isfinite(scores["temperature"]).all()


@pytest.mark.slow
def test_a_slab_inside_the_timestep(folder, runs):
    """Air that was trained over prescribed water, over a slab: water changes at every timestep, land does not."""
    slab = [
        "constraint=[slab_ocean]", "constraint.slab_ocean.temperature=sea_surface_temperature",
        "constraint.slab_ocean.correction=surface_heat_supply_6hr", "constraint.slab_ocean.mask=land_sea_mask",
        "constraint.slab_ocean.invert=true", "parts.ocean=null", "~step.exchange.ocean", "name=slab",
    ]  # fmt: skip
    run = joined(folder, runs, *slab)
    water = made(folder, run, "lead=18h")["sea_surface_temperature"].isel(time=0)
    change = np.abs(water.diff("prediction_timedelta")).max("prediction_timedelta")
    land = open_run(run).world
    mask = np.asarray(land.static_fields)[land.static.slice("land_sea_mask").start]
    assert (change.values[mask < 0.5] > 0).all()
    assert (change.values[mask >= 0.5] == 0).all()


@pytest.mark.slow
def test_what_is_missing_is_told(folder, runs):
    with pytest.raises(ValueError, match="No component predicts sea_surface_temperature"):
        joined(folder, runs, "parts.ocean=null", "~step.exchange.ocean", "name=half")
    shutil.rmtree(folder / "train" / "half", ignore_errors=True)
    with pytest.raises(ValueError, match=r"evaporation_24hr.*say what it is made of"):
        joined(folder, runs, "~step.exchange.ocean", "name=unsaid")
