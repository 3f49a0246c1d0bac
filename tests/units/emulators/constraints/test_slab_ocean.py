"""The slab ocean: the published increment, heat that is neither made nor lost, the planet's own slab, refusals."""

import numpy as np
import pytest
import torch

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.world import world_from_dataset
from emul.config.build import build
from emul.config.compose import compose
from emulators.constants import LATENT_HEAT_VAPORISATION
from emulators.constraints.slab_ocean import SlabOcean
from emulators.grid import gaussian_grid
from emulators.rollout import rollout
from emulators.state import State
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

START, HOURS = np.datetime64("2001-01-01", "s"), np.timedelta64(6, "h")


def water_world(land=None):
    """Water under fluxes of sensible heat and evaporation, with a Q-flux and a depth from outside."""
    grid = gaussian_grid(6)
    names = ("sea_surface_temperature", "sensible", "evaporation", "q_flux", "mixed_layer_depth", "land_sea_mask")
    return World(
        grid,
        VariableSet((Variable("sea_surface_temperature", "K"),)),
        HOURS,
        forcing=VariableSet((Variable("q_flux", "W m-2"), Variable("mixed_layer_depth", "m"))),
        diagnostic=VariableSet(
            (
                Variable("sensible", "W m-2", positive="up", cell="mean"),
                Variable("evaporation", "m", positive="up", cell="sum 6h"),
            )
        ),
        static=VariableSet((Variable("land_sea_mask"),)),
        static_fields=np.zeros((1, *grid.shape)) if land is None else land[None],
        scales={name: Scale(0.0, 1.0, 1.0) for name in names},
    )


def stepped(law, world, sensible=0.0, evaporation=0.0, q_flux=0.0, depth=50.0, start=290.0):
    """The temperature that a step ends with, float64, where the network predicts 300 K."""

    def state(variables, values, hours):
        fields = [torch.as_tensor(value, dtype=torch.float64).expand(world.grid.shape) for value in values]
        return State(torch.stack(fields)[None], variables, np.array([START + hours]))

    before = state(world.prognostic, [start], 0 * HOURS)
    after = state(world.predicted, [300.0, sensible, evaporation], HOURS)
    return law(before, after, state(world.forcing, [q_flux, depth], HOURS))["sea_surface_temperature"][0]


def test_the_increment_of_ace2_som():
    """100 W m-2 into 50 m of water for 6 h warm it by 0.0108 K."""
    world = water_world()
    law = SlabOcean(world, temperature="sea_surface_temperature", fluxes=["sensible"])
    warmed = stepped(law, world, sensible=-100.0) - 290.0
    torch.testing.assert_close(warmed, torch.full_like(warmed, 100.0 * 21600.0 / (1000.0 * 4000.0 * 50.0)))
    assert float(warmed[0, 0]) == pytest.approx(0.0108, abs=1e-9)


def test_latent_heat_currents_and_depth():
    world = water_world()
    law = SlabOcean(
        world,
        temperature="sea_surface_temperature",
        depth="mixed_layer_depth",
        fluxes=["evaporation"],
        correction="q_flux",
    )
    depth = torch.linspace(20.0, 200.0, 12, dtype=torch.float64)
    warmed = stepped(law, world, evaporation=1e-3, q_flux=150.0, depth=depth) - 290.0
    heat = 150.0 * 21600.0 - 1.0 * LATENT_HEAT_VAPORISATION  # a millimetre of water is 1 kg m-2
    torch.testing.assert_close(warmed, (heat / (4e6 * depth)).expand_as(warmed))
    steady = stepped(law, world, evaporation=1e-3, q_flux=LATENT_HEAT_VAPORISATION / 21600.0)
    torch.testing.assert_close(steady, torch.full_like(steady, 290.0))  # Q = -F


