"""Portraits of a planet from its data: a weather map, mean winds, kinetic energy by scale, a month of weather."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.conventions.canonical import grid_of
from data_pipelines.inspection.picture_fields import (
    PER_DAY,
    RAIN,
    SphericalInterpolation,
    kinetic_energy,
    low_pressure_centres,
    require_variables,
    sea_level_pressure,
    water_vapour,
    zonal_means,
)
from emul.display.palette import uniform
from emul.pictures.figures import INK, QUIET, _figure, _save, _styled
from emulators.constants import EARTH_RADIUS

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure


SEA, LAND, SHORE, LOW = "#f3f6f9", "#e4dfd4", "#8a8478", "#b3261e"
RAINY = ("#d3ece6", "#7cc6cd", "#3a8fbd", "#34519f", "#301c63", "#16092e")
VAPOUR = ("#0a0f1f", "#17305c", "#22638f", "#4ea3ae", "#a9d8c6", "#fbfbf2")
MONTH, MILLISECONDS = 120, 80  # six-hourly samples; how long each is shown
ISOBARS = np.arange(888.0, 1101.0, 8.0)  # hPa
DEGREE = "\N{DEGREE SIGN}"


def portraits(
    dataset: xr.Dataset, title: str, folder: Path, attempt: Callable[..., Path | None], report: Callable[..., None]
) -> list[Path]:
    """Every picture that the data allow, into `folder`; `attempt(what, make, *args)` makes each, or warns."""
    makers = {"storms.png": storms, "zonal_mean.png": zonal_mean, "spectrum.png": spectrum, "month.webp": month}
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, (name, make) in enumerate(makers.items()):
        report(name, number / len(makers))
        made.append(attempt(name, make, folder / name, dataset, title))
    report("", 1.0)
    return [path for path in made if path is not None]


def _winter(dataset: xr.Dataset) -> xr.Dataset:
    """A month of the data: the first January, else the first days."""
    january = np.flatnonzero(dataset["time"].dt.month.values == 1)
    first = int(january[0]) if january.size else 0
    return dataset.isel(time=slice(first, min(first + MONTH, dataset.sizes["time"])))


class Mollweide:
    """An equal-area map of the whole planet on `axis`, the 180th meridian in its middle; fields come from `smooth`."""

    def __init__(self, axis: Any, smooth: SphericalInterpolation) -> None:
        from matplotlib.patches import Ellipse

        self.axis, self.smooth = axis, smooth
        axis.set_axis_off()
        axis.set_aspect("equal")
        axis.set_xlim(-2.02, 2.02)
        axis.set_ylim(-1.01, 1.01)
        self.frame = Ellipse((0.0, 0.0), 4.0, 2.0, fill=False, edgecolor=QUIET, linewidth=0.8, zorder=5)
        axis.add_patch(self.frame)

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y of the columns of a field, from the western edge of the map to the eastern one."""
        longitude = np.deg2rad(np.concatenate([[-180.0], self.smooth.grid.longitude - 180.0, [180.0]]))
        latitude = np.deg2rad(self.smooth.grid.latitude)
        theta = latitude.copy()
        for _ in range(50):  # Newton; slow at the poles, where it starts at the solution
            share = 2.0 * theta + np.sin(2.0 * theta) - np.pi * np.sin(latitude)
            theta -= share / np.maximum(2.0 + 2.0 * np.cos(2.0 * theta), 1e-9)
        x = 2.0 / np.pi * np.cos(theta)[:, None] * longitude
        return x, np.broadcast_to(np.sin(theta)[:, None], x.shape)

    def contour(self, field: np.ndarray, *, filled: bool = False, **style: Any) -> Any:
        """Lines or bands of a field on the fine grid."""
        edge = 0.5 * (field[:, :1] + field[:, -1:])
        draw = self.axis.contourf if filled else self.axis.contour
        return draw(*self.points(), np.concatenate([edge, field, edge], axis=1), **style)

    def image(self, pixels: int, **style: Any) -> Any:
        """An image of `pixels` by half as many, for fields that `raster` makes."""
        blank = np.full((pixels // 2, pixels), np.nan)
        image = self.axis.imshow(blank, extent=(-2.0, 2.0, -1.0, 1.0), interpolation="bilinear", **style)
        image.set_clip_path(self.frame)
        return image

    def raster(self, field: np.ndarray, pixels: int) -> np.ndarray:
        """The field at each pixel of the map, rows from the north."""
        y, x = np.meshgrid(
            np.linspace(1.0, -1.0, pixels // 2 + 1)[1:] + 1.0 / (pixels // 2),
            np.linspace(-2.0, 2.0, pixels + 1)[1:] - 2.0 / pixels,
            indexing="ij",
        )
        theta = np.arcsin(y.clip(-1.0, 1.0))
        latitude = np.arcsin(((2.0 * theta + np.sin(2.0 * theta)) / np.pi).clip(-1.0, 1.0))
        longitude = np.pi * x / (2.0 * np.cos(theta).clip(min=1e-6)) + np.pi
        rows, columns = field.shape
        row = ((0.5 - latitude / np.pi) * rows).astype(int).clip(0, rows - 1)
        return field[row, (longitude / (2.0 * np.pi) * columns).astype(int).clip(0, columns - 1)]

    def ground(self, dataset: xr.Dataset, colour: str, filled: bool) -> None:
        """Sea, land and coasts, where the data know land."""
        if "land_sea_mask" not in dataset:
            return
        mask = dataset["land_sea_mask"]
        land = self.smooth((mask.isel(time=0) if "time" in mask.dims else mask).values, soft=True)
        if (land > 0.5).any():
            if filled:
                self.contour(land, filled=True, levels=[0.5, 2.0], colors=[LAND])
            self.contour(land, levels=[0.5], colors=colour, linewidths=0.6, zorder=3)


def storms(path: Path, dataset: xr.Dataset, title: str) -> Path:
    """The hour of a winter month with the deepest low: precipitation, isobars at mean sea level, coasts."""
    require_variables(dataset, RAIN)
    part, grid = _winter(dataset), grid_of(dataset)
    pressure, stormy = sea_level_pressure(part), (grid.latitude > 25.0) & (grid.latitude < 75.0)
    hour = int(pressure[:, stormy].min(axis=(1, 2)).argmin())
    smooth = SphericalInterpolation(grid, 180)
    rain = smooth(part[RAIN].values[hour] * PER_DAY, least=0.0, soft=True)
    pressure = smooth(pressure[hour])
    with _styled():
        figure = _figure(9.6, 5.5)
        world = Mollweide(figure.subplots(), smooth)
        world.contour(np.zeros(smooth.grid.shape), filled=True, levels=[-1.0, 1.0], colors=[SEA])
        world.ground(dataset, SHORE, filled=True)
        levels = [2.0, 4.0, 8.0, 16.0, 32.0, 64.0]
        colours = uniform(RAINY)(np.linspace(0.0, 1.0, len(levels)))
        bands = world.contour(rain, filled=True, levels=levels, colors=colours, extend="max", alpha=0.92)
        world.contour(pressure / 100.0, levels=ISOBARS, colors=INK, linewidths=0.55, alpha=0.8, zorder=4)
        for row, column in low_pressure_centres(pressure, smooth.grid, deepest=99000.0, apart=12.0, most=8):
            _centre(world, row, column, pressure[row, column] / 100.0)
        when = np.datetime_as_string(part["time"].values[hour], "h").replace("T", " ")
        world.axis.set_title(f"{title}: storms on {when} UTC", loc="center", fontsize=11)
        _bar(figure, bands, world.axis, "precipitation [mm/day]; isobars at mean sea level, every 8 hPa")
        return _save(figure, path, dpi=130)


def _centre(world: Mollweide, row: int, column: int, value: float) -> None:
    """The letter and the pressure of a low."""
    from matplotlib.patheffects import withStroke

    x, y = (points[row, column + 1] for points in world.points())
    style: dict[str, Any] = {"color": LOW, "path_effects": [withStroke(linewidth=2.0, foreground="white")]}
    style |= {"ha": "center", "va": "center", "zorder": 6}
    world.axis.text(x, y, "L", fontsize=9, fontweight="bold", **style)
    world.axis.annotate(f"{value:.0f}", (x, y), xytext=(0, -9), textcoords="offset points", fontsize=6.5, **style)


def _bar(figure: Figure, drawn: Any, axis: Any, text: str) -> None:
    bar = figure.colorbar(drawn, ax=axis, orientation="horizontal", shrink=0.5, aspect=38, pad=0.02)
    bar.set_label(text, color=QUIET)
    bar.ax.tick_params(colors=QUIET, length=2)
    bar.outline.set_visible(False)


def zonal_mean(path: Path, dataset: xr.Dataset, title: str) -> Path:
    """Eastward wind in colours and temperature as lines over latitude and height, a panel a season."""
    means, latitude = zonal_means(dataset), dataset["latitude"].values
    is_sigma = dataset.attrs.get("vertical_kind") == "sigma"
    height = dataset["level"].values / (1000.0 if is_sigma else 1.0)
    top = 5.0 * np.ceil(max(np.abs(mean.wind).max() for mean in means) / 5.0)
    with _styled():
        figure = _figure(1.5 + 4.1 * len(means), 3.7)
        figure.suptitle(f"{title}: zonal mean", x=0.01, ha="left", fontsize=11, fontweight="bold")
        axes = figure.subplots(1, len(means), sharey=True, squeeze=False)[0]
        for axis, mean in zip(axes, means, strict=True):
            bands = np.arange(-top, top + 1.0, 5.0)
            drawn = axis.contourf(latitude, height, mean.wind, levels=bands, cmap="RdBu_r")
            warmth = np.arange(180.0, 320.0, 10.0)
            lines = axis.contour(latitude, height, mean.temperature, levels=warmth, colors=INK, linewidths=0.7)
            axis.clabel(lines, lines.levels[::2], fontsize=7, fmt="%d K")
            axis.set_title(mean.name)
            axis.set_xticks(np.arange(-60, 61, 30), [_north(y) for y in range(-60, 61, 30)])
            axis.set_ylim(float(height.max()), float(height.min()))
            axis.set_ylabel(
                "\N{GREEK SMALL LETTER SIGMA} (share of surface pressure)" if is_sigma else "pressure [hPa]"
            )
            axis.grid(False)
            axis.label_outer()
        bar = figure.colorbar(drawn, ax=axes, pad=0.02, aspect=26)
        bar.set_label("eastward wind [m/s]; lines: temperature")
        bar.outline.set_visible(False)
        return _save(figure, path, dpi=130)


def _north(latitude: int) -> str:
    return f"{abs(latitude)}{DEGREE}{'N' if latitude > 0 else 'S' if latitude < 0 else ''}"


def spectrum(path: Path, dataset: xr.Dataset, title: str) -> Path:
    """Kinetic energy by total wavenumber, aloft and near the ground, beside the slope of geostrophic turbulence."""
    energies = {name: kinetic_energy(dataset, level) for name, level in _two_levels(dataset).items()}
    with _styled():
        figure = _figure(5.6, 4.0)
        figure.suptitle(f"{title}: kinetic energy by scale", x=0.01, ha="left", fontsize=11, fontweight="bold")
        axis = figure.subplots()
        for (name, energy), colour in zip(energies.items(), ("#2563eb", "#d97706"), strict=False):
            held = np.flatnonzero(energy > 1e-9 * energy.max())  # what a truncation lets through
            axis.loglog(held, energy[held], color=colour, marker="o", ms=3.0, lw=1.6, label=name)
        low, high = axis.get_ylim()
        first = min(7, int(held[-1]))
        slope, anchor = np.array([first, held[-1]], dtype=float), 3.0 * next(iter(energies.values()))[first]
        axis.loglog(slope, anchor * (slope / slope[0]) ** -3.0, color=QUIET, lw=1.0, ls="--")
        axis.annotate("$l^{-3}$", (slope[0], anchor), xytext=(4, 2), textcoords="offset points", color=QUIET)
        axis.set_ylim(low, high)
        _whole_numbers(axis, axis.get_xlim(), [1, 2, 5, 10, 20, 50, 100, 200], "total wavenumber $l$")
        axis.set_ylabel("kinetic energy [m\N{SUPERSCRIPT TWO}/s\N{SUPERSCRIPT TWO}]")
        upper = axis.secondary_xaxis("top", functions=(_wavelength, _wavelength))
        lengths = [200, 500, 1000, 2000, 5000, 10000, 20000, 40000]
        _whole_numbers(upper, _wavelength(np.array(axis.get_xlim())), lengths, "wavelength [km]")
        axis.legend(loc="lower left")
        return _save(figure, path, dpi=130)


def _two_levels(dataset: xr.Dataset) -> dict[str, float | None]:
    """The levels nearest 250 and 850 hPa by their names; of data without levels the one there is."""
    if "level" not in dataset.dims:
        return {"wind": None}
    there = dataset["level"].values.astype(np.float64)
    levels = dict.fromkeys(float(there[np.abs(there - wanted).argmin()]) for wanted in (250.0, 850.0))
    is_sigma = dataset.attrs.get("vertical_kind") == "sigma"
    return {f"\N{GREEK SMALL LETTER SIGMA} {x / 1000:.2f}" if is_sigma else f"{x:g} hPa": x for x in levels}


def _whole_numbers(axis: Any, ends: Sequence[float] | np.ndarray, ticks: Sequence[int], label: str) -> None:
    """Plain numbers along a logarithmic axis between its `ends`."""
    axis.set_xlabel(label)
    low, high = sorted(ends)
    shown = [tick for tick in ticks if low <= tick <= high]
    axis.set_xticks(shown, [f"{tick:,}".replace(",", "\N{THIN SPACE}") for tick in shown])
    axis.set_xticks([], minor=True)


def _wavelength(degree: np.ndarray) -> np.ndarray:
    """km, of a total wavenumber; and its inverse."""
    return 2e-3 * np.pi * EARTH_RADIUS / np.maximum(degree, 1e-9)


def month(path: Path, dataset: xr.Dataset, title: str) -> Path:
    """A month of weather, moving: water vapour of the column."""
    first, *rest = _frames(dataset, title)
    how: dict[str, Any] = {"quality": 60, "method": 4, "duration": MILLISECONDS, "loop": 0}
    first.save(path, save_all=True, append_images=rest, **how)
    return path


def _frames(dataset: xr.Dataset, title: str) -> Iterator[Any]:
    """One image a time."""
    from PIL import Image

    part, smooth, pixels = _winter(dataset), SphericalInterpolation(grid_of(dataset), 360), 600
    vapour = water_vapour(part)
    top = 10.0 * np.ceil(np.percentile(vapour, 99.5) / 10.0)
    with _styled():
        figure = _figure(6.2, 3.7)
        world = Mollweide(figure.subplots(), smooth)
        image = world.image(pixels, cmap=uniform(VAPOUR), vmin=0.0, vmax=top)
        world.ground(dataset, "#d8d2c4", filled=False)
        _bar(figure, image, world.axis, "water vapour of the column [kg/m\N{SUPERSCRIPT TWO}]")
        for when, field in zip(part["time"].values, vapour, strict=True):
            image.set_data(world.raster(smooth(field, least=0.0, soft=True), pixels))
            when = np.datetime_as_string(when, "h").replace("T", " ")
            world.axis.set_title(f"{title}, {when} UTC", loc="center")
            figure.canvas.draw()
            figure.set_layout_engine("none")  # what was laid out for the first stays for all
            yield Image.fromarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])  # type: ignore[attr-defined]
