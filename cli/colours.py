"""Colours at equal steps of perceived difference.

Lines between colours are straight in OKLab (Ottosson 2020, https://bottosson.github.io/posts/oklab), and are walked at
constant speed: equal steps of a number look equally large wherever they are (Crameri, Shephard & Heron 2020,
doi 10.1038/s41467-020-19160-7).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
AXES = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab(colours: np.ndarray) -> np.ndarray:
    """sRGB from 0 to 1, (..., 3) -> lightness, green-red, blue-yellow."""
    linear = np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ CONES.T) @ AXES.T


def from_oklab(lab: np.ndarray) -> np.ndarray:
    """The inverse of `oklab`, within what a screen can show."""
    linear = ((lab @ np.linalg.inv(AXES).T) ** 3 @ np.linalg.inv(CONES).T).clip(0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1.0 / 2.4) - 0.055)


def uniform(stops: Sequence[str], steps: int = 256) -> Colormap:
    """The colours through `stops`."""
    from matplotlib.colors import ListedColormap, to_rgb

    lab = oklab(np.array([to_rgb(stop) for stop in stops]))
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(lab, axis=0), axis=1))])
    even = np.linspace(0.0, along[-1], steps)
    return ListedColormap(from_oklab(np.stack([np.interp(even, along, axis) for axis in lab.T], axis=1)))
