"""The Python functions of `import emul`: a notebook trains, forecasts, scores and plots in a few lines."""

from __future__ import annotations

import doctest
import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import emul
from places import ROOT

NOTEBOOK = """
import sys
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import emul

config = emul.compose("experiment=lorenz96_unet", "training.steps=20", "training.validate_every=10", "logger=[csv]")
config.output = sys.argv[1]
run = emul.train(config)
truth = emul.open_data("data=lorenz96")
period = config.data.splits.test
forecast = run.forecast(f"{period[0]}/{str(period[0])[:7]}/2d", "2d")
scores = emul.evaluate(forecast, truth, climatology=config.data.splits.train, metrics=["rmse", "acc"],
                       baselines=["persistence", "climatology"])
name = next(iter(scores.data_vars))
curves = scores[name].sel(metric="rmse", region="global").squeeze(drop=True)
for source in scores["source"].values:
    plt.plot(scores["lead_time"] / 3.6e12, curves.sel(source=source), label=source)
plt.legend()
plt.savefig(f"{sys.argv[1]}/curves.png")
print(scores.sizes)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    words = ["experiment=lorenz96_unet", "training.steps=4", "training.validate_every=2", "logger=[csv]"]
    output = tmp_path_factory.mktemp("python") / "outputs"
    config = emul.compose(*words, f"output={output}", "training.validation_cases=4")
    return emul.train(config)


@pytest.mark.slow
def test_a_notebook_trains_forecasts_scores_and_plots(tmp_path):
    assert len([line for line in NOTEBOOK.splitlines() if line.strip()]) <= 25
    command = [sys.executable, "-c", NOTEBOOK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "curves.png").stat().st_size > 5000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel from a copy of the sources: a build folder in the checkout would add old files to it."""
    pytest.importorskip("setuptools", "77", "setuptools >= 77 builds the wheel without a network")
    source, output = (tmp_path_factory.mktemp(name) for name in ("source", "wheel"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_wheel({str(output)!r})"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=source, check=False)
    assert done.returncode == 0, done.stderr
    return next(output.glob("*.whl"))


PACKAGES = {"cli": "emul", "conf": "emul/conf", "emulators": "emulators", "data_pipelines": "data_pipelines"}


@pytest.mark.slow
def test_a_wheel_holds_every_file_and_works_elsewhere(wheel, tmp_path):
    files = {
        f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, place in PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        assert files == {name for name in archive.namelist() if ".dist-info/" not in name}
        archive.extractall(tmp_path / "installed")
    place = f'import emul; assert emul.__file__.startswith("{tmp_path}"), emul.__file__'
    done = subprocess.run(
        [sys.executable, "-c", f"{place}\n{NOTEBOOK}", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "curves.png").stat().st_size > 5000


@pytest.mark.slow
def test_cells_run_in_jupyter(tmp_path):
    """The kernel has no main thread of its own command line: nothing of a training may rest on it."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    lines = NOTEBOOK.replace("sys.argv[1]", repr(str(tmp_path))).replace(f"{{{str(tmp_path)!r}}}", str(tmp_path))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(lines)])
    nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    output = "".join(o.get("text", "") for o in book.cells[0].outputs if o.output_type == "stream")
    assert "lead_time" in output
    assert (tmp_path / "curves.png").stat().st_size > 5000
    assert "\x1b[" not in output  # no codes for a terminal


@pytest.mark.slow
def test_forecasts_and_scores_are_those_of_the_command_line(run, tmp_path):
    from emul.main import main

    output = str(run.folder.parents[1])
    assert main(["forecast", f"run={run.folder}", "init=[2003-01-05,2003-01-09]", "lead=2d", f"output={output}"]) == 0
    assert main(["eval", f"run={run.folder}", f"output={output}", "pictures=false", "baselines=[]"]) == 0
    stored = xr.open_zarr(f"{output}/forecast/{run.folder.name}/forecast.zarr", chunks=None, decode_timedelta=True)
    made = run.forecast(["2003-01-05", "2003-01-09"], "2d")
    assert dict(made.sizes) == dict(stored.sizes)
    for name in stored.data_vars:
        np.testing.assert_array_equal(made[name].values, stored[name].values)
    scores = emul.evaluate(made, emul.open_data("data=lorenz96"), metrics=["rmse"], across_gaps=False)
    expected = xr.open_dataset(f"{output}/eval/{run.folder.name}/scores.nc", decode_timedelta=True)
    for name in scores.data_vars:
        found, wanted = (dataset[name].sel(metric="rmse", region="global").values for dataset in (scores, expected))
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


@pytest.mark.parametrize("module", ["emul.api", "emul.training.runs"])
def test_the_examples_of_docstrings_run(run, module, monkeypatch):
    monkeypatch.chdir(run.folder.parents[2])
    done = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert done.attempted >= 4
    assert not done.failed


def test_a_report_is_written_from_scores(run, tmp_path):
    truth, forecast = emul.open_data("data=lorenz96"), run.forecast(["2003-01-05", "2003-01-09"], "2d")
    scores = emul.evaluate(forecast, truth, baselines=["persistence"])
    page = emul.report(scores, tmp_path / "report", name="mine").read_text()
    assert "<title>mine" in page
    assert "persistence" in page
    assert "2003-01-05" in page
    assert {p.name for p in (tmp_path / "report").iterdir()} == {"report.html", "scorecard.png", "curves.png"}
    alone = emul.evaluate(forecast, truth, metrics=["rmse"])
    assert "By lead time" in emul.report(alone, tmp_path / "alone").read_text()


def test_states_come_one_lead_at_a_time(run):
    states = run.states("2003-01-05", 3)
    first = next(states)
    assert first.values.shape == (1, run.world.predicted.size, *run.world.grid.shape)
    assert len(list(states)) == 2


def test_members_of_a_network_without_noise_are_refused(run):
    with pytest.raises(ValueError, match="draws no noise"):
        run.forecast("2003-01-05", "1d", members=2)


def test_a_baseline_that_cannot_be_scored_is_refused(run):
    forecast = run.forecast("2003-01-05", "1d")
    with pytest.raises(ValueError, match="climatology"):
        emul.evaluate(forecast, emul.open_data("data=lorenz96"), baselines=["climatology"])


def test_a_metric_that_there_is_not_is_refused_by_name(run):
    forecast = run.forecast("2003-01-05", "1d")
    with pytest.raises(ValueError, match="did you mean 'rmse'"):
        emul.evaluate(forecast, emul.open_data("data=lorenz96"), metrics=["rsme"])


def test_importing_takes_the_standard_library_only():
    code = "import sys; before = set(sys.modules); import emul; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()} <= {"emul", *sys.stdlib_module_names}
    assert set(emul.__all__) <= set(dir(emul))
    with pytest.raises(AttributeError, match="emul"):
        emul.nothing  # noqa: B018


def test_no_signal_handler_is_installed(run):
    import signal

    assert signal.getsignal(signal.SIGINT) in (
        signal.default_int_handler,
        signal.SIG_IGN,
    )  # that of Python or the shell
