"""Show the climate of forecasts beside that of the truth: tables of its scores, charts, and maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.display.text import DASH, number, powers_of_ten, round_numbers
from data_pipelines.reports.charts import Chart, line_chart
from data_pipelines.reports.drawings import Maps, Picture
from data_pipelines.reports.page import (
    NOTHING,
    Html,
    Section,
    charts,
    details,
    figure,
    join,
    legend,
    quiet,
    row_name,
    table,
    tag,
    with_small,
)
from data_pipelines.verification.score_rows import Row

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.verification.score_files import EvaluationResults


SCORES = {  # metric: (heading, power of the units)
    "bias": ("bias", 1),
    "bias_rmse": ("RMSE of the mean", 1),
    "std_ratio": ("variability / truth's", 0),
    "annual_rmse": ("RMSE of annual means", 1),
    "bias_over_noise": ("bias / noise", 0),
    "drift_over_noise": ("drift / noise", 0),
    "cycle_ratio": ("season / truth's", 0),
    "return10_rmse": ("RMSE of 10-year maxima", 1),
    "nrmse": ("NRMSE", 0),
    "trend_forecast": ("trend a decade", 1),
    "trend_truth": ("truth's trend", 1),
}
TRANSPORTS = {  # name: (title, factor, unit)
    "energy_transport": ("Northward transport of energy by the air", 1e-15, "PW"),
    "energy_transport_implied": ("Northward transport of energy that its sources imply", 1e-15, "PW"),
    "water_transport": ("Northward transport of water vapour by the air", 1e-9, "10\u2079 kg/s"),
    "water_transport_implied": ("Northward transport of water that evaporation and rain imply", 1e-9, "10\u2079 kg/s"),
}
SOURCES = ("forecast", "truth")
MOST_CHARTS, LEAST_SHARE = 6, 1e-7
EXPLAINED = (
    "Below 2, bias and drift over noise say little: the noise is what the differences of single years make of them, "
    "taken as independent."
)
SCALES_EXPLAINED = (
    "Variability at each time scale over the truth's, as roots of area means of variances: single times about their "
    "month, the mean season, and departures from it of months and of years."
)
PATTERNS_EXPLAINED = (
    "Leading patterns (EOF) of monthly departures from season and line: share of the variance \u00b1 its sampling "
    "error (North et al. 1982), in brackets where the mode is not distinct from those beside it; likeness of patterns, "
    "variance of the forecast along the truth's pattern over the truth's, and how much of the three leading patterns "
    "of one lies in those of the other. Of modes that are not distinct only the last says something."
)
TRANSPORTS_EXPLAINED = (
    "Means over the run; bands: the standard deviation of annual means. What the sources imply leaves out what was "
    "stored and the mean gain of the globe."
)
RAIN_EXPLAINED = (
    "How often precipitation falls at each rate, and how much of it: the area below the second curves is the mean. "
    "Both at logarithmic rates, in mm a day."
)


def climate_lines(dataset: xr.Dataset, rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the headings of SCORES that there are, and a line for each row: its label, its scores and its unit.

    dataset: of climate.nc, of which the first region is taken.
    """
    region = str(dataset["region"].values[0])
    metrics = [metric for metric in SCORES if metric in dataset["metric"].values]
    lines = []
    for row in [row for row in rows if row.is_in(dataset)]:
        cells = [row.series(dataset, metric, region).item() * row.scale(SCORES[metric][1]) for metric in metrics]
        lines.append([row.label, *(number(cell) if np.isfinite(cell) else DASH for cell in cells), row.unit])
    return [SCORES[metric][0] for metric in metrics], lines


def circulation_lines(dataset: xr.Dataset) -> list[list[str]]:
    """Return lines of what is known of no single variable: label, forecast, truth and unit."""
    lines = []
    for name, (title, factor, unit) in TRANSPORTS.items():
        if name in dataset:
            values = dataset[name].sel(source=list(SOURCES)).values * factor
            for place, most in (("northward", values.max(axis=-1)), ("southward", -values.min(axis=-1))):
                what = title.removeprefix("Northward ").capitalize()
                lines.append([f"{what}: most {place}", *map(number, most), unit])
    if "precipitation_percentile" in dataset:
        first = dataset.isel(region=0).sel(source=list(SOURCES))
        shares = 100.0 * first["precipitation_wet_share"].values
        lines.append(["Precipitation: times and places with 1 mm/day", *map(number, shares), "%"])
        for percentile in first["percentile"].values:
            rates = first["precipitation_percentile"].sel(percentile=percentile).values
            lines.append([f"Precipitation: {percentile:g} % stay below", *map(number, rates), "mm/day"])
        shared = float(first["precipitation_overlap"])
        lines.append(["Precipitation: overlap of the distributions", number(shared), number(1.0), ""])
    return lines


