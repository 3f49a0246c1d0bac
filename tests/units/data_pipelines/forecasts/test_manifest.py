"""Manifests, part files and checks: nothing unfinished, broken or changed passes for a good forecast."""

import json

import numpy as np
import pytest
import torch

from data_pipelines.files.atomic import BatchRecords, sha256
from data_pipelines.forecasts.manifest import (
    Checks,
    budget_drifts,
    describe,
    gather,
    open_manifest,
    read_manifest,
    verdict,
    verify_checksums,
    write_checksums,
    write_manifest,
)
from emulators.grid import gaussian_grid
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.world import Vertical, World

SETTINGS = {"inits": ["2003-01-01"], "steps": 4, "weights": "abc"}


def world():
    predicted = VariableSet((Variable("specific_humidity", "kg kg-1", (1, 2)), Variable("surface_pressure", "Pa")))
    return World(
        gaussian_grid(4), predicted, np.timedelta64(21_600, "s"), vertical=Vertical("sigma", (0, 0, 0), (0, 0.5, 1))
    )


def state(humidity=0.01, pressure=1e5, batch=2):
    values = torch.full((batch, 3, 4, 8), humidity)
    values[:, 2] = pressure
    return State(values, world().predicted, np.full(batch, np.datetime64("2003-01-01")))


def checked(states, more=None):
    checks = Checks(world(), more)
    good = [checks.add(lead, s) for lead, s in enumerate(states)]
    return checks.arrays(), good


def test_from_the_first_moment_the_manifest_says_unfinished(tmp_path):
    made = open_manifest(tmp_path / "f", SETTINGS, {"config": "lead: 1d"})
    found = read_manifest(tmp_path / "f")
    assert found == made
    assert (found["verdict"], found["finished"]) == ("failed", False)
    assert "unfinished" in found["reasons"][0]
    assert {"revision", "versions", "config", "created"} <= set(found)
    assert verify_checksums(tmp_path / "f") == [f"{tmp_path / 'f'} is not finished: {found['reasons'][0]}"]


def test_other_settings_are_refused_by_name(tmp_path):
    open_manifest(tmp_path, SETTINGS, {})
    assert open_manifest(tmp_path, SETTINGS, {})["settings"] == SETTINGS
    with pytest.raises(ValueError, match=r"other settings \(steps was 4, is 8; weights was abc, is x\)"):
        open_manifest(tmp_path, SETTINGS | {"steps": 8, "weights": "x"}, {})


def test_a_forecast_without_manifest_is_not_taken_over(tmp_path):
    (tmp_path / "forecast.zarr").mkdir()
    with pytest.raises(ValueError, match=r"without manifest\.json"):
        open_manifest(tmp_path, SETTINGS, {})


def test_manifests_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No manifest\.json"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 1, "verd')
    with pytest.raises(ValueError, match="cannot be read"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="something else"):
        read_manifest(tmp_path)


def test_checksums_find_what_was_changed_missing_or_added(tmp_path):
    store = tmp_path / "forecast.zarr"
    store.mkdir()
    names = {f"forecast.zarr/{name}": content for name, content in (("a", b"one"), ("b", b"two"))}
    for name, content in names.items():
        (tmp_path / name).write_bytes(content)
    manifest = open_manifest(tmp_path / "m", SETTINGS, {})
    sums = write_checksums(tmp_path, {name: sha256(tmp_path / name) for name in names})
    write_manifest(tmp_path, manifest | {"checksums": sums})
    assert verify_checksums(tmp_path) == []
    (store / "a").write_bytes(b"on")
    (store / "b").unlink()
    (store / "c").write_bytes(b"three")
    faults = verify_checksums(tmp_path)
    assert len(faults) == 3
    assert "forecast.zarr/a was changed or truncated" in faults[0]
    assert "forecast.zarr/b is missing" in faults[1]
    assert "forecast.zarr/c was added" in faults[2]
    (tmp_path / "checksums.sha256").write_text("")
    assert "was changed" in verify_checksums(tmp_path)[0]


@pytest.mark.parametrize(
    ("faults", "pairs", "expected"), [([], 4, "verified"), ([], 3, "unverified"), (["q: NaN"], 4, "failed")]
)
def test_verdicts(faults, pairs, expected):
    judged, reasons = verdict(faults, pairs, 4)
    assert judged == expected
    assert bool(reasons) == (expected != "verified")


