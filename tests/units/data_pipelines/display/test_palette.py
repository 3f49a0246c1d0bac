"""Colours: text and lines stand out as WCAG 2.2 asks at level AA, by day and by night."""

import re

import pytest

from data_pipelines.display.palette import (
    BETTER,
    BETTER_DARK,
    GREY,
    LINES,
    PALETTE,
    WORSE,
    WORSE_DARK,
    contrast,
    further_styles,
    run_styles,
    text_on,
)
from data_pipelines.pictures.figures import INK, QUIET
from data_pipelines.reports.page import ASSETS

TEXT, LINE = 4.5, 3.0  # least contrast, success criteria 1.4.3 and 1.4.11


def ground(dark: bool) -> dict[str, str]:
    """The colours of pages by name."""
    css = (ASSETS / "page.css").read_text(encoding="utf-8")
    day, night = re.findall(r":root\{([^}]*)\}", css)
    named = r"--(\w+):(#[0-9a-f]+)"
    colours = dict(re.findall(named, day)) | (dict(re.findall(named, night)) if dark else {})
    return {
        name: value if len(value) == 7 else "#" + "".join(2 * c for c in value[1:]) for name, value in colours.items()
    }


def test_contrast_is_that_of_the_guidelines() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)
    assert contrast("#777777", "#777777") == 1.0


@pytest.mark.parametrize("dark", [False, True])
def test_text_reads_on_cells_and_pages(dark: bool) -> None:
    cells = (*BETTER_DARK, *WORSE_DARK) if dark else (*BETTER, *WORSE)
    assert all(contrast(text_on(cell, dark), cell) >= TEXT for cell in cells)
    page = ground(dark)
    for text in ("ink", "quiet", "accent"):
        assert min(contrast(page[text], page["paper"]), contrast(page[text], page["card"])) >= TEXT, text
    assert min(contrast(text, "#ffffff") for text in (INK, QUIET)) >= TEXT


@pytest.mark.parametrize("dark", [False, True])
def test_lines_stand_out(dark: bool) -> None:
    card = ground(dark)["card"]
    many = [f"run{n}" for n in range(len(PALETTE))]
    styles = {**LINES, **run_styles(many), **further_styles([f"other{n}" for n in range(len(PALETTE))])}
    styles |= {f"grey {name}": style for name, style in GREY.items()}
    for name, style in styles.items():
        for ground_colour in [card] if dark else [card, "#ffffff"]:
            assert contrast(style.dark if dark else style.colour, ground_colour) >= LINE, name
