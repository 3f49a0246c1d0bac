"""Colours, dashes and colour maps of every picture and page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from matplotlib.colors import Colormap


class LineStyle(NamedTuple):
    """Style a line on a light and on a dark ground; dash: lengths of strokes and gaps, as SVG writes them."""

    colour: str
    dark: str
    dash: str = ""

    def for_matplotlib(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot`."""
        dash = tuple(0.5 * float(length) for length in self.dash.split())  # in units of the line's width, 2
        return {"color": self.colour, "linestyle": (0, dash) if dash else "-"}


LINES = {
    "forecast": LineStyle("#2563eb", "#6aa5ff"),
    "persistence": LineStyle("#c2650a", "#f2a65a", "7 4"),
    "climatology": LineStyle("#6b7280", "#a3adb8", "2 4"),
    "predictability": LineStyle("#059669", "#3ecf9e", "9 3 2 3"),
    "saturation": LineStyle("#3f8f77", "#2a9d78", "1 5"),
    "truth": LineStyle("#1b2530", "#e6ebf0", "4 3"),
    "ensemble_mean": LineStyle("#7c3aed", "#b79bff", "2 2"),
    "all": LineStyle("#5b6876", "#95a3b2", "3 3"),
}
GREY = {name: LineStyle("#7b8794", "#9aa5b1", LINES[name].dash) for name in ("persistence", "climatology")}
PALETTE = ("#2563eb", "#d1495b", "#0d9488", "#b45309", "#7c3aed", "#db2777", "#4d7c0f", "#0e7490", "#92400e", "#64748b")
DARK = ("#6aa5ff", "#f08a98", "#3ecfbf", "#f0a35a", "#b79bff", "#f58ac0", "#9bc95a", "#5cc4dd", "#d69a6a", "#a3b0c2")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "5 2 1 2")
BETTER = ("#e6effd", "#cfe1fb", "#a9c8f6", "#7aa7ee", "#3a70d4", "#1a4aa5")
WORSE = ("#fdf0e4", "#fbdfc5", "#f5c394", "#eba05c", "#d97a2b", "#b4560f")
BETTER_DARK = ("#17263d", "#1a3257", "#1d4075", "#215199", "#2b66bf", "#4a86e0")
WORSE_DARK = ("#33261a", "#473019", "#5f3c18", "#7d4b18", "#a0601f", "#c87f35")


def run_styles(names: Sequence[str]) -> dict[str, LineStyle]:
    """A style for each run of a comparison: colours first, then dashes, so that many remain distinct."""
    size = len(PALETTE)
    return {
        name: LineStyle(PALETTE[n % size], DARK[n % size], DASHES[n // size % len(DASHES)])
        for n, name in enumerate(names)
    }


def further_styles(names: Sequence[str]) -> dict[str, LineStyle]:
    """A style for each forecast drawn with the evaluated one, all dashed."""
    return {
        name: LineStyle(PALETTE[(n + 5) % 10], DARK[(n + 5) % 10], DASHES[1 + n % (len(DASHES) - 1)])
        for n, name in enumerate(names)
    }


TEXTS = {False: ("#1b2530", "#ffffff"), True: ("#ffffff", "#0f141a")}  # on cells; True: of a dark page


def contrast(first: str, second: str) -> float:
    """Return the ratio of the luminances of two colours, from 1 to 21 (WCAG 2.2)."""
    channels = np.array([[int(colour[i : i + 2], 16) for i in (1, 3, 5)] for colour in (first, second)]) / 255.0
    low, high = np.sort(_linear(channels) @ np.array([0.2126, 0.7152, 0.0722]))
    return float((high + 0.05) / (low + 0.05))


def text_on(colour: str, dark: bool = False) -> str:
    """Return the colour of text on a cell of this colour that reads best."""
    return max(TEXTS[dark], key=lambda text: contrast(text, colour))


def _linear(colours: np.ndarray) -> np.ndarray:
    """Convert sRGB from 0 to 1 to linear light."""
    return np.where(colours <= 0.04045, colours / 12.92, ((colours + 0.055) / 1.055) ** 2.4)


TO_CONES = np.array(  # Ottosson 2020, https://bottosson.github.io/posts/oklab
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab(colours: np.ndarray) -> np.ndarray:
    """Convert sRGB from 0 to 1, (..., 3), to lightness, green-red and blue-yellow."""
    return np.cbrt(_linear(colours) @ TO_CONES.T) @ TO_LAB.T


def from_oklab(lab: np.ndarray) -> np.ndarray:
    """Invert `oklab`, clipped to sRGB."""
    linear = ((lab @ np.linalg.inv(TO_LAB).T) ** 3 @ np.linalg.inv(TO_CONES).T).clip(0.0, 1.0)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1.0 / 2.4) - 0.055)


def uniform(stops: Sequence[str], steps: int = 256) -> Colormap:
    """A colour map through `stops` with perceptually equal steps."""
    from matplotlib.colors import ListedColormap, to_rgb

    lab = oklab(np.array([to_rgb(stop) for stop in stops]))
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(lab, axis=0), axis=1))])
    even = np.linspace(0.0, along[-1], steps)
    return ListedColormap(from_oklab(np.stack([np.interp(even, along, axis) for axis in lab.T], axis=1)))
