"""Light of six hours as the climate model CM4 prescribes it to ACE (Watt-Meyer et al. 2023, arXiv 2310.02074)."""

import numpy as np
import pytest
import torch

from emulators.physics.insolation import Orbit, mean_insolation
from places import SHARED

PATH = SHARED / "reference" / "ace" / "solar-constant-as-value.pt"
ECCENTRICITY, OBLIQUITY, PERIHELION, YEAR = 0.0167, 23.439, 102.932, 365.25
EQUINOX = np.datetime64("1999-09-23T11:37:00")  # one year after that of 1998, from which the model counts


def clockwork() -> Orbit:
    """The orbit of that model: angles from the equinox of autumn, each year anew, slower by sqrt(1 - e^2)."""
    true = np.deg2rad(-PERIHELION)
    eccentric = 2.0 * np.arctan(np.sqrt((1.0 - ECCENTRICITY) / (1.0 + ECCENTRICITY)) * np.tan(true / 2.0))
    at_equinox = np.rad2deg(eccentric - ECCENTRICITY * np.sin(eccentric))
    motion = 360.0 / YEAR * np.sqrt(1.0 - ECCENTRICITY**2)
    days = float((np.datetime64("2000-01-01T12:00:00") - EQUINOX) / np.timedelta64(1, "D"))
    return Orbit(ECCENTRICITY, OBLIQUITY, PERIHELION + 180.0, 0.0, at_equinox + motion * days, motion)


@pytest.mark.skipif(not PATH.is_file(), reason="the reference tensors of ACE are not beside this checkout")
def test_six_hours_of_light() -> None:
    expected = torch.load(PATH, weights_only=True).double().numpy()
    found = mean_insolation(
        np.array(["2000-01-01T00", "2000-01-01T06"], "datetime64[s]"),
        np.timedelta64(6, "h"),
        np.linspace(-90.0, 90.0, 8),
        np.arange(16) * 22.5,
        orbit=clockwork(),
        solar_constant=1360.0,
        sundial=False,
    )
    for member in expected:
        np.testing.assert_allclose(found, member, rtol=1e-4, atol=1e-3)