def climate_section(results: EvaluationResults) -> Section:
    """The section on the climate, empty where none was computed."""
    dataset, title = results.climate, "Climate"
    if dataset is None:
        return Section("climate", title, NOTHING)
    headings, lines = climate_lines(dataset, results.headline)
    region = str(dataset["region"].values[0])
    rows = [row for row in results.headline if row.is_in(dataset)]
    cells = [(row_name(row), line[1:-1]) for row, line in zip(rows, lines, strict=True)]
    body = [
        quiet(f"{dataset.attrs['times']}; {dataset.attrs['whole_years']} whole years. {EXPLAINED}"),
        table([region, *headings], cells),
        *_scales(dataset, rows),
        *_circulation(dataset),
        *_zonal_means(dataset, rows),
        *_patterns(dataset, rows),
    ]
    return Section("climate", title, join(*body))


def _of_field(dataset: xr.Dataset, rows: Sequence[Row]) -> Iterator[tuple[Row, xr.Dataset]]:
    """The rows whose fields were kept month by month, and what is known of them."""
    for row in rows:
        channel = row.variable if row.level is None else f"{row.variable}_{row.level:g}"
        if "channel" in dataset.coords and channel in dataset["channel"].values:
            yield row, dataset.sel(channel=channel)


def _scales(dataset: xr.Dataset, rows: Sequence[Row]) -> list[Html]:
    if "scale_ratio" not in dataset:
        return []
    lines = [
        (row.label, [number(ratio) for ratio in field["scale_ratio"].isel(region=0).values])
        for row, field in _of_field(dataset, rows)
    ]
    head = ["", *(str(scale) for scale in dataset["scale"].values)]
    return [tag("h3", "Variability by time scale"), quiet(SCALES_EXPLAINED), table(head, lines)]


def _circulation(dataset: xr.Dataset) -> list[Html]:
    lines = circulation_lines(dataset)
    if not lines:
        return []
    numbers = table(["", *SOURCES], [(with_small(line[0], line[3]), line[1:3]) for line in lines])
    body = [tag("h3", "Transports and precipitation"), numbers]
    transports = charts(
        figure(title, _transport_chart(dataset, name, factor), f"[{unit}]")
        for name, (title, factor, unit) in TRANSPORTS.items()
        if name in dataset
    )
    if transports:
        body += [quiet(TRANSPORTS_EXPLAINED), legend(SOURCES), transports]
    if "precipitation_frequency" in dataset:
        shown = charts(
            figure(f"{what} of precipitation by rate", _rain_chart(dataset, f"precipitation_{what.lower()}"), unit)
            for what, unit in (("Frequency", "[share]"), ("Amount", "[mm/day a bin]"))
        )
        body += [quiet(RAIN_EXPLAINED), legend(SOURCES), shown]
    return body


def _transport_chart(dataset: xr.Dataset, name: str, factor: float) -> Html:
    latitude = dataset["latitude"].values
    lines = {source: (latitude, dataset[name].sel(source=source).values * factor) for source in SOURCES}
    bands = {}
    if f"{name}_interannual_std" in dataset:
        for source, (_, values) in lines.items():
            spread = dataset[f"{name}_interannual_std"].sel(source=source).values * factor
            bands[source] = (values - spread, values + spread)
    return line_chart(f"{name.replace('_', ' ')} by latitude", lines, "°N", mark=0.0, bands=bands)


