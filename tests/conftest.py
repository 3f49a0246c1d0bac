"""What several tests share: a small world, one thread, and a cache of their own."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch

import warm_starts
from data_pipelines.studies import trials
from emulators.contracts import example_worlds
from emulators.state import State
from emulators.world import World

STARTED = time.monotonic()
NO_TIME = "no time was left: --minutes"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--minutes", type=float, help="slow tests come last and are skipped after this time")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("minutes") is not None:
        items.sort(key=is_slow)


def is_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("minutes")
    if minutes is not None and is_slow(item) and time.monotonic() - STARTED > 60 * minutes:
        pytest.skip(NO_TIME)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if late := sum(NO_TIME in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(f"For {late} slow tests no time was left (--minutes).")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache and a memory of trusted parts that the processes of this session share, and no other session."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(shared / "cache"))
        patch.setenv("XDG_CONFIG_HOME", str(shared / "config"))
        yield


@pytest.fixture
def warm_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials of sweeps start in processes that have imported what they need."""
    monkeypatch.setattr(trials, "subprocess", SimpleNamespace(**vars(subprocess) | {"Popen": warm_starts.trial}))
    monkeypatch.setattr("emul.sweep.PERIOD", 0.1)


@pytest.fixture(scope="session")
def small_world() -> Callable[..., World]:
    """small_world(grid="gaussian", **changes): six channels, a forcing and a static field on a tiny grid."""
    return example_worlds.small_world


@pytest.fixture(scope="session")
def column_world() -> Callable[..., World]:
    """column_world(kind="sigma", grid="gaussian", **changes): whole columns of air, and all fluxes of their budgets."""
    return example_worlds.column_world


@pytest.fixture(scope="session")
def weather() -> Callable[..., State]:
    """weather(world, variables, seed, lead=(2,), dtype=torch.float64): random fields with the means of the world."""
    return example_worlds.example_state
