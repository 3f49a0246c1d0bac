"""Networks against independent implementations: what these gave for weights by recipe, and themselves where they are.

Stored cases hold names and shapes of their weights, their output and its gradient; see tests/parity/case.py. Weights
come to ours by the same names as published checkpoints do.
"""

from __future__ import annotations

import importlib
import json
import os

import numpy as np
import pytest
import torch

import case as zoo
from emulators.layers.noise import VectorNoise, condition
from emulators.training.published_weights import converted, fill
from emulators.variables import Variable, VariableSet
from emulators.world import World


def world(case: zoo.Case) -> World:
    """Channels as the case counts them; a mapping counts levels by variable, 0 for none."""
    sets = {}
    for name, count in case.channels.items():
        levels = {name: count} if isinstance(count, int) else count
        sets[name] = VariableSet(tuple(Variable(v, "", tuple(range(1, n + 1))) for v, n in levels.items()))
    return World(case.where, timestep=np.timedelta64(6, "h"), history=case.history, **sets)


def ours(case: zoo.Case, weights: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Our network with their weights."""
    module, name = case.target.split(".")
    module = importlib.import_module(f"emulators.models.{module}")
    net = getattr(module, name)(world(case), **case.options)
    if case.noise:
        condition(net, VectorNoise(world(case), channels=case.noise))
    fill(net, converted(weights, module))
    return net.eval()


def outcome(case: zoo.Case, net: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    told = {name: torch.tensor([value] * zoo.BATCH) for name, value in case.told.items()}
    time = torch.zeros(zoo.BATCH, dtype=torch.int64)

    def run(x):
        return net(
            zoo.evened(case, x), time, **told, **({"generator": zoo.drawn()} if case.noise or case.draws else {})
        )

    return zoo.result(run, zoo.fields(case, case.read))


def assert_same(got: torch.Tensor, expected: torch.Tensor, atol: float = 1e-5) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(got / scale, expected / scale, rtol=1e-4, atol=atol)


# Where what is stored holds only on processors that round as that of its making.
WAVES = "the waves of areas are shorter than what this processor's single-precision sines tell apart"
ROUNDED = {"aurora": WAVES, "aurora_15": WAVES}


@pytest.mark.parametrize("name", zoo.names())
def test_stored(name):
    case = zoo.case(name)
    stored = np.load(zoo.FOLDER / f"{name}.npz")
    weights = {key: zoo.recipe(key, tuple(shape)) for key, shape in json.loads(str(stored["shapes"])).items()}
    out, gradient = outcome(case, ours(case, weights))
    try:
        assert_same(zoo.sample(out), torch.from_numpy(stored["out"]))
        assert_same(zoo.sample(gradient), torch.from_numpy(stored["gradient"]))
    except AssertionError:
        if name not in ROUNDED:
            raise
        pytest.skip(ROUNDED[name])


@pytest.mark.parametrize("name", zoo.names())
def test_peer(name):
    if "EMUL_PEERS" not in os.environ:
        pytest.skip("EMUL_PEERS names no folder of checkouts")
    case = zoo.case(name)
    try:
        peer = case.peer().eval()
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(f"cannot be built here: {error}")
    names = zoo.randomised(peer)
    net = ours(case, {key: value for key, value in peer.state_dict().items() if key in names})
    expected = zoo.result(lambda x: case.call(peer, x), zoo.fields(case, case.read))
    out, gradient = outcome(case, net)
    assert_same(out, expected[0])
    assert_same(gradient, expected[1], 3e-5)  # single points of a million, summed in another order
