"""Build pages that need no other file: sections, tables, legends and tiles, for screens, phones and paper."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from data_pipelines.display.palette import BETTER, BETTER_DARK, LINES, WORSE, WORSE_DARK, LineStyle, text_on
from data_pipelines.display.text import DASH, MINUS, STEPS, colour_step, metric_title, percent, verdict_lines
from data_pipelines.files.atomic import write_text

if TYPE_CHECKING:
    from data_pipelines.verification.score_files import EvaluationResults, Verdict
    from data_pipelines.verification.score_rows import Row


VOID = {"br", "img", "input", "link", "meta"}  # elements without an end tag


class Html(str):
    """Mark text that is HTML already; all other text is escaped by `join` and `tag`."""

    __slots__ = ()


NOTHING = Html("")


def join(*children: object) -> Html:
    """HTML of the children one after the other."""
    return Html("".join(child if isinstance(child, Html) else escape(str(child)) for child in children))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. Attributes: `class_` stands for class, `_` for `-`; True writes the name alone, None and False none.

    Numbers are written with two decimals at most.
    """
    words = [name]
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(key)
        elif value is not None and value is not False:
            text = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
            words.append(f'{key}="{escape(text)}"')
    end = "" if name in VOID else f"</{name}>"
    return Html(f"<{' '.join(words)}>{join(*children)}{end}")


ASSETS = Path(__file__).with_name("assets")


class Section(NamedTuple):
    """Hold one section of a page; with an anchor it is listed at the top."""

    anchor: str
    title: object
    body: Html


def document(
    path: Path,
    title: str,
    introduction: object,
    sections: Sequence[Section],
    *,
    heading: str = "",
    notes: Iterable[str] = (),
    facts: Mapping[str, str] | None = None,
    lead: Html = NOTHING,
    styles: Mapping[str, LineStyle] | None = None,
    script: str = "",
    rules: str = "",
) -> Path:
    """Write a page. notes: what a reader must know. facts: tiles at the top. lead: follows them. styles: of lines.

    script, rules: JavaScript and CSS besides those of all pages. Nothing else runs or is loaded: see `_policy`.
    """
    links = [tag("a", section.title, href=f"#{section.anchor}") for section in sections if section.anchor]
    body = tag(
        "main",
        tag("h1", heading or title),
        quiet(introduction),
        tag("nav", *links) if links else "",
        *(tag("p", note, class_="note") for note in notes),
        _tiles(facts) if facts else "",
        lead,
        *(tag("section", tag("h2", s.title, id=s.anchor or None), s.body) for s in sections if s.body),
    )
    style = _asset("page.css") + _rules({**LINES, **(styles or {})}) + rules
    script = _asset("page.js") + script
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width,initial-scale=1"),
        tag("link", rel="icon", href="data:,"),
        tag("title", title),
        tag("style", Html(style)),
    )
    code = tag("script", Html(script))
    write_text(path, f"<!doctype html>{tag('html', *head, body, code, lang='en')}")
    return path


