"""How fast the planet's companions are: simulated days a minute on one core, all trajectories side by side.

One number a companion at its default settings; the last line is that of quasi-geostrophic weather at T21.
"""

import time

import numpy as np
import torch

from data_pipelines.reading.threads import one_thread
from data_pipelines.simulators.stores import Integration, SimulatedSource
from data_pipelines.sources.kuramoto_sivashinsky import KuramotoSivashinsky
from data_pipelines.sources.lorenz96 import Lorenz96
from data_pipelines.sources.quasigeostrophic import QuasiGeostrophic
from data_pipelines.sources.shallow_water import ShallowWater

BAR = 2000.0  # days a minute
ROUNDS, SECONDS = 7, 1.5  # each


def days_a_minute(source: SimulatedSource) -> float:
    """Simulated days of all trajectories in a minute, median of several rounds."""
    members = source.trajectories.number
    run, rates = Integration(*source.initial_state(members)), []
    for _ in range(ROUNDS):
        steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            run.advance(4)
            steps += 4
        days = members * steps * float(source.timestep / np.timedelta64(1, "D"))
        rates.append(60.0 * days / (time.perf_counter() - start))
    if not torch.isfinite(torch.view_as_real(run.state) if run.state.is_complex() else run.state).all():
        raise ValueError(f"{source.label} grew without bound.")
    return float(np.median(rates))


def main() -> int:
    """A line a companion, and the figure that has a bar."""
    companions: list[SimulatedSource] = [
        KuramotoSivashinsky(splits={}),
        Lorenz96(splits={}),
        Lorenz96(splits={}, fast=10),
        ShallowWater(splits={}),
        QuasiGeostrophic(splits={}),
    ]
    with one_thread():
        for source in companions:
            figure = days_a_minute(source)
            print(f"{source.label:36s} {source.trajectories.number:3d} trajectories {figure:12,.0f} days a minute")
    print(f"companions: {figure:.0f} (bar {BAR:g})")
    return 0 if figure >= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
