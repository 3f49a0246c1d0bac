"""Check a built site: every link within it leads to a page and a place, and no page needs the network to be shown."""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {("script", "src"), ("link", "href"), ("img", "src"), ("iframe", "src"), ("source", "src")}
NAVIGATION = {"canonical", "next", "prev", "search", "index", "license"}


class Page(HTMLParser):
    """Collect the identifiers, links and loaded files of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.ids |= {values[name] for name in ("id", "name") if name in values}
        for name, value in values.items():
            if (tag, name) in LOADED and values.get("rel") not in NAVIGATION:
                self.loaded.append(value)
            elif name in ("href", "src"):
                self.links.append(value)


def faults(site: Path) -> list[str]:
    """Return each broken link and each file that is loaded from elsewhere, with its page."""
    pages = {path: Page(path) for path in sorted(site.rglob("*.html")) if "_static" not in path.parts}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [f"{name}: loads {address}" for address in page.loaded if urlsplit(address).netloc]
        for address in [*page.links, *page.loaded]:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc or not address:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            fragment = unquote(parts.fragment)
            if not target.exists():
                found.append(f"{name}: {address} leads nowhere")
            elif fragment and target in pages and fragment not in pages[target].ids:
                found.append(f"{name}: {address} names no place on its page")
    return found


if __name__ == "__main__":
    broken = faults(Path(sys.argv[1]).resolve())
    print("\n".join(sorted(set(broken))) or "Every link leads somewhere.")
    sys.exit(bool(broken))
