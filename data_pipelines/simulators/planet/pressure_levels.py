"""Interpolation of fields on sigma levels to pressure levels, to mean sea level and to 2 and 10 m.

    Phi_{k-1/2} = Phi_{k+1/2} + R Tv_k ln(sigma_{k+1/2} / sigma_{k-1/2}),    Phi at the ground = Phi_s

gives the geopotential at half levels as in the model (Simmons & Burridge 1981,
doi 10.1175/1520-0493(1981)109<0758:AEAAMC>2.0.CO;2). Within a layer Tv is linear in ln p about its mean, so Phi is
exact at every half level, and everywhere if Tv is linear in ln p. Other fields are linear in ln p between full levels.

Below the lowest full level, with T* = T_N (1 + a (ps / p_N - 1)), a = 0.0065 R / g, and y = a ln(p / ps),

    T = T* (1 + y + y^2/2 + y^3/6),    Phi = Phi_s - R T* ln(p / ps) (1 + y/2 + y^2/6)
    p_msl = ps exp(x (1 - a x / 2 + (a x)^2 / 3)),    x = Phi_s / (R T*)

with the exceptions for high, warm and cold ground of Trenberth, Berry & Buja 1993 (NCAR/TN-396+STR,
doi 10.5065/D6HX19NH), which ECMWF uses too. Near the ground, wind and potential temperature follow the logarithm of
height over roughness length, as in air of neutral stability (Stull 1988, doi 10.1007/978-94-009-3027-8).

Shapes: columns (*lead, level, lat, lon), top first; surface fields (*lead, lat, lon). Results have the floating-point
type of their arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emulators.constants import GAS_CONSTANT_DRY, GAS_CONSTANT_VAPOUR, GRAVITY, KAPPA

VIRTUAL = GAS_CONSTANT_VAPOUR / GAS_CONSTANT_DRY - 1.0
LAPSE_RATE = 0.0065  # K m-1, of the standard atmosphere
WARM, COLD = 290.5, 255.0  # K, limits beyond which the extrapolation of heights is moderated
PLATEAU, HIGH_PLATEAU, PLATEAU_TEMPERATURE = 2000.0, 2500.0, 298.0  # m, m, K
ROUGHNESS_SEA, ROUGHNESS_LAND = 2e-4, 0.1  # m


def virtual_temperature(temperature: Tensor, humidity: Tensor) -> Tensor:
    """Return the virtual temperature in K."""
    return temperature * (1.0 + VIRTUAL * humidity)


@dataclass(frozen=True, eq=False)
class Bracket:
    """Interpolate columns linearly to pressures; made by `bracket`.

    upper: index of the level above each pressure, int64. share: weight of the level below it, 0 to 1. Both are
    (*lead, pressure, lat, lon).
    """

    upper: Tensor
    share: Tensor

    def __call__(self, field: Tensor) -> Tensor:
        """Interpolate `field`, (*lead, level, lat, lon); beyond the outermost levels it is constant."""
        above = torch.gather(field, -3, self.upper)
        return above + self.share * (torch.gather(field, -3, self.upper + 1) - above)


def log_sigma(surface_pressure: Tensor, pressures: Tensor) -> Tensor:
    """Return ln(p / ps) of `pressures` in Pa, (*lead, pressure, lat, lon); positive below the ground."""
    return torch.log(pressures.view(-1, 1, 1)) - torch.log(surface_pressure).unsqueeze(-3)


def bracket(log: Tensor, full: np.ndarray) -> Bracket:
    """Return the interpolation in ln p from full levels to ln(p / ps). full: sigma, top first, at least two."""
    levels = torch.as_tensor(np.log(full), dtype=log.dtype, device=log.device)
    upper = (torch.searchsorted(levels, log.contiguous()) - 1).clamp(0, len(full) - 2)
    share = (log - levels[upper]) / (levels[1:] - levels[:-1])[upper]
    return Bracket(upper, share.clamp(0.0, 1.0))


def half_level_geopotential(virtual: Tensor, ground: Tensor, half: np.ndarray) -> Tensor:
    """Return the geopotential in m2 s-2 at the lower face of each layer, (*lead, level, lat, lon)."""
    depth = np.append(np.log(half[2:] / half[1:-1]), 0.0)  # of the layer below each
    steps = GAS_CONSTANT_DRY * virtual.roll(-1, -3) * virtual.new_tensor(depth).view(-1, 1, 1)
    return ground.unsqueeze(-3) + steps.flip(-3).cumsum(-3).flip(-3)


def geopotential(log: Tensor, virtual: Tensor, ground: Tensor, half: np.ndarray) -> Tensor:
    """Return the geopotential in m2 s-2 at ln(p / ps) = `log`, at most 0.

    virtual: virtual temperature of the layers. ground: geopotential at the surface. half: sigma at half levels, 0 to 1.
    """
    lower = np.log(half[1:])
    depth = np.append(0.0, np.diff(lower))  # the uppermost layer is infinitely deep
    middle = lower - 0.5 * depth
    middle[0] -= np.log(2.0)
    slope = torch.gradient(virtual, spacing=(virtual.new_tensor(-middle),), dim=-3)[0]  # dTv / ds, s = -ln p
    slope = slope * virtual.new_tensor(depth > 0.0).view(-1, 1, 1)
    edges, depths = (log.new_tensor(values) for values in (lower, depth))
    layer = torch.searchsorted(edges, log.contiguous()).clamp(max=len(lower) - 1)
    s = edges[layer] - log
    at = [torch.gather(field, -3, layer) for field in (half_level_geopotential(virtual, ground, half), virtual, slope)]
    return at[0] + GAS_CONSTANT_DRY * s * (at[1] + 0.5 * at[2] * (s - depths[layer]))


def ground_temperature(lowest: Tensor, sigma: float) -> Tensor:
    """Return T* of the air at the ground in K, from the lowest full level at `sigma` by the standard lapse rate."""
    return lowest * (1.0 + LAPSE_RATE * GAS_CONSTANT_DRY / GRAVITY * (1.0 / sigma - 1.0))


def temperature_below_ground(log: Tensor, star: Tensor, ground: Tensor) -> Tensor:
    """Return the temperature in K below the ground, at ln(p / ps) = `log`. star: T*. ground: surface geopotential."""
    height = ground / GRAVITY
    level = star + LAPSE_RATE * height  # at mean sea level
    mild = level.clamp(max=PLATEAU_TEMPERATURE)
    share = ((height - PLATEAU) / (HIGH_PLATEAU - PLATEAU)).clamp(0.0, 1.0)
    target = level + share * (mild - level)
    rate = GAS_CONSTANT_DRY * (target - star).clamp(min=0.0) / torch.where(height > PLATEAU, ground, 1.0)
    rate = torch.where(height > PLATEAU, rate, LAPSE_RATE * GAS_CONSTANT_DRY / GRAVITY)
    y = rate.unsqueeze(-3) * log
    return star.unsqueeze(-3) * (1.0 + y + y**2 / 2.0 + y**3 / 6.0)


def _extrapolation_parameters(star: Tensor, ground: Tensor) -> tuple[Tensor, Tensor]:
    """Return T* and a = d ln T / d ln p for the extrapolation of heights and of mean sea level pressure."""
    level = star + LAPSE_RATE * ground / GRAVITY
    hot = level > WARM
    slope = GAS_CONSTANT_DRY * (WARM - star) / torch.where(hot & (star <= WARM), ground, 1.0)
    rate = torch.where(hot, slope.clamp(min=0.0), LAPSE_RATE * GAS_CONSTANT_DRY / GRAVITY)
    rate = torch.where(hot & (star > WARM), 0.0, rate)
    star = torch.where(hot & (star > WARM), 0.5 * (WARM + star), star)
    return torch.where(star < COLD, 0.5 * (COLD + star), star), rate


def geopotential_below_ground(log: Tensor, star: Tensor, ground: Tensor) -> Tensor:
    """Return the geopotential in m2 s-2 below the ground, at ln(p / ps) = `log`."""
    star, rate = _extrapolation_parameters(star, ground)
    y = rate.unsqueeze(-3) * log
    return ground.unsqueeze(-3) - GAS_CONSTANT_DRY * star.unsqueeze(-3) * log * (1.0 + y / 2.0 + y**2 / 6.0)


def mean_sea_level_pressure(surface_pressure: Tensor, star: Tensor, ground: Tensor) -> Tensor:
    """Return the mean sea level pressure in Pa; where `ground` is 0, it equals the surface pressure."""
    star, rate = _extrapolation_parameters(star, ground)
    x = ground / (GAS_CONSTANT_DRY * star)
    y = rate * x
    return surface_pressure * torch.exp(x * (1.0 - y / 2.0 + y**2 / 3.0))


def columns_on_pressure_levels(
    pressures: Tensor, columns: dict[str, Tensor], surface_pressure: Tensor, ground: Tensor, half: np.ndarray
) -> dict[str, Tensor]:
    """Interpolate columns to `pressures` (Pa, from the top down) and add `geopotential`: (*lead, pressure, lat, lon).

    columns: by WeatherBench 2 names; `temperature` is required, `specific_humidity` is used for the geopotential if
    present. Below the lowest full level wind and humidity are constant. half: sigma at half levels, 0 to 1.
    """
    full = 0.5 * (half[1:] + half[:-1])
    log = log_sigma(surface_pressure, pressures)
    interpolate = bracket(log, full)
    result = {name: interpolate(field) for name, field in columns.items()}
    temperature, dry = columns["temperature"], torch.zeros(())
    lowest, star = temperature[..., -1, :, :], ground_temperature(temperature[..., -1, :, :], full[-1])
    share = (1.0 - log / np.log(full[-1])).clamp(0.0, 1.0)  # of the way from the lowest level to the ground
    result["temperature"] += share * (star - lowest).unsqueeze(-3)
    virtual = virtual_temperature(temperature, columns.get("specific_humidity", dry))
    result["geopotential"] = geopotential(log.clamp(max=0.0), virtual, ground, half)
    free = int((log.movedim(-3, 0).flatten(1).amax(1) <= 0.0).sum())  # levels above the ground everywhere
    for name, extrapolated in (("temperature", temperature_below_ground), ("geopotential", geopotential_below_ground)):
        low, depth = result[name][..., free:, :, :], log[..., free:, :, :]
        low.copy_(torch.where(depth > 0.0, extrapolated(depth, star, ground), low))
    return result


def roughness_length(land: Tensor) -> Tensor:
    """Return the roughness length in m, interpolated in its logarithm from sea to land. land: land fraction."""
    return torch.exp((1.0 - land) * np.log(ROUGHNESS_SEA) + land * np.log(ROUGHNESS_LAND))


def logarithmic_share(height: float, lowest: Tensor, roughness: Tensor) -> Tensor:
    """Return the position of `height` (m) on the logarithmic profile: 0 at the ground, 1 at the height of `lowest`."""
    return torch.log(height / roughness) / torch.log(lowest / roughness)


def near_ground(columns: dict[str, Tensor], ground: Tensor | None, land: Tensor, half: np.ndarray) -> dict[str, Tensor]:
    """Return temperature at 2 m and wind at 10 m, (*lead, lat, lon), from the lowest layer and the surface temperature.

    ground: surface temperature in K; None: T*, by the standard lapse rate. land: land fraction.
    """
    full = 0.5 * (half[1:] + half[:-1])
    lowest = {name: field[..., -1, :, :] for name, field in columns.items()}
    virtual = virtual_temperature(lowest["temperature"], lowest.get("specific_humidity", torch.zeros(())))
    depth = 1.0 - half[-2] / (half[-1] - half[-2]) * np.log(half[-1] / half[-2])  # alpha of the lowest layer
    height, roughness = GAS_CONSTANT_DRY / GRAVITY * depth * virtual, roughness_length(land)
    result = {}
    if ground is None:
        result["2m_temperature"] = ground_temperature(lowest["temperature"], full[-1])
    else:
        potential = lowest["temperature"] * full[-1] ** -KAPPA
        result["2m_temperature"] = ground + logarithmic_share(2.0, height, roughness) * (potential - ground)
    for letter in "uv":
        wind = lowest[f"{letter}_component_of_wind"]
        result[f"10m_{letter}_component_of_wind"] = logarithmic_share(10.0, height, roughness) * wind
    return result
