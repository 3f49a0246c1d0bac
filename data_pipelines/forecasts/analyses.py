"""Compare the analyses that forecasts start from, and their forcing, with what the run was trained on and can know.

Channel by channel,

    least and greatest value      beyond those of training by more than a fifth of their range
    area mean                     beyond those of training by more than half of their range

in units of the channel and of its standard deviation. The second sees what the first does not: the analysis of another
system with a bias, or another season. Static fields are compared point by point.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import xarray as xr

from data_pipelines.batches.archive import Archive
from data_pipelines.batches.seen import Guards, Marks, SeenDates
from data_pipelines.batches.world import static_fields
from data_pipelines.conventions.attributes import grid_of
from data_pipelines.derived.forcings import MOVING
from data_pipelines.derived.regridding import regridded
from data_pipelines.forecasts.boundary import OtherForecast, later_known
from data_pipelines.forecasts.checks import excess
from data_pipelines.reading.plausibility import MISTAKEN
from emulators.physics.physical_ranges import canonical_units
from emulators.variables import Variable, VariableSet
from emulators.world import World

LOOKED_AT = 16  # initial times whose analyses are read beforehand, evenly spread
STATIC = 0.01  # standard deviations by which a static field may differ, root mean square
SHOWN = 6  # variables that are named


def guarded_marks(
    guards: Guards,
    seen: SeenDates,
    archive: Archive,
    inits: np.ndarray,
    steps: int,
    other: OtherForecast | None,
    warn: Callable[[str], None],
) -> Marks:
    """Return what is to be said of forecasts of `steps` timesteps from `inits`, by kind, each told by `warn`.

    other: another forecast that tells forcings. ValueError for what a guard refuses.
    """
    marks = {"training_dates": guards.on_dates(seen, inits, archive.world.lead_time(steps))}
    if guards.ranges != "ignore":
        marks["ranges"] = unlike_training(archive, inits)
    if guards.future_forcing != "ignore":
        prescribed, foresight = (other.names, later_known(other)) if other else ((), [])
        marks["future_forcing"] = [*future_forcings(archive, inits, steps, prescribed), *foresight]
    marks = {kind: sentences for kind, sentences in marks.items() if sentences}
    for sentence in guards.allowed(marks):
        warn(sentence)
    return marks


def on_grid_of(world: World, dataset: xr.Dataset, method: str | None) -> xr.Dataset:
    """Return the variables that a World predicts or is forced by, regridded to its grid where theirs is another.

    method: as of `data_pipelines.derived.regridding.regridded`; None: the dataset as it is.
    """
    if method is None or grid_of(dataset).same_as(world.grid):
        return dataset
    names = [name for name in (world.predicted + world.forcing).names if name in dataset.data_vars]
    return regridded(dataset[names], world.grid, method)


# --- analyses unlike those of training ----------------------------------------------------------------------------


def unlike_training(archive: Archive, inits: np.ndarray) -> list[str]:
    """Return a sentence for each variable whose analyses lie outside what the World's scales say of training."""
    world = archive.world
    inits = inits[np.unique(np.linspace(0, inits.size - 1, LOOKED_AT).astype(int))]
    states = [[archive.states(world.after(inits, -back), world.prognostic) for back in range(world.history)]]
    first = world.after(inits)
    usable = [v for v in world.forcing if v.name not in MOVING and v.name not in archive.absent]
    usable = [v for v in usable if archive.has(archive.source_times(v, first, inits)).all()]
    states += [[archive.forcing(first, inits).select([v.name for v in usable])]] if usable else []
    sentences: list[tuple[float, str]] = []
    for read in states:
        values = np.concatenate([state.values.numpy() for state in read])
        values = values.reshape(*values.shape[:2], -1).astype(np.float64)
        means = values @ (world.grid.weights.reshape(-1) / world.grid.weights.size)
        extents = np.stack([values.min((0, 2)), values.max((0, 2)), means.min(0), means.max(0)], 1)
        for variable in read[0].variables:
            off = _unlike(variable, extents[read[0].variables.slice(variable.name)], world)
            sentences += [off] if off else []
    sentences.sort(reverse=True)
    more = [f"{len(sentences) - SHOWN} more variables lie outside."] if len(sentences) > SHOWN else []
    return [text for _, text in sentences[:SHOWN]] + more + unlike_static(archive.dataset, world)


