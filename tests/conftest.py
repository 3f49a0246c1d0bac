"""What several tests share: a small world, one thread, and a cache of their own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
import torch

import warm_starts
from data_pipelines.studies import trials
from emulators.contracts import example_worlds
from emulators.state import State
from emulators.world import World


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
