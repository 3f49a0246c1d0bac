"""Rows of the referee on laws, intervals, batches, winds and the gradient of the CRPS; data: a coarse planet."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import cache
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from referee import Row

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.scales import scales
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.derived.shaping import shaped
from emul.config.build import build
from emul.config.compose import compose
from emulators.constraints.dry_air_mass import DryAirMass
from emulators.constraints.moisture_budget import MoistureBudget
from emulators.constraints.positivity import Positivity
from emulators.constraints.total_energy import TotalEnergy
from emulators.layers.convolution import Edges, pole_mirror
from emulators.losses.lp import Lp
from emulators.scores.ensemble import mean_difference
from emulators.state import Origin, State
from emulators.steps.step import Step, refuse_disorder

LAWS = {"positivity": Positivity, "dry_air_mass": DryAirMass, "moisture_budget": MoistureBudget,
        "total_energy": TotalEnergy}  # fmt: skip
FLUXES = ("total_precipitation", "evaporation", "sensible_heat_flux", "net_radiation", "friction")
INTERVALS = (1, 2, 4)
TRAINING = ["data=planet_tiny", "hardware.threads=1", "training.steps=6", "training.batch_size=4",
            "training.validate_every=6", "training.validation_cases=2", "optimizer.lr=1e-3",
            "schedule.warmup=0"]  # fmt: skip
OBJECTIVES = (
    ["model=sfno_ace2_noise", "model.embed=8", "model.layers=1", "objective.members=2", "loss=[crps]"],
    ["model=stormer_small", "model.embed=16", "model.depth=1", "objective=random_intervals"],
    ["model=stormer_small", "model.embed=16", "model.depth=1", "objective=all_to_all", "objective.pairs=3"],
    ["model=prithvi_small", "objective=masked_forecast"],
    ["model=climax_small", "model.dropout=0.2", "model.drop_path=0.2"],
)


@cache
def planet(sums: bool) -> tuple[Archive, list[str]]:
    """The archive of a planet with its fluxes, with or without sums over 12 and 24 hours; its training split."""
    source = build(compose("train", ["data=planet_tiny"]).data)
    source.prepare()
    more = [f"{name}_{hours}hr" for hours in (12, 24) for name in FLUXES] if sums else []
    dataset: xr.Dataset = shaped(source.dataset(), derive=more) if more else source.dataset()
    roles = build(compose("train", ["data=planet_tiny", "variables=planet_budgets"]).variables)
    made = world_from_dataset(
        dataset, VariableRoles(roles.prognostic, roles.forcing, [*roles.diagnostic, *more], roles.static)
    )
    archive = Archive(dataset, made)
    period = list(source.splits["train"])
    if sums:
        period[0] = str(archive.times[archive.within(period)][4])
    found = scales(archive, period, intervals=INTERVALS)
    return archive.with_world(replace(archive.world, scales=found)), period


def states_of(archive: Archive, times: np.ndarray) -> list[State]:
    """States of all predicted variables at some times, in double precision."""
    world, position = archive.world, np.searchsorted(archive.times, times)
    fields = archive.gather(position)[:, archive.channels(world.predicted)].double()
    return [State(field[None], world.predicted, time[None]) for field, time in zip(fields, times, strict=True)]


def laws_over_intervals() -> Row:
    """How far steps of 6, 12 and 24 h under all laws move a truth whose budgets are closed every 6 h; and refusals."""
    archive, period = planet(True)
    world = archive.world
    times = archive.times[archive.within(period)][:9].astype("datetime64[s]")
    raw, laws = states_of(archive, times), {name: law(world) for name, law in LAWS.items()}
    known = [raw[0].select(world.prognostic.names)]
    truth: list[State] = []
    for after, time in zip(raw[1:], times[1:], strict=True):
        forcing = archive.forcing(time[None])
        after = replace(after, origin=Origin(known[0], known[-1], forcing))
        for law in laws.values():
            after = law(known[-1], after, forcing)
        truth.append(replace(after, origin=None))
        known.append(truth[-1].select(world.prognostic.names))
    for n in range(len(truth)):
        sums = {
            f"{name}_{6 * k}hr": sum(s[f"{name}_6hr"] for s in truth[n + 1 - k : n + 1])
            for name in FLUXES
            for k in (2, 4)
            if n + 1 >= k
        }
        truth[n] = truth[n].with_(**sums)
    step, worst = Step(world, torch.nn.Identity(), laws), 0.0
    for interval in INTERVALS:
        for n in range(interval - 1, len(truth)):
            forcing = archive.forcing(truth[n].time)
            made = step.constrained(known[n + 1 - interval], truth[n], forcing)
            for name in ("temperature", "total_precipitation_6hr", "total_precipitation_24hr"):
                size = float(truth[n][name].abs().max())
                worst = max(worst, float((made[name] - truth[n][name]).abs().max()) / size)
    plain, _ = planet(False)
    refused = 0
    for name in ("moisture_budget", "total_energy"):
        try:
            Step(plain.world, torch.nn.Identity(), {name: LAWS[name](plain.world)}, output="absolute").constrained(
                known[0], truth[3].select(plain.world.predicted.names), archive.forcing(truth[3].time)
            )
        except ValueError:
            refused += 1
    figure = worst if refused == 2 else 1.0
    return Row(figure, 1e-9, True, f"relative change of the truth; without sums {refused} of 2 laws refuse 24 h")


def changes_over_intervals() -> Row:
    """The change that a step adds for an output of 1, over the spread of the data's changes, and the loss of each."""
    archive, period = planet(False)
    world, area = archive.world, torch.as_tensor(archive.grid.weights / archive.grid.weights.mean()).double()
    times = archive.times[archive.within(period)].astype("datetime64[s]")
    states = states_of(archive, times)
    fields = torch.cat([state.select(world.prognostic.names).values for state in states])
    step, worst, losses = Step(world, torch.nn.Identity()), 0.0, []
    loss = Lp(world)
    for interval in INTERVALS:
        apart = np.flatnonzero(times[interval:] - times[:-interval] == interval * world.timestep)
        change = fields[apart + interval] - fields[apart]
        mean = (change * area).mean((0, 2, 3), keepdim=True)
        spread = ((change - mean).square() * area).mean((0, 2, 3)).sqrt()
        ratio = step.change(times[:1], times[:1] + interval * world.timestep).flatten() / spread
        worst = max(worst, float((ratio - 1.0).abs().max()))
        some = apart[:: max(1, len(apart) // 20)]
        values = []
        for n in some:
            still = states[n + interval].with_(**{name: states[n][name] for name in world.prognostic.names})
            origin = Origin(states[n], states[n], states[n])
            values.append(float(loss(replace(still, origin=origin), states[n + interval])))
        losses.append(np.mean(values))
    share = max(losses) / min(losses)
    return Row(worst, 1e-4, True, f"off the data's changes; largest over smallest loss of a standstill {share:.2f}")


def laws_at_once() -> Row:
    """The worst departure from a listed law over all orders that are allowed, of states too moist, dry or rainless."""
    archive, period = planet(False)
    world = archive.world
    times = archive.times[archive.within(period)][:2].astype("datetime64[s]")
    start, after = states_of(archive, times)
    before, forcing = start.select(world.prognostic.names), archive.forcing(times[1:])
    parts = {name: law(world) for name, law in LAWS.items()}
    worst, orders, rain = 0.0, 0, "total_precipitation_6hr"
    for order in (o for count in (2, 3, 4) for o in permutations(parts, count)):
        laws = {name: parts[name] for name in order}
        try:
            refuse_disorder(laws)
        except ValueError:
            continue
        orders += 1
        for wetter, less in ((1.05, 1.0), (0.95, 1e-8), (0.9, 1.0), (1.5, 0.0)):
            state = after.with_(**{"specific_humidity": after["specific_humidity"] * wetter, rain: less * after[rain]})
            for law in laws.values():
                state = law(before, state, forcing)
            for law in laws.values():
                again = law(before, state, forcing)
                for name in law.changes:
                    size = float(after[name].abs().max())
                    worst = max(worst, float((again[name] - state[name]).abs().max()) / size)
            if "moisture_budget" in laws and float(state[rain].max()) > 10 * float(after[rain].max()) + 0.1:
                worst = 1.0
    return Row(worst, 1e-9, True, f"departure from any law in {orders} allowed orders")


def splits_of_a_batch() -> Row:
    """The largest difference of weights between trainings of 1 x 4, 2 x 2 and 4 x 1 samples and two processes."""
    worst = 0.0
    for words in OBJECTIVES:
        with tempfile.TemporaryDirectory() as folder:
            made = [weights(folder, words, f"training.accumulate={passes}") for passes in (1, 2, 4)]
            made.append(weights(folder, words, "hardware=ddp", "hardware.accelerator=cpu", "hardware.devices=2"))
        for other in made[1:]:
            worst = max(worst, *(float((other[name] - value).abs().max()) for name, value in made[0].items()))
    return Row(worst, 1e-4, True, "largest difference of weights over five objectives and four splits, lr 1e-3")


def weights(folder: str, words: list[str], *more: str) -> dict[str, torch.Tensor]:
    """The weights after a short training in a process of its own."""
    name = f"x{len(list(Path(folder).glob('train/*')))}"
    command = [sys.executable, "-m", "emul.main", "train", *TRAINING, *words, *more, f"output={folder}", f"name={name}"]
    subprocess.run(command, check=True, capture_output=True)
    content = torch.load(Path(folder) / "train" / name / "checkpoints" / "last.ckpt", weights_only=True)
    return {name: value for name, value in content["state_dict"].items() if value.is_floating_point()}


def winds_over_the_pole() -> Row:
    """The jump of v from the first row to the row padded beyond the pole, over that between the first two rows."""
    archive, period = planet(False)
    world = archive.world
    times = archive.times[archive.within(period)][::10].astype("datetime64[s]")
    states = [s.select(world.prognostic.names).values for s in states_of(archive, times)]
    mean, std = (torch.as_tensor(world.scale(world.prognostic, kind)).reshape(-1, 1, 1) for kind in ("mean", "std"))
    rest = world.input_channels - world.prognostic.size
    where, jumps = world.prognostic.slice("v_component_of_wind"), {}
    for kind in ("cross", "credit"):
        fields = torch.cat([(torch.cat(states) - mean) / std, torch.zeros(len(states), rest, *world.grid.shape)], dim=1)
        padded = Edges(world.grid, kind).pad(fields.float(), 1, 0, 0, 0, mirror=pole_mirror(world))
        v = (padded[:, : len(mean)] * std + mean)[:, where]
        jumps[kind] = [float((v[..., row + 1, :] - v[..., row, :]).abs().mean()) for row in (0, 1)]
    (across, between), unturned = jumps["cross"], jumps["credit"][0]
    told = f"{across:.1f} m/s, {between:.1f} between rows, {unturned:.1f} unturned"
    return Row(across / between, 1.5, True, f"jump of v over the pole over that between rows: {told}")


def coinciding_members() -> Row:
    """The gradient of E|x - x'| with respect to each of three members that are all alike, and one that is not."""
    members = torch.tensor([1.0, 1.0, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(mean_difference(members), members)
    expected = torch.tensor([-1.0, -1.0, -1.0, 3.0], dtype=torch.float64) / 6.0
    return Row(float((gradient - expected).abs().max()), 1e-12, True, "off the symmetric gradient")


ROWS = {
    1: laws_over_intervals,
    2: changes_over_intervals,
    4: laws_at_once,
    6: splits_of_a_batch,
    9: winds_over_the_pole,
    10: coinciding_members,
}
