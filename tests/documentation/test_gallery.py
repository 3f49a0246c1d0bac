"""The script of the gallery makes every picture that the page shows, by runs; here one of them, of two steps."""

import re
from pathlib import Path

import pytest
from PIL import Image

from building.gallery import RUNS, Run, make
from places import ROOT

DOCS = ROOT / "docs"


def test_every_picture_of_the_page_has_a_run() -> None:
    shown = set(re.findall(r"\(pictures/([\w.]+)\)", (DOCS / "gallery.md").read_text(encoding="utf-8")))
    made = {target for run in RUNS for _, target in run.files}
    assert shown == made == {path.name for path in (DOCS / "pictures").glob("*.png")}
    for page in (ROOT / "README.md", DOCS / "index.md"):
        assert set(re.findall(r"pictures/([\w.]+)\)", page.read_text(encoding="utf-8"))) & made, (
            "its picture is made too"
        )
    assert all(path.stat().st_size < 300_000 for path in (DOCS / "pictures").glob("*.png"))


@pytest.mark.slow
def test_pictures_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run("lorenz96_unet", (("curves.png", "curves.png"),))
    short = ["hardware=debug", "forecast.every=100d", "forecast.lead=24h"]
    [picture] = make(tmp_path / "pictures", [run], short)
    with Image.open(picture) as image:
        assert 300 < image.width <= 1000