def _rain_chart(dataset: xr.Dataset, name: str) -> Html:
    """A distribution over the rates between the first and the last bin, logarithmic in the rate."""
    rates = dataset["rate"].values[1:-1]
    values = {source: dataset[name].isel(region=0).sel(source=source).values[1:-1] for source in SOURCES}
    largest = max(float(line.max()) for line in values.values())
    if not largest > 0.0:
        return NOTHING
    by_share = name.endswith("frequency")
    low, high = (LEAST_SHARE, float(10.0 ** np.ceil(np.log10(largest)))) if by_share else (0.0, 1.05 * largest)
    chart = Chart(name.replace("_", " "), (rates[0], rates[-1]), (low, high), log_x=True, log_y=by_share)
    chart.y_ticks(powers_of_ten(low, high, 5) if by_share else [0.0, float(f"{largest:.1g}")])
    chart.x_ticks(round_numbers(0.01, 999.0), "mm/day")
    for source, line in values.items():
        chart.line(source, rates, line, source)
    return chart.svg()


def _zonal_means(dataset: xr.Dataset, rows: Sequence[Row]) -> list[Html]:
    rows = [row for row in rows if f"{row.variable}_zonal_mean" in dataset][:MOST_CHARTS]
    if not rows:
        return []
    drawn = []
    for row in rows:
        field = row.field(dataset, "_zonal_mean")
        lines = {s: (dataset["latitude"].values, field.sel(source=s).values * row.factor) for s in SOURCES}
        chart = line_chart(f"zonal mean of {row.label}", lines, "°N")
        drawn.append(figure(row.label, chart, f"[{row.unit}]" if row.unit else ""))
    return [tag("h3", "Zonal means"), legend(SOURCES), charts(drawn)]


def _patterns(dataset: xr.Dataset, rows: Sequence[Row]) -> list[Html]:
    if "pattern" not in dataset:
        return []
    body = [tag("h3", "Leading patterns"), quiet(PATTERNS_EXPLAINED)]
    head = ["mode", "forecast", "truth", "likeness", "along the truth's", "overlap of three"]
    for place, region in enumerate(dataset["pattern_region"].values):
        lines = []
        for row, field in _of_field(dataset.sel(pattern_region=region), rows):
            for mode in field["mode"].values:
                lines.append((f"{row.label}, {mode}", _mode_cells(field.sel(mode=mode))))
        shown = table([str(region), *head[1:]], lines)
        body.append(details(f"Leading patterns, {region}", shown) if place else shown)
    return body


def _mode_cells(mode: xr.Dataset) -> list[str]:
    """Cells of one mode of one field."""
    shares = []
    for source in SOURCES:
        share, error = (100.0 * float(mode[f"pattern_{name}"].sel(source=source)) for name in ("shares", "errors"))
        text = f"{share:.0f} \u00b1 {error:.0f} %" if np.isfinite(share) else DASH
        shares.append(text if float(mode["pattern_separate"].sel(source=source)) else f"({text})")
    values = [number(float(mode[f"pattern_{name}"])) for name in ("likeness", "along")]
    return [*shares, *values, number(float(mode["pattern_overlap"])) if int(mode["mode"]) == 1 else ""]


def climate_maps(maps: Maps, dataset: xr.Dataset, results: EvaluationResults) -> None:
    """Maps of mean state, season, extremes and first pattern of forecast and truth, and their difference.

    dataset: of climate.nc.
    """
    maps.clear()
    kinds = {
        "_mean": (f"mean over {dataset.attrs['times']}", 6),
        "_cycle": ("amplitude of the annual cycle", 3),
        "_return10": ("what a year exceeds once in ten", 3),
    }
    for suffix, (title, most) in kinds.items():
        for row in [row for row in results.headline if f"{row.variable}{suffix}" in dataset][:most]:
            _draw(maps, row, suffix, title, row.field(dataset, suffix))
    if "pattern" in dataset:
        for row, field in [*_of_field(dataset, results.headline)][:3]:
            _draw(maps, row, "_pattern", "first pattern of monthly departures", field["pattern"].sel(mode=1))


def _draw(maps: Maps, row: Row, suffix: str, title: str, field: xr.DataArray) -> None:
    fields: Mapping[str, np.ndarray] = {source: field.sel(source=source).values for source in SOURCES}
    if not np.isnan(fields["forecast"]).all():
        maps.draw(row, suffix, [Picture("", title, {**fields, "bias": fields["forecast"] - fields["truth"]})], "bias")
