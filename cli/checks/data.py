"""Findings about the data source: its variables, levels and splits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from data_pipelines.conventions.suggestions import listing
from emul.config.build import build
from emul.terminal.findings import Finding, refusal

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr
    from torch import nn

    from data_pipelines.interfaces import Source


@dataclass
class Facts:
    """Collect what a check learns.

    rows: for the plan. warnings: what is allowed but seldom meant. network: the model on the meta device, if it fits.
    """

    rows: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    network: nn.Module | None = None


def open_source(node: Any, found: list[Finding]) -> tuple[Source | None, xr.Dataset | None]:
    """Build the data source and its template; adds a finding where either fails."""
    try:
        source = build(node)
        template = source.template()
        if "time" in template.dims:
            return source, template
        found.append(Finding("data", "fields at several times", f"{[*template.data_vars]} without any"))
    except ImportError as error:
        found.append(refusal("data", f"the package {error.name}", error))
    except Exception as error:  # a source may refuse in any way
        key = "data.path" if isinstance(error, FileNotFoundError) and "path" in node else "data"
        found.append(refusal(key, "data that can be opened", error))
    return None, None


def split_findings(splits: Mapping[str, Any], times: np.ndarray, facts: Facts) -> list[Finding]:
    """Find splits that are no periods, lie outside the data, or are empty; an overlap is a warning."""
    import numpy as np

    from data_pipelines.conventions.periods import bounds

    times = times.astype("datetime64[s]")
    first, last = times.min(), times.max()
    slack = max(np.timedelta64(1, "D"), *np.diff(times[:2]))
    span = f"{first} to {last}"
    found, periods = [], {}
    for name, period in splits.items():
        key = f"data.splits.{name}"
        try:
            start, end = periods[name] = bounds(period)
        except ValueError as error:
            found.append(refusal(key, "a period [start, end]", error))
            continue
        inside = int(((times >= start) & (times <= end)).sum())
        got = f"{period[0]} to {period[1]}"
        if not inside:
            found.append(Finding(key, f"times of the data, {span}", f"{got}, which holds none"))
        elif start < first - slack or end > last + slack:
            found.append(Finding(key, f"a period within {span}", got, "shorten it"))
        facts.rows[name] = f"{got}, {inside} times"
    for name in ("validation", "test"):
        if name in periods and "train" in periods:
            (a, b), (c, d) = periods["train"], periods[name]
            if a <= d and c <= b:
                facts.warnings.append(f"data.splits.{name} overlaps data.splits.train: its scores will flatter.")
    missing = [name for name in ("train", "validation", "test") if name not in splits]
    return found + [Finding(f"data.splits.{name}", "a period [start, end]", "nothing", "add it") for name in missing]


def variable_findings(roles: Mapping[str, Any], template: xr.Dataset) -> list[Finding]:
    """Find variables that the data do not hold and that cannot be computed."""
    from data_pipelines.derived import forcings

    if roles.get("prognostic") is None and "roles" in template.attrs:  # as stored
        return []
    computed = {"forcing": forcings.MOVING, "static": forcings.FIXED}
    found = []
    for role in ("prognostic", "forcing", "diagnostic", "static"):
        for index, entry in enumerate(roles.get(role) or ()):
            finding = _entry_finding(f"variables.{role}[{index}]", entry, template, computed.get(role, ()))
            if finding:
                found.append(finding)
    if not roles.get("prognostic"):
        fix = f"list what is to be predicted; {listing(template.data_vars)}"
        found.append(Finding("variables.prognostic", "at least one variable", "none", fix))
    return found


def _entry_finding(key: str, entry: Any, template: xr.Dataset, computed: Iterable[str]) -> Finding | None:
    from data_pipelines.conventions.dialects import nearest_variable

    name, levels = (entry, None) if isinstance(entry, str) else next(iter(dict(entry).items()))
    known = [*map(str, template.data_vars), *computed]
    if name not in known:
        best = nearest_variable(str(name), known)
        fix = f"write {best}" if best else listing(known).rstrip(".")
        return Finding(key, "a variable of the data" + (" or a computed one" if computed else ""), str(name), fix)
    if not levels:
        return None
    if name not in template.data_vars or "level" not in template[name].dims:
        return Finding(key, f"{name} alone, which has no levels", f"levels {levels}", f"write {name}")
    there = [float(level) for level in template["level"].values]
    absent = [level for level in levels if float(level) not in there]
    if absent:
        closest = [f"{min(there, key=lambda other: abs(other - float(level))):g}" for level in absent]
        listed = ", ".join(f"{level:g}" for level in there)
        got = ", ".join(f"{float(level):g}" for level in absent)
        return Finding(key, f"levels of {name}: {listed}", got, f"write {', '.join(closest)}")
    return None
