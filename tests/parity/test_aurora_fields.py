"""What Aurora 1.5 reads besides the analysis: insolation, and amounts by their logarithm."""

from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from case import package
from data_pipelines.derived.variables import DIAGNOSTICS
from emulators.physics.insolation import relative_insolation

SPEC = find_spec("aurora")
if SPEC is None or SPEC.origin is None:
    pytest.skip("microsoft-aurora is not installed", allow_module_level=True)
package(Path(SPEC.origin).parents[1], "aurora")  # its networks need a torchvision that fits to torch

TIMES = [datetime(2023, 1, 1), datetime(2024, 6, 21, 6), datetime(2020, 12, 31, 18)]


def test_insolation() -> None:
    from aurora.insolation import insolation

    latitude, longitude = np.linspace(90.0, -90.0, 19), np.arange(0.0, 360.0, 15.0)
    ours = relative_insolation(np.array(TIMES, "datetime64[s]"), latitude, longitude)
    expected = insolation(TIMES, latitude, longitude, enforce_2d=True)
    np.testing.assert_allclose(ours, expected, atol=3e-4)  # they count days of the year in single precision


def test_logarithm() -> None:
    from aurora.normalisation import log_transform

    amounts = np.array([0.0, 1e-5, 2e-3, 9.0])
    dataset = xr.Dataset({"snow_depth": ("x", amounts, {"units": "m"})})
    expected = log_transform(torch.from_numpy(amounts)).numpy()
    np.testing.assert_allclose(DIAGNOSTICS["log_snow_depth"](dataset), expected, rtol=1e-6, atol=1e-12)
