"""Measure the parts of coupled climate that there are: the ocean's speed and the rounding of its budgets.

    python tests/benchmarks/climate.py

Years an hour are those of a processor, by its own time, on the grid and the timestep of data=ocean, times two: the
trajectories of an ocean run side by side. Budgets are those of 200 timesteps in double precision under random fluxes.
The figure is the number of rows that hold.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from data_pipelines.simulators.ocean.layers import LayeredOcean, SurfaceFluxes
from emul.config.build import build
from emul.config.compose import compose

PROCESSORS, YEAR = 2, 365 * 86400.0


def forced(ocean: LayeredOcean, seed: int = 0) -> tuple[torch.Tensor, SurfaceFluxes]:
    """An ocean at rest, and winds, heat and rain that differ from cell to cell."""
    warm = 275.0 + 25.0 * np.cos(np.deg2rad(ocean.grid.latitude))[:, None] ** 2 * np.ones(ocean.grid.shape)
    noise = torch.randn(4, 1, *ocean.grid.shape, generator=torch.Generator().manual_seed(seed)).to(ocean.dtype)
    target = torch.from_numpy(warm)[None].to(ocean.dtype)
    return ocean.at_rest(warm, 35.0), SurfaceFluxes(
        0.1 * noise[0], 0.1 * noise[1], 100.0 * noise[2], 1e-7 * noise[3], target, 40.0
    )


def years_an_hour(ocean: LayeredOcean, steps: int = 40, rounds: int = 5) -> float:
    state, fluxes = forced(ocean)
    seconds = []
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(steps):
            state, _, _ = ocean.step(state, fluxes)
        seconds.append((time.process_time() - begun) / steps)
    return PROCESSORS * 3600.0 * ocean.seconds / YEAR / float(np.median(seconds))


def budget_error(ocean: LayeredOcean, steps: int = 200) -> float:
    """The largest part of volume, heat or salt that is neither kept nor told."""
    state, fluxes = forced(ocean)
    before = (state[:, :3].sum(2) * ocean.area * ocean.sea).sum((-1, -2))
    gained = torch.zeros_like(before)
    for _ in range(steps):
        state, surface, abyss = ocean.step(state, fluxes)
        gained += ocean.seconds * ((surface + abyss) * ocean.area).sum((-1, -2))
    after = (state[:, :3].sum(2) * ocean.area * ocean.sea).sum((-1, -2))
    return float(((after - before - gained) / before).abs().max())


def main() -> int:
    torch.set_num_threads(1)
    source = build(compose("train", ["data=ocean"]).data)
    with torch.inference_mode():
        speed, error = (
            measure(LayeredOcean(source.grid, source.sea, source.seconds, source.constants, dtype))
            for measure, dtype in ((years_an_hour, torch.float32), (budget_error, torch.float64))
        )
    rows = (
        ("years of the ocean an hour, two processors", speed, 200.0, speed >= 200.0),
        ("budgets of the ocean, relative", error, 1e-12, error <= 1e-12),
    )
    for name, figure, bar, holds in rows:
        print(f"{name:46s}{figure:12.3g}   bar {bar:8.3g}   {'ok' if holds else 'FAILS'}")
    held = sum(holds for *_, holds in rows)
    print(f"climate: {held} of {len(rows)} rows hold (bar {len(rows)})")
    return 0 if held == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
