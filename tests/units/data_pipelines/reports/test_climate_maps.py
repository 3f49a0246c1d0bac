"""Maps of a climate: mean state, season and extremes, of what the run is long enough for."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_pipelines.reports.climate import climate_maps
from data_pipelines.reports.drawings import Maps
from data_pipelines.verification.score_rows import headline_rows, score_rows
from emulators.grid import equiangular_grid
from emulators.state import State
from emulators.variables import Variable, VariableSet
from emulators.verification.climate import ClimateCard
from emulators.verification.climate_dataset import climate_dataset
from emulators.world import World

GRID, VARIABLES = equiangular_grid(6, 12), VariableSet((Variable("2m_temperature", "K"),))


@pytest.mark.parametrize(("years", "kinds"), [(2, ["cycle", "mean"]), (11, ["cycle", "mean", "return10"])])
def test_maps_of_what_the_run_is_long_enough_for(years, kinds, tmp_path):
    times = np.arange("2001", str(2001 + years), dtype="datetime64[M]").astype("datetime64[s]")
    noise = np.random.default_rng(0).normal(280.0, 3.0, (2, times.size, 1, *GRID.shape))
    card = ClimateCard(World(GRID, VARIABLES, np.timedelta64(1, "M")), VARIABLES)
    card.add(*(State(torch.from_numpy(fields), VARIABLES, times) for fields in noise))
    dataset = climate_dataset(card)
    results = SimpleNamespace(headline=headline_rows(score_rows(dataset[["2m_temperature"]])))
    maps = Maps(tmp_path, GRID, None)
    climate_maps(maps, dataset, results)
    assert sorted(path.stem for path in tmp_path.glob("*.png")) == [f"2m_temperature_{kind}" for kind in kinds]
    assert any("amplitude of the annual cycle" in title for title, _ in maps.drawn)
