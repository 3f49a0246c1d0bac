"""Saturation, condensation and the filling of humidity keep what they promise."""

import pytest
import torch

from emulators.constants import HEAT_CAPACITY_DRY, LATENT_HEAT_VAPORISATION
from emulators.physics.moisture import condensation, filled_humidity, saturation_humidity


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


def test_filled_columns_keep_their_water_and_have_no_negative_value():
    generator = torch.Generator().manual_seed(0)
    thickness = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    humidity = torch.rand(50, 4, generator=generator, dtype=torch.float64) - 0.2
    humidity[0] = torch.tensor([-0.1, 0.0, 0.05, -0.2])  # owns less than nothing
    filled = filled_humidity(humidity, thickness)
    torch.testing.assert_close(filled @ thickness, humidity @ thickness, rtol=1e-12, atol=1e-15)
    owns = humidity @ thickness >= 0.0
    assert owns.sum() > 40
    assert (filled[owns] >= 0.0).all()
    torch.testing.assert_close(filled_humidity(filled, thickness), filled, rtol=1e-12, atol=1e-15)
    untouched = (humidity >= 0.0).all(dim=-1)
    assert untouched.any()
    assert torch.equal(filled[untouched], humidity[untouched])
