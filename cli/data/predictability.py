"""`emul data predictability`: run twin simulations and report how fast their errors grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape

from emul.data.arguments import made_source
from emul.terminal.console import console, header, progress, table

if TYPE_CHECKING:
    import xarray as xr


TWINS: dict[str, Any] = {"cases": 8, "days": 30, "perturbation": 0.1}  # K on the planet, m/s on others


def main(arguments: list[str]) -> None:
    """Run twins of the chosen source, keep their error growth beside its store, and print how far it can be known."""
    from data_pipelines.inspection.predictability import experiment_summary, predictability_path
    from data_pipelines.inspection.predictability import predictability as found_by_twins
    from data_pipelines.interfaces import TwinSource

    settings, overrides = _settings(arguments)
    source, config = made_source(overrides)
    if not isinstance(source, TwinSource):
        raise ValueError(f"data={config.name} is not simulated here, so it has no twins; choose data=planet.")
    header(f"emul data predictability {config.name}", [experiment_summary(settings)])
    with progress("simulating twins") as report:
        found = found_by_twins(source, **settings, report=report)
    show_limits(found, settings["days"])
    console().print(
        f"`emul eval` draws it under the scores of this data source: {escape(str(predictability_path(source)))}",
        soft_wrap=True,
    )


def _settings(arguments: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Settings of the experiment, and the rest of the words."""
    settings, rest = dict(TWINS), []
    for word in arguments:
        key, _, value = word.partition("=")
        if key not in TWINS:
            rest.append(word)
            continue
        kind = type(TWINS[key])
        try:
            settings[key] = kind(value)
        except ValueError as error:
            what = "a whole number" if kind is int else "a number"
            raise ValueError(f"{key}: expected {what}, such as {key}={TWINS[key]}; got '{value}'.") from error
    return settings, rest


def show_limits(found: xr.Dataset, days: int) -> None:
    """A line a headline variable: how fast twins part, and when they know no more of each other."""
    from data_pipelines.inspection.predictability import predictability_limits
    from data_pipelines.verification.score_rows import headline_rows, score_rows
    from emul.display.text import DASH, number

    def told(length: float) -> str:
        return f"> {days} d" if length == float("inf") else DASH if length != length else f"{length:.1f} d"

    lines = []
    for row in headline_rows(score_rows(found), most=12):
        field = found[row.variable].sel(region="global")
        found_here = predictability_limits(field if row.level is None else field.sel(level=row.level))
        lengths = [told(length) for length in found_here[:3]]
        lines.append([row.label, *lengths, f"{number(found_here.saturation * row.factor)} {row.unit}".rstrip()])
    right = ["doubling", "as climatology", "95 % saturated", "saturation"]
    table(["RMSE of twins, global", *right], lines, right)