def _policy(style: str, script: str) -> str:
    """The content security policy of a page: its own style and script, by their digests, and images in the page."""

    def source(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    allowed = {"img-src": "data:", "style-src": source(style), "script-src": source(script)}
    nothing = ("default-src", "base-uri", "form-action")
    return "; ".join(
        [*(f"{name} 'none'" for name in nothing), *(f"{name} {sources}" for name, sources in allowed.items())]
    )


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def case_script() -> str:
    """The script that plays the maps of one case."""
    return _asset("case.js")


def line_class(name: str) -> str:
    """CSS class of the line of that name."""
    return "line-" + re.sub(r"[^A-Za-z0-9_-]", lambda match: f"_{ord(match[0]):x}_", name)


def _rules(styles: Mapping[str, LineStyle]) -> str:
    """CSS of lines by name, and of six steps of colour for better (b1 to b6) and worse (w1 to w6)."""
    names = {line_class(name): style for name, style in styles.items()}
    lines = "".join(
        f"svg polyline.{name}{{stroke:var(--{name});stroke-dasharray:{style.dash or 'none'}}}"
        f"svg .fill.{name}{{fill:var(--{name})}}svg .foot.{name}{{stroke:var(--{name})}}"
        for name, style in names.items()
    )

    def ground(dark: bool) -> str:
        colours = "".join(f"--{name}:{style.dark if dark else style.colour};" for name, style in names.items())
        steps = {"b": BETTER_DARK, "w": WORSE_DARK} if dark else {"b": BETTER, "w": WORSE}
        cells = "".join(
            f".{kind}{n}{{background:{colour};color:{text_on(colour, dark)}}}"
            for kind, shades in steps.items()
            for n, colour in enumerate(shades, start=1)
        )
        return f":root{{{colours}}}{cells}"

    return f"{ground(False)}{lines}@media screen and (prefers-color-scheme:dark){{{ground(True)}}}"


def quiet(*children: object) -> Html:
    """A paragraph of explanation."""
    return tag("p", *children, class_="quiet") if any(children) else NOTHING


def _tiles(facts: Mapping[str, str]) -> Html:
    tiles = (tag("div", tag("span", name), tag("b", value)) for name, value in facts.items() if value)
    return tag("div", *tiles, class_="facts")


def with_small(text: object, small: object) -> Html:
    """Text with a smaller line below it."""
    return join(text, tag("small", small))


def row_name(row: Row) -> Html:
    """A row's label with its unit below it."""
    return with_small(row.label, row.unit)


def table(head: Sequence[object], rows: Iterable[tuple[object, Sequence[object]]]) -> Html:
    """A table of rows (name, cells) under headings; a cell that is an element `td` is taken as it is."""
    top = tag("tr", *(tag("th", name, scope="col") if name else tag("td") for name in head))
    lines = [tag("tr", tag("th", name, scope="row"), *map(_cell, cells)) for name, cells in rows]
    kind = "many" if len(head) > MANY else None
    element = tag("table", tag("thead", top), tag("tbody", *lines), class_=kind)
    return tag("div", element, class_="wide", tabindex=0, role="group", aria_label="table")  # scrolls by keyboard


def _cell(content: object) -> Html:
    return content if isinstance(content, Html) and content.startswith("<td") else tag("td", content)


MANY = 8  # columns, beyond which a table is narrow
HATCHES = {"no": "ns", "few": "few"}  # CSS classes by verdict


def colour_class(difference: float, verdict: Verdict) -> str:
    """CSS class of a relative difference: its step of colour, hatched unless it is significant."""
    if not np.isfinite(difference):
        return ""
    step = colour_step(difference)
    colour = "" if step == 0 else f"{'b' if step < 0 else 'w'}{abs(step)}"
    return f"{colour} {HATCHES.get(verdict, '')}".strip()


def difference_line(difference: float, verdict: Verdict, source: str = "") -> Html:
    """One coloured line of a cell: a relative difference in percent, blue where better."""
    if not np.isfinite(difference):
        return NOTHING
    text = f"{percent(difference)} {source}".strip()
    return tag("span", text, class_=f"part {colour_class(difference, verdict)}")


def colour_key(hatched: bool) -> Html:
    """Explain the colours of differences, and the hatching."""
    better = [tag("i", f"{MINUS}{STEPS[n - 1]}", class_=f"b{n}") for n in range(len(STEPS), 0, -1)]
    worse = [tag("i", f"+{STEPS[n - 1]}", class_=f"w{n}") for n in range(1, len(STEPS) + 1)]
    meanings = {"ns": " not significant", "few": " too few initial times to say"} if hatched else {}
    hatches = (tag("span", tag("i", "\N{NO-BREAK SPACE}", class_=kind), text) for kind, text in meanings.items())
    scale = tag("b", *better, tag("i", DASH), *worse)
    return tag("div", tag("span", "better"), scale, tag("span", "worse, %"), *hatches, class_="steps")


def significance_note(results: Iterable[EvaluationResults], metrics: Sequence[str], region: str) -> Html:
    """State how significance was judged, and how many differences are significant, alone and together."""
    judged = [entry for entry in results if entry.differences is not None]
    if not judged or judged[0].differences is None:
        return NOTHING
    lines = [
        f"{metric_title(metric)}, {region}, {'' if len(judged) == 1 else f'{entry.name} '}against {line}"
        for metric in metrics
        for entry in judged
        for line in verdict_lines(entry, metric, region)
    ]
    return quiet(". ".join([f"Significance: {judged[0].differences.attrs['significance']}", *lines]), ".")


def definitions(terms: Mapping[str, str]) -> Html:
    """A list of terms and their descriptions."""
    return tag("dl", *(join(tag("dt", name), tag("dd", text)) for name, text in terms.items()))


def details(summary: str, *children: object, is_open: bool = False) -> Html:
    """Content that folds away."""
    return tag("details", tag("summary", summary), *children, open=is_open)


def legend(names: Iterable[str], texts: Mapping[str, str] | None = None) -> Html:
    """The lines of charts by name; texts: where a line is called otherwise."""
    return _legend((line_class(name), (texts or {}).get(name, name.replace("_", " ")), None) for name in names)


def lead_legend(shades: Sequence[float], times: Sequence[str], *more: str) -> Html:
    """The forecast's lines by lead time, the longer the stronger, then further lines by name."""
    leads = [(line_class("forecast"), time, shade) for shade, time in zip(shades, times, strict=True)]
    return _legend([*leads, *((line_class(name), name, None) for name in more)])


SWATCH = {"viewBox": "0 0 36 4", "aria_hidden": "true"}  # as wide as two strokes and gaps of every dash


def _legend(items: Iterable[tuple[str, str, float | None]]) -> Html:
    swatches = (
        tag("span", tag("svg", tag("polyline", class_=kind, points="0,2 36,2", opacity=o), **SWATCH), text)
        for kind, text, o in items
    )
    return tag("div", *swatches, class_="legend")


def shades(count: int) -> list[float]:
    """Opacities of lines by lead time, from pale to full."""
    return np.linspace(0.35, 1.0, count).tolist() if count > 1 else [1.0]


def figure(caption: object, chart: Html, small: object = "") -> Html:
    """A chart with its caption; empty where there is no chart."""
    if not chart:
        return NOTHING
    return tag("figure", tag("figcaption", caption, *((" ", tag("small", small)) if small else ())), chart)


def embedded(path: Path, alt: str) -> Html:
    """The image of a PNG file, held by the page itself."""
    return tag("img", alt=alt, src=f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}")


def image(path: Path, alt: str) -> Html:
    """A picture of the page's full width."""
    return tag("div", tag("figure", embedded(path, alt), class_="three", tabindex=0), class_="maps")


def charts(figures: Iterable[Html]) -> Html:
    """Figures in a grid; empty where there is none."""
    present = [chart for chart in figures if chart]
    return tag("div", *present, class_="charts") if present else NOTHING


def row_charts(rows: Iterable[Row], chart: Callable[[Row], Html], small: Callable[[Row], str] = lambda row: "") -> Html:
    """A figure for each row that `chart` draws."""
    return charts(figure(row.label, chart(row), small(row)) for row in rows)


def score_caption(row: Row, metric: str, exponent: int) -> tuple[str, str]:
    """Caption and small text of a chart: `RMSE`, `temperature 850 hPa [K]`."""
    unit = {1: f" [{row.unit}]", 2: f" [({row.unit})²]"}.get(exponent, "") if row.unit else ""
    return metric_title(metric), row.label + unit
