"""`emul data predictability`: run twin simulations and report how fast their errors grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from emul.config.settings import read_settings
from emul.data.arguments import prepared_source
from emul.terminal.console import console, header, progress, table

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True)
class TwinSettings:
    """Describe an experiment with twins. cases: pairs. days: length. perturbation: K on the planet, m/s on others.

    whole_state: twins know all of the state; else what `variables` lack they estimate, as an emulator has to.
    """

    cases: int = 8
    days: int = 30
    perturbation: float = 0.1
    whole_state: bool = False


def main(arguments: list[str]) -> None:
    """Run twins of the chosen source, keep their error growth beside its store, and print how far it can be known."""
    from data_pipelines.inspection.predictability import experiment_summary, predictability_path
    from data_pipelines.inspection.predictability import predictability as found_by_twins
    from data_pipelines.interfaces import TwinSource

    twins, overrides = read_settings(TwinSettings, arguments)
    settings: dict[str, Any] = asdict(twins)
    source, config = prepared_source(overrides)
    if not isinstance(source, TwinSource):
        raise ValueError(f"data={config.name} is not simulated here, so it has no twins; choose data=planet.")
    selected = {name for names in config.variables.values() if isinstance(names, Sequence) for name in names}
    lacking = () if settings.pop("whole_state") else tuple(name for name in source.hidden if name not in selected)
    settings["forgotten"] = ", ".join(lacking)
    header(f"emul data predictability {config.name}", [experiment_summary(settings)])
    with progress("simulating twins") as report:
        limits = found_by_twins(source, **{**settings, "forgotten": lacking}, report=report)
    show_limits(limits, twins.days)
    console().print(
        f"`emul eval` draws it under the scores of this data source: {escape(str(predictability_path(source)))}",
        soft_wrap=True,
    )


def show_limits(scores: xr.Dataset, days: int) -> None:
    """A line a headline variable: how fast twins part, and when they know no more of each other."""
    from data_pipelines.display.text import DASH, number
    from data_pipelines.inspection.predictability import predictability_limits
    from data_pipelines.verification.score_rows import headline_rows, score_rows

    def days_text(length: float) -> str:
        return f"> {days} d" if length == float("inf") else DASH if length != length else f"{length:.1f} d"

    lines = []
    for row in headline_rows(score_rows(scores), most=12):
        field = scores[row.variable].sel(region="global")
        limits = predictability_limits(field if row.level is None else field.sel(level=row.level))
        lengths = [days_text(length) for length in limits[:3]]
        lines.append([row.label, *lengths, f"{number(limits.saturation * row.factor)} {row.unit}".rstrip()])
    right = ["doubling", "as climatology", "95 % saturated", "saturation"]
    table(["RMSE of twins, global", *right], lines, right)
