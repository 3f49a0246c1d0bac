"""Physical constants in SI units, one value for the whole project.

Dry-air constants follow cp = 7/2 R exactly, so that kappa = R/cp = 2/7 (ideal diatomic gas).
"""

EARTH_RADIUS = 6.371e6  # m
GRAVITY = 9.80665  # m s-2
ROTATION_RATE = 7.292e-5  # s-1
GAS_CONSTANT_DRY = 287.04  # J kg-1 K-1
HEAT_CAPACITY_DRY = 3.5 * GAS_CONSTANT_DRY  # J kg-1 K-1, at constant pressure
KAPPA = GAS_CONSTANT_DRY / HEAT_CAPACITY_DRY
GAS_CONSTANT_VAPOUR = 461.5  # J kg-1 K-1
LATENT_HEAT_VAPORISATION = 2.5e6  # J kg-1
REFERENCE_PRESSURE = 1.0e5  # Pa
SOLAR_CONSTANT = 1361.0  # W m-2
WATER_DENSITY = 1000.0  # kg m-3
MONTH = 2_629_800  # s, 365.25 / 12 days: the nominal length of a calendar month