def test_land_keeps_what_is_predicted():
    land = np.zeros((6, 12))
    land[2:], land[0, 0] = 1.0, 0.3
    world = water_world(land)
    options = {
        "temperature": "sea_surface_temperature",
        "fluxes": ["sensible"],
        "mask": "land_sea_mask",
        "invert": True,
    }
    replaced = stepped(SlabOcean(world, **options), world)
    assert (replaced[2:] == 300.0).all()
    assert (replaced[:2] == 290.0).all()
    blended = stepped(SlabOcean(world, **options, blend="blend"), world)
    assert float(blended[0, 0]) == pytest.approx(293.0)


def test_heat_is_neither_made_nor_lost_over_a_rollout():
    """What the air gains in 40 steps is what the water has lost, to 1e-6 of the heat exchanged, in stored float32."""
    world = water_world()
    law = SlabOcean(world, temperature="sea_surface_temperature", fluxes=["sensible", "evaporation"])

    class Fluxes(torch.nn.Module):
        def forward(self, fields, time):
            generator = torch.Generator().manual_seed(int(time[0]) % 1000)
            noise = torch.rand(len(fields), 3, *world.grid.shape, generator=generator)
            return noise * torch.tensor([1.0, 80.0, 2e-3]).reshape(3, 1, 1)

    step = Step(world, Fluxes(), {"slab_ocean": law}, output="absolute")
    first = State(torch.full((1, 1, *world.grid.shape), 290.0), world.prognostic, np.array([START]))
    forcings = (
        State(torch.zeros(1, 2, *world.grid.shape), world.forcing, np.array([START + n * HOURS])) for n in range(1, 41)
    )
    area = torch.as_tensor(world.grid.weights)
    gained, last = 0.0, first
    for last in rollout(step, (first,), forcings):
        heat = 21600.0 * last["sensible"].double() + 1000.0 * LATENT_HEAT_VAPORISATION * last["evaporation"].double()
        gained += float((heat[0] * area).mean())
    lost = 4e6 * 50.0 * (first["sea_surface_temperature"] - last["sea_surface_temperature"]).double()[0]
    content = 4e6 * 50.0 * 290.0
    assert gained > 1e8
    assert abs(float((lost * area).mean()) - gained) < 1e-6 * content
    assert float((lost * area).mean()) == pytest.approx(gained, rel=2e-3)  # float32 holds 290 K to 3e-5 K


def test_the_planets_own_slab_is_found_again(tmp_path):
    """Temperatures of the simulated water follow from the simulated fluxes to the rounding of what is stored."""
    words = ["data=planet_tiny", "data.ocean=slab", "data.days=3", "data.trajectories=1", "data.spinup_days=1"]
    config = compose("train", [*words, f"data.folder={tmp_path}", "variables=planet_slab"])
    source = build(config.data)
    source.prepare(lambda *said, **more: None)
    dataset = source.dataset()
    world = world_from_dataset(dataset, build(config.variables))
    archive = Archive(dataset, world)
    name = "sea_surface_temperature"
    law = SlabOcean(world, temperature=name, correction="surface_heat_supply_6hr", mask="land_sea_mask", invert=True)
    assert [flux.name for flux in law.fluxes] == ["evaporation_6hr", "sensible_heat_flux_6hr"]
    times = archive.times[:10]
    before, after = archive.states(times[:-1], world.prognostic), archive.states(times[1:], world.predicted)
    made = law(before, after, archive.forcing(times[1:]))
    sea = torch.as_tensor(np.asarray(dataset["land_sea_mask"].values)) == 0.0
    assert float((after[name] - before[name])[:, sea].abs().max()) > 0.05
    assert float((made[name] - after[name])[:, sea].abs().max()) < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": "sensible"}, "needs a prognostic temperature"),
        ({"depth": 0.0}, "depth above 0"),
        ({"fluxes": []}, "finds no flux"),
        ({"correction": "mixed_layer_depth"}, "must be in W m-2 or J m-2; got 'm'"),
        ({"correction": "currents"}, "neither predicted nor prescribed"),
        ({"mask": "ice"}, "needs 'ice' among the forcing or static"),
        ({"blend": "mix"}, "blend=replace or blend=blend"),
    ],
)
def test_what_does_not_suit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SlabOcean(water_world(), **({"temperature": "sea_surface_temperature", "fluxes": ["sensible"]} | options))
