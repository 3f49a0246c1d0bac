"""Score pairs of forecast and truth in one pass, with sums on disk: an evaluation that was killed goes on, and those of
shares of the initial times add up.

<folder>/sums/<share>_of_<shares>.npz: the arrays of each accumulator, and how many blocks are in them

Note what scores cannot say: values of a forecast and its truth that are missing, or that no such variable has.

They are reported with variable, time and place after the scoring. The sums add up as those of scores do.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_pipelines.files.archives import refusing_damage
from data_pipelines.files.atomic import lock_or_refuse, wait_for_turn, write_file
from data_pipelines.reading.plausibility import ChannelLimits
from data_pipelines.verification.pairs import CachedClimatology, Pairs
from emulators.grid import Grid, place_text
from emulators.scores.interfaces import Accumulator, Pair, PairAccumulators
from emulators.variables import VariableSet

SIDES = ("forecast", "truth")
NEVER = np.iinfo(np.int64).max


class OddValues:
    """Count missing and impossible values of each channel, and keep the first of each kind.

    Arrays have shape (side, kind, channel), kinds missing and impossible; `first` has a last axis of valid time in
    seconds, initial time in seconds (of the truth: the same as the valid time), and point.
    """

    def __init__(
        self, variables: VariableSet, grid: Grid, ranges: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        self.variables, self.grid = variables, grid
        self.limits = ChannelLimits(variables, ranges, learning=False)
        shape = (len(SIDES), 2, variables.size)
        self.count = np.zeros(shape, dtype=np.int64)
        self.first = np.full((*shape, 3), NEVER, dtype=np.int64)
        self.value = np.full(shape, np.nan)

    def add(self, pair: Pair) -> None:
        """Add forecasts of one lead and their truth."""
        for side, state in enumerate((pair.target, pair.prediction)):
            values = state.values.flatten(-state.rank)
            values = values if values.ndim == 3 else values.flatten(0, -4)
            self._add(1 - side, values, pair)

    def _add(self, side: int, values: torch.Tensor, pair: Pair) -> None:
        """Add fields (..., init, channel, point) of one side."""
        least, greatest = values.amin(-1).cpu().numpy(), values.amax(-1).cpu().numpy()
        odd = ~((least >= self.limits.low) & (greatest <= self.limits.high))  # NaN is odd
        for place in np.argwhere(odd):
            field = values[tuple(place.tolist())].float().cpu().numpy()
            init, channel = int(place[-2]), int(place[-1])
            missing = ~np.isfinite(field)
            if missing.any():
                self._note((side, 0, channel), missing, field, pair, init)
                field = np.where(missing, np.nanmedian(field) if not missing.all() else np.nan, field)
            if not missing.all() and (beyond := self.limits.beyond(field, channel)) is not None:
                self._note((side, 1, channel), beyond, field, pair, init)

    def _note(self, at: tuple[int, int, int], where: np.ndarray, field: np.ndarray, pair: Pair, init: int) -> None:
        self.count[at] += int(where.sum())
        point = int(np.flatnonzero(where)[0])
        valid = int(pair.target.time[init].astype("datetime64[s]").astype(np.int64))
        begun = int(pair.inits[init].astype("datetime64[s]").astype(np.int64)) if at[0] == 0 else valid
        candidate = np.array([valid, begun, point])
        if candidate.tolist() < self.first[at].tolist():
            self.first[at], self.value[at] = candidate, field[point]

    def partial(self) -> dict[str, np.ndarray]:
        """Return the counts so far as arrays."""
        return {"count": self.count.copy(), "first": self.first.copy(), "value": self.value.copy()}

    def add_partial(self, partial: Mapping[str, np.ndarray]) -> OddValues:
        """Add the counts of other pairs."""
        self.count += partial["count"]
        for at in np.ndindex(self.count.shape):
            if partial["first"][at].tolist() < self.first[at].tolist():
                self.first[at], self.value[at] = partial["first"][at], partial["value"][at]
        return self

    def notes(self, missing: str) -> list[str]:
        """Return a sentence for each variable, side and kind, and one for missing values left out as agreed.

        missing: how missing values are treated (`Evaluation`).
        """
        left_out = [
            f"{variable.name} ({', '.join(counts)})"
            for variable in self.variables
            if (counts := self._left_out(variable.name, missing))
        ]
        return [
            *([f"Missing values are left out of the scores: {', '.join(left_out)}."] if left_out else []),
            *self._reported(missing),
        ]

    def _left_out(self, name: str, missing: str) -> list[str]:
        """Say how many values of each side are missing and left out of the scores of a variable."""
        counts = self.count[:, 0, self.variables.slice(name)].sum(axis=1).tolist()
        return [
            f"{count} of the {SIDES[side]}"
            for side, count in enumerate(counts)
            if count and self._usual(side, 0, missing)
        ]

    def _reported(self, missing: str) -> list[str]:
        return [
            self._sentence(side, kind, variable.name, missing)
            for kind in (0, 1)
            for side in (0, 1)
            for variable in self.variables
            if self.count[side, kind, self.variables.slice(variable.name)].any()
            and not self._usual(side, kind, missing)
        ]

    @staticmethod
    def _usual(side: int, kind: int, missing: str) -> bool:
        """Return whether nothing is to be reported: missing values that are left out as agreed."""
        return kind == 0 and (missing == "any" or (missing == "truth" and SIDES[side] == "truth"))

    def _sentence(self, side: int, kind: int, name: str, missing: str) -> str:
        channel_slice = self.variables.slice(name)
        channels = np.flatnonzero(self.count[side, kind, channel_slice]) + channel_slice.start
        channel = min(channels.tolist(), key=lambda c: self.first[side, kind, c].tolist())
        valid, begun, point = self.first[side, kind, channel].tolist()
        when = f"at {np.datetime64(valid, 's')}" + (f" (from {np.datetime64(begun, 's')})" if side == 0 else "")
        where = f"{place_text(*(float(degrees[point]) for degrees in self.grid.points))}, {when}"
        count, label = int(self.count[side, kind, channel_slice].sum()), self.variables.channels[channel]
        if kind == 0:
            return (
                f"{name}: {count} values of the {SIDES[side]} are missing, the first of {label} at {where}; scores "
                "that need them are missing too. missing=any leaves such points out."
            )
        units = self.variables.variable(name).units
        return (
            f"{name}: {count} values of the {SIDES[side]} are {self.limits.reason(channel)}, the first {label} = "
            f"{self.value[side, kind, channel]:g} {units}".rstrip()
            + f" at {where}. They are scored as they are: a number in place of missing values, other units, or a "
            "broken forecast."
        )


ODD = "odd values"  # the name of their counts among the sums


def score_pairs(
    pairs: Pairs,
    evaluation: PairAccumulators,
    *,
    climatology: CachedClimatology | None = None,
    odd: OddValues | None = None,
    sums: PartialSums | None = None,
    report: Callable[[str, float], None] | None = None,
    resumed: Callable[[int, int], None] | None = None,
) -> None:
    """Add the pairs to an evaluation, those of the share of `sums`; begins after the blocks that are saved in `sums`.

    odd: counts of missing and impossible values, to which the pairs are added too.
    report(text, fraction): called as it goes. resumed(done, total): called where pairs were scored by an earlier run.
    """
    blocks = pairs.blocks(*(sums.share if sums is not None else (1, 1)))
    accumulators = evaluation.accumulators() | ({} if odd is None else {ODD: odd})
    complete = sums.restore(accumulators) if sums is not None else 0
    done, total = sum(map(pairs.count, blocks[:complete])), sum(map(pairs.count, blocks))
    if complete and resumed is not None:
        resumed(done, total)
    for pair in pairs.of(blocks[complete:]):
        if odd is not None:
            odd.add(pair)
        evaluation.add(pair, {} if climatology is None else climatology.named(pair.target.time))
        done += len(pair.inits)
        if report is not None:
            report(f"{done} of {total} pairs", done / total)
        if pair.last and sums is not None:
            complete += 1
            sums.save(accumulators, complete, len(blocks))
    if not blocks and sums is not None:  # the others wait for this share, too
        sums.save(accumulators, 0, 0)


class PartialSums:
    """Save and restore the sums of one share of an evaluation.

    settings: all that the sums depend on; sums saved with other settings are not used. every: seconds between one save
    and the next; 0 saves after every block.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], share: tuple[int, int], every: float) -> None:
        self.folder, self.share, self.every = folder / "sums", share, every
        self.settings = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self._saved = time.monotonic()

    def path(self, share: int) -> Path:
        """The file of a share."""
        return self.folder / f"{share}_of_{self.share[1]}.npz"

    def restore(self, accumulators: Mapping[str, Accumulator]) -> int:
        """Add what an earlier run of the same evaluation saved; the number of blocks in it. accumulators: empty."""
        sums = self._read(self.share[0])
        if sums is None:
            return 0
        _add(accumulators, sums)
        return int(sums["blocks"])

    def save(self, accumulators: Mapping[str, Accumulator], blocks: int, of: int) -> None:
        """Save the sums of the first `blocks` blocks of a share, if it is time or they are the last."""
        if blocks < of and time.monotonic() - self._saved < self.every:
            return
        content: dict[str, Any] = {"settings": self.settings, "blocks": blocks, "of": of}
        for name, accumulator in accumulators.items():
            content |= {f"{name}/{key}": array for key, array in accumulator.partial().items()}
        file = io.BytesIO()
        np.savez(file, **content)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_file(self.path(self.share[0]), file.getbuffer(), durable=True)
        self._saved = time.monotonic()

    def add_others(self, accumulators: Mapping[str, Accumulator]) -> list[int]:
        """Add the sums of the other shares if all are complete; else return those that are not."""
        count = self.share[1]
        others = [share for share in range(1, count + 1) if share != self.share[0]]
        by_share = {share: self._read(share) for share in others}
        absent = [share for share, sums in by_share.items() if sums is None or sums["blocks"] < sums["of"]]
        for sums in by_share.values() if not absent else ():
            assert sums is not None
            _add(accumulators, sums)
        return absent

    def remove(self) -> None:
        """Remove the sums, once the scores are written: all at once, so that a kill leaves all or none."""
        removed = self.folder.with_name(f".{self.folder.name}.removed")
        shutil.rmtree(removed, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)

    @property
    def is_merged(self) -> bool:
        """Whether the process of another share has written the scores since this one saved its sums."""
        return not self.path(self.share[0]).exists()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold this share; ValueError names the process that scores it already."""
        share, shares = self.share
        with lock_or_refuse(self.folder.parent, f".share_{share}_of_{shares}.lock", "scoring"):
            yield

    def turn(self) -> AbstractContextManager[None]:
        """Wait until no other share merges or writes the scores."""
        return wait_for_turn(self.folder.parent)

    def _read(self, share: int) -> dict[str, np.ndarray] | None:
        """The saved arrays of a share; None where there are none of this evaluation."""
        try:
            with refusing_damage(self.path(share)), np.load(self.path(share)) as arrays:
                return dict(arrays) if str(arrays["settings"]) == self.settings else None
        except (FileNotFoundError, ValueError):
            return None


def _add(accumulators: Mapping[str, Accumulator], arrays: Mapping[str, np.ndarray]) -> None:
    for name, accumulator in accumulators.items():
        accumulator.add_partial({k.removeprefix(f"{name}/"): a for k, a in arrays.items() if k.startswith(f"{name}/")})