def test_good_fields_pass():
    arrays, good = checked([state(), state(0.02)])
    variables, faults = describe(gather([arrays]), world())
    assert (good, faults) == ([True, True], [])
    humidity = variables["specific_humidity"]
    assert (humidity["minimum"], humidity["maximum"]) == (pytest.approx(0.01), pytest.approx(0.02))
    assert (humidity["nan_share"], humidity["units"], humidity["bounds"]) == (0.0, "kg kg-1", [-2e-3, 6e-2])


def test_values_beyond_their_range_are_told_with_lead_and_extreme():
    arrays, good = checked([state(), state(0.5), state(0.9)])
    _, faults = describe(gather([arrays]), world())
    assert good == [True, False, False]
    assert faults == [
        "specific_humidity: reaches 0.9 kg kg-1, beyond the physical range -0.002 .. 0.06, first at lead 12h"
    ]
    arrays, _ = checked([state()], {"surface_pressure": (1.1e5, 1.2e5)})
    _, faults = describe(gather([arrays]), world(), {"surface_pressure": (1.1e5, 1.2e5)})
    assert len(faults) == 1
    assert faults[0].startswith("surface_pressure: reaches 1e+05 Pa, beyond the physical range 110000 .. 120000")


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_counted(broken):
    bad = state()
    bad.values[1, 0, 2, 3] = broken
    arrays, good = checked([state(), bad])
    variables, faults = describe(gather([arrays]), world())
    assert good == [True, False]
    assert variables["specific_humidity"]["nan_share"] == 1 / (2 * 2 * 2 * 32)
    assert variables["specific_humidity"]["maximum"] == pytest.approx(0.01)
    assert len(faults) == 1
    assert "NaN or infinite, first at lead 12h" in faults[0]
    json.dumps(variables, allow_nan=False)


def test_fields_without_a_single_number_are_told():
    arrays, _ = checked([state(float("nan"), float("nan"))])
    variables, faults = describe(gather([arrays]), world())
    assert variables["surface_pressure"] == {
        "units": "Pa", "minimum": None, "maximum": None, "bounds": [3e4, 1.15e5], "nan_share": 1.0,
    }  # fmt: skip
    assert len(faults) == 2


def test_batches_add_up_to_the_whole():
    states = [state(0.01), state(0.03), state(0.5)]
    first = [State(s.values[:1], s.variables, s.time[:1]) for s in states]
    second = [State(s.values[1:], s.variables, s.time[1:]) for s in states]
    whole, _ = checked(states)
    parts, _ = zip(checked(first), checked(second), strict=True)
    merged = gather(parts)
    assert set(merged) == set(whole)
    for name, value in gather([whole]).items():
        assert np.array_equal(merged[name], value), name


def test_budgets_tell_drift_in_dry_air_and_water():
    arrays, _ = checked([state(0.01, 1e5), state(0.01, 1.01e5)])
    found = budget_drifts(gather([arrays]), world())
    assert found["days"] == 0.25
    assert found["column_water"]["first"] == pytest.approx(0.01 * 1e5 / 9.80665, rel=1e-6)
    assert found["dry_air"]["largest_relative_drift"] == pytest.approx(0.01, rel=1e-6)
    assert found["dry_air"]["mean_drift"] == pytest.approx(0.99 * 1e3 / 9.80665, rel=1e-5)
    assert budget_drifts({}, world()) is None


def test_a_part_counts_only_while_it_and_its_files_are_whole(tmp_path):
    (tmp_path / "chunk").write_bytes(b"content")
    parts = BatchRecords(tmp_path)
    assert parts.read(0) is None
    parts.write(0, {"sum": np.arange(3.0)}, {"chunk": sha256(tmp_path / "chunk")})
    arrays, checksums = parts.read(0)
    assert (arrays["sum"] == np.arange(3.0)).all()
    assert list(checksums) == ["chunk"]
    (tmp_path / "chunk").write_bytes(b"conten")
    assert parts.read(0) is None
    (tmp_path / "chunk").write_bytes(b"content")
    whole = next(parts.folder.glob("*.npz")).read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        next(parts.folder.glob("*.npz")).write_bytes(whole[:length])
        assert parts.read(0) is None
    next(parts.folder.glob("*.npz")).write_bytes(whole)
    (tmp_path / "chunk").unlink()
    assert parts.read(0) is None
