"""Print the score card to the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from rich.markup import escape
from rich.table import Table

from data_pipelines.verification.score_rows import Row, headline_leads, relative_difference, significance
from emul.display.text import lead_text, number, percent
from emul.terminal.console import console

if TYPE_CHECKING:
    import xarray as xr


def show(
    scores: xr.Dataset, baselines: xr.Dataset | None, judged: xr.Dataset | None, first: Sequence[Row], region: str
) -> None:
    """The score card in the terminal: RMSE, below it the difference to baselines in percent, green where better."""
    if "rmse" not in scores["metric"].values:
        return
    leads = headline_leads(scores["lead_time"].values)
    sources = [] if baselines is None else [str(s) for s in baselines["source"].values]
    table = Table(show_edge=False, pad_edge=False, header_style="bold")
    table.add_column(f"RMSE, {region}", no_wrap=True)
    for i in leads:
        table.add_column(lead_text(scores["lead_time"].values[i]), justify="right", no_wrap=True)
    for row in first:
        values = row.series(scores, "rmse", region) * row.scale(1)
        found = [
            (d, significance(row, judged, source, region=region))
            for source in sources
            if (d := relative_difference(row, scores, baselines, source, region=region)) is not None
        ]
        parts = [" ".join(_coloured(d[i], sure[i] if sure else None) for d, sure in found) for i in leads]
        cells = ["\n".join(filter(None, [number(values[i]), part])) for i, part in zip(leads, parts, strict=True)]
        table.add_row(f"{escape(row.label)}\n[quiet]{escape(row.unit)}[/]", *cells)
    console().print(table)
    if sources:
        told = " and ".join(sources)
        sure = "" if judged is None else f"; ~ not significant at {judged.attrs['level']} %"
        console().print(f"[quiet]below each RMSE: its difference to {told}{sure}[/]")


def _coloured(difference: float, sure: bool | None) -> str:
    if not np.isfinite(difference):
        return percent(difference)
    if sure is False:
        return f"[quiet]~{percent(difference)}[/]"
    return f"[{'good' if difference < 0 else 'bad'}]{percent(difference)}[/]"


def _others(baselines: xr.Dataset | None, limits: Mapping[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    """Scores to draw beside the forecast's: the baselines, and the limits where they are known."""
    found = {}
    if baselines is not None:
        found = {str(source): baselines.sel(source=source) for source in baselines["source"].values}
    return {**found, **limits}
