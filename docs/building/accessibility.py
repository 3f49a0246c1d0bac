"""Mend in the built pages what the theme leaves to readers of screens: names of buttons, and complete lists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

MENDED = (
    # the name of the button holds its visible text
    (re.compile(r'(<button[^>]*search-button-field[^>]*? aria-label="Search)"'), r'\1 Ctrl+K"'),
    (re.compile(r"<summary>(?=<span class=\"toctree-toggle\")"), '<summary aria-label="Pages below">'),
    # text that is wider than the page is reached by keys
    (re.compile(r"<pre>"), '<pre tabindex="0">'),
    # a function without a docstring has a term and no description
    (re.compile(r"</dt>(\s*)</dl>"), r"</dt>\1<dd></dd></dl>"),
)


def mended(html: str) -> str:
    """Return a page with names and descriptions where the theme has none."""
    for pattern, text in MENDED:
        html = pattern.sub(text, html)
    return html


def mend_pages(app: Any, error: Exception | None) -> None:
    """Mend every page of a site that was built."""
    if error is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            text = path.read_text(encoding="utf-8")
            if (better := mended(text)) != text:
                path.write_text(better, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Mend pages when the site is built."""
    app.connect("build-finished", mend_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
