"""Draw the house: which folders there are, from the command down to pure functions, and what each is for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from building.markdown import inline, table
from building.python_api import folder_of, packages

ROOMS = (  # from top to bottom: each imports only what stands below it
    ("emul", "the command: reads a configuration, joins the two below", "#e8eef9", "#34558b"),
    ("data_pipelines", "files into States, States into files", "#e6f3ec", "#2a6b4a"),
    ("emulators", "World, State, Step and the loop; opens no file, prints nothing", "#fbefe1", "#8a4f12"),
)
WIDTH, CHIP, GAP, LETTER = 960, 34, 8, 8.4


def sentence_of(package: str) -> str:
    """The first sentence of a package's docstring."""
    text = ast.get_docstring(ast.parse((folder_of(package) / "__init__.py").read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split())


def folder_table() -> str:
    """Every folder with what it is for."""
    rows = []
    for room, *_ in ROOMS:
        for package in packages(room):
            shown = package.replace("emul.", "cli.", 1) if package.startswith("emul.") else package
            shown = "cli" if shown == "emul" else shown
            rows.append([f"`{shown.replace('.', '/')}/`", inline(sentence_of(package))])
    return table(["folder", "what it is for"], rows)


def drawing() -> str:
    """The picture as SVG."""
    parts, top = [], 16.0
    for number, (room, purpose, fill, ink) in enumerate(ROOMS):
        names = [package.removeprefix(f"{room}.") for package in packages(room)[1:]]
        chips, height = chips_of(names, top + 62, ink)
        title = "cli/ (installs as emul)" if room == "emul" else f"{room}/"
        parts += [
            f'<rect x="12" y="{top:g}" width="{WIDTH - 24}" height="{height + 74:g}" rx="10" fill="{fill}" '
            f'stroke="{ink}" stroke-width="1.5"/>',
            f'<text x="32" y="{top + 30:g}" font-size="20" font-weight="700" fill="{ink}">{title}</text>',
            f'<text x="32" y="{top + 51:g}" font-size="15" fill="#333">{escape(purpose)}</text>',
            *chips,
        ]
        top += height + 74
        if number < len(ROOMS) - 1:
            parts.append(f'<path d="M{WIDTH / 2} {top + 3:g}v14m-7 -8 7 8 7 -8" fill="none" stroke="#444" '
                         'stroke-width="2"/>')  # fmt: skip
            parts.append(f'<text x="{WIDTH / 2 + 16}" y="{top + 16:g}" font-size="14" fill="#333">imports</text>')
            top += 22
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 12:g}" font-family="sans-serif">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{top + 12:g}" fill="#fff"/>', *parts, "</svg>\n"])


def chips_of(names: list[str], top: float, ink: str) -> tuple[list[str], float]:
    """Names in frames, in as many lines as they need; and the height of these."""
    parts, x, y = [], 32.0, top
    for name in names:
        width = LETTER * len(name) + 18
        if x + width > WIDTH - 32:
            x, y = 32.0, y + CHIP + GAP
        frame = f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{CHIP}" rx="6" fill="#fff" stroke="{ink}"/>'
        word = f'<text x="{x + 9:g}" y="{y + 22:g}" font-size="15" fill="#222">{escape(name)}</text>'
        parts.append(frame + word)
        x += width + GAP
    return parts, y + CHIP - top + GAP


def pages() -> Iterator[tuple[str, str]]:
    """Yield the table to include, below the reference."""
    yield "folders.md", f"---\norphan: true\n---\n\n# Folders\n\n{folder_table()}\n"


def write_drawing(path: Path) -> None:
    """Write the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(drawing(), encoding="utf-8")
