"""Nudging and the increments it takes: a closed case, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.forecasts.manifest import FORMAT, write_manifest
from data_pipelines.forecasts.nudging import adjust, mean_increments
from emulators.state import State

START = np.datetime64("2001-01-01", "s")
ERROR = 3.0  # that the emulator below adds in each step


def archive_of(world, truth: torch.Tensor):
    """Data in which the truth is the same at all times of a year."""

    def states(times, variables):
        times = np.atleast_1d(times)
        return State(truth.expand(len(times), *truth.shape), variables, times)

    def has(times):
        return np.asarray(times) < START + np.timedelta64(365, "D")

    return SimpleNamespace(world=world, states=states, has=has)


def forecast(world, truth, constraints, steps: int) -> torch.Tensor:
    """Errors of x -> x + (truth - x) / 10 + ERROR, changed by constraints, (step, channel, lat, lon)."""
    state, errors = State(truth[None], world.prognostic, np.array([START])), []
    for _ in range(steps):
        moved = state.values + 0.1 * (truth - state.values) + ERROR
        before, state = state, State(moved, world.prognostic, world.after(state.time, 1))
        for constraint in constraints:
            state = constraint(before, state, before)
        errors.append(state.values[0] - truth)
    return torch.stack(errors)


def write(folder, world, states: torch.Tensor, settings) -> None:
    """Write a forecast from START, (step, channel, lat, lon), and its manifest."""
    dims, fields = ("time", "prediction_timedelta", "level", "latitude", "longitude"), {}
    for variable in world.prognostic:
        values = states[None, :, world.prognostic.slice(variable.name)].numpy()
        fields[variable.name] = (dims, values) if variable.levels else (dims[:2] + dims[3:], values[:, :, 0])
    levels = [list(v.levels) for v in world.prognostic if v.levels]
    leads = (np.arange(1, len(states) + 1) * world.timestep).astype("timedelta64[ns]")
    coordinates = {
        "time": [START], "prediction_timedelta": leads, "latitude": world.grid.latitude,
        "longitude": world.grid.longitude, **({"level": levels[0]} if levels else {}),
    }  # fmt: skip
    xr.Dataset(fields, coordinates).to_zarr(folder / "forecast.zarr", consolidated=False)
    write_manifest(folder, {"format": FORMAT, "verdict": "verified", "finished": True, "settings": settings})


def test_increments_of_a_relaxing_system_have_their_closed_form(small_world, tmp_path):
    """Half of the way in each step leaves G = -r b / (1 - 0.9 (1 - r)); the free error falls to 1 + G / b of before."""
    world = small_world()
    truth = torch.randn(world.prognostic.size, *world.grid.shape, generator=torch.Generator().manual_seed(0))
    archive, valid = archive_of(world, truth), world.after(np.array([START]), 1)
    relaxation = f"{int(world.timestep / np.timedelta64(1, 'h')) * 2}h"
    folders, left = [None, tmp_path / "first", tmp_path / "second"], ERROR
    for before, folder in pairwise(folders):
        folder.mkdir()
        emulator = SimpleNamespace(constraints={})
        settings = adjust(emulator, archive, valid, relaxation, str(before) if before else None)
        assert settings["nudging"] == relaxation
        write(folder, world, truth + forecast(world, truth, emulator.constraints.values(), 300), settings)
        left *= 1.0 - 0.5 / (1.0 - 0.9 * 0.5)
        increments = mean_increments(folder, archive)
        torch.testing.assert_close(increments, torch.full_like(increments, left - ERROR), rtol=1e-3, atol=1e-3)
        emulator = SimpleNamespace(constraints={})
        assert {*adjust(emulator, archive, valid, None, str(folder))} == {"increments"}
        free = forecast(world, truth, emulator.constraints.values(), 300)[-1]
        torch.testing.assert_close(free, torch.full_like(free, 10.0 * left), rtol=1e-3, atol=1e-2)
    write_manifest(
        folders[1], {"format": FORMAT, "verdict": "verified", "finished": True, "settings": {"nudging": "1d"}}
    )
    with pytest.raises(ValueError, match="others now"):
        mean_increments(folders[2], archive)
    none = forecast(world, truth, [], 300)[-1]
    torch.testing.assert_close(none, torch.full_like(none, 10.0 * ERROR), rtol=1e-3, atol=1e-3)


def test_what_cannot_be_nudged_is_refused(small_world, tmp_path):
    world = small_world()
    archive = archive_of(world, torch.zeros(world.prognostic.size, *world.grid.shape))
    valid = world.after(np.array([START]), 1)
    with pytest.raises(ValueError, match="shorten lead"):
        adjust(None, archive, valid + np.timedelta64(400, "D"), "5d", None)
    with pytest.raises(ValueError, match="above the timestep"):
        adjust(None, archive, valid, "1h", None)
    write_manifest(tmp_path, {"format": FORMAT, "verdict": "verified", "finished": True, "settings": {}})
    with pytest.raises(ValueError, match="nudging=5d"):
        adjust(None, archive, valid, None, str(tmp_path))
    relaxation = f"{int(world.timestep / np.timedelta64(1, 'h')) * 2}h"
    manifest = {"format": FORMAT, "verdict": "verified", "finished": True, "settings": {"nudging": relaxation}}
    write(tmp_path, world, torch.zeros(12, world.prognostic.size, *world.grid.shape), manifest["settings"])
    with xr.open_zarr(tmp_path / "forecast.zarr", decode_timedelta=True) as made:
        sparse = made.load().isel(prediction_timedelta=slice(None, None, 2))
    sparse.to_zarr(tmp_path / "forecast.zarr", mode="w", consolidated=False)
    with pytest.raises(ValueError, match="every timestep"):
        mean_increments(tmp_path, archive)
    write_manifest(tmp_path, manifest | {"finished": False})
    with pytest.raises(ValueError, match="finished"):
        mean_increments(tmp_path, archive)
