"""The form in which scores are stored: units of each metric, attributes of every coordinate, CF conventions.

In memory a variable of scores has the `units` of the field that is scored, and the Dataset the attributes `exponent`
and `perfect` as JSON by metric. In files a score is not said to be in units that only some metrics have: the variable
has `field_units` and `metric_units`, and exponents and perfect scores are coordinates along `metric`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import xarray as xr

CONVENTIONS = "CF-1.11"
COORDINATES: dict[str, dict[str, str]] = {
    "metric": {"long_name": "metric, defined in the attribute definitions"},
    "region": {"long_name": "region of the area mean", "standard_name": "region"},
    "lead_time": {"long_name": "lead time", "standard_name": "forecast_period"},
    "inits": {"long_name": "number of initial times scored", "units": "1"},
    "level": {"long_name": "level", "axis": "Z"},
    "source": {"long_name": "forecast, baseline or reference that the scores are of"},
    "estimate": {"long_name": "difference, ends of its confidence interval, block length, number of initial times"},
    "statistic": {"long_name": "area mean of a statistic of points, from which metrics follow"},
    "run": {"long_name": "evaluation that the scores are of"},
    "time": {"long_name": "initial time", "standard_name": "forecast_reference_time"},
}
BY_METRIC = {
    "exponent": {"long_name": "power of the units of the field that the metric has", "units": "1"},
    "perfect": {"long_name": "value of a perfect forecast, NaN where there is none"},
}


def units_of_score(units: str, exponent: int) -> str:
    """Return the units of a metric that has this power of the units of its field."""
    return "" if exponent == 0 else units if exponent == 1 else f"({units})^{exponent}"


def stored_form(dataset: xr.Dataset, title: str) -> xr.Dataset:
    """Return scores in the form of files; `read_form` reverses it."""
    made = dataset.copy()
    attributes = {"Conventions": CONVENTIONS, "title": title, **dataset.attrs}
    metrics = [str(name) for name in dataset["metric"].values] if "metric" in dataset.dims else []
    told = {name: json.loads(str(attributes.pop(name))) for name in BY_METRIC if metrics and name in attributes}
    for name, values in told.items():
        array = np.array([values.get(metric, np.nan if name == "perfect" else 0) for metric in metrics])
        made = made.assign_coords({name: ("metric", array, BY_METRIC[name])})
    for variable, field in made.data_vars.items():
        if not {"metric", "statistic"} & set(map(str, field.dims)) or "units" not in field.attrs:
            continue
        units = str(field.attrs.pop("units"))
        field.attrs.setdefault("long_name", f"scores of {str(variable).replace('_', ' ')}")
        field.attrs["field_units"] = units
        if "exponent" in told:
            each = (f"{metric}: {units_of_score(units, told['exponent'].get(metric, 0)) or '1'}" for metric in metrics)
            field.attrs["metric_units"] = "; ".join(each)
    for name, usual in COORDINATES.items():
        if name in made.coords:
            made[name].attrs = {**usual, **made[name].attrs}
    made.attrs = attributes
    return made


def read_form(dataset: xr.Dataset) -> xr.Dataset:
    """Return stored scores in the form in which they are computed with."""
    told: dict[str, Any] = {}
    for name in BY_METRIC:
        if name in dataset.coords:
            pairs = zip(dataset["metric"].values.tolist(), dataset[name].values.tolist(), strict=True)
            told[name] = json.dumps(dict(pairs))
    made = dataset.drop_vars([name for name in BY_METRIC if name in dataset.coords])
    for field in made.data_vars.values():
        if "field_units" in field.attrs:
            field.attrs = {"units": field.attrs["field_units"], **field.attrs}
    return made.assign_attrs(told)
