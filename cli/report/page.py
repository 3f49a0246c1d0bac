"""One page of HTML that needs nothing beside it: on a phone, in the dark, on paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from emul.display.palette import BETTER, BETTER_DARK, DASHES, LINES, PALETTE, WORSE, WORSE_DARK
from emul.display.text import DASH, STEPS, colour_step, percent

CSS = """
:root{color-scheme:light dark;--paper:#fff;--card:#f6f8fa;--ink:#1b2530;--quiet:#5b6876;--line:#dfe5ec;
--hatch:rgba(60,72,88,.16);--accent:#2563eb;--forecast:#2563eb;--persistence:#c2650a;--climatology:#6b7280;
--predictability:#059669;--saturation:#6ee7b7}
*{box-sizing:border-box}html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:34px 22px 70px}
h1{font-size:1.9rem;line-height:1.15;letter-spacing:-.01em;margin:0 0 6px;overflow-wrap:anywhere}
h2{font-size:1.28rem;letter-spacing:-.005em;margin:52px 0 8px;padding-top:14px;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:24px 0 6px}p{margin:6px 0;max-width:76ch}a{color:var(--accent)}
.quiet{color:var(--quiet);font-size:.9rem}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin:14px 0 4px;font-size:.9rem}nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(138px,1fr));gap:10px;margin:20px 0}
.facts div{background:var(--card);border-radius:10px;padding:10px 14px;min-width:0}
.facts b{display:block;font-size:1.12rem;line-height:1.3;overflow-wrap:anywhere}
.facts span{color:var(--quiet);font-size:.8rem}
.note{border-left:4px solid #d97706;background:var(--card);padding:8px 14px;border-radius:0 8px 8px 0;margin:8px 0}
.wide{overflow-x:auto;border:1px solid var(--line);border-radius:10px;margin:8px 0}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tr:last-child>*{border-bottom:0}thead th{white-space:normal;min-width:4.6em;line-height:1.3;
color:var(--quiet);font-weight:600;font-size:.83rem;vertical-align:bottom}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper);z-index:1}
th[scope=row]{font-weight:600}th small,td small{display:block;color:var(--quiet);font-weight:400;font-size:.76rem}
td .part{display:block;font-size:.77rem;line-height:1.35;border-radius:4px;padding:1px 6px;margin-top:3px}
.ns{background-image:repeating-linear-gradient(135deg,var(--hatch) 0 1.5px,transparent 1.5px 6px)!important;
background-color:transparent!important;color:var(--quiet)!important}
.steps{display:flex;flex-wrap:wrap;gap:4px 14px;align-items:center;font-size:.8rem;color:var(--quiet);margin:8px 0}
.steps b{display:flex;font-weight:400}.steps i{font-style:normal;padding:1px 7px;min-width:2.2em;text-align:center}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:.85rem;color:var(--quiet);margin:8px 0}
.legend i{display:inline-block;width:24px;border-top:3px solid;vertical-align:middle;margin-right:6px}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,300px),1fr));gap:12px}
figure{margin:0;background:var(--card);border-radius:10px;padding:10px 12px;min-width:0}
figcaption{font-size:.86rem;font-weight:600;margin-bottom:2px}
figcaption small{color:var(--quiet);font-weight:400;font-size:.8rem}
svg{width:100%;height:auto;display:block}svg text{font:11px system-ui,sans-serif;fill:var(--quiet)}
svg .rule{stroke:var(--line)}svg .mark{stroke:var(--quiet);stroke-dasharray:2 3}
svg polyline{fill:none;stroke-width:2;stroke-linejoin:round}svg .band{stroke:none;opacity:.18}
svg .foot{stroke-width:3}svg rect.forecast{fill:var(--forecast)}
details{border-bottom:1px solid var(--line);padding:4px 0 10px}
summary{cursor:pointer;font-weight:600;padding:8px 0}
img{max-width:100%;height:auto;display:block;margin:0 auto}.maps{display:grid;gap:14px}
.maps .two img{max-width:min(100%,43rem)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:5px 20px;font-size:.88rem}dt{color:var(--quiet)}
dd{margin:0;overflow-wrap:anywhere;min-width:0}
@media(max-width:600px){main{padding:22px 14px 44px}h1{font-size:1.5rem}h2{margin-top:38px}
.facts{grid-template-columns:repeat(2,1fr)}th,td{padding:5px 7px;font-size:.88rem}
.steps i{padding:1px 3px;min-width:1.9em}
th[scope=row],thead th:first-child{white-space:normal;min-width:6.2em;max-width:7.6em;line-height:1.25}
dl{grid-template-columns:1fr}dd{margin-bottom:8px}}
"""
DARK = """--paper:#0f141a;--card:#182029;--ink:#e6ebf0;--quiet:#95a3b2;--line:#2a3440;--hatch:rgba(190,205,220,.2);
--accent:#7fb0ff;--forecast:#6aa5ff;--persistence:#f2a65a;--climatology:#a3adb8;--predictability:#3ecf9e;
--saturation:#1f7a5c"""
PRINT = """@media print{@page{margin:14mm}html{font-size:10pt}main{max-width:none;padding:0}
nav,.only-screen{display:none}h2{break-after:avoid}figure,tr,.facts div,.wide{break-inside:avoid}.wide{overflow:visible}
th,td{padding:3px 6px;font-size:.85rem}th:first-child,td:first-child{position:static}
th[scope=row]{white-space:normal}.charts{grid-template-columns:repeat(3,1fr)}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}"""
OPENING = """addEventListener("beforeprint",()=>document.querySelectorAll("details").forEach(d=>{
d.dataset.shut=d.open?"":"1";d.open=true}));
addEventListener("afterprint",()=>document.querySelectorAll("details").forEach(d=>{if(d.dataset.shut)d.open=false}));"""


