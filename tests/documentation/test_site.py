"""The site: it builds without a warning, links lead somewhere, and its pages are accessible by day and by night."""

import subprocess
import sys
from pathlib import Path

import pytest
from browser import accessibility, needs_axe

from building.links import faults
from places import ROOT

pytestmark = pytest.mark.slow
NEEDED = ("sphinx", "myst_parser", "pydata_sphinx_theme", "sphinx_design", "sphinx_copybutton", "latex2mathml")
PAGES = [
    "index",
    "gallery",
    "tutorials/own_data",
    "explanation/conservation",
    "reference/models",
    "reference/python/emul",
]
DAY, NIGHT = [], ["--blink-settings=preferredColorScheme=0"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site; skipped where what builds it is absent."""
    for package in NEEDED:
        pytest.importorskip(package)
    folder = tmp_path_factory.mktemp("site") / "html"
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", str(ROOT / "docs")]
    built = subprocess.run([*command, str(folder)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr[-3000:]
    return folder


def test_every_link_leads_somewhere(site: Path) -> None:
    assert faults(site) == []


@needs_axe
@pytest.mark.parametrize("page", PAGES)
def test_pages_have_no_serious_finding_of_accessibility(site: Path, page: str, tmp_path: Path) -> None:
    for width, flags in ((1280, DAY), (390, NIGHT)):
        assert not accessibility(site / f"{page}.html", tmp_path, f"--window-size={width},900", *flags, beside=True)
