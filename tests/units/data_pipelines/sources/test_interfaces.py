"""Sources offer what `data_pipelines.interfaces` says, and only simulated ones run twins."""

from pathlib import Path

import pytest

from data_pipelines.inspection.predictability import stored_predictability
from data_pipelines.interfaces import Source, TwinSource
from data_pipelines.simulators.stores import SimulatedSource
from data_pipelines.sources.joined import Joined
from data_pipelines.sources.lorenz96 import Lorenz96
from data_pipelines.sources.netcdf import NetCDF
from data_pipelines.sources.planet import Planet
from data_pipelines.sources.planet_pressure import PlanetPressure


def planet(tmp_path: Path) -> Planet:
    return Planet(splits={}, folder=str(tmp_path), days=1, trajectories=1, spinup_days=1, truncation=5, levels=2)


def test_simulated_sources_run_twins(tmp_path):
    small = Lorenz96(splits={}, folder=str(tmp_path))
    assert isinstance(small, SimulatedSource)
    for source in (small, planet(tmp_path), PlanetPressure(planet=planet(tmp_path), levels=[500])):
        checked: Source = source
        assert isinstance(checked, TwinSource)
        assert stored_predictability(checked) is None


def test_files_run_no_twins():
    files = NetCDF(["air.nc", "more.nc"])
    assert not isinstance(files, TwinSource)
    assert stored_predictability(files) is None
    assert stored_predictability(None) is None


def test_a_joined_source_names_the_paths_of_all(tmp_path):
    parts = {"air": NetCDF(["air.nc", "more.nc"]), "sea": NetCDF("sst.nc"), "small": Lorenz96(splits={})}
    joined = Joined(parts)
    assert joined.path == ["air.nc", "more.nc", "sst.nc", str(parts["small"].path)]
    assert not isinstance(joined, TwinSource)


@pytest.mark.parametrize("member", ["path", "splits", "prepare", "template", "dataset", "hidden", "twins"])
def test_members_of_the_interface_are_described(member):
    assert getattr(TwinSource, member, None) is not None
    assert next(c.__dict__[member] for c in TwinSource.__mro__ if member in c.__dict__).__doc__
