"""Saturation and condensation keep what they promise."""

import pytest
import torch

from emulators.constants import HEAT_CAPACITY_DRY, LATENT_HEAT_VAPORISATION
from emulators.physics.moisture import condensation, saturation_humidity


def test_saturation_is_the_textbooks():
    temperature = torch.tensor([273.16, 293.15, 253.15], dtype=torch.float64)
    vapour = saturation_humidity(temperature, torch.tensor(1e5, dtype=torch.float64)) * 1e5 / 0.622
    torch.testing.assert_close(vapour, torch.tensor([610.8, 2339.0, 125.4], dtype=torch.float64), rtol=0.03, atol=0.0)


def test_condensation_leaves_air_just_saturated_and_dry_air_alone():
    pressure = torch.tensor([9e4, 9e4], dtype=torch.float64)
    temperature = torch.tensor([285.0, 285.0], dtype=torch.float64)
    humidity = saturation_humidity(temperature, pressure) * torch.tensor([1.05, 0.9], dtype=torch.float64)
    rain = condensation(temperature, humidity, pressure)
    assert rain[1] == 0.0
    after = saturation_humidity(temperature + LATENT_HEAT_VAPORISATION / HEAT_CAPACITY_DRY * rain, pressure)
    assert (humidity - rain)[0] == pytest.approx(float(after[0]), rel=2e-3)
