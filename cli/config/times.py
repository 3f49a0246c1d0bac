"""Times as they are typed: initial times, lead times, and steps between them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.conventions.durations import duration, duration_text
from data_pipelines.conventions.periods import bounds
from emul.config.overrides import plain
from emulators.world import World, nominal_seconds


def initial_times(spec: str | Sequence[object]) -> np.ndarray:
    """Initial times, sorted, datetime64[s]: a date, a list of dates, or start/stop/step (stop included).

    A stop of `2003` or `2003-12-31` takes in that whole year or day.
    """
    if isinstance(spec, str):
        entries: Sequence[object] = [entry for entry in spec.strip("[] ").split(",") if entry.strip()]
    else:
        entries = spec if isinstance(spec, Sequence) else [spec]
    if not entries:
        raise ValueError("`init` is empty; give a date (2003-01-01T06), several with commas, or start/stop/step.")
    times = np.concatenate([_times(str(entry).strip()) for entry in entries])
    return np.unique(times)


def _times(entry: str) -> np.ndarray:
    """The times of one entry: a date or start/stop/step."""
    parts = [part.strip() for part in entry.split("/")]
    if len(parts) == 1:
        return date(parts[0]).astype("datetime64[s]").reshape(1)
    if len(parts) != 3:
        raise ValueError(f"Expected `init` as start/stop/step, as in 2003-01-01/2003-12-31/5d; got '{entry}'.")
    start, stop = date(parts[0]).astype("datetime64[s]"), (date(parts[1]) + 1).astype("datetime64[s]")
    step = length(parts[2])
    if stop <= start:
        raise ValueError(f"The last initial time must not be before the first; got '{entry}'.")
    if np.datetime_data(step)[0] == "s":
        return np.arange(start, stop, step)
    month = start.astype("datetime64[M]")
    months = np.arange(month, stop.astype("datetime64[M]") + 1, step)
    times = months.astype("datetime64[s]") + (start - month.astype("datetime64[s]"))
    return times[(times < stop) & (times.astype("datetime64[M]") == months)]


def date(text: str) -> np.datetime64:
    """A date with the precision it was typed in: 2003, 2003-01, 2003-01-01, 2003-01-01T06, 2003-01-01T06:30."""
    try:
        time = np.datetime64(text.removesuffix("Z").replace(" ", "T"))
    except ValueError:
        time = np.datetime64("NaT")
    if np.isnat(time):
        raise ValueError(f"Expected a date such as 2003-01-01 or 2003-01-01T06; got '{text}'.")
    return time


def length(text: str) -> np.timedelta64:
    """A length of time such as 6h, 5d, 1mo, 1y: timedelta64 in seconds, or in months for mo and y."""
    return duration(re.sub(r"(?<=\d)\s*mo$", "M", text.strip()))


def lead_steps(lead: str | int, world: World) -> int:
    """How many timesteps of `world` make up `lead`: 10d, 240h, 20y, `1460 steps` or 1460.

    Months and years count 365.25 / 12 and 365.25 days where the timestep is not in months.
    """
    text = str(lead).strip()
    match = re.fullmatch(r"(\d+)\s*(steps?)?", text)
    if match:
        steps = float(match[1])
    else:
        wanted, timestep = length(text), world.timestep
        if np.datetime_data(wanted)[0] == np.datetime_data(timestep)[0] == "M":
            steps = wanted / timestep
        else:
            steps = nominal_seconds(wanted) / float(world.lead_time(1).astype(int))
    if steps < 1 or steps != int(steps):
        raise ValueError(
            f"The lead must be a whole number of timesteps of {duration_text(world.timestep)}, at least one; "
            f"got '{text}', which is {steps:g} of them."
        )
    return int(steps)


def thinned(times: np.ndarray, every: str) -> np.ndarray:
    """Those of sorted `times` that lie at least `every` after the one kept before, the first among them.

    Steps in months forgive three days, as the times of monthly and yearly means are uneven.
    """
    step, kept = length(every), [times[0]]
    slack = np.timedelta64(3 * 86400 if np.datetime_data(step)[0] == "M" else 0, "s")
    for time in times[1:]:
        if _after(kept[-1], step) - slack <= time:
            kept.append(time)
    return np.array(kept, dtype="datetime64[s]")


def _after(time: np.datetime64, step: np.timedelta64) -> np.datetime64:
    """`step` after `time`; steps in months keep the day of the month, a short month's overhang running on."""
    if np.datetime_data(step)[0] != "M":
        return time + step
    month = time.astype("datetime64[M]")
    return (month + step).astype("datetime64[s]") + (time - month.astype("datetime64[s]"))


def lead_times(wanted: Any) -> np.ndarray | None:
    """Lead times asked for, timedelta64[s]; a month counts 365.25 / 12 days."""
    if wanted is None:
        return None
    lengths = [duration(str(text)) for text in ([wanted] if isinstance(wanted, str) else wanted)]
    return np.array([nominal_seconds(length) for length in lengths], dtype="timedelta64[s]")


def asked_inits(spec: Any) -> np.ndarray:
    """Return the initial times that `first/last/step` or a list names one by one; empty for a span or None."""
    if spec is None or (isinstance(spec, str) and spec.count("/") == 1):
        return np.empty(0, dtype="datetime64[s]")
    return initial_times(plain(spec))


def chosen_inits(spec: Any, have: np.ndarray) -> np.ndarray | None:
    """Select from the initial times `have` by `first/last`, `first/last/step` or a list; None where `spec` is None."""
    if spec is None:
        return None
    if isinstance(spec, str) and spec.count("/") == 1:
        first, last = bounds(spec.split("/"))
        found = have[(have >= first) & (have <= last)]
    else:
        found = np.intersect1d(initial_times(plain(spec)), have)
    if not found.size:
        raise ValueError(
            f"inits={spec} takes in none of the forecast's initial times, {have.min()} to {have.max()}; inits=all does."
        )
    return found