def _unlike(variable: Variable, extents: np.ndarray, world: World) -> tuple[float, str] | None:
    """Return by how many standard deviations a variable lies off at most, and a sentence; None where it does not.

    extents: (channel, 4), as `Scale.extent`.
    """
    scales = [world.scales[channel] for channel in variable.channels]
    if any(len(scale.extent) != 4 for scale in scales):
        return None
    trained, std = np.array([scale.extent for scale in scales]), np.array([scale.std for scale in scales])
    off = excess(extents, trained, std)
    if not off.any():
        return None
    row, column = np.unravel_index(int((np.abs(off) / std[:, None]).argmax()), off.shape)
    count = int(off.any(axis=1).sum())
    what = ("least value", "greatest value", "mean", "mean")[column]
    side = "below" if off[row, column] < 0 else "above"
    beyond = abs(float(off[row, column]))
    bound = trained[row, column]
    outside = (
        f"{count} of {len(scales)} channels lie outside what the run was trained on, most {variable.channels[row]}: "
        if len(scales) > 1
        else ""
    )
    deviations = beyond / std[row]
    text = (
        f"{variable.name}: {outside}its {what} of {extents[row, column]:.6g} "
        f"{variable.units or '1'} lies {beyond:.3g} {side} {'those' if column > 1 else 'that'} of training "
        f"({bound:.6g}), {deviations:.2g} standard deviations"
    )
    hint = _explanation(variable, extents, trained, std)
    return deviations, f"{text}{f'; {hint}' if hint else ''}."


def _explanation(variable: Variable, extents: np.ndarray, trained: np.ndarray, std: np.ndarray) -> str:
    """Return what would bring all channels of a variable into place, other units or another order; empty if nothing."""
    units, factor, offset = MISTAKEN.get(canonical_units(variable.units), ("", 1.0, 0.0))
    candidates = [(f"its values look like {units}", factor * extents + offset)] if units else []
    if units and factor != 1.0:
        candidates += [(f"its values look {factor:g} times too large", extents / factor)]
    candidates += [("its levels look reversed", extents[::-1])] if len(extents) > 1 else []
    candidates += [("its sign looks reversed", -extents[:, [1, 0, 3, 2]])]
    return next((text for text, other in candidates if not excess(other, trained, std).any()), "")


def unlike_static(dataset: xr.Dataset, world: World) -> list[str]:
    """Return a sentence for each static field of the data that is not the one of training."""
    sentences = []
    for variable in world.static:
        if variable.name not in dataset.data_vars or world.static_fields is None:
            continue
        now = static_fields(dataset, VariableSet((variable,)), world.grid)
        difference = np.asarray(now, dtype=np.float64) - world.static_fields[world.static.slice(variable.name)]
        axes = tuple(range(1, difference.ndim))
        rms = np.sqrt((difference**2 * world.grid.weights).mean(axes))
        std = np.array([world.scales[channel].std for channel in variable.channels])
        if (rms > STATIC * std).any():
            sentences.append(
                f"{variable.name}: differs from that of training by up to {np.abs(difference).max():.3g} "
                f"{variable.units or '1'}, root mean square {rms.max():.3g}, {(rms / std).max():.2g} of its standard "
                "deviations."
            )
    return sentences


# --- forcing that the future alone knows --------------------------------------------------------------------------


def future_forcings(archive: Archive, inits: np.ndarray, steps: int, others: Collection[str] = ()) -> list[str]:
    """Return a sentence on forcings that are read from the data after the first initial time, and change from there.

    A variable of the data with the attribute `known_beforehand`, such as a prescribed annual cycle, is excepted.
    others: forcings that another forecast tells.
    """
    start, end = inits[:1], archive.world.after(inits[:1], steps)
    names = []
    for variable in archive.world.forcing:
        if variable.name in (*MOVING, *others) or variable.name not in archive.dataset.data_vars:
            continue
        if archive.dataset[variable.name].attrs.get("known_beforehand"):
            continue
        used, alone = archive.source_times(variable, end, start), VariableSet((variable,))
        now, later = (archive.states(times, alone).values.numpy() for times in (start, used))
        if (used > start).any() and not np.array_equal(now, later):
            names.append(variable.name)
    if not names:
        return []
    listed = ", ".join(names)
    return [
        f"{listed} {'is' if len(names) == 1 else 'are'} read from the data at the times that are predicted, which "
        f"nobody knows beforehand: held=[{listed}] keeps what is known at the initial time."
    ]
