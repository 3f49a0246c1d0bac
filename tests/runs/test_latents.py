"""An autoencoder and the diffusion on its latent fields: trained, forecast and scored on a coarse planet."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
import xarray as xr

from data_pipelines.files import checkpoints
from emul.config.compose import compose
from emul.eval import evaluate
from emul.forecast import forecast
from emul.train import train

SMALL = ["data=planet_tiny", "training.batch_size=2", "training.validation_cases=2", "training.log_every=5"]
LOSSLESS = ["model.latents=8", "model.channels=[16,16]", "model.blocks=[1,1]", "model.kinds=[residual,residual]"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("latents")


@pytest.fixture(scope="module")
def autoencoder(folder):
    words = ["experiment=planet_autoencoder", *LOSSLESS, "training.steps=40", "training.validate_every=40"]
    return train(compose("train", [*words, *SMALL, f"output={folder}"]))


def losses(run) -> list[float]:
    with (run / "metrics.csv").open() as file:
        return [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]


def scores(folder, run, metric: str, *words: str) -> xr.Dataset:
    given = [f"run={run}", f"output={folder}"]
    forecast(compose("forecast", [*given, "every=5d", *words]))
    evaluate(compose("eval", [*given, f"metric=[{metric}]", "pictures=false"]))
    with xr.open_dataset(folder / "eval" / run.name / "scores.nc") as stored:
        return stored.sel(metric=metric, region="global").load()


@pytest.mark.slow
def test_reconstructions_are_scored(folder, autoencoder):
    """The score is that of the reconstruction: nearly the same at both leads."""
    assert losses(autoencoder)[-1] < 0.7 * losses(autoencoder)[0]
    rmse = scores(folder, autoencoder, "rmse", "lead=12h")["temperature"]
    assert np.isfinite(rmse).all()
    np.testing.assert_allclose(rmse.isel(lead_time=0), rmse.isel(lead_time=1), rtol=0.1)


@pytest.mark.slow
def test_decoders_are_trained_further_alone(folder, autoencoder):
    words = ["experiment=planet_autoencoder", *LOSSLESS, *SMALL, "name=decoder", "training.steps=2", f"output={folder}"]
    run = train(compose("train", [*words, f"from_checkpoint={autoencoder}", "tuning.trainable=[network.decoder]"]))
    before, after = (
        checkpoints.load(path / "checkpoints" / "last.ckpt")["emul"]["weights"] for path in (autoencoder, run)
    )
    changed = {name.split(".")[1] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}


@pytest.mark.slow
def test_latent_diffusion(folder, autoencoder):
    """Losses fall, and members are finite and differ; the run needs the autoencoder's no longer."""
    words = [
        "experiment=planet_ladcast", f"parts.autoencoder={autoencoder}", "step.latents=8", "step.reduction=2",
        "step.frames=2", "objective.frames=2", "model.frames=2", "history=2", "sampler.levels=3", "model.heads=2",
        "training.steps=40", "training.validate_every=40", "training.validation_lead=2",
    ]  # fmt: skip
    run = train(compose("train", [*words, *SMALL, f"output={folder}"]))
    fall = losses(run)
    assert np.mean(fall[-3:]) < 0.9 * np.mean(fall[:3])
    moved = autoencoder.rename(autoencoder.with_name("elsewhere"))
    try:
        spread = scores(folder, run, "spread", "members=2", "lead=1d")["temperature"]
    finally:
        moved.rename(autoencoder)
    assert np.isfinite(spread).all()
    assert (spread > 0).all()
