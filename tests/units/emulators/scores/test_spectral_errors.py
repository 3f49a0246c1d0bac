"""Divergence and residual of spectra, and the numbers of ChaosBench."""

import json

import pytest
import torch

from data_pipelines.opening.datasets import open_dataset
from data_pipelines.opening.forecasts import open_forecast
from data_pipelines.verification.pairs import Pairs
from emulators.scores.spectral_errors import image_power, spectral_divergence, spectral_residual
from places import SHARED

FOLDER = SHARED / "reference" / "verification"


def test_by_hand():
    truth = torch.tensor([9.0, 1.0, 3.0], dtype=torch.float64)
    forecast = torch.tensor([0.0, 2.0, 2.0], dtype=torch.float64)
    found = spectral_divergence(forecast, truth, first=0.5)  # shares 1/4, 3/4 and 1/2, 1/2
    assert found.item() == pytest.approx(0.25 * torch.tensor(0.5).log() + 0.75 * torch.tensor(1.5).log())
    assert spectral_residual(forecast, truth, first=0.5).item() == pytest.approx(0.25)


def test_only_the_shape_counts():
    power = torch.rand(20, 3, generator=torch.Generator().manual_seed(0))
    for distance in (spectral_divergence, spectral_residual):
        torch.testing.assert_close(distance(5 * power, power), torch.zeros(3), atol=1e-7, rtol=0)
        assert (distance(power.flip(0), power) > 0).all()


def test_a_wave_lies_at_its_wavenumber():
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(24.0), indexing="ij")
    wave = torch.cos(2 * torch.pi * (3 * rows / 12 + 4 * columns / 24))
    power = image_power(wave)
    assert power.argmax() == 4  # the fifth bin, since 3, 4 and 5 make a triangle
    assert power[[3, 5]].max() < 1e-6 * power.max()


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the reference numbers are not beside this checkout")
def test_numbers_of_chaosbench():
    want = json.loads((FOLDER / "expected_others_A.json").read_text())["chaosbench_240x121"]
    pairs = Pairs(open_forecast(FOLDER / "forecast_240x121.nc"), open_dataset(FOLDER / "obs_240x121.nc"))
    for pair in pairs:
        means = [state.values.double().mean(0) for state in (pair.prediction, pair.target)]
        for name, key in (("2m_temperature", "2m_temperature"), ("geopotential", "geopotential@500")):
            place = pairs.variables.slice(name).start
            fields = [mean[place] for mean in means]
            powers = [image_power(field) for field in fields]
            whole = [torch.fft.fft2(field).abs().square().flatten() for field in fields]  # as their loss takes it
            for kind, spectra, first in (("val", powers, 0.9), ("train", whole, 0.0)):
                divergence, residual = (f(*spectra, first) for f in (spectral_divergence, spectral_residual))
                assert divergence.item() == pytest.approx(want[f"specdiv_{kind}"][key][pair.lead], rel=1e-8)
                assert residual.item() == pytest.approx(want[f"specres_{kind}"][key][pair.lead], rel=1e-8)
