"""What is shown of a climate: tables, charts and maps of what the run is long enough for and the data hold."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_pipelines.reports.climate import circulation_lines, climate_lines, climate_maps, climate_section
from data_pipelines.reports.drawings import Maps
from data_pipelines.verification.score_rows import headline_rows, score_rows
from emulators.grid import equiangular_grid
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.verification.climate import ClimateCard
from emulators.verification.climate_dataset import climate_dataset
from emulators.world import Vertical, World

GRID = equiangular_grid(6, 12)
LEVELS = (250.0, 750.0)
AIR = VariableSet(
    (
        Variable("2m_temperature", "K"),
        Variable("temperature", "K", LEVELS),
        Variable("v_component_of_wind", "m s**-1", LEVELS),
        Variable("specific_humidity", "kg kg**-1", LEVELS),
        Variable("surface_pressure", "Pa"),
        Variable("total_precipitation_6hr", "m"),
    )
)
MEANS = np.repeat([280.0, 250.0, 3.0, 0.004, 1e5, 5e-4], [1, 2, 2, 2, 1, 1])


def shown(years, variables):
    """A climate of noise about the mean of each variable, monthly, and what the report takes it from."""
    times = np.arange("2001", str(2001 + years), dtype="datetime64[M]").astype("datetime64[s]")
    means = MEANS[: variables.size, None, None]
    noise = np.random.default_rng(0).normal(means, 0.1 * means, (2, times.size, variables.size, *GRID.shape))
    world = World(GRID, variables, np.timedelta64(1, "M"), vertical=Vertical("sigma", (0.0,) * 3, (0.0, 0.5, 1.0)))
    monthly = VariableSet((Variable("2m_temperature", "K"),))
    card = ClimateCard(world, variables, ("global", "northern-hemisphere"), monthly)
    card.add(*(State(torch.from_numpy(fields), variables, times) for fields in noise))
    dataset = climate_dataset(card)
    rows = headline_rows(score_rows(dataset[[*variables.names]]))
    return SimpleNamespace(headline=rows, climate=dataset)


@pytest.mark.parametrize(("years", "kinds"), [(2, ["cycle", "mean"]), (11, ["cycle", "mean", "pattern", "return10"])])
def test_maps_of_what_the_run_is_long_enough_for(years, kinds, tmp_path):
    results = shown(years, AIR.select(["2m_temperature"]))
    maps = Maps(tmp_path, GRID, None)
    climate_maps(maps, results.climate, results)
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == [f"2m_temperature_{kind}" for kind in kinds]
    assert any("amplitude of the annual cycle" in title for title, _ in maps.drawn)


def test_the_section_shows_what_the_data_hold():
    long, short = (climate_section(shown(years, AIR)).body for years in (6, 2))
    for heading in ("Variability by time scale", "Transports and precipitation", "Zonal means"):
        assert heading in long
        assert heading in short
    assert "Leading patterns" in long
    assert "Leading patterns" not in short
    assert long.count("<figcaption") == 2 + 2 + 6  # transports by the air, precipitation, zonal means
    for title in ("transport of energy by the air", "Amount of precipitation by rate", "northern-hemisphere"):
        assert title in long
    alone = climate_section(shown(2, AIR.select(["2m_temperature"]))).body
    assert "Transports" not in alone
    assert not climate_section(SimpleNamespace(climate=None)).body


def test_lines_of_the_terminal():
    results = shown(6, AIR)
    headings, lines = climate_lines(results.climate, results.headline)
    assert "drift / noise" in headings
    assert [line[0] for line in lines][:1] == [results.headline[0].label]
    assert all(len(line) == len(headings) + 2 for line in lines)
    found = {line[0]: line[1:] for line in circulation_lines(results.climate)}
    most = results.climate["energy_transport"].max("latitude").sel(source="truth").item() / 1e15
    assert float(found["Transport of energy by the air: most northward"][1]) == pytest.approx(most, rel=0.01)
    assert found["Transport of energy by the air: most northward"][2] == "PW"
    assert float(found["Precipitation: overlap of the distributions"][0]) > 0.95
    assert circulation_lines(shown(2, AIR.select(["2m_temperature"])).climate) == []
