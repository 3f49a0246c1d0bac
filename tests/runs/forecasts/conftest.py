"""What the tests of forecasts share: small data, and runs of untrained networks, tame or wild."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from omegaconf import OmegaConf

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.scales import scales
from data_pipelines.batches.world import VariableRoles, world_from_dataset
from data_pipelines.files import checkpoints
from emul.config.compose import compose
from emul.training.runs import build_step
from emulators.grid import gaussian_grid

START = np.datetime64("2003-01-01", "s")
STEP = np.timedelta64(21_600, "s")
PROGNOSTIC = ["temperature", "2m_temperature"]
MOIST = ["specific_humidity", "surface_pressure"]
SFNO = {"_target_": "emulators.models.sfno.SFNO", "embed": 8, "layers": 1}
STORMER = {"_target_": "emulators.models.stormer.Stormer", "embed": 8, "depth": 1, "heads": 2}
LAWS = {
    "dry_air_mass": {"_target_": "emulators.constraints.dry_air_mass.DryAirMass"},
}


class Home:
    """A folder with data and runs."""

    def __init__(self, folder):
        self.folder, self.data = folder, folder / "data.nc"

    def run(self, name):
        return self.folder / "train" / name

    def config(self, tmp_path, *more, run="tame"):
        return compose("forecast", [f"run={self.run(run)}", f"output={tmp_path}", "device=cpu", *more])

    @staticmethod
    def contents(folder):
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    @staticmethod
    def fields(count=80, moist=False):
        """A warm equator and a wave that moves east, on 8 x 16 points."""
        grid, rng = gaussian_grid(8), np.random.default_rng(0)
        phase = np.deg2rad(grid.longitude) - 0.1 * np.arange(count)[:, None, None]
        wave = 290.0 - 40.0 * np.sin(np.deg2rad(grid.latitude))[:, None] ** 2 + 5.0 * np.sin(3.0 * phase)
        wave = (wave + rng.normal(0.0, 0.1, wave.shape)).astype(np.float32)
        flat, high = ("time", "latitude", "longitude"), ("time", "level", "latitude", "longitude")
        arrays = {
            "temperature": (high, np.stack([wave - 30.0, wave - 10.0], axis=1), {"units": "K"}),
            "2m_temperature": (flat, wave, {"units": "K"}),
        }
        if moist:
            humid = np.stack([1e-3 * wave / 290.0, 4e-3 * wave / 290.0], axis=1)
            arrays["specific_humidity"] = (high, humid, {"units": "kg kg-1"})
            arrays["surface_pressure"] = (flat, 98_000.0 + 10.0 * wave, {"units": "Pa"})
        return xr.Dataset(
            arrays,
            {
                "time": (START + STEP * np.arange(count)).astype("datetime64[ns]"),
                "level": ("level", [500, 850], {"units": "hPa"}),
                "latitude": ("latitude", grid.latitude, {"units": "degrees_north"}),
                "longitude": ("longitude", grid.longitude, {"units": "degrees_east"}),
            },
        )

    def save_run(self, folder, path, dataset, growth=1e-3, history=1, constraint=None, **model):
        """A run folder as training leaves: an untrained network, its tendencies `growth` times what it would give."""
        splits = {"train": ["2003-01-01", "2003-01-10"], "validation": ["2003-01-11", "2003-01-12"]}
        config = OmegaConf.create(
            {
                "seed": 0,
                "model": model if "_target_" in model else {**SFNO, **model},
                "step": {"_target_": "emulators.steps.step.Step", "output": "residual"},
                "constraint": constraint or {},
                "metric": {"rmse": {"_target_": "emulators.metrics.rmse.RMSE"}},
                "data": {
                    "_target_": "data_pipelines.sources.netcdf.NetCDF",
                    "path": str(path),
                    "splits": splits | {"test": ["2003-01-13", "2003-01-20"]},
                },
                "forecast": {"every": "1d", "lead": "2d", "batch_size": 3},
                "eval": {"regions": ["global", "tropics"]},
            }
        )
        prognostic = [*PROGNOSTIC, *(name for name in MOIST if name in dataset)]
        roles = VariableRoles(prognostic=prognostic, forcing=["sin_year", "cos_day"], static=["sin_latitude"])
        a_world = world_from_dataset(dataset.assign_attrs(timestep="6h"), roles, history=history)
        measured = scales(Archive(dataset, a_world, cache_gigabytes=0.0), splits["train"], intervals=(1, 2, 3, 4))
        a_world = replace(a_world, scales=measured)
        step = build_step(config, a_world)
        with torch.no_grad():
            for parameter in step.network.head.parameters():
                if "_target_" in model:
                    torch.nn.init.normal_(parameter)  # it begins at zero
                parameter.mul_(growth)
            for name, parameter in step.network.named_parameters():
                if "maps.noise" in name:
                    parameter.fill_(0.1)
        card = {
            "format": checkpoints.FORMAT,
            "world": a_world.plain(),
            "config": OmegaConf.to_yaml(config),
            "weights": step.state_dict(),
            "step": 0,
        }
        checkpoints.save(folder / "checkpoints" / "last.ckpt", {"emul": card})
        OmegaConf.save(config, folder / "config.yaml")
        return folder


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    torch.set_num_threads(1)
    home = Home(tmp_path_factory.mktemp("home"))
    moist = home.folder / "moist.nc"
    home.fields().to_netcdf(home.data)
    home.fields(moist=True).to_netcdf(moist)
    home.save_run(home.run("tame"), home.data, home.fields())
    home.save_run(home.run("wild"), home.data, home.fields(), growth=100.0)
    home.save_run(home.run("told"), home.data, home.fields(), growth=1e-2, **STORMER)
    home.save_run(home.run("past"), home.data, home.fields(), history=2)
    home.save_run(home.run("noisy"), home.data, home.fields(), growth=0.1, noise=2, norm="layer")
    home.save_run(home.run("lawful"), moist, home.fields(moist=True), history=2, constraint=LAWS, noise=2, norm="layer")
    return home
