"""How far ahead the planet's weather can be known: twins that start almost alike, and how they part.

    E(lead) = sqrt(mean over cases and area of (twin - control)^2)

beside the error of persistence over the same cases and the standard deviation of the control about its own mean:
the identical-twin experiment of Lorenz 1982 (doi 10.1111/j.2153-3490.1982.tb01839.x) for a model that is perfect.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import xarray as xr

from data_pipelines.simulation import Simulation

SCORED = (
    "temperature",
    "u_component_of_wind",
    "v_component_of_wind",
    "specific_humidity",
    "geopotential",
    "surface_pressure",
)
SOURCES = ("twin", "persistence", "climatology")


def twin_growth(
    simulation: Simulation, steps: int, *, cases: int, days: int, perturbation: float, seed: int = 0
) -> xr.Dataset:
    """RMSE of twins by variable, lead and level; the present state of `simulation` is the first initial state.

    steps: timesteps between samples, which are 6 hours apart. perturbation: K, of white noise in temperature, as far as
    the truncation holds it. Dimensions (source, lead_time, level) or (source, lead_time); lead_time starts at 6 hours.
    """
    grid = simulation.dynamics.sphere.grid
    weights, leads = grid.weights / grid.weights.size, 4 * days
    blank = simulation.atmosphere()
    squares = {name: np.zeros((2, leads, *blank[name].shape[:-2])) for name in SCORED}
    moments = {name: np.zeros((2, *blank[name].shape)) for name in SCORED}
    generator = torch.Generator().manual_seed(seed)
    for _ in range(cases):
        twin, first = _disturbed(simulation, perturbation, generator), simulation.atmosphere()
        pairs = zip(simulation.samples(leads, steps), twin.samples(leads, steps), strict=True)
        for lead, (truth, other) in enumerate(pairs):
            for name in SCORED:
                control = truth[name].astype(np.float64)
                moments[name] += np.stack([control, control**2]) / (cases * leads)
                errors = np.stack([other[name], first[name]]) - control
                squares[name][:, lead] += (errors**2 * weights).sum(axis=(-2, -1)) / cases
    variables = {}
    for name in SCORED:
        mean, mean_square = moments[name]
        variance = ((mean_square - mean**2) * weights).sum(axis=(-2, -1))
        table = np.concatenate([squares[name], np.broadcast_to(variance, squares[name][:1].shape)])
        variables[name] = (("source", "lead_time", "level")[: table.ndim], np.sqrt(table))
    lead_times = np.arange(1, leads + 1) * np.timedelta64(6 * 3600 * 10**9, "ns")
    attributes = {"cases": cases, "perturbation": f"{perturbation} K"}
    return xr.Dataset(variables, {"source": list(SOURCES), "lead_time": lead_times}, attributes)


def _disturbed(simulation: Simulation, perturbation: float, generator: torch.Generator) -> Simulation:
    """A twin whose temperature differs by noise."""
    dynamics, twin = simulation.dynamics, copy.copy(simulation)
    nothing = torch.zeros_like(simulation.fields.temperature)
    noise = torch.randn(nothing.shape, generator=generator, dtype=torch.float64).to(dynamics.dtype)
    twin.settle(dynamics.increased(simulation.coefficients, nothing, nothing, perturbation * noise, nothing))
    return twin
