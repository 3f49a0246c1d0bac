"""Draw a planet from its data: a weather map, zonal mean winds, kinetic energy by scale, a month of weather."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.conventions.attributes import grid_of
from data_pipelines.display.palette import uniform
from data_pipelines.inspection.picture_fields import (
    PER_DAY,
    RAIN,
    SphericalInterpolation,
    kinetic_energy,
    low_pressure_centres,
    map_sampling,
    mollweide,
    require_variables,
    sea_level_pressure,
    water_vapour,
    winter_month,
    zonal_means,
)
from data_pipelines.pictures.figures import INK, QUIET, colour_bar, figure_style, new_figure, panels, save_figure
from data_pipelines.verification.score_rows import SIGMA
from emulators.constants import EARTH_RADIUS
from emulators.grid import lat_lon

if TYPE_CHECKING:
    import xarray as xr


SEA, LAND, SHORE, LOW = "#f3f6f9", "#e4dfd4", "#8a8478", "#b3261e"
RAINY = ("#d3ece6", "#7cc6cd", "#3a8fbd", "#34519f", "#301c63", "#16092e")
VAPOUR = ("#0a0f1f", "#17305c", "#22638f", "#4ea3ae", "#a9d8c6", "#fbfbf2")
MILLISECONDS = 80  # how long a frame is shown
ISOBARS = np.arange(888.0, 1101.0, 8.0)  # hPa
BAR = {"orientation": "horizontal", "shrink": 0.5, "aspect": 38, "pad": 0.02}


def portraits(
    dataset: xr.Dataset, title: str, folder: Path, attempt: Callable[..., Path | None], report: Callable[..., None]
) -> list[Path]:
    """Draw into `folder` all that the data allow; `attempt(what, make, *args)` makes each picture, or warns."""
    makers = {"storms.png": storms, "zonal_mean.png": zonal_mean, "spectrum.png": spectrum, "month.webp": month}
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for number, (name, make) in enumerate(makers.items()):
        report(name, number / len(makers))
        pictures.append(attempt(name, make, folder / name, dataset, title))
    report("", 1.0)
    return [path for path in pictures if path is not None]


class PlanetMap:
    """Draw an equal-area map of the whole planet on `axis`; fields come smoothed by `smooth`."""

    def __init__(self, axis: Any, smooth: SphericalInterpolation, width: int) -> None:
        from matplotlib.patches import Ellipse

        self.axis, self.smooth, self.sampling = axis, smooth, map_sampling(smooth.grid, width)
        axis.set_axis_off()
        axis.set_aspect("equal")
        axis.set_xlim(-2.02, 2.02)
        axis.set_ylim(-1.01, 1.01)
        self.frame = Ellipse((0.0, 0.0), 4.0, 2.0, facecolor="none", edgecolor=QUIET, linewidth=0.8, zorder=5)
        axis.add_patch(self.frame)

    def contour(self, field: np.ndarray, *, filled: bool = False, **style: Any) -> Any:
        """Lines or bands of a field on the fine grid."""
        pixels = self.sampling.values(field)
        y, x = (np.linspace(-end, end, size) for end, size in zip((1.0, 2.0), pixels.shape, strict=True))
        contours = (self.axis.contourf if filled else self.axis.contour)(x, y[::-1], pixels, **style)
        contours.set_clip_path(self.frame)
        return contours

    def image(self, **style: Any) -> Any:
        """An image, empty, for the pixels of `sampling`."""
        blank = np.full(self.sampling.inside.shape, np.nan)
        image = self.axis.imshow(blank, extent=(-2.0, 2.0, -1.0, 1.0), interpolation="bilinear", **style)
        image.set_clip_path(self.frame)
        return image

    def ground(self, dataset: xr.Dataset, colour: str, filled: bool) -> None:
        """Land and coasts, where the data hold a land-sea mask."""
        if "land_sea_mask" not in dataset:
            return
        mask = dataset["land_sea_mask"]
        land = self.smooth((mask.isel(time=0) if "time" in mask.dims else mask).values, soft=True)
        if (land > 0.5).any():
            if filled:
                self.contour(land, filled=True, levels=[0.5, 2.0], colors=[LAND])
            self.contour(land, levels=[0.5], colors=colour, linewidths=0.6, zorder=3)

    def low(self, row: int, column: int, text: str) -> None:
        """The letter L and the pressure at the centre of a low."""
        from matplotlib.patheffects import withStroke

        grid = self.smooth.grid
        place = mollweide(grid.latitude[row], grid.longitude[column])
        style: dict[str, Any] = {"color": LOW, "path_effects": [withStroke(linewidth=2.0, foreground="white")]}
        style |= {"ha": "center", "va": "center", "zorder": 6}
        self.axis.text(*place, "L", fontsize=9, fontweight="bold", **style)
        self.axis.annotate(text, place, xytext=(0, -9), textcoords="offset points", fontsize=6.5, **style)


def storms(path: Path, dataset: xr.Dataset, title: str) -> Path:
    """The hour of a winter month with the deepest low: precipitation, isobars at mean sea level, coasts."""
    require_variables(dataset, RAIN)
    month, grid = winter_month(dataset), lat_lon(grid_of(dataset))
    pressure, stormy = sea_level_pressure(month), (grid.latitude > 25.0) & (grid.latitude < 75.0)
    hour = int(pressure[:, stormy].min(axis=(1, 2)).argmin())
    smooth = SphericalInterpolation(grid, 180)
    rain = smooth(month[RAIN].values[hour] * PER_DAY, least=0.0, soft=True)
    pressure = smooth(pressure[hour])
    levels = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
    with figure_style():
        figure = new_figure(9.6, 5.5)
        planet = PlanetMap(figure.subplots(), smooth, 1200)
        planet.frame.set_facecolor(SEA)
        planet.frame.set_zorder(0)
        planet.ground(dataset, SHORE, filled=True)
        colours = uniform(RAINY)(np.linspace(0.0, 1.0, len(levels)))
        bands = planet.contour(rain, filled=True, levels=levels, colors=colours, extend="max", alpha=0.92)
        planet.contour(pressure / 100.0, levels=ISOBARS, colors=INK, linewidths=0.55, alpha=0.8, zorder=4)
        for row, column in low_pressure_centres(pressure, smooth.grid, deepest=99000.0, apart=12.0, most=8):
            planet.low(row, column, f"{pressure[row, column] / 100.0:.0f}")
        planet.axis.set_title(f"{title}: storms on {_hour(month, hour)}", loc="center", fontsize=11)
        label = "precipitation [mm/day]; isobars at mean sea level, every 8 hPa"
        colour_bar(figure, bands, planet.axis, label, QUIET, **BAR)
        return save_figure(figure, path)


def _hour(dataset: xr.Dataset, index: int) -> str:
    return np.datetime_as_string(dataset["time"].values[index], "h").replace("T", " ") + " UTC"


def zonal_mean(path: Path, dataset: xr.Dataset, title: str) -> Path:
    """Eastward wind in colours and temperature as lines over latitude and height, a panel for each season."""
    means, latitude = zonal_means(dataset), dataset["latitude"].values
    is_sigma = dataset.attrs.get("vertical_kind") == "sigma"
    height = dataset["level"].values / (1000.0 if is_sigma else 1.0)
    top = 5.0 * np.ceil(max(np.abs(mean.wind).max() for mean in means) / 5.0)
    with figure_style():
        figure = new_figure(1.5 + 4.1 * len(means), 3.7, f"{title}: zonal mean")
        axes = panels(figure, len(means), len(means), sharey=True)
        for axis, mean in zip(axes, means, strict=True):
            bands = np.arange(-top, top + 1.0, 5.0)
            contours = axis.contourf(latitude, height, mean.wind, levels=bands, cmap="RdBu_r")
            warmth = np.arange(180.0, 320.0, 10.0)
            lines = axis.contour(latitude, height, mean.temperature, levels=warmth, colors=INK, linewidths=0.7)
            axis.clabel(lines, np.asarray(lines.levels)[::2], fontsize=7, fmt="%d K")
            axis.set_title(mean.name)
            axis.set_xticks(np.arange(-60, 61, 30), ["60°S", "30°S", "0°", "30°N", "60°N"])
            axis.set_ylim(float(height.max()), float(height.min()))
            axis.set_ylabel(f"{SIGMA} (fraction of surface pressure)" if is_sigma else "pressure [hPa]")
            axis.grid(False)
            axis.label_outer()
        colour_bar(figure, contours, axes, "eastward wind [m/s]; lines: temperature", pad=0.02, aspect=26)
        return save_figure(figure, path)


def spectrum(path: Path, dataset: xr.Dataset, title: str) -> Path:
    """Kinetic energy by total wavenumber, aloft and near the ground, with the slope of geostrophic turbulence."""
    energies = {name: kinetic_energy(dataset, level) for name, level in _two_levels(dataset).items()}
    with figure_style():
        figure = new_figure(5.6, 4.0, f"{title}: kinetic energy by scale")
        axis = figure.subplots()
        for (name, energy), colour in zip(energies.items(), ("#2563eb", "#d97706"), strict=False):
            resolved = np.flatnonzero(energy > 1e-9 * energy.max())  # up to the truncation
            axis.loglog(resolved, energy[resolved], color=colour, marker="o", ms=3.0, lw=1.6, label=name)
        low, high = axis.get_ylim()
        first = min(7, int(resolved[-1]))
        slope, anchor = np.array([first, resolved[-1]], dtype=float), 3.0 * next(iter(energies.values()))[first]
        axis.loglog(slope, anchor * (slope / slope[0]) ** -3.0, color=QUIET, lw=1.0, ls="--")
        axis.annotate("$l^{-3}$", (slope[0], anchor), xytext=(4, 2), textcoords="offset points", color=QUIET)
        axis.set_ylim(low, high)
        _plain_ticks(axis, axis.get_xlim(), [1, 2, 5, 10, 20, 50, 100, 200], "total wavenumber $l$")
        axis.set_ylabel("kinetic energy [m²/s²]")
        upper = axis.secondary_xaxis("top", functions=(_wavelength, _wavelength))  # type: ignore[arg-type]
        lengths = [200, 500, 1000, 2000, 5000, 10000, 20000, 40000]
        _plain_ticks(upper, _wavelength(np.array(axis.get_xlim())), lengths, "wavelength [km]")
        axis.legend(loc="lower left")
        return save_figure(figure, path)


def _two_levels(dataset: xr.Dataset) -> dict[str, float | None]:
    """The levels nearest 250 and 850 hPa by their labels; `wind` for data without levels."""
    if "level" not in dataset.dims:
        return {"wind": None}
    stored = dataset["level"].values.astype(np.float64)
    levels = dict.fromkeys(float(stored[np.abs(stored - pressure).argmin()]) for pressure in (250.0, 850.0))
    is_sigma = dataset.attrs.get("vertical_kind") == "sigma"
    return {f"{SIGMA} {level / 1000:.2f}" if is_sigma else f"{level:g} hPa": level for level in levels}


def _plain_ticks(axis: Any, ends: Sequence[float] | np.ndarray, ticks: Sequence[int], label: str) -> None:
    """Plain numbers along a logarithmic axis between its `ends`."""
    low, high = sorted(ends)
    visible = [tick for tick in ticks if low <= tick <= high]
    axis.set_xlabel(label)
    axis.set_xticks(visible, [f"{tick:,}".replace(",", "\N{THIN SPACE}") for tick in visible])
    axis.set_xticks([], minor=True)


def _wavelength(degree: np.ndarray) -> np.ndarray:
    """Convert a total wavenumber to its wavelength in km, or back."""
    return 2e-3 * np.pi * EARTH_RADIUS / np.maximum(degree, 1e-9)


def month(path: Path, dataset: xr.Dataset, title: str) -> Path:
    """Animate a month of weather: water vapour of the column."""
    first, *rest = _frames(dataset, title)
    style: dict[str, Any] = {"quality": 60, "method": 4, "duration": MILLISECONDS, "loop": 0}
    first.save(path, save_all=True, append_images=rest, **style)
    return path


def _frames(dataset: xr.Dataset, title: str) -> Iterator[Any]:
    """One image for each time."""
    from PIL import Image

    weather, smooth = winter_month(dataset), SphericalInterpolation(lat_lon(grid_of(dataset)), 360)
    vapour = water_vapour(weather)
    top = 10.0 * np.ceil(np.percentile(vapour, 99.5) / 10.0)
    with figure_style():
        figure = new_figure(6.2, 3.7)
        planet = PlanetMap(figure.subplots(), smooth, 600)
        image = planet.image(cmap=uniform(VAPOUR), vmin=0.0, vmax=top)
        planet.ground(dataset, "#d8d2c4", filled=False)
        colour_bar(figure, image, planet.axis, "water vapour of the column [kg/m²]", QUIET, **BAR)
        for index, field in enumerate(vapour):
            image.set_data(planet.sampling.values(smooth(field, least=0.0, soft=True)))
            planet.axis.set_title(f"{title}, {_hour(weather, index)}", loc="center")
            figure.canvas.draw()
            figure.set_layout_engine("none")  # the layout of the first frame serves all
            yield Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])  # type: ignore[attr-defined]
