"""Conventions for fluxes: their positive direction, and whether values are sums, means or instantaneous.

A variable says so itself, by the attributes `positive` (up, down; in, out of the column of air) and `cell_methods`
(`time: sum` or `time: mean`, perhaps with `(interval: 6 hours)`) of the CF conventions, https://cfconventions.org. A
dataset with the attribute flux_convention = "ecmwf" follows the European centre: vertical fluxes are positive downward,
evaporation therefore negative; accumulations and means of ERA5 cover the hour before (Hersbach et al. 2020, doi
10.1002/qj.3803), those of WeatherBench 2 the hours in their names. Nothing else is known.
"""

from __future__ import annotations

import re

import xarray as xr

from emulators.physics.fluxes import BOUNDARY, usual_name

CELL = re.compile(r"time:\s*(sum|mean|point)(?:\s*\(interval:\s*(\d+)\s*h)?")


def with_ecmwf_fluxes(dataset: xr.Dataset) -> xr.Dataset:
    """Declare that the fluxes of a dataset follow the conventions of the European centre."""
    return dataset.assign_attrs(flux_convention="ecmwf")


def flux_conventions(dataset: xr.Dataset, name: str) -> tuple[str, str]:
    """Return (positive, cell) of a variable as in `emulators.variables.Variable`; empty if nothing is declared."""
    attributes = dataset[name].attrs
    positive, cell = str(attributes.get("positive", "")), ""
    found = CELL.search(str(attributes.get("cell_methods", "")))
    if found:
        cell = f"{found[1]} {found[2]}h" if found[2] else found[1]
    if dataset.attrs.get("flux_convention") == "ecmwf" and usual_name(name) in BOUNDARY:
        hours = re.search(r"_(\d+)hr$", name)
        usual = "mean" if name.startswith("mean_") else "sum"
        positive = positive or ("out" if "divergence" in name else "down")
        cell = cell or f"{usual} {hours[1] if hours else 1}h"
    return positive, cell
