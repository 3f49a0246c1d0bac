"""Spectra in an evaluation: which are taken, and their part of the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.verification.score_rows import Row
from emul.display.text import lead_text, number
from emulators.constants import EARTH_RADIUS

if TYPE_CHECKING:
    import xarray as xr


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 320, 190, 40, 10, 24, 18
DECADES = 8  # below the highest power; what lies deeper leaves the page
CSS = """svg polyline.truth{stroke:var(--ink);stroke-width:1.4;stroke-dasharray:4 3}
.legend .truth{border-color:var(--ink);border-top-style:dashed}
"""


def section(spectra: xr.Dataset, first: Sequence[Row]) -> str:
    """The part of the report: spectra of the first rows, by lead; coherence; effective resolution."""
    rows = [row for row in first if row.variable in spectra and has_row(spectra, row)]
    if not rows:
        return ""
    leads = spectra["lead_time"].values
    shades = np.linspace(0.35, 1.0, len(leads)) if len(leads) > 1 else np.ones(1)
    of_leads = "".join(
        f'<span><i class=forecast style="opacity:{shade:.2f}"></i>forecast, {lead_text(lead)}</span>'
        for lead, shade in zip(leads, shades, strict=True)
    )
    legend = f"{of_leads}<span><i class=truth></i>truth, mean over these leads</span>"
    powers = "".join(_power(spectra, row, shades) for row in rows)
    shared = "".join(_coherence(spectra, row, shades) for row in rows)
    told = (
        "How much variance forecast and truth have at each scale: power by total wavenumber l (below) and wavelength "
        "2\N{GREEK SMALL LETTER PI}a/l (above), both axes logarithmic. A forecast that blurs falls below the truth."
    )
    return (
        f"<h2 id=spectra>Spectra</h2><p class=quiet>{told}</p><div class=legend>{legend}</div>"
        f"<div class=charts>{powers}</div>{_resolution(spectra, rows)}"
        "<details><summary>Coherence of forecast and truth, by scale</summary>"
        f"<div class=legend>{of_leads}</div><div class=charts>{shared}</div></details>"
    )


def of_row(spectra: xr.Dataset, name: str, row: Row) -> Any:
    return spectra[name] if row.level is None else spectra[name].sel(level=row.level)


def has_row(spectra: xr.Dataset, row: Row) -> bool:
    if row.level is not None and row.level not in spectra["level"].values:
        return False
    return bool(np.isfinite(of_row(spectra, row.variable, row).values).any())


def _power(spectra: xr.Dataset, row: Row, shades: np.ndarray) -> str:
    power = of_row(spectra, row.variable, row) * row.factor**2
    unit = f"[({row.unit})\N{SUPERSCRIPT TWO}]" if row.unit else ""
    degrees = spectra["total_wavenumber"].values[1:]
    lines = [
        ("forecast", shade, f"forecast, {lead_text(lead)}", values[1:])
        for lead, shade, values in zip(
            spectra["lead_time"].values, shades, power.sel(source="forecast").values, strict=True
        )
    ]
    truth = power.sel(source="truth").mean("lead_time").values[1:]
    chart = spectral_chart(
        f"spectra of {row.label}", degrees, [*lines, ("truth", 1.0, "truth", truth)], logarithmic=True
    )
    return f"<figure><figcaption>{escape(row.label)} <small>{escape(unit)}</small></figcaption>{chart}</figure>"


def _coherence(spectra: xr.Dataset, row: Row, shades: np.ndarray) -> str:
    values = of_row(spectra, f"{row.variable}_coherence", row).values
    lines = [
        ("forecast", shade, f"forecast, {lead_text(lead)}", line[1:])
        for lead, shade, line in zip(spectra["lead_time"].values, shades, values, strict=True)
    ]
    chart = spectral_chart(
        f"coherence of {row.label}", spectra["total_wavenumber"].values[1:], lines, logarithmic=False
    )
    return f"<figure><figcaption>{escape(row.label)}</figcaption>{chart}</figure>"


def _resolution(spectra: xr.Dataset, rows: Sequence[Row]) -> str:
    """Effective resolution by lead, a table."""
    head = "".join(
        f"<th scope=col>{name}</th>" for name in ["km", *(lead_text(lead) for lead in spectra["lead_time"].values)]
    )
    lines = []
    for row in rows:
        resolution = of_row(spectra, f"{row.variable}_effective_resolution", row).values
        cells = "".join(f"<td>{_cell(metres)}</td>" for metres in resolution)
        lines.append(f"<tr><th scope=row>{escape(row.label)}</th>{cells}</tr>")
    finest = spectra["wavelength"].values[-1] / 1e3
    convention = str(spectra.attrs["effective_resolution"])
    grid = f"The grid holds l up to {len(spectra.wavelength) - 1}, {finest:.0f} km."
    told = f"{convention[0].upper()}{convention[1:]}. {grid}"
    return (
        f"<h3>Effective resolution</h3><p class=quiet>{escape(told)}</p><div class=wide><table>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(metres: float) -> str:
    if np.isnan(metres):
        return number(metres)
    if np.isinf(metres):
        return "none"
    return f"{metres / 1e3:.0f}<small>l = {round(2 * math.pi * EARTH_RADIUS / metres)}</small>"


def spectral_chart(
    what: str, degrees: np.ndarray, lines: Sequence[tuple[str, float, str, np.ndarray]], logarithmic: bool
) -> str:
    """An SVG of lines (CSS class, opacity, name, values by degree), the abscissa logarithmic."""
    values = np.concatenate([line[3] for line in lines])
    usable = values[np.isfinite(values) & ((values > 0) | (not logarithmic))]
    if not usable.size:
        return ""
    high = math.log10(usable.max()) + 0.2 if logarithmic else 1.05
    low = max(math.log10(usable.min()), high - DECADES) - 0.2 if logarithmic else min(0.0, usable.min())
    last = math.log10(max(degrees[-1], 2))

    def across(l: float) -> float:
        return LEFT + math.log10(l) / last * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return TOP + (high - y) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(what)}">']
    for y in _levels(low, high) if logarithmic else (0.0, 0.5, 1.0):
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{down(y):.1f}" y2="{down(y):.1f}"/>')
        text = f'10<tspan dy="-4" font-size="8">{_signed(y)}</tspan>' if logarithmic else f"{y:g}"
        parts.append(f'<text x="{LEFT - 5}" y="{down(y) + 3.5:.1f}" text-anchor="end">{text}</text>')
    bottom, ends = HEIGHT - BOTTOM, (1.0, float(degrees[-1]))
    for l in _round_numbers(*ends):
        parts.append(f'<text x="{across(l):.1f}" y="{bottom + 13}" text-anchor="middle">{l:g}</text>')
    around = 2 * math.pi * EARTH_RADIUS / 1e3
    for length in _round_numbers(around / ends[1], around):
        x = across(around / length)
        parts.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{TOP - 5}" text-anchor="middle">{length:g}</text>')
    parts.append(f'<text x="2" y="{TOP - 5}">km</text><text x="2" y="{bottom + 13}">l</text>')
    for kind, opacity, name, line in lines:
        drawn = np.log10(np.where(line > 0, line, np.nan)) if logarithmic else line
        points = " ".join(
            f"{across(l):.1f},{down(y):.1f}" for l, y in zip(degrees, drawn, strict=True) if np.isfinite(y) and y >= low
        )
        parts.append(
            f'<polyline class="{kind}" style="opacity:{opacity:.2f}" points="{points}">'
            f"<title>{escape(name)}</title></polyline>"
        )
    return "".join([*parts, "</svg>"])


def _signed(power: float) -> str:
    return f"{power:g}".replace("-", "\N{MINUS SIGN}")


def _levels(low: float, high: float) -> list[int]:
    """Whole powers of ten, at most five."""
    first, last = math.ceil(low), math.floor(high)
    return list(range(first, last + 1, max(1, math.ceil((last - first + 1) / 5))))


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten within low..high; where they are many, 1 and 3, or the powers alone."""
    for digits, most in (((1, 2, 5), 6), ((1, 3), 6), ((1,), 99)):
        found = [
            digit * 10.0**power
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for digit in digits
            if low <= digit * 10.0**power <= high
        ]
        if len(found) <= most:
            return found
    return []
