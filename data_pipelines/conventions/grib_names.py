"""Short names of ecCodes, by the name of WeatherBench 2, as ECMWF writes them (https://codes.ecmwf.int/grib/param-db)."""

ON_LEVELS = {
    "temperature": "t", "u_component_of_wind": "u", "v_component_of_wind": "v", "specific_humidity": "q",
    "vertical_velocity": "w", "geopotential": "z", "geopotential_height": "gh", "relative_humidity": "r",
    "vorticity": "vo", "divergence": "d", "specific_cloud_liquid_water_content": "clwc",
    "specific_cloud_ice_water_content": "ciwc",
}  # fmt: skip
AT_SURFACE = {
    "2m_temperature": "2t", "2m_dewpoint_temperature": "2d", "10m_u_component_of_wind": "10u",
    "10m_v_component_of_wind": "10v", "100m_u_component_of_wind": "100u", "100m_v_component_of_wind": "100v",
    "mean_sea_level_pressure": "msl", "surface_pressure": "sp", "skin_temperature": "skt",
    "sea_surface_temperature": "sst", "sea_ice_cover": "ci", "total_column_water_vapour": "tcwv",
    "total_column_water": "tcw",
}  # fmt: skip
