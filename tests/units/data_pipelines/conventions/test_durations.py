"""Lengths of time and the search for times."""

import numpy as np
import pytest

from data_pipelines.conventions.durations import duration, nearest_positions
from emulators.world import nominal_seconds

TIMES = np.datetime64("2001-01-01", "s") + np.array([0, 6, 12, 24]) * np.timedelta64(3600, "s")
HOUR = np.timedelta64(3600, "s")


@pytest.mark.parametrize(
    ("hours", "position"),
    [(0, 0), (-1, 0), (-1.1, -1), (5, 1), (7, 1), (7.1, -1), (18, -1), (23, 3), (25, 3), (26, -1)],
)
def test_nearest_positions_within_a_tolerance(hours, position):
    wanted = TIMES[0] + np.timedelta64(int(hours * 3600), "s")
    assert nearest_positions(TIMES, wanted, HOUR) == position


def test_nearest_positions_of_many_and_of_none():
    wanted = np.stack([TIMES, TIMES + 2 * HOUR])
    assert nearest_positions(TIMES, wanted, HOUR).tolist() == [[0, 1, 2, 3], [-1, -1, -1, -1]]
    tolerances = np.array([1, 2, 3, 1]) * HOUR
    assert nearest_positions(TIMES, TIMES + 2 * HOUR, tolerances).tolist() == [-1, 1, 2, -1]
    assert nearest_positions(TIMES[:0], TIMES, HOUR).tolist() == [-1, -1, -1, -1]
    assert nearest_positions(TIMES, TIMES[0] + 3 * HOUR, 4 * HOUR) == 0  # of two equally near the earlier


@pytest.mark.parametrize(("text", "seconds"), [("6h", 21600), ("1M", 2_629_800), ("1y", 31_557_600)])
def test_nominal_seconds(text, seconds):
    assert nominal_seconds(duration(text)) == seconds
