"""Make Jupyter notebooks of pages of Markdown, so that a page and its notebook never differ."""

from __future__ import annotations

import json
import re
from pathlib import Path

MARK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
DOWNLOAD = re.compile(r"\{download\}`[^`]*<([\w.-]+\.ipynb)>`")


def write_notebooks(folder: Path) -> list[Path]:
    """Write the notebook that each page in `folder` offers for download."""
    written = []
    for page in sorted(folder.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        if match := DOWNLOAD.search(text):
            path = folder / match[1]
            path.write_text(json.dumps(notebook(text), indent=1) + "\n", encoding="utf-8")
            written.append(path)
    return written


def notebook(text: str) -> dict[str, object]:
    """Return a page as a notebook: blocks of Python are cells of code, what stands between them cells of text."""
    cells: list[dict[str, object]] = []
    for number, piece in enumerate(MARK.split(text)):
        lines = piece.strip("\n").splitlines(keepends=True)
        if number % 2:
            cells.append({"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": lines})
        elif piece.strip():
            cells.append({"cell_type": "markdown", "metadata": {}, "source": lines})
    for index, cell in enumerate(cells):
        cell["id"] = f"cell-{index}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
