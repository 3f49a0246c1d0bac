"""What the laws cost, and whether they hold for ten years: positivity, dry air, moisture and energy together.

Cost: a training step of the SFNO on 64x128 points and 8 levels with the four constraints and without them, by turns in
one process; the figure is the median of the ratios, less one. Rollout: an emulator of a coarse planet that was trained
for nothing but not to run away (each variable returns to its mean, stirred by an untrained network, and gains mass and
heat at every step) makes as many steps of six hours as asked for (default 14,600, ten years) in single precision. With
`--run outputs/train/planet_sfno_conserving` it is a trained emulator, with the forcing of one year repeated. Dry air
must stay within 5e-9 of the start, without trend; water and energy must be closed to 1e-6 of what came and went.

    python tests/benchmarks/conservation.py [--steps 14600] [--rounds 15] [--run FOLDER]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from data_pipelines.batches.archive import Archive
from emul.config.build import build
from emul.config.compose import compose
from emul.training.runs import open_run
from emulators.constraints.dry_air_mass import DryAirMass
from emulators.constraints.moisture_budget import MoistureBudget
from emulators.constraints.positivity import Positivity
from emulators.constraints.total_energy import TotalEnergy
from emulators.grid import gaussian_grid
from emulators.losses.lp import Lp
from emulators.models.sfno import SFNO
from emulators.physics.budgets import DryAir, Energy, Water
from emulators.rollout import rollout
from emulators.state import State
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, Vertical, World

BAR = 5.0  # per cent
MASS, TREND, CLOSURE = 5e-9, 1e-9, 1e-6
YEAR = 4 * 365  # steps
LAWS: dict[str, Callable[[World], nn.Module]] = {
    "positivity": Positivity,
    "dry_air_mass": DryAirMass,
    "moisture_budget": MoistureBudget,
    "total_energy": TotalEnergy,
}
HALF = (0.0, 0.05, 0.14, 0.26, 0.42, 0.60, 0.77, 0.90, 1.0)
# name: (units, mean, standard deviation, change over a timestep)
COLUMN = {
    "temperature": ("K", 250.0, 15.0, 2.0),
    "u_component_of_wind": ("m s-1", 8.0, 10.0, 3.0),
    "v_component_of_wind": ("m s-1", 0.0, 8.0, 3.0),
    "specific_humidity": ("kg kg-1", 3e-3, 1e-3, 3e-4),
}
FLUXES = {
    "total_precipitation_6hr": ("m", 8e-4, 4e-4, "down"),
    "evaporation_6hr": ("m", 8e-4, 4e-4, "up"),
    "sensible_heat_flux_6hr": ("J m-2", 4e5, 2e5, "up"),
    "net_radiation_6hr": ("J m-2", -2e6, 3e5, "in"),
    "friction_6hr": ("J m-2", -4e4, 1e4, "in"),
}


def wide_world() -> World:
    """64x128 points, 8 sigma levels, the variables of the embedded planet and its fluxes."""
    levels = tuple(round(500.0 * (a + b), 2) for a, b in pairwise(HALF))
    column = [Variable(name, units, levels) for name, (units, *_) in COLUMN.items()]
    scales = {c: Scale(*COLUMN[v.name][1:]) for v in column for c in v.channels}
    scales |= {name: Scale(mean, std, std) for name, (_, mean, std, _) in FLUXES.items()}
    scales |= {"surface_pressure": Scale(98e3, 2e3, 3e2), "toa_incident_solar_radiation": Scale(300.0, 400.0, 300.0)}
    scales |= {"sea_surface_temperature": Scale(288.0, 10.0, 0.1), "geopotential_at_surface": Scale(2e3, 5e3, 1.0)}
    grid = gaussian_grid(64)
    return World(
        grid=grid,
        prognostic=VariableSet((*column, Variable("surface_pressure", "Pa"))),
        diagnostic=VariableSet(tuple(Variable(n, f[0], (), f[3], "sum 6h") for n, f in FLUXES.items())),
        forcing=VariableSet(
            (Variable("toa_incident_solar_radiation", "W m-2"), Variable("sea_surface_temperature", "K"))
        ),
        static=VariableSet((Variable("geopotential_at_surface", "m2 s-2"),)),
        static_fields=np.zeros((1, *grid.shape), dtype=np.float32),
        timestep=np.timedelta64(6, "h"),
        scales=scales,
        vertical=Vertical("sigma", (0.0,) * 9, HALF),
    )


def weather(world: World, batch: int) -> tuple[State, State, State]:
    """Random States of what is known, what is aimed at, and the forcing; float32."""
    generator, time_ = torch.Generator().manual_seed(0), np.zeros(batch, "datetime64[s]")

    def drawn(variables: VariableSet) -> State:
        noise = torch.randn(batch, variables.size, *world.grid.shape, generator=generator)
        mean, std = (torch.as_tensor(world.scale(variables, kind)).reshape(-1, 1, 1) for kind in ("mean", "std"))
        return State(mean + std * noise, variables, time_)

    return drawn(world.prognostic), drawn(world.predicted), drawn(world.forcing)


def cost(rounds: int, batch: int = 2) -> float:
    """Per cent that the four constraints add to a training step."""
    world = wide_world()
    before, target, forcing = weather(world, batch)
    loss = Lp(world)
    torch.manual_seed(0)
    network = SFNO(world)
    steps = {"without": Step(world, network), "with": Step(world, network, {n: of(world) for n, of in LAWS.items()})}
    optimizer = torch.optim.AdamW(network.parameters())

    def train(step: Step) -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        loss(step((before,), forcing), target).mean().backward()
        optimizer.step()
        return time.perf_counter() - started

    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 2):
        for name in ("without", "with") if turn % 2 else ("with", "without"):
            seconds = train(steps[name])
            if turn > 1:
                taken[name].append(seconds)
    ratios = [a / b for a, b in zip(taken["with"], taken["without"], strict=True)]
    plain, lawful = (1e3 * statistics.median(taken[name]) for name in ("without", "with"))
    print(f"training step of {batch} cases on 64x128x8: {plain:.0f} ms without laws, {lawful:.0f} ms with them")
    return 100.0 * (statistics.median(ratios) - 1.0)


class Stirred(nn.Module):
    """Every variable returns to its mean in ten days, stirred by an untrained network, and gains all the while."""

    def __init__(self, world: World) -> None:
        super().__init__()
        size = world.prognostic.size
        scale = [torch.as_tensor(world.scale(world.prognostic, kind)) for kind in ("std", "tendency_std")]
        self.register_buffer("pull", (scale[0] / scale[1]).reshape(-1, 1, 1) / 40.0)
        self.size, self.inner = size, SFNO(world, embed=8, layers=1)
        self.warmth, self.radiation = (world.predicted.slice(n) for n in ("temperature", "net_radiation_6hr"))

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        stirred = 0.5 * torch.tanh(self.inner(fields, time)) + 0.05
        stirred[:, self.radiation] -= 5.0 * fields[:, self.warmth].mean(1, keepdim=True)  # warm air loses heat
        return torch.cat([stirred[:, : self.size] - self.pull * fields[:, : self.size], stirred[:, self.size :]], dim=1)


class Subject(NamedTuple):
    """An emulator under its laws, the State that it starts from, and the forcing to be repeated."""

    step: Step
    first: State
    forcings: list[State]


def untrained() -> Subject:
    """On a coarse planet with its fluxes, with a few days of forcing."""
    from data_pipelines.batches.scales import scales
    from data_pipelines.batches.world import world_from_dataset

    config = compose("train", ["data=planet_tiny", "variables=planet_budgets"])
    source = build(config.data)
    source.prepare()
    made = world_from_dataset(source.dataset(), build(config.variables))
    archive = Archive(source.dataset(), made)
    made = replace(made, scales=scales(archive, source.splits["train"]))
    archive = archive.with_world(made)
    times = archive.times[:40].astype("datetime64[s]")
    forcings = [archive.forcing(times[n : n + 1]) for n in range(1, 40)]
    torch.manual_seed(0)
    step = Step(made, Stirred(made), {n: of(made) for n, of in LAWS.items()})
    return Subject(step.eval(), archive.history(times[:1])[-1], forcings)


def trained(folder: str) -> Subject:
    """A run, from the start of its data, with a year of forcing."""
    run = open_run(folder)
    archive = Archive(build(run.config.data).dataset(), run.world)
    times = archive.times[: YEAR + 1].astype("datetime64[s]")
    forcings = [archive.forcing(times[n : n + 1]) for n in range(1, YEAR + 1)]
    return Subject(run.step, archive.history(times[:1])[-1], forcings)


def ten_years(subject: Subject, steps: int) -> bool:
    """Whether the laws hold at every step of a rollout; prints what they hold to, and what happens without them."""
    lawful, first, forcings = subject
    world = lawful.world
    free = Step(world, lawful.network, output=lawful.output).eval()
    air, water, energy = DryAir(world), Water(world), Energy(world)
    found: dict[str, np.ndarray] = {}
    for name, step in (("with", lawful), ("without", free)):
        start = air.mean(air.content(first))
        rows = []
        with torch.inference_mode():
            count = steps if step.constraints else min(1000, steps)
            for state in rollout(step, (first,), (forcings[n % len(forcings)] for n in range(count))):
                mass = air.mean(air.content(state)) / start - 1.0
                missed = [
                    imbalance / turnover
                    for imbalance, turnover in (b.imbalance_and_turnover(state, state) for b in (water, energy))
                ]
                rows.append([float(value) for value in (mass, *missed)])
        found[name] = np.array(rows)
    marks = sorted({min(1000, steps), steps})
    print(f"{'':>16s} {'steps':>8s} {'dry air':>9s} {'worst':>9s} {'water':>9s} {'energy':>9s}   shares; worst so far")
    for name, rows in found.items():
        for mark in (mark for mark in marks if mark <= len(rows)):
            shares = [rows[mark - 1, 0], *np.abs(rows[:mark]).max(axis=0)]
            print(f"{name + ' laws':>16s} {mark:>8,d} " + " ".join(f"{share:9.1e}" for share in shares))
    held = found["with"]
    trend = float(np.polyfit(np.arange(steps), held[:, 0], 1)[0]) * steps
    worst = np.abs(held).max(axis=0)
    print(f"trend of dry air over the rollout: {trend:.1e} (bar {TREND:g})")
    return bool(worst[0] <= MASS and abs(trend) <= TREND and worst[1:].max() <= CLOSURE)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=14_600)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--run", help="the folder of a trained emulator")
    asked = parser.parse_args()
    holds = ten_years(trained(asked.run) if asked.run else untrained(), asked.steps)
    print(f"laws hold at every step: {'yes' if holds else 'no'}")
    figure = cost(asked.rounds)
    print(f"conservation: {figure:.1f} % (bar {BAR:g} %)")
    return 0 if figure <= BAR and holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
