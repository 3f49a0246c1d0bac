"""Show power spectra, coherence and effective resolution of a forecast."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.verification.evaluation_results import EvaluationResults
from data_pipelines.verification.score_rows import Row
from emul.display.text import lead_text, number
from emul.display.ticks import powers_of_ten, round_numbers
from emul.report.charts import BOTTOM, HEIGHT, Chart, shaded_lines
from emul.report.html import NOTHING, Html, join, tag
from emul.report.page import Section, details, lead_legend, quiet, row_charts, shades, table, with_small
from emulators.constants import EARTH_RADIUS

if TYPE_CHECKING:
    import xarray as xr


TOP = 24  # margin above a chart, for wavelengths
DECADES = 8  # below the highest power; lower values are not drawn
EXPLAINED = (
    "Variance of forecast and truth at each scale: power by total wavenumber l (below) and wavelength 2\u03c0a/l "
    "(above), both logarithmic. A forecast that is too smooth falls below the truth (dashed: mean over lead times); "
    "one above it makes noise."
)


def spectra_section(results: EvaluationResults) -> Section:
    """The section on spectra of the headline rows by lead time; empty where none were computed."""
    spectra = results.spectra
    rows = [] if spectra is None else [row for row in results.headline if has_spectrum(spectra, row)]
    if spectra is None or not rows:
        return Section("spectra", "Spectra", NOTHING)
    times = [lead_text(lead) for lead in spectra["lead_time"].values]
    opacity, titles = shades(len(times)), [f"forecast, {time}" for time in times]

    def power(row: Row) -> Html:
        values = row.field(spectra) * row.factor**2
        truth = values.sel(source="truth").mean("lead_time").values
        return power_chart(spectra, row, {"truth": truth}, values.sel(source="forecast").values, opacity, titles)

    def coherence(row: Row) -> Html:
        values = row.field(spectra, "_coherence").values[:, 1:]
        low = min(0.0, float(np.nanmin(values))) if np.isfinite(values).any() else 0.0
        chart = _frame(f"coherence of {row.label}", spectra, (low, 1.05))
        chart.y_ticks((0.0, 0.5, 1.0))
        shaded_lines(chart, spectra["total_wavenumber"].values[1:], values, opacity, titles)
        return chart.svg()

    shared = join(lead_legend(opacity, titles), row_charts(rows, coherence))
    body = join(
        quiet(EXPLAINED),
        lead_legend(opacity, titles, "truth"),
        row_charts(rows, power, squared_unit),
        tag("h3", "Effective resolution"),
        _resolution(spectra, rows, times),
        details("Coherence of forecast and truth, by scale", shared),
    )
    return Section("spectra", "Spectra", body)


def has_spectrum(spectra: xr.Dataset, row: Row) -> bool:
    """True if the Dataset holds a spectrum of this variable and level."""
    return row.is_in(spectra) and bool(np.isfinite(row.field(spectra).values).any())


def squared_unit(row: Row) -> str:
    """`[(K)²]`."""
    return f"[({row.unit})²]" if row.unit else ""


def power_chart(
    spectra: xr.Dataset,
    row: Row,
    lines: Mapping[str, np.ndarray],
    by_lead: Iterable[np.ndarray] = (),
    opacity: Sequence[float] = (),
    titles: Sequence[str] = (),
) -> Html:
    """Power by total wavenumber of named lines, and of the forecast by lead time; both start at degree 0."""
    every = np.concatenate([line[1:] for line in (*lines.values(), *by_lead)])
    usable = every[np.isfinite(every) & (every > 0)]
    if not usable.size:
        return NOTHING
    low, high = usable.min(), usable.max() * 10**0.2
    ends = (max(low, high / 10**DECADES) / 10**0.2, high)
    chart = _frame(f"spectra of {row.label}", spectra, ends, log_y=True)
    chart.y_ticks(powers_of_ten(*ends, most=5))
    degrees = spectra["total_wavenumber"].values[1:]
    shaded_lines(chart, degrees, [line[1:] for line in by_lead], opacity, titles)
    for name, line in lines.items():
        chart.line(name, degrees, line[1:], name)
    return chart.svg()


def _frame(label: str, spectra: xr.Dataset, y: tuple[float, float], log_y: bool = False) -> Chart:
    """A chart with total wavenumbers below and wavelengths in km above."""
    last, around = float(spectra["total_wavenumber"].values[-1]), 2 * math.pi * EARTH_RADIUS / 1e3
    chart, bottom = Chart(label, (1.0, max(last, 2.0)), y, log_x=True, log_y=log_y, top=TOP), HEIGHT - BOTTOM
    for degree in round_numbers(1.0, last):
        chart.text(chart.x(degree), bottom + 13, f"{degree:g}")
    for length in round_numbers(around / last, around):
        x = chart.x(around / length)
        chart.add("line", class_="rule", x1=x, x2=x, y1=TOP, y2=bottom)
        chart.text(x, TOP - 5, f"{length:g}")
    chart.text(2, TOP - 5, "km", None)
    chart.text(2, bottom + 13, "l", None)
    return chart


def _resolution(spectra: xr.Dataset, rows: Sequence[Row], times: Sequence[str]) -> Html:
    """Effective resolution by lead time, the last coherent degree beside it, and noise."""
    lines = [(row.label, [resolution_cell(row, spectra.isel(lead_time=i)) for i in range(len(times))]) for row in rows]
    convention, finest = str(spectra.attrs["effective_resolution"]), spectra["wavelength"].values[-1] / 1e3
    grid = f"The grid resolves l up to {len(spectra.wavelength) - 1}, {finest:.0f} km."
    told = f"{convention[0].upper()}{convention[1:]}. {grid}"
    return join(quiet(told), *noise_notes(spectra, rows, times), table(["km", *times], lines))


def noise_notes(spectra: xr.Dataset, rows: Sequence[Row], times: Sequence[str]) -> list[Html]:
    """Name the rows whose forecasts have more power than the truth, with their largest share; empty without any."""
    found = []
    for row in rows:
        shares = row.field(spectra, "_noise").values
        if np.isfinite(shares).any() and np.nanmax(shares) > 0.0:
            lead = int(np.nanargmax(shares))
            degree = int(row.field(spectra, "_noise_degree").values[lead])
            found.append(f"{row.label} {_share(shares[lead])} from l = {degree} ({times[lead]})")
    told = f"Noise, as a share of the truth's variance, at its largest: {'; '.join(found)}."
    return [tag("p", told, class_="note")] if found else []


def resolution_cell(row: Row, spectra: xr.Dataset) -> Html:
    """Effective resolution at one lead time; below it its degree, that of coherence, and noise."""
    kinds = ("effective_resolution", "coherent_resolution", "noise", "noise_degree")  # the first alone in older files
    metres, coherent, noise, first = (
        float(row.field(spectra, f"_{kind}")) if f"{row.variable}_{kind}" in spectra else np.nan for kind in kinds
    )
    small = [f"l = {_degree(metres)}"] if np.isfinite(metres) else []
    small += [f"coherent to {_degree(coherent)}"] if not np.isnan(coherent) else []
    small += [f"noise from {first:.0f}"] if noise > 0.0 else []
    return with_small(resolution_text(metres), ", ".join(small))


def _degree(metres: float) -> int:
    return round(2 * math.pi * EARTH_RADIUS / metres)


def _share(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 10.0 else f"{share:.2g} times"


def resolution_text(metres: float) -> str:
    """An effective resolution in km; `none` where no scale is resolved."""
    return f"{metres / 1e3:.0f}" if np.isfinite(metres) else "none" if np.isinf(metres) else number(metres)
