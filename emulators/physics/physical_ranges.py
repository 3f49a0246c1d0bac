"""Ranges that no weather on Earth leaves, by WeatherBench 2 name: a forecast beyond them is broken.

Each bound is a record, widened for what lies above the surface and for the small negative values that unconstrained
networks give. Records: air temperature 184.0 K (Vostok, Turner et al. 2009, doi:10.1029/2009JD012104) and 329.9 K
(Furnace Creek, El Fadli et al. 2013, doi:10.1175/BAMS-D-12-00093.1); sea-level pressure 870 hPa (typhoon Tip) and
1083.8 hPa (Agata), gust 113.2 m/s (Barrow Island), rain 1.14 m in 12 h and 1.825 m in 24 h (La Reunion): WMO World
Weather and Climate Extremes Archive (Cerveny et al. 2007, doi:10.1175/BAMS-88-6-853).
Mesopause 130 K: Luebken (1999), doi:10.1029/1999JD900076.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

BOUNDS: dict[str, tuple[float, float, str]] = {
    "temperature": (110.0, 360.0, "K"),
    "2m_temperature": (165.0, 345.0, "K"),
    "2m_dewpoint_temperature": (150.0, 320.0, "K"),
    "skin_temperature": (150.0, 370.0, "K"),
    "sea_surface_temperature": (265.0, 320.0, "K"),
    "u_component_of_wind": (-250.0, 250.0, "m s-1"),
    "v_component_of_wind": (-250.0, 250.0, "m s-1"),
    "wind_speed": (-5.0, 300.0, "m s-1"),
    "10m_u_component_of_wind": (-120.0, 120.0, "m s-1"),
    "10m_v_component_of_wind": (-120.0, 120.0, "m s-1"),
    "10m_wind_speed": (-5.0, 150.0, "m s-1"),
    "vertical_velocity": (-60.0, 60.0, "Pa s-1"),
    "vorticity": (-2e-2, 2e-2, "s-1"),
    "divergence": (-2e-2, 2e-2, "s-1"),
    "mean_sea_level_pressure": (84_000.0, 112_000.0, "Pa"),
    "surface_pressure": (30_000.0, 115_000.0, "Pa"),
    "geopotential": (-15_000.0, 1_000_000.0, "m2 s-2"),
    "geopotential_height": (-1_500.0, 100_000.0, "m"),
    "specific_humidity": (-2e-3, 6e-2, "kg kg-1"),
    "relative_humidity": (-0.2, 2.0, "1"),
    "total_column_water_vapour": (-2.0, 130.0, "kg m-2"),
    "total_column_water": (-2.0, 150.0, "kg m-2"),
    "total_cloud_cover": (-0.25, 1.25, "1"),
    "sea_ice_cover": (-0.25, 1.25, "1"),
    "total_precipitation": (-1e-2, 0.6, "m"),
    "total_precipitation_6hr": (-1e-2, 1.0, "m"),
    "total_precipitation_12hr": (-1e-2, 1.3, "m"),
    "total_precipitation_24hr": (-1e-2, 2.0, "m"),
    "snow_depth": (-0.1, 30.0, "m"),
    "volumetric_soil_water_layer_1": (-0.1, 1.1, "m3 m-3"),
}
# For names that are not in BOUNDS. Fluxes: 3.7 times the solar constant; 360 mm of rain an hour.
BY_UNITS: dict[str, tuple[float, float]] = {
    "K": (100.0, 400.0),
    "m s-1": (-300.0, 300.0),
    "W m-2": (-5_000.0, 5_000.0),
    "kg m-2 s-1": (-1e-2, 0.1),
}


def canonical_units(units: str) -> str:
    """Return `units` in one spelling: m**2 s**-2, m^2 s^-2 and m2/s2 become m2 s-2; a dimensionless unit becomes 1."""
    text = re.sub(r"\*\*|\^", "", units.strip())
    if text in ("", "1", "(0 - 1)", "dimensionless", "~"):
        return "1"
    head, *below = text.split("/")
    powers = [re.sub(r"^([A-Za-z]+)(\d*)$", lambda m: f"{m[1]}-{m[2] or 1}", factor.strip()) for factor in below]
    return " ".join([*re.split(r"[\s.]+", head.strip()), *powers])


def plausible_range(
    name: str, units: str = "", more: Mapping[str, tuple[float, float]] | None = None
) -> tuple[float, float] | None:
    """Return the lowest and highest plausible value of variable `name`, or None if they are unknown.

    units: those of the values; ranges in other units do not apply. more: ranges by name that override the table.
    """
    if more and name in more:
        low, high = more[name]
        return float(low), float(high)
    unit = canonical_units(units)
    if name in BOUNDS:
        low, high, expected = BOUNDS[name]
        return (low, high) if not units.strip() or unit == expected else None
    return BY_UNITS.get(unit)
