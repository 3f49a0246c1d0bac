"""NetCDF files that fit in memory, written atomically with a digest that is compared on reading; the form of scores.

In memory a variable of scores has the `units` of the field that is scored, and the Dataset the attributes `exponent`,
`perfect` and `metrics` as JSON by metric. In files a score is not said to be in units that only some metrics have: the
variable has `field_units` and `metric_units`. Exponents, perfect scores and settings are coordinates along `metric`;
settings are calls, `emulators.metrics.rmse.RMSE(by_init=False)`. Every file names its conventions, and each coordinate
and variable of it and of its groups has at least a `long_name`.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from xarray.backends.netCDF4_ import NETCDF4_PYTHON_LOCK

from data_pipelines.files.atomic import atomic_file, could_not_write, remove_left
from data_pipelines.files.fingerprints import AGAIN, CRC_BYTES, DIGEST, crc32c

if TYPE_CHECKING:
    import netCDF4

# The last bytes of a file, before a crc32c of all others: HDF5 reads none behind the end that it has noted itself, and
# its library may crash where bits of its structures are flipped, so that the file is compared before it is opened.
END = b"emul-crc"


def write_netcdf(
    path: Path, dataset: xr.Dataset, groups: Mapping[str, xr.Dataset] | None = None, *, deflate: bool = False
) -> None:
    """Write a Dataset that fits in memory to a NetCDF file atomically, and further ones to its groups, by name.

    deflate: compress the data variables.
    """

    def encoding(dataset: xr.Dataset) -> dict[Any, dict[str, Any]]:
        return {name: {"zlib": True, "complevel": 1} for name in dataset.data_vars} if deflate else {}

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_left(path)
        with atomic_file(path) as unfinished:
            root = described(dataset).assign_attrs({"Conventions": CONVENTIONS, **dataset.attrs})
            root.to_netcdf(unfinished, engine="netcdf4", encoding=encoding(dataset))
            for name, group in (groups or {}).items():
                described(group).to_netcdf(unfinished, engine="netcdf4", mode="a", group=name, encoding=encoding(group))
            _seal(unfinished)
    except (OSError, RuntimeError) as error:
        size = dataset.nbytes + sum(group.nbytes for group in (groups or {}).values())
        raise could_not_write(path, error, size) from error


def read_netcdf(path: str | Path, group: str | None = None) -> xr.Dataset:
    """Read a Dataset into memory, times decoded; OSError if it differs from its digest or has no such group."""
    refuse_damaged_netcdf(path)
    with xr.open_dataset(path, engine="netcdf4", group=group, decode_timedelta=True) as dataset:
        return dataset.load()


def read_groups(path: str | Path) -> dict[str, xr.Dataset]:
    """Read the root, as `/`, and all groups of a file into memory; errors as of `read_netcdf`."""
    refuse_damaged_netcdf(path)
    groups = xr.open_groups(path, engine="netcdf4", decode_timedelta=True)
    try:
        return {name: group.load() for name, group in groups.items()}
    finally:
        for group in groups.values():
            group.close()


@contextmanager
def opened_netcdf(path: str | Path, mode: Literal["r", "a", "w"] = "r") -> Iterator[netCDF4.Dataset]:
    """Open a file while no other thread, nor xarray in one, uses netCDF4, which is not safe for threads.

    The lock is xarray's own: its two parts, taken in another order than xarray takes them, would end in a deadlock.
    """
    import netCDF4

    with NETCDF4_PYTHON_LOCK, netCDF4.Dataset(path, mode, format="NETCDF4") as file:
        yield file


def refuse_damaged_netcdf(path: str | Path) -> None:
    """Raise OSError if a file differs from the checksum behind it or the digest in it; others are not checked."""
    if _has_its_crc(path):
        return
    try:
        with opened_netcdf(path) as file:
            stored = file.__dict__.get(DIGEST)
            computed = stored if stored is None else _digest(file)
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise OSError(f"{path} cannot be read as NetCDF ({error}); {AGAIN}.") from error
    if stored != computed:
        raise OSError(f"{path} differs from its checksum; {AGAIN}.")


def is_sealed_netcdf(path: str | Path) -> bool:
    """Return whether a file has a digest of its content."""
    with opened_netcdf(path) as file:
        return DIGEST in file.ncattrs()


def _seal(path: Path) -> None:
    with opened_netcdf(path, "a") as file:
        digest = _digest(file)
        file.setncattr(DIGEST, digest)
    content = path.read_bytes()
    with open(path, "ab") as end:
        end.write(END + crc32c(content))


def _has_its_crc(path: str | Path) -> bool:
    """Return whether a file ends with the crc32c of the rest; OSError if with that of another, False if with none."""
    content = memoryview(Path(path).read_bytes())
    body, end = content[: -len(END) - CRC_BYTES], content[-len(END) - CRC_BYTES :]
    if bytes(end[: len(END)]) != END:
        return False
    if crc32c(body) != bytes(end[len(END) :]):
        raise OSError(f"{path} differs from its checksum; {AGAIN}.")
    return True


def _digest(file: Any) -> str:
    """Return the sha256 of names, dimensions, attributes and values of all groups, as they are stored."""
    total = hashlib.sha256()

    def add(group: Any) -> None:
        total.update(repr([group.path, [(name, len(dim)) for name, dim in group.dimensions.items()]]).encode())
        total.update(_attributes(group))
        for name, variable in group.variables.items():
            variable.set_auto_maskandscale(False)
            variable.set_auto_chartostring(False)
            total.update(repr([name, variable.dimensions]).encode() + _attributes(variable))
            values = np.asarray(variable[...])
            text = values.dtype.hasobject or values.dtype.kind in "US"
            total.update(repr(values.tolist()).encode() if text else np.ascontiguousarray(values).tobytes())
        for below in group.groups.values():
            add(below)

    add(file)
    return total.hexdigest()


def _attributes(node: Any) -> bytes:
    """Return the attributes of a group or variable as bytes, without the digest."""
    attributes = {name: np.asarray(value).tolist() for name, value in node.__dict__.items() if name != DIGEST}
    return repr(sorted(attributes.items())).encode()


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
    "forecast": {"long_name": "forecast that the evaluation is of"},
    "correction": {"long_name": "constraint and variable that it changes"},
    "channel": {"long_name": "variable, and level where it has some"},
    "channel_units": {"long_name": "units of the fields of a channel"},
    "scale": {"long_name": "time scale of the variability"},
    "mode": {"long_name": "leading pattern, by its share of the variance", "units": "1"},
    "pattern_region": {"long_name": "region that the patterns are of"},
    "rate": {"long_name": "rate of precipitation, middle of the bin", "units": "mm day-1"},
    "percentile": {"long_name": "share of times and places that stay below", "units": "percent"},
    "total_wavenumber": {"long_name": "total wavenumber l", "units": "1"},
    "latitude": {"long_name": "latitude", "standard_name": "latitude", "units": "degrees_north"},
    "longitude": {"long_name": "longitude", "standard_name": "longitude", "units": "degrees_east"},
}
INITIAL_TIME = {"long_name": "initial time", "standard_name": "forecast_reference_time"}
BY_METRIC = {
    "exponent": {"long_name": "power of the units of the field that the metric has", "units": "1"},
    "perfect": {"long_name": "value of a perfect forecast, NaN where there is none"},
}

SETTINGS = {"long_name": "class of the metric and its options"}
OF_DIMENSION = {"statistic": "area means of statistics of", "estimate": "differences between scores of"}


def units_of_score(units: str, exponent: int) -> str:
    """Return the units of a metric that has this power of the units of its field."""
    return "" if exponent == 0 else units if exponent == 1 else f"({units})^{exponent}"


def described(dataset: xr.Dataset) -> xr.Dataset:
    """Return a Dataset with attributes on every coordinate, and a long_name on every variable; those it has are kept.

    `time` is the initial time where there is a lead time too.
    """
    result = dataset.copy()
    usual = {**COORDINATES, "time": INITIAL_TIME} if "lead_time" in dataset.dims else COORDINATES
    for name, field in result.variables.items():
        fitting = usual.get(str(name), {}) if name in result.coords else {}
        field.attrs = {"long_name": str(name).replace("_", " "), **fitting, **field.attrs}
        if name == "level" and field.attrs.get("units") == "":
            field.attrs["units"] = "1"
    return result


def stored_form(dataset: xr.Dataset, title: str) -> xr.Dataset:
    """Return scores in the form of files; `read_form` reverses it."""
    result = dataset.copy()
    attributes = {"Conventions": CONVENTIONS, "title": title, **dataset.attrs}
    metrics = [str(name) for name in dataset["metric"].values] if "metric" in dataset.dims else []
    by_metric = {name: json.loads(str(attributes.pop(name))) for name in BY_METRIC if metrics and name in attributes}
    for name, values in by_metric.items():
        array = np.array([values.get(metric, np.nan if name == "perfect" else 0) for metric in metrics])
        result = result.assign_coords({name: ("metric", array, BY_METRIC[name])})
    settings = json.loads(str(attributes.pop("metrics", "{}")))
    if metrics and settings:
        texts = [_call(settings[metric]) if metric in settings else "" for metric in metrics]
        result = result.assign_coords(settings=("metric", texts, SETTINGS))
    words = next((text for dim, text in OF_DIMENSION.items() if dim in dataset.dims), "scores of")
    for variable, field in result.data_vars.items():
        if not {"metric", "statistic"} & set(map(str, field.dims)) or "units" not in field.attrs:
            continue
        units = str(field.attrs.pop("units"))
        field.attrs.setdefault("long_name", f"{words} {str(variable).replace('_', ' ')}")
        field.attrs["field_units"] = units
        if "exponent" in by_metric:
            entries = (
                f"{metric}: {units_of_score(units, by_metric['exponent'].get(metric, 0)) or '1'}" for metric in metrics
            )
            field.attrs["metric_units"] = "; ".join(entries)
    result.attrs = attributes
    return described(result)


def _call(settings: Mapping[str, Any]) -> str:
    """Return the settings of a part as its call: `module.Class(option=value)`."""
    options = ", ".join(f"{name}={value!r}" for name, value in settings.items() if name != "_target_")
    return f"{settings.get('_target_', '')}({options})"


def _called(text: str) -> dict[str, Any]:
    """Return the settings that a call stands for; ValueError where the text is none."""
    target, _, options = text.partition("(")
    try:
        call = ast.parse(f"call({options}", mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            raise ValueError("options have names")
        values = {str(option.arg): ast.literal_eval(option.value) for option in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"The settings of a metric are damaged: {text}; score the forecast again.") from error
    return ({"_target_": target} if target else {}) | values


def read_form(dataset: xr.Dataset) -> xr.Dataset:
    """Return stored scores in the form in which they are computed with."""
    attributes: dict[str, Any] = {}
    for name in BY_METRIC:
        if name in dataset.coords:
            pairs = zip(dataset["metric"].values.tolist(), dataset[name].values.tolist(), strict=True)
            attributes[name] = json.dumps(dict(pairs))
    if "settings" in dataset.coords:
        pairs = zip(dataset["metric"].values.tolist(), dataset["settings"].values.tolist(), strict=True)
        attributes["metrics"] = json.dumps({metric: _called(text) for metric, text in pairs if text})
    result = dataset.drop_vars([name for name in (*BY_METRIC, "settings") if name in dataset.coords])
    for field in result.data_vars.values():
        if "field_units" in field.attrs:
            field.attrs = {"units": field.attrs["field_units"], **field.attrs}
    return result.assign_attrs(attributes)
