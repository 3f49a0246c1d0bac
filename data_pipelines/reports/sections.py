"""Show whether an ensemble is honest, power spectra, coherence and effective resolution, and what is conserved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from data_pipelines.display.text import DASH, MINUS, lead_text, number, percent, powers_of_ten, round_numbers
from data_pipelines.reports.charts import (
    BOTTOM,
    HEIGHT,
    Chart,
    line_chart,
    rank_histogram,
    reliability_diagram,
    shaded_lines,
    spread_diagram,
)
from data_pipelines.reports.page import (
    NOTHING,
    Html,
    Section,
    charts,
    details,
    figure,
    join,
    lead_legend,
    legend,
    quiet,
    row_charts,
    shades,
    table,
    tag,
    with_small,
)
from data_pipelines.verification.score_rows import Row, headline_leads, lead_axis, leads_in_unit
from emulators.constants import EARTH_RADIUS

if TYPE_CHECKING:
    import xarray as xr

    from data_pipelines.verification.score_files import EvaluationResults


LEADS = 3
HISTOGRAMS = {
    "rank_histogram": (
        "Rank histograms",
        "How often the truth has each rank among the members, from below all (left) to above all (right). Flat "
        "(dashed): the truth is statistically like a member. U-shaped: too little spread; dome-shaped: too much; "
        "sloped: biased.",
    ),
    "pit_histogram": (
        "PIT histograms",
        "How often the truth lies in each tenth (or other bin) of the normal distribution with the mean and spread of "
        "the members. To be read as the rank histogram.",
    ),
}
BY_SPREAD = (
    "Spread over skill where the spread is small (left) and where it is large (right), in bins of spread over the "
    "climatology's standard deviation. On the dashed line everywhere: the spread says how large the error will be."
)
RELIABILITY = (
    "Observed frequency of an event (vertical) for each forecast probability (horizontal); on the diagonal the "
    "probabilities are reliable. The size of a dot shows how often the probability was forecast."
)


def ensemble_section(results: EvaluationResults) -> Section:
    """The section on ensembles, empty where nothing was scored that needs members."""
    histograms, rows = results.histograms, results.headline
    if histograms is None:
        return Section("ensemble", "Ensemble", NOTHING)
    leads = headline_leads(histograms["lead_time"].values, most=LEADS)
    times = [lead_text(histograms["lead_time"].values[i]) for i in leads]
    by_lead = histograms.isel(lead_time=leads)
    first, body = by_lead.isel(region=0), list[Html]()
    for name, (heading, explained) in HISTOGRAMS.items():
        drawn = _histograms(first, rows, name, times)
        if drawn:
            elsewhere = [
                details(f"{heading}, {region}", shown)
                for region in histograms["region"].values[1:]
                if (shown := _histograms(by_lead.sel(region=region), rows, name, times))
            ]
            body += [tag("h3", heading), quiet(explained), drawn, *elsewhere]
    by_spread = row_charts(rows, lambda row: spread_diagram(_values(first, row, "spread_skill_by_spread"), times))
    if by_spread:
        body += [tag("h3", "Spread over skill by spread"), quiet(BY_SPREAD), by_spread]
    described = dict(part.split(" = ", 1) for part in str(histograms.attrs["definitions"]).split("; ") if " = " in part)
    kinds = [name for name in sorted(described) if name != "sharpness" and _has_probabilities(histograms, name)]
    diagrams = [row_charts(rows, lambda row, kind=kind: _reliability(first, row, kind, times)) for kind in kinds]  # type: ignore[misc]
    if any(diagrams):
        text = "; ".join(f"{name}: {described[name]}" for name in kinds)
        body += [tag("h3", "Reliability"), quiet(f"{RELIABILITY} {text}"), *diagrams]
    legend = lead_legend(shades(len(times)), times)
    return Section("ensemble", "Ensemble", join(legend, *body) if body else NOTHING)


def _histograms(histograms: xr.Dataset, rows: Sequence[Row], name: str, times: Sequence[str]) -> Html:
    """A histogram for each row; empty where none was computed."""
    return row_charts(rows, lambda row: rank_histogram(_values(histograms, row, name), times))


def _has_probabilities(histograms: xr.Dataset, metric: str) -> bool:
    """True for a metric by forecast probability; a variable of the Dataset is `<variable>_<metric>`."""
    return any(
        str(name).endswith(f"_{metric}") and "probability" in field.dims for name, field in histograms.data_vars.items()
    )


def _values(histograms: xr.Dataset, row: Row, metric: str) -> np.ndarray | None:
    """(lead, rank or probability) of a row; None where there are no values."""
    if f"{row.variable}_{metric}" not in histograms:
        return None
    values = row.field(histograms, f"_{metric}").transpose("lead_time", ...).values
    return values if np.isfinite(values).any() else None


def _reliability(histograms: xr.Dataset, row: Row, metric: str, times: Sequence[str]) -> Html:
    """The reliability diagram of a row."""
    values, used = (_values(histograms, row, name) for name in (metric, "sharpness"))
    return reliability_diagram(values, used, times)


TOP = 24  # margin above a chart, for wavelengths
DECADES = 8  # below the highest power; lower values are not drawn
EXPLAINED = (
    "Variance of forecast and truth at each scale: power by total wavenumber l (below) and wavelength 2\u03c0a/l "
    "(above), both logarithmic. A forecast that is too smooth falls below the truth (dashed: mean over lead times); "
    "one above it makes noise. Of an ensemble it is the members' power; their mean, shown at the longest lead time, is "
    "smoother as it should be."
)

RESOLUTION = (
    "Effective resolution is the shortest wavelength down to which the forecast has as much variance as the truth at "
    "every scale, neither too little (too smooth) nor too much (noise), within the factor told under Provenance; "
    "whether its features are in the right place is what the coherence tells."
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
        lines = {"truth": values.sel(source="truth").mean("lead_time").values}
        if "ensemble_mean" in values["source"].values:
            lines["ensemble_mean"] = values.sel(source="ensemble_mean").values[-1]
        return power_chart(spectra, row, lines, values.sel(source="forecast").values, opacity, titles)

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
        lead_legend(opacity, titles, *(name for name in spectra["source"].values if name != "forecast")),
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
    finest = spectra["wavelength"].values[-1] / 1e3
    caption = f"{RESOLUTION} The grid resolves l up to {len(spectra.wavelength) - 1}, {finest:.0f} km."
    return join(quiet(caption), *noise_notes(spectra, rows, times), table(["km", *times], lines))


def noise_notes(spectra: xr.Dataset, rows: Sequence[Row], times: Sequence[str]) -> list[Html]:
    """Name the rows whose forecasts have more power than the truth, with their largest share; empty without any."""
    noisy = []
    for row in rows:
        shares = row.field(spectra, "_noise").values
        if np.isfinite(shares).any() and np.nanmax(shares) > 0.0:
            lead = int(np.nanargmax(shares))
            degree = int(row.field(spectra, "_noise_degree").values[lead])
            noisy.append(f"{row.label} {_share(shares[lead])} from l = {degree} ({times[lead]})")
    sentence = f"Noise, as a share of the truth's variance, at its largest: {'; '.join(noisy)}."
    return [tag("p", sentence, class_="note")] if noisy else []


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
    return f"{100 * share:.2g} %" if share < 0.995 else f"{share:.1f} times"


def resolution_text(metres: float) -> str:
    """An effective resolution in km; `none` where no scale is resolved."""
    return f"{metres / 1e3:.0f}" if np.isfinite(metres) else "none" if np.isinf(metres) else number(metres)


CHARTS = {  # quantity: (title, unit, logarithmic)
    "air_drift": ("Mass of all air", "relative to the start", False),
    "dry_air_drift": ("Mass of dry air", "relative to the start", False),
    "moisture_residual": ("Water created in a timestep", "kg m\u207b\u00b2, rms", True),
    "moisture_residual_relative": ("Water created in a timestep", "fraction of precipitation, rms", True),
    "energy_residual": ("Energy created", "W m\u207b\u00b2, rms", True),
}
UNITS = {
    "1": "relative",
    "1 year-1": "per year",
    "kg m-2": "kg/m²",
    "kg m-2 year-1": "kg/m² per year",
    "W m-2": "W/m²",
}
BUDGETS_EXPLAINED = (
    "Conservation errors of the forecasts: global means for each initial time. Drifts are means over initial times and "
    "may have either sign; residuals of a timestep are shown by their size, on a logarithmic axis. Where a law holds, "
    "only the rounding of stored numbers remains."
)
TRENDS = (
    "Below each: its trend by a least-squares line over all lead times (for residuals, of their running sum), mean ± "
    "standard deviation over initial times. The trend of short forecasts is not that of a climate run."
)
CORRECTIONS = (
    "Size of each constraint's correction in a timestep: rms of the change divided by the rms of the raw tendency (of "
    "the raw value, where a variable is diagnostic)."
)


def budget_section(results: EvaluationResults) -> Section:
    """The section on conservation, empty where no budgets were computed."""
    budgets, title = results.budgets, "Does it conserve?"
    if budgets is None:
        return Section("conservation", title, NOTHING)
    further = {name: dataset.sel(source="forecast") for name, dataset in results.further_budgets.items()}
    sources = {"forecast": budgets.sel(source="forecast"), **further}
    if "truth" in budgets["source"].values:
        sources["truth"] = budgets.sel(source="truth")
    names = [name for name in CHARTS if any(name in dataset for dataset in sources.values())]
    sources = {name: d for name, d in sources.items() if any(_is_finite(d, quantity) for quantity in names)}
    corrections, left_out = _corrections(budgets), budgets.attrs["left_out"]
    if not names and not corrections:
        return Section("conservation", title, NOTHING)
    body = [
        quiet(BUDGETS_EXPLAINED),
        legend(sources),
        charts(_figure(name, sources) for name in names),
        tag("h3", "Drift per year"),
        quiet(TRENDS),
        _trends(names, sources),
        corrections,
        tag("details", tag("summary", "Budgets that are left out, and why"), quiet(left_out)) if left_out else "",
    ]
    return Section("conservation", title, join(*body))


def _is_finite(dataset: xr.Dataset, name: str) -> bool:
    return name in dataset and bool(np.isfinite(dataset[name].values).any())


def _figure(name: str, sources: Mapping[str, xr.Dataset]) -> Html:
    title, small, logarithmic = CHARTS[name]
    lines, unit = {}, ""
    for source, dataset in sources.items():
        if _is_finite(dataset, name):
            leads = dataset["lead_time"].values
            unit = unit or lead_axis(leads)[1]
            field = dataset[name]
            y = ((field**2).mean("time") ** 0.5).clip(min=1e-30) if logarithmic else field.mean("time")
            lines[source] = (leads_in_unit(unit, leads), y.values)
    chart = line_chart(f"{title} by lead time", lines, unit, mark=None if logarithmic else 0.0, log_y=logarithmic)
    return figure(title, chart, f"[{small}]")


def _trends(names: Sequence[str], sources: Mapping[str, xr.Dataset]) -> Html:
    """Root mean square over all values, and trend per year; a column for each source."""
    lines = []
    for name in names:
        dataset = next(dataset for dataset in sources.values() if name in dataset)
        trend = f"{name}_per_year"
        units = [dataset[key].attrs["units"] for key in (name, trend) if key == name or _is_finite(dataset, trend)]
        unit = "; trend: ".join(UNITS.get(unit, unit) for unit in units)
        cells = [_trend(dataset, name) for dataset in sources.values()]
        lines.append((with_small(dataset[name].attrs["long_name"], unit), cells))
    return table(["rms over lead times and initial times", *sources], lines)


def _trend(dataset: xr.Dataset, name: str) -> object:
    if not _is_finite(dataset, name):
        return DASH
    size = _number(float(np.sqrt((dataset[name] ** 2).mean())))
    if not _is_finite(dataset, f"{name}_per_year"):
        return size
    trends = dataset[f"{name}_per_year"].values
    trends = trends[np.isfinite(trends)]
    spread = f" ± {_number(trends.std(ddof=1))}" if trends.size > 1 else ""
    return with_small(size, f"{_number(trends.mean())}{spread}")


def _number(value: float) -> str:
    """Two digits: `0.27`, `120`, `9.2e-11`."""
    text = f"{value:.2g}" if not 10 <= abs(value) < 1e5 else f"{value:.0f}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS)


def _corrections(budgets: xr.Dataset) -> Html:
    """Corrections of each constraint relative to the raw tendency, by lead time."""
    if "share_changed" not in budgets:
        return NOTHING
    leads = headline_leads(budgets["lead_time"].values)
    lines = []
    for name in budgets["correction"].values:
        constraint, _, variable = str(name).partition(": ")
        shares = budgets["share_changed"].sel(correction=name).values[leads]
        lines.append((with_small(constraint, variable.replace("_", " ")), [_tendency_share(share) for share in shares]))
    head = ["", *(lead_text(budgets["lead_time"].values[i]) for i in leads)]
    return join(tag("h3", "Corrections by the constraints"), quiet(CORRECTIONS), table(head, lines))


def _tendency_share(share: float) -> str:
    """A fraction in percent; powers of ten where it is small."""
    if not np.isfinite(share) or share == 0.0:
        return "0" if share == 0.0 else DASH
    return percent(share).lstrip("+") if share >= 0.1 else f"{100 * share:.2g} %".replace("-", MINUS)
