"""The planet under various amounts of CO2: what is stored of them, and what they change."""

import numpy as np
import pytest

from data_pipelines.reading.plausibility import declared_ranges
from data_pipelines.sources.planet import Planet

SPLITS = {name: ["2001-01-01", "2001-01-02"] for name in ("train", "validation", "test")}
SMALL = {"days": 2, "trajectories": 2, "spinup_days": 1, "truncation": 5, "levels": 3, "ocean": "slab"}


def made(folder, **options):
    planet = Planet(splits=SPLITS, folder=str(folder), **SMALL, **options)
    planet.prepare()
    return planet, planet.dataset()


def test_amounts_by_trajectory(tmp_path):
    """The first trajectory is that of a planet without CO2, to the bit; the second jumps to 4 times and falls to 2."""
    usual, plain = made(tmp_path)
    planet, dataset = made(tmp_path, co2=[[1, 1, 1], [1, 4, 2]], sensitivity=5.0)
    assert planet.path != usual.path
    doublings = dataset["carbon_dioxide_doublings"]
    assert "carbon_dioxide_doublings" not in plain
    assert doublings.attrs["known_beforehand"] == 1
    assert (doublings == doublings[:, :1, :1]).all()
    np.testing.assert_allclose(doublings[:, 0, 0], [*[0.0] * 8, *np.linspace(2.0, 1.0, 8)], rtol=1e-6)
    assert declared_ranges(dataset)["sea_surface_temperature"][0] < 265.0  # water that does not freeze
    first = slice(0, 8)
    np.testing.assert_array_equal(dataset["temperature"][first], plain["temperature"][first])
    warmer = dataset["sea_surface_temperature"][-1].mean() - plain["sea_surface_temperature"][-1].mean()
    assert 0.1 < float(warmer) < 2.0  # of 10 to 5 K that are drawn to, in two days of a slab
    assert Planet(splits=SPLITS, folder=str(tmp_path), **SMALL, co2=None).path == usual.path


@pytest.mark.parametrize("co2", [[[1, 1, 1]], [[1, 1], [1, 1]], [[1, 1, 1], [1, 0, 1]]])
def test_amounts_that_do_not_fit_are_refused(co2, tmp_path):
    with pytest.raises(ValueError, match="three positive multiples for each of the 2 trajectories"):
        Planet(splits=SPLITS, folder=str(tmp_path), **SMALL, co2=co2)
