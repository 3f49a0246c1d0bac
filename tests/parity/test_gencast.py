"""Noise and sampler against GenCast's own code, number for number: a stored case, and the code where it is."""

from __future__ import annotations

import os

import gencast
import numpy as np
import pytest
import torch

from emulators.grid import gaussian_grid
from emulators.layers.field_norms import noise_deviation
from emulators.layers.noise_levels import Process
from emulators.samplers.dpmpp_2s import DPMpp2S
from emulators.sphere.transform import SphericalHarmonics


@pytest.fixture(params=["stored", "peer"])
def reference(request):
    if request.param == "stored":
        return np.load(gencast.FILE)
    if "EMUL_PEERS" not in os.environ:
        pytest.skip("EMUL_PEERS names no folder of checkouts")
    try:
        return gencast.reference()
    except (ImportError, FileNotFoundError) as error:
        pytest.skip(f"cannot be run here: {error}")


def test_sample(reference):
    """The same draws: theirs are two a level, for the start (used at the first) and for the churn (at 14 levels)."""
    draws = torch.from_numpy(reference["draws"])
    used = iter([draws[0], *(draws[2 * level + 1] for level in range(14))])

    def restore(x, level):
        return Process("edm").restored(lambda scaled: network(scaled, level), x, torch.tensor(level))

    def network(scaled, level):
        return 0.5 * torch.sin(scaled) * ((level**2 + 1.0) ** 0.5 / level)

    sample = DPMpp2S(None)(Process("edm"), restore, lambda: next(used))
    assert next(used, None) is None
    np.testing.assert_allclose(sample.numpy(), reference["sample"], rtol=2e-5, atol=2e-5)


def test_noise(reference):
    """The same numbers as coefficients: of real harmonics there, real and imaginary parts of complex ones here."""
    harmonics = SphericalHarmonics(gaussian_grid(8), condon_shortley=True)
    deviation = noise_deviation(harmonics.degrees, harmonics.orders, "degree")
    numbers = np.zeros((*deviation.shape, 2))
    for place, order in enumerate(reference["orders"]):
        row = 2 * abs(order) + (order < 0)
        numbers[row] = (1 if order >= 0 else -1) * reference["numbers"][:, 0, :, place].T
    field = harmonics.synthesis(torch.from_numpy(numbers * deviation[..., None]).float())
    north_first = reference["noise"][:, 0, ::-1]
    np.testing.assert_allclose(field.permute(2, 1, 0).numpy(), north_first, atol=2e-6)
