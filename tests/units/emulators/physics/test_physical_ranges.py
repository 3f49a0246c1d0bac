"""Physical ranges: real weather lies within them, broken forecasts do not."""

import pytest

from emulators.physics.physical_ranges import BOUNDS, BY_UNITS, canonical_units, plausible_range


def test_every_range_is_in_order_and_in_si_units():
    for low, high, units in BOUNDS.values():
        assert low < high
        assert canonical_units(units) == units
    assert all(low < high for low, high in BY_UNITS.values())


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [  # records that were observed
        ("2m_temperature", 184.0, 329.9),
        ("mean_sea_level_pressure", 87_000.0, 108_380.0),
        ("10m_wind_speed", 0.0, 113.2),
        ("total_precipitation_24hr", 0.0, 1.825),
        ("total_precipitation_12hr", 0.0, 1.144),
    ],
)
def test_records_lie_within(name, low, high):
    lowest, highest = plausible_range(name)
    assert lowest < low < high < highest


@pytest.mark.parametrize(
    ("spelling", "plain"),
    [("m**2 s**-2", "m2 s-2"), ("m^2/s^2", "m2 s-2"), ("kg/kg", "kg kg-1"), ("", "1"), ("W/m2", "W m-2")],
)
def test_one_unit_has_many_spellings(spelling, plain):
    assert canonical_units(spelling) == plain


def test_bounds_hold_for_their_units_only():
    assert plausible_range("geopotential", "m**2 s**-2") == plausible_range("geopotential")
    assert plausible_range("2m_temperature", "degC") is None
    assert plausible_range("total_precipitation_6hr", "kg m-2") is None


def test_unknown_names_go_by_units_or_not_at_all():
    assert plausible_range("tropopause_temperature", "K") == BY_UNITS["K"]
    assert plausible_range("vegetation", "furlong") is None
    assert plausible_range("vegetation") is None


def test_given_bounds_go_first():
    assert plausible_range("2m_temperature", "degC", {"2m_temperature": (-90, 60)}) == (-90.0, 60.0)
