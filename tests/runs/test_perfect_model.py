"""The ensemble of a simulated truth beside that of two trained seeds, by the commands of a user."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from emul.main import main


@pytest.mark.slow
def test_a_perfect_model_is_scored_beside_an_ensemble_of_two_seeds(tmp_path, monkeypatch):
    """The truth's own ensemble is reliable and beats every emulator; two seeds make the members of one forecast."""
    monkeypatch.chdir(tmp_path)
    split = "{train: [2001-01-01,2001-02-15], validation: [2001-02-16,2001-02-25], test: [2001-02-26,2001-04-05]}"
    small = ["data.folder=cache", "data.days=100", "data.trajectories=1", "data.spinup_days=5", f"data.splits={split}"]
    main(["data", "ensemble", "data=lorenz96", *small, "members=8", "between=1d", "lead=1d", "amplitude=0.05"])
    words = ["experiment=lorenz96_unet", *small, "training.steps=60", "training.validate_every=60"]
    for seed in (0, 1):
        main(["train", *words, f"seed={seed}", f"name=seed_{seed}"])
    seeds = "run=[outputs/train/seed_0,outputs/train/seed_1]"
    main(["forecast", seeds, "every=1d", "lead=1d"])
    with xr.open_zarr("outputs/forecast/seed_0_2_seeds/forecast.zarr") as both:
        last = both.isel(prediction_timedelta=-1)
        field = next(iter(last.data_vars.values()))
        assert field.sizes["number"] == 2
        assert (field.std("number") > 0).all()
    starts = ["perturbation=perfect_model", "data@perturbation.source=lorenz96", "members=8"]
    starts += [f"perturbation.source.{word.removeprefix('data.')}" for word in small]
    main(["forecast", seeds, *starts, "member_batch=3", "every=1d", "lead=1d", "name=from_analyses"])
    for name in ("from_analyses", "seed_0_2_seeds"):
        scored = ["baselines=[perfect_model]", "metric=[crps_fair,spread_skill]", "pictures=false", f"name={name}"]
        main(["eval", "run=outputs/train/seed_0", f"forecast=outputs/forecast/{name}", *scored])
    folder = "outputs/eval/from_analyses/"
    with xr.open_dataset(folder + "scores.nc") as ours, xr.open_dataset(folder + "baselines.nc") as beside:
        perfect, name = beside.sel(source="perfect_model", region="global"), next(iter(ours.data_vars))
        crps = [d[name].sel(metric="crps_fair") for d in (ours.sel(region="global"), perfect)]
        assert float(crps[0].isel(lead_time=0) / crps[1].isel(lead_time=0)) < 1.2  # they start alike
        assert float(crps[0].isel(lead_time=-1) / crps[1].isel(lead_time=-1)) > 1.1
        assert np.abs(np.log(perfect[name].sel(metric="spread_skill"))).max() < np.log(1.25)
