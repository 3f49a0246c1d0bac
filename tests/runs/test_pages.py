"""The pages that evaluations leave, in a browser: they open without an error, fit a phone, move and print."""

import json
import re

import numpy as np
import pytest
import xarray as xr
from browser import accessibility, needs_axe, needs_browser, needs_validator, opened, validity

from emul.config.compose import compose
from emul.eval import evaluate
from emul.main import main

pytestmark = pytest.mark.slow
DESCRIBED = {"title": "Noise on a field", "author": "A. Author", "description": "A test.", "citation": "doi:10.0/none"}
PAGES = ["single/report.html", "ensemble/report.html", "single/case.html", "compare/compare.html"]
INITS = np.datetime64("2001-01-01", "s") + np.arange(6) * np.timedelta64(12, "h")
LEADS = np.array([6, 12, 18, 24]).astype("timedelta64[h]")
PHONE = 390


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Folders of the evaluations of one forecast, of an ensemble, and of their comparison."""
    folder = tmp_path_factory.mktemp("pages")
    random = np.random.default_rng(0)
    time = np.datetime64("2001-01-01", "s") + np.arange(20) * np.timedelta64(6, "h")
    dims = ("time", "level", "latitude", "longitude")
    field = random.normal(280, 5, (20, 2, 8, 16)).astype("float32")
    coords = {"time": time, "level": [500, 850], "latitude": np.linspace(80, -80, 8), "longitude": np.arange(16) * 22.5}
    truth = xr.Dataset({"temperature": (dims, field, {"units": "K"})}, coords)
    truth["land_sea_mask"] = (dims[2:], (np.arange(128).reshape(8, 16) % 5 == 0).astype("float32"))
    truth.to_netcdf(folder / "truth.nc")
    valid = xr.DataArray(INITS[:, None] + LEADS, dims=("time", "prediction_timedelta"))
    at = truth.drop_vars("land_sea_mask").sel(time=valid).drop_vars("time")
    at = at.assign_coords(time=INITS, prediction_timedelta=LEADS.astype("timedelta64[ns]"))
    members = xr.DataArray(random.normal(0, 1, (5, 6, 4, 2, 8, 16)), dims=("number", *at["temperature"].dims))
    (at + members.isel(number=0)).astype("float32").to_netcdf(folder / "single.nc")
    (at + members).astype("float32").to_netcdf(folder / "ensemble.nc")
    event = [
        f"metric.{name}.{key}" for name in ("reliability", "sharpness") for key in ("quantile=null", "threshold=280")
    ]
    told = [f"{key}='{text}'" for key, text in DESCRIBED.items()]
    more = {"single": told, "ensemble": ["metric=[rmse,crps_fair,rank_histogram,reliability,sharpness]", *event]}
    for name, words in more.items():
        stored = [f"forecasts={folder / name}.nc", f"truth={folder / 'truth.nc'}", f"output={folder}"]
        evaluate(compose("eval", [*stored, *words, "regions=[global,tropics]"]))
    assert main(["eval", "compare", "single", "ensemble", f"output={folder}"]) == 0
    return folder / "eval"


def test_an_ensemble_shows_its_ranks_and_its_reliability(pages):
    page = (pages / "ensemble" / "report.html").read_text()
    for text in (
        "Rank histograms",
        "rank 5: ",
        "Reliability",
        "reliability diagram",
        "Error growth",
        "not significant",
    ):
        assert text in page, text


def test_nothing_is_fetched(pages):
    for page in pages.glob("*/*.html"):
        text = page.read_text()
        assert not re.search(r'(?:src|href)="(?!data:|#|case\.html)', text), page
        assert "://" not in text, page


@needs_browser
@pytest.mark.parametrize("page", PAGES)
def test_pages_open_fit_a_phone_and_print(pages, page, tmp_path):
    script = "document.title=`${document.documentElement.scrollWidth} of ${innerWidth}`"
    window = f"--window-size={PHONE},900"
    found, logged = opened(pages / page, tmp_path, window, "--dump-dom", script=script)
    assert "CONSOLE" not in logged, logged
    width, window_width = map(int, re.search(r"<title>(\d+) of (\d+)</title>", found).groups())
    assert width <= window_width
    opened(pages / page, tmp_path, window, f"--screenshot={tmp_path / 'phone.png'}")
    assert (tmp_path / "phone.png").stat().st_size > 10_000
    opened(pages / page, tmp_path, f"--print-to-pdf={tmp_path / 'page.pdf'}")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


@needs_browser
@pytest.mark.parametrize("page", ["single/report.html", "single/case.html", "compare/compare.html"])
def test_pages_run_no_script_and_load_nothing_but_their_own(pages, page, tmp_path):
    copy = tmp_path / "copy.html"
    strange = "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
    strange += "<style>body{display:none}</style><p style='color:red'><img src='http://127.0.0.1:9/x.png'></p>"
    copy.write_text((pages / page).read_text(encoding="utf-8").replace("<h1>", f"{strange}<h1>"), encoding="utf-8")
    script = "document.body.dataset.shown=getComputedStyle(document.body).display"
    found, logged = opened(copy, tmp_path, "--dump-dom", script=script)
    assert "<title>ran</title>" not in found
    assert 'data-shown="block"' in found
    assert logged.count("Content Security Policy") >= 4


@needs_browser
def test_a_case_plays_and_pauses(pages, tmp_path):
    play = 'document.getElementById("play")'
    script = (
        'const first=document.querySelector("img").src;show(1);const next=document.querySelector("img").src;'
        f"show(0);{play}.click();"
        f"const on={play}.textContent;{play}.click();document.title=[on,{play}.textContent,first!==next].join()"
    )
    found, logged = opened(pages / "single" / "case.html", tmp_path, "--dump-dom", script=script)
    assert "CONSOLE" not in logged, logged
    assert "<title>Pause,Play,true</title>" in found
    assert ">6 h ahead, valid 2001-01-01 06 UTC</output>" in found, "it opens on the first frame"


def test_a_report_holds_its_case_and_what_it_is_called(pages):
    page = (pages / "single" / "report.html").read_text()
    for text in (*DESCRIBED.values(), "How to cite", 'id="play"', "FRAMES", 'href="case.html"'):
        assert text in page, text
    frames = json.loads(re.search(r"\{LEADS,FRAMES\}=(\{.*?\});const play", page).group(1))
    assert frames["LEADS"][0] == "6 h ahead, valid 2001-01-01 06 UTC"
    assert all(len(images) == len(frames["LEADS"]) for images in frames["FRAMES"].values())
    with xr.open_dataset(pages / "single" / "scores.nc") as scores:
        assert {key: scores.attrs[key] for key in DESCRIBED} == DESCRIBED
    assert "How to cite" not in (pages / "ensemble" / "report.html").read_text()


@needs_validator
def test_pages_are_valid_html(pages):
    assert not validity([pages / page for page in PAGES])


@needs_axe
@pytest.mark.parametrize("page", PAGES)
def test_pages_have_no_serious_finding_of_accessibility(pages, page, tmp_path):
    for flags in ([], ["--blink-settings=preferredColorScheme=0"]):  # by day and by night
        for width in (1280, PHONE):
            assert not accessibility(pages / page, tmp_path, f"--window-size={width},900", *flags)


@needs_browser
def test_a_comparison_fits_a_screen(pages, tmp_path):
    count = "[...document.querySelectorAll('.wide')].filter(e=>e.scrollWidth>e.clientWidth+1).length"
    script = f"document.querySelectorAll('details').forEach(d=>d.open=true);document.title=`${{{count}}} scroll`"
    found, _ = opened(
        pages / "compare" / "compare.html", tmp_path, "--window-size=1280,900", "--dump-dom", script=script
    )
    assert "<title>0 scroll</title>" in found
