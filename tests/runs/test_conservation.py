"""Does it conserve, as a user asks it: the tiny planet with its laws and without, from training to report."""

import csv
import json

import numpy as np
import pytest
import xarray as xr

from emul.main import main

TINY = [
    "data=planet_tiny", "variables=planet_budgets", "model.embed=8", "model.layers=1", "hardware=debug",
    "training.steps=2", "training.validate_every=2", "forecast.lead=18h", "forecast.every=4d",
]  # fmt: skip
LAWS = "constraint=[positivity,dry_air_mass,moisture_budget,total_energy]"


def budgets(folder):
    with xr.open_dataset(folder / "budgets.nc", decode_timedelta=True) as stored:
        return stored.load()


@pytest.mark.slow
def test_the_laws_from_training_to_report(tmp_path):
    forecasts, common = tmp_path / "forecast", [*TINY, f"output={tmp_path}"]
    for name, more in (("free", []), ("held", [LAWS, "forecast.correction_maps=true", "forecast.batch_size=2"])):
        assert main(["train", *common, *more, f"name={name}"]) == 0
        main(["forecast", f"run={tmp_path}/train/{name}", f"output={tmp_path}"])
    beside = f"beside={{unconstrained: {forecasts}/free}}"
    assert main(["eval", f"run={tmp_path}/train/held", f"output={tmp_path}", "maps.fields=[]", beside]) == 0

    free, held = budgets(forecasts / "free"), budgets(forecasts / "held")
    bars = {"dry_air_drift": 5e-9, "moisture_residual_relative": 1e-6, "energy_residual": 1e-3}
    for name, bar in bars.items():
        made = {source: np.abs(held[name].sel(source=source)).max() for source in ("forecast", "truth")}
        assert made["forecast"] < bar
        assert made["truth"] < 100.0 * bar
        assert np.abs(free[name].sel(source="forecast")).max() > 100.0 * bar
    assert held.sizes["time"] == 3, "two batches, one after another"
    assert (held["share_changed"].sel(correction="total_energy: temperature") > 0.0).all()

    manifest = json.loads((forecasts / "held" / "manifest.json").read_text())
    largest = manifest["conservation"]["moisture_residual"]["largest"]
    assert largest == np.abs(held["moisture_residual"].sel(source="forecast")).max()
    assert "budgets.nc" in (forecasts / "held" / "checksums.sha256").read_text()

    rows = list(csv.DictReader(open(tmp_path / "train" / "held" / "metrics.csv")))
    logged = [row for row in rows if row.get("score")][-1]
    assert float(logged["dry_air_drift"]) < 5e-9
    assert float(logged["energy_residual"]) < 1e-3
    assert float(logged["moisture_residual"]) < 1e-6

    report = (tmp_path / "eval" / "held" / "report.html").read_text()
    assert "Does it conserve?" in report
    assert '<polyline class="line-unconstrained"' in report
    drawn = {path.name for path in (tmp_path / "eval" / "held" / "maps").iterdir()}
    assert "total_precipitation_6hr_correction_moisture_budget_errors.png" in drawn
    assert "surface_pressure_correction_dry_air_mass_errors.png" not in drawn, "the same everywhere makes no map"


@pytest.mark.parametrize(
    ("chosen", "said"),
    [("{truth: x}", "none of forecast, truth"), ("{other: nowhere}", "no budgets.nc in nowhere")],
)
def test_what_cannot_stand_beside_is_said(tmp_path, capsys, chosen, said):
    assert main(["eval", "forecast=nowhere.zarr", "truth=nowhere.nc", f"output={tmp_path}", f"beside={chosen}"]) != 0
    text = " ".join(capsys.readouterr().err.split()) + " ".join(capsys.readouterr().out.split())
    assert said in text
