"""Twin simulations of the planet, disturbed at their start."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from data_pipelines.simulators.planet.simulation import Simulation
from data_pipelines.simulators.twins import Case, Sample

if TYPE_CHECKING:
    from data_pipelines.simulators.stores import Progress


def planet_twins(
    simulation: Simulation,
    steps: int,
    *,
    spinup: int,
    cases: int,
    leads: int,
    perturbation: float,
    seed: int,
    report: Progress,
) -> Iterator[Case]:
    """Cases one after the other along one control, each with a twin whose temperature differs by white noise.

    steps: timesteps between samples. spinup: samples before the first case. perturbation: K, as far as the truncation
    holds it.
    """
    generator = torch.Generator().manual_seed(seed)
    total = spinup + 2 * cases * leads
    first: Sample = {}
    for done, sample in enumerate(simulation.samples(spinup, steps), start=1):
        first = sample
        report("spin-up", done / total)

    def control(case: int) -> Iterator[Sample]:
        nonlocal first
        for lead, sample in enumerate(simulation.samples(leads, steps), start=1):
            first = sample
            report(f"twins, case {case + 1} of {cases}", (spinup + 2 * (case * leads + lead)) / total)
            yield sample

    for case in range(cases):
        twin = _disturbed(simulation, perturbation, generator)
        yield Case(first, control(case), twin.samples(leads, steps))


def _disturbed(simulation: Simulation, perturbation: float, generator: torch.Generator) -> Simulation:
    """A twin whose temperature differs by noise."""
    dynamics, twin = simulation.dynamics, copy.copy(simulation)
    nothing = torch.zeros_like(simulation.fields.temperature)
    noise = torch.randn(nothing.shape, generator=generator, dtype=torch.float64).to(nothing)
    water = torch.zeros_like(simulation.fields.humidity)
    twin.settle(dynamics.increased(simulation.coefficients, nothing, nothing, perturbation * noise, water))
    return twin
