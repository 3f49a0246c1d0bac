"""The forecast of a global run that drives a limited area: from the same times of the whole data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.forecasts.boundary import ForecastBoundary, driving_data
from data_pipelines.jobs.processes import process_count
from data_pipelines.options.folders import run_name
from emul.config.build import build
from emul.config.compose import compose
from emul.config.overrides import assignment
from emul.config.saved import read_saved, saved_plain
from emulators.world import World, hours_of


def boundary_of(
    config: DictConfig, data: Any, world: World, times: tuple[np.ndarray, int], forecast: Callable[[DictConfig], Path]
) -> ForecastBoundary | None:
    """Return what another forecast tells at the boundary, that of a run once `forecast` made it; None where data do.

    data: configuration of the data of the area. times: initial times, and steps of the area.
    """
    if not config.boundary:
        return None
    if not (Path(config.boundary) / "checkpoints").is_dir():
        return ForecastBoundary(config.boundary, world, *times)
    hours = times[1] * hours_of(world.timestep)
    return ForecastBoundary(forecast(driving_config(config, data, times[0], hours)), world, *times)


def driving_config(config: DictConfig, data: Any, inits: np.ndarray, hours: float) -> DictConfig:
    """Compose the forecast of the run that `config.boundary` names; it lands beside that of the area, as x_boundary.

    ValueError where several processes or shares would each make it, or where its grid does not suit.
    """
    hardware = build(config.hardware) if "_target_" in config.hardware else None
    if config.share or (hardware is not None and process_count(hardware) > 1):
        raise ValueError(
            "boundary: a run makes its forecast in one process; forecast with it first, and give the result: "
            "boundary=outputs/forecast/..."
        )
    name = f"{config.name or run_name(config.run, config.output)}_boundary"
    values = {"run": config.boundary, "name": name, "output": config.output, "resume": config.resume}
    driving = compose("forecast", [assignment(key, value) for key, value in values.items()])
    driving.init, driving.lead = [str(time) for time in inits], f"{hours:g}h"
    own = read_saved(Path(config.boundary) / "config.yaml", given=["data"])
    driving.data = driving_data(saved_plain(data), grid_of(build(own.data).template()))
    return driving
