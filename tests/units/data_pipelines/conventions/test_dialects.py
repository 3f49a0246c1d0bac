"""Dialects: short names and misspellings of variables."""

import pytest

from data_pipelines.conventions.dialects import nearest_variable


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("t", "temperature"),
        ("u", "u_component_of_wind"),
        ("z", "geopotential"),
        ("temprature", "temperature"),
        ("total_precipitation", "total_precipitation_6hr"),
        ("2m_temperature", None),
        ("2m_temperatur", None),
        ("t2m", None),
        ("geopotential_at_surface", None),
    ],
)
def test_a_variable_is_never_suggested_for_another(name, meant):
    there = ["geopotential", "temperature", "u_component_of_wind", "total_precipitation_6hr"]
    assert nearest_variable(name, there) == meant
