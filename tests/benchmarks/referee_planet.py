"""Row of the referee on the planet's air."""

from __future__ import annotations

import tempfile

import numpy as np
import xarray as xr
from referee import Row

from emul.config.build import build
from emul.config.compose import compose

SATURATION, ZERO, FIXER = 1.01, 1e-3, 0.3  # relative humidity, share of points, W m-2
OVERRIDES = ("data=planet", "data.days=60", "data.trajectories=1", "data.spinup_days=60")


def saturation(temperature: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """Specific humidity at saturation: Clausius-Clapeyron with constant latent heat, from the triple point."""
    gas, vapour, latent = 287.04, 461.5, 2.5e6
    return gas / vapour * 610.78 / pressure * np.exp(latent / vapour * (1.0 / 273.16 - 1.0 / temperature))


def planets_air() -> Row:
    """Relative humidity, zeros and energy fixer of two stored months, each in units of its bar."""
    with tempfile.TemporaryDirectory() as folder:
        planet = build(compose("train", [*OVERRIDES, f"data.folder={folder}"]).data)
        planet.prepare()
        dataset: xr.Dataset = planet.dataset().load()
    humidity, temperature = (dataset[name].values.astype(float) for name in ("specific_humidity", "temperature"))
    sigma = (dataset.level.values / 1000.0)[:, None, None]
    relative = humidity / saturation(temperature, sigma * dataset.surface_pressure.values[:, None].astype(float))
    dry = float((humidity <= 0.0).mean())
    fixer = float(dataset.energy_fixer_6hr.values[:, 0, 0].mean()) / 21600.0
    worst = max(float(relative.max()) / SATURATION, dry / ZERO, abs(fixer) / FIXER)
    told = f"largest relative humidity {100 * relative.max():.2f} %, zeros at {100 * dry:.3g} % of points"
    return Row(worst, 1.0, True, f"largest share of a bar; {told}, energy fixer {fixer:+.3f} W m-2")


ROWS = {8: planets_air}
