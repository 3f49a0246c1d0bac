"""`emul project` as a user runs it: scores, maps, tables of members and pairs, picture, refusals."""

import csv

import numpy as np
import pytest
import xarray as xr

from emul.main import main

SMALL = ["draws=40"]
WORLD = ["scenarios.rows=8", "scenarios.members=8"]


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_scenarios_are_projected_and_scored(tmp_path):
    words = ["project", *SMALL, *WORLD, f"output={tmp_path}", "fields=[tas]"]
    assert main(words) == 0
    folder = tmp_path / "project" / "energy_balance"
    scores = {row["emulator"]: row for row in rows(folder / "scores.csv")}
    assert set(scores) == {"pattern_scaling", "ridge"}
    for row in scores.values():
        assert float(row["total"]) == pytest.approx(float(row["NRMSE_s"]) + 5 * float(row["NRMSE_g"]))
    members = [row for row in rows(folder / "members.csv") if row["emulator"] == "ridge"]
    assert [int(row["members"]) for row in members] == [1, 2, 3, 4, 8]
    assert all(float(row["low"]) <= float(row["median"]) <= float(row["high"]) for row in members[:-1])
    assert float(members[-1]["median"]) == pytest.approx(float(scores["ridge"]["total"]))
    (pair,) = rows(folder / "pairs.csv")
    assert float(scores[pair["better"]]["total"]) <= float(scores[pair["worse"]]["total"])
    with xr.open_dataset(folder / "projections_ssp245.nc") as maps:
        assert maps["tas"].dims == ("emulator", "year", "latitude", "longitude")
        late = maps.sel(year=slice(2080, 2100)).mean("year")
        weights = np.cos(np.deg2rad(maps["latitude"]))
        error = (late["tas"].sel(emulator="ridge") - late["tas_simulated"]) ** 2
        globe = late["tas_simulated"].weighted(weights).mean()
        spatial = np.sqrt(error.weighted(weights).mean()) / np.abs(globe)
        assert float(spatial) == pytest.approx(float(scores["ridge"]["NRMSE_s"]), rel=1e-4)
    assert (folder / "members.png").stat().st_size > 10_000
    before = (folder / "scores.csv").read_text()
    assert main([*words, "pictures=false"]) == 0
    assert (folder / "scores.csv").read_text() == before


def test_networks_are_projections_too(tmp_path):
    words = ["'projection=[unet,cnn_lstm]'".strip("'"), "projection.unet.steps=3", "projection.cnn_lstm.steps=3"]
    assert main(["project", *SMALL, *WORLD, *words, f"output={tmp_path}", "name=nets", "pictures=false"]) == 0
    assert {row["emulator"] for row in rows(tmp_path / "project" / "nets" / "scores.csv")} == {"unet", "cnn_lstm"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([*WORLD, "fields=[snow]"], "have no snow; they have tas, pr"),
        (["scenarios=climatebench"], "scenarios.path"),
        (["scenarios=climatebench", "scenarios.path=nowhere"], "inputs_historical.nc"),
        ([*WORLD, "projection=[ridge]", "projection.ridge.penalty=-1"], "should not be negative"),
        ([*WORLD, "scenarios.test=[ssp999]"], "ssp999"),
        ([*WORLD, "projection=[]"], "at least one projection"),
    ],
)
def test_faults_are_said(words, said, tmp_path, capsys):
    assert main(["project", *SMALL, *words, f"output={tmp_path}"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "project").exists()
