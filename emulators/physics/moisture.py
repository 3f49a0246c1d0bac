"""Water in air: saturation and condensation.

    q_sat = (Rd / Rv) (e0 / p) exp((L / Rv) (1 / T0 - 1 / T)),    e0 = 610.78 Pa, T0 = 273.16 K

(Clausius-Clapeyron with constant latent heat, as in Thatcher & Jablonowski 2016, doi 10.5194/gmd-9-1263-2016).
"""

from __future__ import annotations

import torch
from torch import Tensor

from emulators.constants import GAS_CONSTANT_DRY, GAS_CONSTANT_VAPOUR, HEAT_CAPACITY_DRY, LATENT_HEAT_VAPORISATION

TRIPLE_POINT = 273.16  # K
TRIPLE_POINT_PRESSURE = 610.78  # Pa


def saturation_humidity(temperature: Tensor, pressure: Tensor) -> Tensor:
    """Return the specific humidity of saturated air in kg kg-1.

    Temperature in K, pressure in Pa, shapes that broadcast.
    """
    ratio = LATENT_HEAT_VAPORISATION / GAS_CONSTANT_VAPOUR
    vapour = TRIPLE_POINT_PRESSURE * torch.exp(ratio / TRIPLE_POINT - ratio / temperature)
    return GAS_CONSTANT_DRY / GAS_CONSTANT_VAPOUR * vapour / pressure


def condensation(temperature: Tensor, humidity: Tensor, pressure: Tensor) -> Tensor:
    """Return the vapour that must condense for the air to be just saturated, in kg kg-1, never negative.

    One Newton step, so that the heat L dq of the condensate is counted: dq = (q - qs) / (1 + L^2 qs / (cp Rv T^2)).
    """
    saturation = saturation_humidity(temperature, pressure)
    warming = LATENT_HEAT_VAPORISATION**2 / (HEAT_CAPACITY_DRY * GAS_CONSTANT_VAPOUR)
    return ((humidity - saturation) / (1.0 + warming * saturation / (temperature * temperature))).clamp(min=0.0)
