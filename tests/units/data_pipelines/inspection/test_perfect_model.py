"""The ensemble of the truth itself: a closed case, restarts of every simulator, resuming, and errors of each shape."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.inspection.perfect_model import (
    AnalysisErrors,
    PerfectModelPerturbation,
    Record,
    ensemble_folder,
    make_ensemble,
    stored_ensemble,
)
from data_pipelines.interfaces import RestartableSource
from data_pipelines.sources.kuramoto_sivashinsky import KuramotoSivashinsky
from data_pipelines.sources.lorenz96 import Lorenz96
from data_pipelines.sources.planet import Planet
from data_pipelines.sources.quasigeostrophic import QuasiGeostrophic
from data_pipelines.sources.shallow_water import ShallowWater
from emulators.scores.ensemble import crps, spread_skill, variance
from emulators.state import State
from example_data import CircleSource

HOURS = np.timedelta64(6, "h")
SPLITS = {"train": ["2001", "2001"], "validation": ["2002", "2002"], "test": ["2002", "2002"]}
GROWTH = 1.2  # of the linear system a step


def linear(folder: Path) -> CircleSource:
    """x(t + 1) = 1.2 times x(t), shifted by one point: errors grow by 1.2 a step and stay Gaussian."""
    return CircleSource(folder / "linear.zarr", 200, 24, lambda x: GROWTH * np.roll(x, 1, -1), SPLITS)


def members_of(folder: Path) -> xr.Dataset:
    return xr.open_zarr(folder / "forecast.zarr", decode_timedelta=True)


def test_a_linear_system_has_its_closed_form(tmp_path):
    """N(0, s) errors: fair CRPS s / sqrt(pi) g^n, spread over skill 1, and the truth could be any of the members."""
    source, amplitude, leads = linear(tmp_path), 0.1, 4
    assert isinstance(source, RestartableSource)
    inits = source.times[:120]
    folder = make_ensemble(source, inits, leads, 10, AnalysisErrors(amplitude, "white"))
    found = members_of(folder)
    assert found["x"].dims == ("time", "number", "prediction_timedelta", "latitude", "longitude")
    x = torch.from_numpy(found["x"].values).double().movedim(1, 0)  # (member, init, lead, 1, point)
    truth = np.stack([np.roll(source.values[:120], n, -1) * GROWTH**n for n in range(1, leads + 1)], 1)
    y = torch.from_numpy(truth).double()
    for lead in range(leads):
        scale = amplitude * float(source.values.std()) * GROWTH ** (lead + 1)
        score = float(crps(x[:, :, lead], y[:, lead]).mean()) / scale
        assert score == pytest.approx(np.pi**-0.5, rel=0.05)
        spread = variance(x[:, :, lead])
        skill = ((x[:, :, lead].mean(0) - y[:, lead]) ** 2 - spread / 10).mean()
        assert float(spread_skill(spread.mean(), skill)) == pytest.approx(1.0, abs=0.06)
    rank = (x < y).sum(0).flatten()
    shares = torch.bincount(rank, minlength=11) / len(rank)
    assert (shares - 1 / 11).abs().max() < 0.02  # flat, but for the noise of 11,520 draws of which some go together


def test_an_emulator_starts_where_the_members_started(tmp_path):
    """One step of the system from the starts is the first lead of the ensemble, whichever members are asked for."""
    source = linear(tmp_path)
    world = world_from_dataset(source.dataset(), VariableRoles(prognostic=["x"]))
    with pytest.raises(FileNotFoundError, match="emul data ensemble"):
        PerfectModelPerturbation(world, source=source)
    inits = source.times[10:16:2].astype("datetime64[s]")
    found = members_of(make_ensemble(source, inits, 1, 5, AnalysisErrors(0.1, "white")))
    starts = PerfectModelPerturbation(world, source=source).prepare(None, None, {}, inits, 0, "cpu")
    truth = torch.from_numpy(source.values[10:16:2]).float().view(3, 1, *world.grid.shape)
    for members in (range(5), range(2, 4)):
        (state,) = starts(inits, (State(truth, world.prognostic, inits),), members)
        expected = found["x"].isel(number=list(members), prediction_timedelta=0).transpose("number", ...).values
        after = GROWTH * np.roll(state.values[:, :, 0].numpy(), 1, -1)
        np.testing.assert_allclose(after, expected, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="expected members=5 or fewer, got 6"):
        starts(inits, (State(truth, world.prognostic, inits),), range(6))


def test_an_interrupted_ensemble_goes_on_to_the_same_bytes(tmp_path, monkeypatch):
    whole, cut = linear(tmp_path / "a"), linear(tmp_path / "b")
    for source in (whole, cut):
        source.path.parent.mkdir()
    inits, errors = whole.times[:6:2], AnalysisErrors(0.1)
    expected = members_of(make_ensemble(whole, inits, 3, 4, errors)).load()
    continued, calls = CircleSource.continued, []

    def failing(self, first, start):
        calls.append(start)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return continued(self, first, start)

    monkeypatch.setattr(CircleSource, "continued", failing)
    with pytest.raises(KeyboardInterrupt):
        make_ensemble(cut, inits, 3, 4, errors)
    with pytest.raises(FileNotFoundError, match="none that is finished"):
        stored_ensemble(cut)
    make_ensemble(cut, inits, 3, 4, errors)
    assert len(calls) == 4  # the first initial time is not made again
    xr.testing.assert_identical(members_of(ensemble_folder(cut)).load().drop_attrs(), expected.drop_attrs())
    assert json.loads((ensemble_folder(cut) / "ensemble.json").read_text())["finished"]
    with pytest.raises(ValueError, match=r"amplitude.*resume=anew"):
        make_ensemble(cut, inits, 3, 4, AnalysisErrors(0.2))
    make_ensemble(cut, inits, 3, 5, AnalysisErrors(0.2), anew=True)
    assert members_of(ensemble_folder(cut)).sizes["number"] == 5


def test_members_do_not_depend_on_the_other_initial_times(tmp_path):
    source = linear(tmp_path)
    one = members_of(make_ensemble(source, source.times[3:4], 2, 3, AnalysisErrors(0.1))).load()
    several = members_of(make_ensemble(source, source.times[:5], 2, 3, AnalysisErrors(0.1), anew=True))
    np.testing.assert_array_equal(one["x"].values[0], several["x"].values[3])


SMALL = {
    "lorenz96": lambda folder, **more: Lorenz96(folder=folder, days=40, trajectories=1, spinup_days=20, **more),
    "lorenz96 on two scales": lambda folder, **more: Lorenz96(
        folder=folder, days=20, trajectories=1, spinup_days=5, sectors=8, fast=4, **more
    ),
    "kuramoto_sivashinsky": lambda folder, **more: KuramotoSivashinsky(
        folder=folder, days=40, trajectories=1, spinup_days=60, points=48, **more
    ),
    "quasigeostrophic": lambda folder, **more: QuasiGeostrophic(
        folder=folder, days=12, trajectories=1, spinup_days=10, truncation=10, **more
    ),
    "shallow_water": lambda folder, **more: ShallowWater(folder=folder, days=4, trajectories=1, truncation=21, **more),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_small_model_goes_on_from_its_store(tmp_path, name):
    """Restarted from float32 fields a model follows its stored trajectory, and members leave it in growing numbers."""
    source = SMALL[name](str(tmp_path), splits=SPLITS)
    source.prepare()
    assert isinstance(source, RestartableSource)
    dataset = source.dataset()
    record = Record(source, dataset, AnalysisErrors(0.05))
    start = record.times[len(record.times) // 2]
    first = {field: values[None] for field, values in record.fields(start).items()}
    stream = source.continued(first, start)
    interval = source.trajectories.interval
    for lead in (1, 2):
        sample = next(stream)
        truth = record.fields(start + lead * interval)
        for field, scale in record.deviations().items():
            error = np.sqrt(((sample[field][0] - truth[field]) ** 2).mean(axis=(-2, -1), keepdims=True))
            assert (error < 2e-3 * scale).all(), (name, field)
    folder = make_ensemble(source, np.array([start]), 4, 3, AnalysisErrors(0.05))
    found = members_of(folder)
    field = source.state_variables[0]
    assert found[field].sizes["number"] == 3
    spread = (
        found[field].std("number").mean([d for d in found[field].dims if d not in ("number", "prediction_timedelta")])
    )
    assert (spread > 0).all()


@pytest.fixture(scope="module")
def planet(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("planet"))
    source = Planet(splits=SPLITS, folder=folder, truncation=10, levels=4, days=20, trajectories=1, spinup_days=5)
    source.prepare()
    return source


@pytest.mark.slow
def test_the_planet_goes_on_from_its_store(planet):
    record = Record(planet, planet.dataset(), AnalysisErrors())
    start = record.times[20]
    first = {name: field[None] for name, field in record.fields(start).items()}
    stream = planet.continued(first, start)
    for lead in (1, 2):
        sample, truth = next(stream), record.fields(start + lead * HOURS)
        for name, scale in record.deviations().items():
            error = np.sqrt(((sample[name][0] - truth[name]) ** 2).mean(axis=(-2, -1), keepdims=True))
            assert (error < 3e-3 * scale).all(), (lead, name, float((error / scale).max()))
        np.testing.assert_allclose(sample["skin_temperature"][0], truth["skin_temperature"], atol=0.02)


@pytest.mark.parametrize("shape", ["differences", "bred"])
@pytest.mark.slow
def test_errors_of_the_planet_have_their_size_and_grow(planet, shape):
    errors = AnalysisErrors(0.02, shape, breeding_days=2)
    record = Record(planet, planet.dataset(), errors)
    init = record.times[40]
    drawn = record.errors_at(init, 6, np.random.default_rng(0))
    size = record.size(drawn, record.deviations())
    assert size == pytest.approx(0.02, rel=1e-6 if shape == "bred" else 0.5)
    members = record.members(init, 3)
    assert members["specific_humidity"].min() >= 0.0
    assert members["temperature"].shape[0] == 3
    assert np.ptp(members["sea_surface_temperature"], axis=0).max() == 0.0
    folder = make_ensemble(planet, np.array([init]), 2, 3, errors, fields=["temperature"], stride=4, anew=True)
    found = members_of(folder)
    assert [*found.data_vars] == ["temperature"]
    assert found["prediction_timedelta"].values.astype("timedelta64[h]").astype(int).tolist() == [24, 48]
    assert (found["temperature"].std("number").mean(("latitude", "longitude", "level", "time")) > 0).all()


def test_refusals(tmp_path):
    source = linear(tmp_path)
    with pytest.raises(ValueError, match="shape"):
        AnalysisErrors(shape="pink")
    with pytest.raises(ValueError, match="amplitude"):
        AnalysisErrors(0.0)
    with pytest.raises(ValueError, match="inits"):
        make_ensemble(source, np.array(["1999-01-01"], "datetime64[s]"), 2, 3, AnalysisErrors())
    with pytest.raises(ValueError, match="breeding_days"):
        make_ensemble(source, source.times[:1], 2, 3, AnalysisErrors(shape="bred"))
    with pytest.raises(ValueError, match="members"):
        make_ensemble(source, source.times[:1], 2, 1, AnalysisErrors())
    with pytest.raises(ValueError, match="fields"):
        make_ensemble(source, source.times[:1], 2, 3, AnalysisErrors(), fields=["y"])
    with pytest.raises(ValueError, match="simulated"):
        stored_ensemble(None)
