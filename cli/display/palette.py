"""Colours and dashes of every picture and page."""

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


PALETTE = ("#2563eb", "#d1495b", "#0d9488", "#b45309", "#7c3aed", "#db2777", "#4d7c0f", "#0e7490", "#92400e", "#64748b")
DASHES = ("none", "7 3", "2 3", "9 3 2 3", "5 2 1 2")
LINES = {"forecast": "", "persistence": "7 4", "climatology": "2 4", "predictability": "9 3 2 3", "saturation": "1 5"}
BETTER = ("#e6effd", "#cfe1fb", "#a9c8f6", "#7aa7ee", "#4a82df", "#1f57bd")
WORSE = ("#fdf0e4", "#fbdfc5", "#f5c394", "#eba05c", "#d97a2b", "#b4560f")
BETTER_DARK = ("#17263d", "#1a3257", "#1d4075", "#215199", "#2b66bf", "#4a86e0")
WORSE_DARK = ("#33261a", "#473019", "#5f3c18", "#7d4b18", "#a0601f", "#c87f35")
COLOURS = {"forecast": "#2563eb", "persistence": "#d97706", "climatology": "#6b7280", "predictability": "#059669"}
