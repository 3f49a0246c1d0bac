"""Computed forcings and statics."""

import numpy as np
import pytest

from data_pipelines.derived import forcings
from emulators.grid import gaussian_grid

GRID = gaussian_grid(8)


def test_clock_of_the_year():
    times = np.array(["2001-01-01", "2001-07-02T12", "2004-01-01", "2004-07-02"], "datetime64[s]")
    sin, cos = np.moveaxis(forcings.moving(["sin_year", "cos_year"], times, GRID), 1, 0)
    np.testing.assert_allclose(sin[:, 0, 0], [0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(cos[:, 0, 0], [1, -1, 1, -1], atol=1e-6)
    assert np.ptp(sin, axis=(1, 2)).max() == 0.0


def test_clock_of_the_day_is_solar():
    times = np.array(["2001-03-05T00", "2001-03-05T06"], "datetime64[s]")
    cos = forcings.moving(["cos_day"], times, GRID)[:, 0]
    np.testing.assert_allclose(cos[0, 0, [0, 4, 8, 12]], [1, 0, -1, 0], atol=1e-6)  # noon at 180 degrees east
    np.testing.assert_allclose(cos[1, 0, [0, 4, 8, 12]], [0, -1, 0, 1], atol=1e-6)


def test_insolation_has_the_annual_mean_of_a_quarter_of_the_solar_constant():
    times = np.datetime64("2001-01-01", "s") + np.arange(0, 365 * 24, 37) * np.timedelta64(1, "h")
    field = forcings.moving([forcings.INSOLATION], times, GRID)[:, 0]
    assert field.min() >= 0.0
    assert (field * GRID.weights).mean() == pytest.approx(1361 / 4, rel=0.01)


def test_statics_are_a_unit_vector():
    parts = [forcings.fixed(name, GRID) for name in forcings.FIXED]
    np.testing.assert_allclose(sum(part**2 for part in parts), 1.0, rtol=1e-6)
    np.testing.assert_allclose(
        forcings.fixed("cos_latitude_cos_longitude", GRID)[:, 0], np.cos(np.deg2rad(GRID.latitude))
    )


@pytest.mark.parametrize("name", ["sin_year", "cos_year", "sin_day", "cos_day"])
def test_closed_form_scales(name):
    times = np.datetime64("2001-01-01", "s") + np.arange(0, 365 * 24, 5) * np.timedelta64(1, "h")
    field = forcings.moving([name], times, GRID)
    mean, std = forcings.CLOSED_FORM[name]
    assert field.mean() == pytest.approx(mean, abs=2e-3)
    assert field.std() == pytest.approx(std, abs=2e-3)


def test_mean_light_is_that_of_the_hours_in_its_name():
    days = np.datetime64("2001-01-02", "s") + np.arange(0, 365, 9) * np.timedelta64(1, "D")
    names = [*forcings.MEAN_INSOLATION, forcings.INSOLATION]
    quarters = np.stack([forcings.moving(names, days + np.timedelta64(6 * n, "h"), GRID) for n in range(4)])
    day = forcings.moving(["mean_toa_incident_solar_radiation_24hr"], days + np.timedelta64(18, "h"), GRID)[:, 0]
    six = quarters[:, :, names.index("mean_toa_incident_solar_radiation_6hr")]
    np.testing.assert_allclose(six.mean(axis=0), day, atol=4.0)
    one = quarters[:, :, names.index("mean_toa_incident_solar_radiation_1hr")]
    assert 0 < np.abs(one - quarters[:, :, -1]).max() < 180.0  # half an hour
    assert forcings.variable("mean_toa_incident_solar_radiation_6hr").units == "W m-2"


def test_carbon_dioxide_is_that_of_the_year():
    times = np.array(["1905-07-02", "1958-01-01", "2000-07-01T12", "2001-01-01"], "datetime64[s]")
    field = forcings.moving(["carbon_dioxide"], times, GRID)[:, 0]
    assert np.ptp(field, axis=(1, 2)).max() == 0.0
    np.testing.assert_allclose(field[:, 0, 0], [298.0, 315.5, 369.71, 370.5], atol=0.3)
    for beyond in ("1849-12-31", "2025-01-01"):
        with pytest.raises(ValueError, match=f"1850 to 2024; got {beyond}"):
            forcings.moving(["carbon_dioxide"], np.array([beyond], "datetime64[s]"), GRID)