def _fills(better: Sequence[str], worse: Sequence[str], dark: bool) -> str:
    """One class a step: b1 to b6 better, w1 to w6 worse; on the strong ones letters turn light."""
    rules = []
    for kind, colours in (("b", better), ("w", worse)):
        for number, colour in enumerate(colours, start=1):
            ink = "#fff" if number > (3 if dark else 4) else "inherit"
            rules.append(f".{kind}{number}{{background:{colour};color:{ink}}}")
    return "".join(rules)


def _lines() -> str:
    return "".join(line_rule(name, f"var(--{name})", dash or "none") for name, dash in LINES.items())


def line_rule(name: str, colour: str, dash: str) -> str:
    """CSS of a line of charts and of its place in a legend."""
    return (
        f"svg polyline.{name}{{stroke:{colour};stroke-dasharray:{dash}}}svg circle.{name},svg .band.{name}"
        f"{{fill:{colour}}}svg .foot.{name}{{stroke:{colour}}}.legend .{name}{{border-color:{colour}}}"
    )


def run_rules(names: Sequence[str]) -> str:
    """CSS of the lines of runs, classes r0, r1, ...: colours first, then dashes, so that twenty can be told apart."""
    return "".join(
        line_rule(f"r{n}", PALETTE[n % len(PALETTE)], DASHES[n // len(PALETTE) % len(DASHES)])
        for n in range(len(names))
    )


def document(title: str, body: Sequence[str], styles: str = "", script: str = "") -> str:
    """The whole page."""
    style = (
        f"{CSS}{_fills(BETTER, WORSE, False)}{_lines()}{styles}"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{DARK}}}{_fills(BETTER_DARK, WORSE_DARK, True)}"
        f".ns{{color:var(--quiet)}}}}{PRINT}"
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1"><link rel=icon href="data:,">'
        f"<title>{escape(title)}</title><style>{style}</style><main>{''.join(body)}</main>"
        f"<script>{OPENING}{script}</script></html>"
    )


def contents(body: Sequence[str]) -> str:
    """Links to the headings of the parts, each `<h2 id=...>`."""
    links = []
    for part in body:
        for piece in part.split("<h2 id=")[1:]:
            name, _, rest = piece.partition(">")
            links.append(f"<a href=#{name}>{rest.partition('<')[0]}</a>")
    return f"<nav>{''.join(links)}</nav>"


def tiles(facts: Mapping[str, str]) -> str:
    """Short facts at the top."""
    return (
        "<div class=facts>"
        + "".join(f"<div><span>{escape(k)}</span><b>{escape(v)}</b></div>" for k, v in facts.items() if v)
        + "</div>"
    )


def table(head: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Rows under headings, all HTML; a cell that begins with `<td` stands as it is."""
    top = "".join(f"<th scope=col>{name}</th>" for name in head)
    rows = "".join(
        f"<tr><th scope=row>{name}</th>{''.join(c if c.startswith('<td') else f'<td>{c}</td>' for c in cells)}</tr>"
        for name, cells in lines
    )
    return f"<div class=wide><table><thead><tr>{top}</tr></thead><tbody>{rows}</tbody></table></div>"


def shade(difference: float, sure: bool | None) -> str:
    """The class of a cell: its step of colour, hatched where the difference is not significant; None: not judged."""
    if not np.isfinite(difference):
        return ""
    number = colour_step(difference)
    colour = "" if number == 0 else f"{'b' if number < 0 else 'w'}{abs(number)}"
    return f"{colour} ns".strip() if sure is False else colour


def part_of_cell(difference: float, sure: bool | None, against: str = "") -> str:
    """One coloured line of a cell: a difference in percent, blue where better."""
    if not np.isfinite(difference):
        return ""
    told = f"{percent(difference)} {against}".strip()
    return f'<span class="part {shade(difference, sure)}">{escape(told)}</span>'


def key(judged: bool) -> str:
    """What colours and hatching mean."""
    better = "".join(
        f'<i class="b{n}">{sign}{value}</i>' for n, value, sign in _limits(range(len(STEPS), 0, -1), "\N{MINUS SIGN}")
    )
    worse = "".join(f'<i class="w{n}">{sign}{value}</i>' for n, value, sign in _limits(range(1, len(STEPS) + 1), "+"))
    hatch = "<span><i class=ns>&nbsp;</i> not significant</span>" if judged else ""
    return f"<div class=steps><span>better</span><b>{better}<i>{DASH}</i>{worse}</b><span>worse, %</span>{hatch}</div>"


def _limits(numbers: Sequence[int], sign: str) -> list[tuple[int, int, str]]:
    return [(n, STEPS[n - 1], sign) for n in numbers]


def definitions(listed: Mapping[str, str]) -> str:
    """Terms and what they stand for."""
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(str(v))}</dd>' for k, v in listed.items())}</dl>"
