"""The climate of forecasts and of their truth as a Dataset: what `climate.nc` holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from emulators.grid import grid_coordinates, grid_dims
from emulators.variables import Variable
from emulators.verification.channels import level_block, level_coordinate
from emulators.verification.climate import ClimateCard

if TYPE_CHECKING:
    import xarray as xr


SOURCES = ("forecast", "truth")


def climate_dataset(card: ClimateCard, attributes: Mapping[str, object] | None = None) -> xr.Dataset:
    """Return by variable v: `v` (metric, region[, level]), `v_mean`, `v_std`, `v_trend`, `v_cycle`, `v_return10`,
    `v_zonal_mean`, `v_annual_mean` (source, ...), and `nino34` (source, month).

    attributes: of the Dataset, beside those that say what it covers and leaves out.
    """
    import xarray as xr

    scores, absent = card.scores(), card.left_out()
    values = np.stack(list(scores.values()))  # (metric, channel, region)
    arrays: dict[str, Any] = {}
    coords: dict[str, Any] = {
        "metric": list(scores),
        "region": list(card.regions.names),
        "source": list(SOURCES),
        **grid_coordinates(card.grid),
        **level_coordinate(card.variables),
    }
    place = grid_dims(card.grid)
    fields = {name: field.reshape(*field.shape[:2], *card.grid.shape) for name, field in card.maps().items()}
    for kind in {"cosine", "sine", *(kind for kind in ("trend", "cycle") if kind in absent)}:
        del fields[kind]
    annual = None
    if "annual" not in absent:
        means = card.annual_means()
        annual = np.stack([means[:, 1:].mean(axis=1), means[:, 0]])  # (source, year, channel, region)
        coords["year"] = card.years
    for variable in card.variables:
        name, levels = variable.name, ("level",) if variable.levels else ()

        def block(array: np.ndarray, axis: int, variable: Variable = variable) -> np.ndarray:
            return level_block(array, axis, variable, card.variables)

        units = {"units": variable.units}
        arrays[name] = (("metric", *levels, "region"), block(values, 1), units)
        for kind, field in fields.items():
            attrs = {"units": f"{variable.units} decade-1".strip()} if kind == "trend" else units
            arrays[f"{name}_{kind}"] = (("source", *levels, *place), block(field, 1), attrs)
        if len(place) == 2:
            zonal = fields["mean"].mean(axis=-1)
            arrays[f"{name}_zonal_mean"] = (("source", *levels, place[0]), block(zonal, 1), units)
        if annual is not None:
            arrays[f"{name}_annual_mean"] = (("source", "year", *levels, "region"), block(annual, 2), units)
    index = card.nino()
    if index is not None:
        arrays |= _nino(index[0])
        coords["month"] = index[1].astype("datetime64[ns]")
    return xr.Dataset(arrays, coords, {**_facts(card), **(attributes or {})})


def _nino(index: np.ndarray) -> dict[str, Any]:
    """Return the index (month, truth and members) of both sources, and how much it varies."""
    both = np.stack([index[:, 1:].mean(axis=1), index[:, 0]])
    spread = [np.sqrt(np.nanvar(index[:, 1:], axis=0).mean()), np.nanstd(index[:, 0])]
    return {
        "nino34": (("source", "month"), both, {"units": "K"}),
        "nino34_std": (("source",), np.array(spread), {"units": "K"}),
    }


def _facts(card: ClimateCard) -> dict[str, object]:
    """Return what the sums cover, what is left out and why, and what the names mean."""
    times = card.times
    return {
        "times": f"{times.size} valid times from {times[0]} to {times[-1]}",
        "whole_years": len(card.years),
        "left_out": "; ".join(f"{name}: {why}" for name, why in card.left_out().items()),
        "definitions": "std about the time mean; trend a decade, beside two harmonics of the year; annual, "
        "interannual and nrmse of whole years; nrmse = nrmse_spatial + 5 nrmse_global (ClimateBench); cycle: the "
        "first harmonic of the year; bias_noise: standard error of the bias by the variance of annual means; "
        "return10: what the largest value of a year exceeds once in 10 years (Gumbel)",
    }
