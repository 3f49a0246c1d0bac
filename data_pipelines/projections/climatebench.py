"""Read scenarios from files laid out as those of ClimateBench, of any climate model.

A folder holds, for each scenario, `inputs_<scenario>.nc` with global series of CO2 and CH4 (time) and maps of SO2 and
BC (time, latitude, longitude), and `outputs_<scenario>.nc` with annual maps (member, time, lat, lon) of tas,
diurnal_temperature_range, pr and pr90, anomalies to a control run, precipitation in kg m-2 s-1. Data: Watson-Parris et
al. 2022, doi 10.5281/zenodo.7064308.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr

from data_pipelines.files.netcdf import read_netcdf
from emulators.projections.scenarios import Scenario, ScenarioSet

NAMES = {"lat": "latitude", "lon": "longitude"}


class ClimateBench:
    """Read a folder. path: where the files are. train, test: scenarios. period: first and last year that is scored.

    before: the scenario from which those named ssp... go on. factors: what variables are multiplied by on reading.
    units: of the variables after that.
    """

    def __init__(
        self,
        *,
        path: str,
        train: Sequence[str],
        test: Sequence[str],
        period: Sequence[int],
        before: str | None,
        factors: Mapping[str, float],
        units: Mapping[str, str],
    ) -> None:
        self.path, self.train, self.test, self.before = Path(path), list(train), list(test), before
        self.period, self.factors, self.units = (int(period[0]), int(period[1])), dict(factors), dict(units)

    def read(self) -> ScenarioSet:
        """Return the scenarios. FileNotFoundError for a file that is not there, ValueError for one of another form."""
        names = list(dict.fromkeys([*([self.before] if self.before else []), *self.train, *self.test]))
        scenarios: dict[str, Scenario] = {}
        grid: xr.Dataset | None = None
        for name in names:
            inputs, outputs = (self.read_file(f"{kind}_{name}.nc") for kind in ("inputs", "outputs"))
            grid = outputs if grid is None else grid
            for dataset, kind in ((inputs, "inputs"), (outputs, "outputs")):
                if not same_points(dataset, grid):
                    raise ValueError(
                        f"{kind}_{name}.nc lies on another grid than outputs_{names[0]}.nc; regrid it first."
                    )
            past = scenarios.get(self.before or "") if name.startswith("ssp") else None
            scenarios[name] = self.scenario(name, inputs, outputs, past)
        assert grid is not None
        latitude, longitude = grid["latitude"].values, grid["longitude"].values
        return ScenarioSet(latitude, longitude, scenarios, self.train, self.test, self.period, self.units)

    def read_file(self, file: str) -> xr.Dataset:
        """Read a file, latitudes from north to south, years as whole numbers."""
        path = self.path / file
        if not path.is_file():
            raise FileNotFoundError(f"scenarios.path: expected {path}, one file a scenario; it is not there.")
        dataset = read_netcdf(path)
        dataset = dataset.rename({old: new for old, new in NAMES.items() if old in dataset.dims})
        missing = {"time", "latitude", "longitude"} - {*dataset.dims}
        if missing:
            raise ValueError(
                f"{path} lacks the dimension {sorted(missing)[0]}; it has {', '.join(map(str, dataset.dims))}."
            )
        years = dataset["time"]
        years = years if np.issubdtype(years.dtype, np.number) else years.dt.year
        return dataset.assign_coords(time=years.astype(int)).sortby("latitude", ascending=False)

    def scenario(self, name: str, inputs: xr.Dataset, outputs: xr.Dataset, past: Scenario | None) -> Scenario:
        """Return the scenario of two files; ValueError where their years differ."""
        years = outputs["time"].values
        if not np.array_equal(inputs["time"].values, years):
            got = [f"{dataset['time'].values[0]} to {dataset['time'].values[-1]}" for dataset in (inputs, outputs)]
            raise ValueError(
                f"inputs_{name}.nc holds {got[0]}, outputs_{name}.nc {got[1]}; cut both to the same years."
            )
        drivers = {}
        for key, series in inputs.data_vars.items():
            order = ("time", "latitude", "longitude") if "latitude" in series.dims else ("time",)
            drivers[str(key)] = series.transpose(*order).values
        fields = {}
        for key, maps in outputs.data_vars.items():
            if "latitude" in maps.dims:
                whole = maps if "member" in maps.dims else maps.expand_dims("member")
                values = whole.transpose("member", "time", "latitude", "longitude").values
                fields[str(key)] = values * self.factors.get(str(key), 1.0)
        return Scenario(name, years, drivers, fields, past)


def same_points(first: xr.Dataset, second: xr.Dataset) -> bool:
    """Return whether two datasets lie on the same latitudes and longitudes, to a thousandth of a degree."""
    return all(
        first[name].shape == second[name].shape and np.allclose(first[name].values, second[name].values, atol=1e-3)
        for name in ("latitude", "longitude")
    )
