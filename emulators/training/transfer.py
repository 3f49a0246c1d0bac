"""Carry the weights of a trained network to another with other channels, or on another grid, by the channels' names.

Which entries of a weight belong to which channel is measured, not declared, so that it holds for every network. With
all weights drawn at random, an entry belongs to

    input c     if its gradient is not 0 where channel c alone is not 0
    output c    if the gradient of channel c with respect to it is not 0

so each index along each axis of a weight has a set of inputs and a set of outputs. Indices of the old and the new
network are the same where these sets are the same as far as both have the channels. What belongs to new inputs alone
begins at 0, and so does what writes new outputs: the forecast of the old channels is that of the old network, and a
new channel begins at persistence (residual output) or climatology.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from emulators.grid import Grid
from emulators.training.published_weights import Carried, on_grid, shape_text
from emulators.world import Scale, World

Labels = tuple[tuple[frozenset[str], frozenset[str]], ...]  # inputs and outputs of each index along an axis
SHARED, UNREAD = "all", "none"
SHOWN = 4  # names in a row of the account
ROUNDING = 1e-6  # a gradient that is 0 but for rounding, as of what a softmax takes out again
SUMMING = 1e-4  # standard deviations by which float32 outputs differ where BLAS adds products in another order


@dataclass(frozen=True)
class Transfer:
    """Say how a training takes up the weights of a run.

    scales: constants of normalisation of channels that the run had: `old`, its own, `new`, measured over the training
    split, or `mixed`, of both data half and half. fresh: patterns of weights that begin anew. small_scales: how
    those of a finer grid are carried: `regressed` on the last state and the network's, for each degree, or `damped`
    towards their mean, both measured on the new data, or by the `network` as it stands.
    """

    scales: Literal["old", "new", "mixed"] = "old"
    fresh: Sequence[str] = ()
    small_scales: Literal["regressed", "damped", "network"] = "regressed"


@dataclass(frozen=True)
class Trained:
    """Describe how a network is built on a World, and what it reads and writes, by name in its own order.

    reads, writes: as `emulators.steps.step.Step` has them; None: the World's own.
    """

    world: World
    build: Callable[[World], nn.Module]
    reads: Sequence[str] | None = None
    writes: Sequence[str] | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what it reads; a history's older States are told apart by their age."""
        past = self.world.prognostic.channels * self.world.history
        return aged(tuple(self.reads or (*past, *self.world.forcing.channels, *self.world.static.channels)))

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what it writes."""
        return tuple(self.writes or self.world.predicted.channels)

    def on(self, grid: Grid) -> Trained:
        """The same on another grid."""
        fields = np.zeros((self.world.static.size, *grid.shape), np.float32)
        return replace(self, world=replace(self.world, grid=grid, static_fields=fields))


def transferred(
    weights: Mapping[str, Tensor],
    old: Trained,
    new: Trained,
    network: nn.Module,
    *,
    probe: Grid | None = None,
    fresh: Collection[str] = (),
    additions: Sequence[str] = (),
) -> tuple[dict[str, Tensor], list[Carried]]:
    """The state of `network`, the new one, from the weights of the old; and what became of each weight.

    probe: a small grid on which channels are told apart; None: the old one. fresh: patterns of names of weights that
    begin anew. additions: how names of parts begin that the old network may lack. ValueError for weights that differ by
    more than channels and grid.
    """
    is_same = old.world.grid.same_as(new.world.grid)
    middle = network if is_same else new.on(old.world.grid).build(new.on(old.world.grid).world)
    labels: list[dict[str, list[Labels]]] = [{}, {}]
    if (old.inputs, old.outputs) != (new.inputs, new.outputs):
        sides = [side.on(probe or old.world.grid) for side in (old, new)]
        labels = [channel_labels(side.build(side.world), side) for side in sides]
    state, fates = with_channels(weights, middle, labels, (old, new), fresh, additions)
    if is_same:
        return state, fates
    state, moved = on_grid(state, middle, network, (old.world.grid.shape, new.world.grid.shape))
    by_name = {row.name: row for row in moved}
    return state, [by_name.get(row.name, row) if row.fate == "loaded" else row for row in fates]


def aged(names: Sequence[str]) -> tuple[str, ...]:
    """Tell names that come several times apart, the last as it is, those before by how much older they are."""
    age = {name: names.count(name) - 1 for name in names}
    labels = []
    for name in names:
        labels.append(f"{name} (-{age[name]})" if age[name] else name)
        age[name] -= 1
    return tuple(labels)


# --- which entries belong to which channel ------------------------------------------------------------------------


def channel_labels(network: nn.Module, part: Trained) -> dict[str, list[Labels]]:
    """The channels of each index along each axis of each weight of a network, by the weight's name."""
    network = _random(network)
    weights = dict(network.named_parameters())
    if not weights:
        return {}
    reads, writes = part.inputs, part.outputs
    read, written = ([_axes(weight, len(names)) for weight in weights.values()] for names in (reads, writes))
    fields = torch.randn(1, len(reads), *part.world.grid.shape, generator=torch.Generator().manual_seed(1))
    time = torch.tensor([1_000_000_000])
    for number in range(len(reads)):
        single = torch.zeros_like(fields)
        single[:, number] = fields[:, number]
        output = _weighted(network(single, time))
        _note(read, number, torch.autograd.grad(output, list(weights.values()), allow_unused=True))
    output = network(fields, time)
    for number in range(len(writes)):
        scalar = _weighted(output[:, number : number + 1])
        slopes = torch.autograd.grad(scalar, list(weights.values()), allow_unused=True, retain_graph=True)
        _note(written, number, slopes)
    return {
        name: [tuple(zip(_sets(i, reads), _sets(o, writes), strict=True)) for i, o in zip(ins, outs, strict=True)]
        for name, ins, outs in zip(weights, read, written, strict=True)
    }


def _random(network: nn.Module) -> nn.Module:
    """A copy of a network in evaluation mode with no weight at 0."""
    drawn = copy.deepcopy(network).eval().requires_grad_(True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in drawn.parameters():
            size = 0.5 * (max(1, weight[0].numel()) if weight.ndim > 1 else 4) ** -0.5
            noise = size * torch.randn(weight.shape, generator=generator)
            weight.copy_(noise if weight.ndim > 1 else weight + noise)
    return drawn


def _weighted(output: Tensor) -> Tensor:
    if not output.isfinite().all():
        raise ValueError("The network's output is not finite for random weights; its channels cannot be told apart.")
    return (output * torch.randn(output.shape, generator=torch.Generator().manual_seed(2))).sum()


def _axes(weight: Tensor, channels: int) -> list[Tensor]:
    return [torch.zeros(size, channels, dtype=torch.bool) for size in weight.shape]


def _note(marks_by_weight: list[list[Tensor]], number: int, slopes: Sequence[Tensor | None]) -> None:
    """Mark the indices along each axis of each weight where its gradient is not 0."""
    sizes = [0.0 if slope is None else float(slope.abs().max()) for slope in slopes]
    for axes, slope, size in zip(marks_by_weight, slopes, sizes, strict=True):
        if slope is not None and size > ROUNDING * max(sizes):
            touched = slope.abs() > ROUNDING * size
            for axis, marks in enumerate(axes):
                others = [k for k in range(slope.ndim) if k != axis]
                marks[:, number] = touched.any(dim=others) if others else touched


def _sets(marks: Tensor, names: Sequence[str]) -> list[frozenset[str]]:
    return [
        frozenset(
            (SHARED,)
            if all(row)
            else (name for name, mark in zip(names, row, strict=True) if mark)
            if any(row)
            else (UNREAD,)
        )
        for row in marks.tolist()
    ]


# --- other channels -----------------------------------------------------------------------------------------------


def with_channels(
    weights: Mapping[str, Tensor],
    network: nn.Module,
    labels: Sequence[Mapping[str, list[Labels]]],
    parts: tuple[Trained, Trained],
    fresh: Collection[str] = (),
    additions: Sequence[str] = (),
) -> tuple[dict[str, Tensor], list[Carried]]:
    """The state of `network`, the new one on the old grid, and what became of each weight.

    labels: the channels of old and new weights. fresh, additions: as for `transferred`. ValueError where weights differ
    by more than their channels.
    """
    state = {name: value.detach().clone() for name, value in network.state_dict().items()}
    old, new = parts
    shared = [frozenset(a) & frozenset(b) for a, b in ((old.inputs, new.inputs), (old.outputs, new.outputs))]
    carried, fates, faults = dict(state), [], []
    for name, value in state.items():
        if matches(name, fresh):
            fates.append(Carried(name, "fresh", "as asked"))
        elif name in weights:
            before = weights[name].to(value.dtype)
            axes = [labels[k].get(name) or [()] * value.ndim for k in (0, 1)]
            mapped = _mapped(before, value.shape, axes, shared, parts)
            if mapped is None:
                faults.append(f"{name}: expected {shape_text(value)}, got {shape_text(before)}")
                continue
            carried[name], of = mapped
            fates.append(Carried(name, "loaded", of))
        elif name.startswith(tuple(additions)):
            fates.append(Carried(name, "fresh", "a part that the old network lacks"))
        else:
            of = _of_one_side(labels[1].get(name), shared)
            if of or not value.is_floating_point():
                fates.append(Carried(name, "fresh", of))
            else:
                faults.append(f"{name}: expected {shape_text(value)}, got nothing")
    for name in weights.keys() - state.keys():
        of = _of_one_side(labels[0].get(name), shared)
        if of or matches(name, fresh):
            fates.append(Carried(name, "dropped", of))
        else:
            faults.append(f"{name}: expected nothing, got {shape_text(weights[name])}")
    if faults:
        more = f"; and {len(faults) - 6} more" if len(faults) > 6 else ""
        raise ValueError("; ".join(sorted(faults)[:6]) + more)
    _quieten(carried, [row.name for row in fates if row.fate == "fresh" and row.of in new.inputs + new.outputs])
    return carried, fates


def matches(name: str, patterns: Collection[str]) -> bool:
    """Whether a name is one of the patterns (`*`, `?`), or lies in a part that is."""
    return any(fnmatch.fnmatchcase(name, p) or fnmatch.fnmatchcase(name, f"{p}.*") for p in patterns)


def _mapped(
    before: Tensor,
    shape: torch.Size,
    labels: Sequence[Sequence[Labels]],
    shared: Sequence[frozenset[str]],
    parts: tuple[Trained, Trained],
) -> tuple[Tensor, str] | None:
    """A weight with its indices moved to those of the new network, 0 where new; None where it does not fit."""
    if before.ndim != len(shape):
        return None
    value, added = before, set[str]()
    for axis, size in enumerate(shape):
        old, new = (side[axis] for side in labels)
        labelled = (len(old), len(new)) == (before.shape[axis], size)
        places = _places(old, new, shared, parts) if labelled else None
        if places is None and before.shape[axis] == size:
            places = list(range(size))
        places = places or _by_name(before.shape[axis], size, parts)
        if places is None:
            return None
        index = torch.tensor([max(place, 0) for place in places], dtype=torch.long)
        is_new = torch.tensor([place < 0 for place in places])
        value = value.index_select(axis, index)
        if is_new.any():
            value = value.masked_fill(is_new.reshape(-1, *[1] * (len(shape) - axis - 1)), 0)
            fresh = [pair for pair, place in zip(new, places, strict=False) if place < 0]
            added |= {c for i, o in fresh for c in (i - shared[0]) | (o - shared[1])} - {SHARED, UNREAD}
    return value, ("new " + ", ".join(sorted(added)) if added else "")


def _places(
    old: Labels, new: Labels, shared: Sequence[frozenset[str]], parts: tuple[Trained, Trained]
) -> list[int] | None:
    """The old index of each new one, -1 for those of new channels; None where the shared ones are not as many.

    What no channel reads or writes yet, as columns for zeros or for a climatology, counts channels where both do.
    """

    def key(labels: tuple[frozenset[str], frozenset[str]]) -> tuple[frozenset[str], ...] | None:
        common = tuple(
            side if side & {SHARED, UNREAD} else side & names for side, names in zip(labels, shared, strict=True)
        )
        return None if any(not channels for channels in common) else common

    of_old: dict[tuple[frozenset[str], ...], list[int]] = {}
    of_new: dict[tuple[frozenset[str], ...], list[int]] = {}
    for side_labels, groups in ((old, of_old), (new, of_new)):
        for place, labels in enumerate(side_labels):
            if (which := key(labels)) is not None:
                groups.setdefault(which, []).append(place)
    places = [-1] * len(new)
    for which in of_old | of_new:
        before, after = of_old.get(which, []), of_new.get(which, [])
        order: list[int] | None = list(range(len(before)))
        if len(before) != len(after):
            order = _by_name(len(before), len(after), parts)
        if order is None:
            return None
        for place, number in zip(after, order, strict=True):
            places[place] = before[number] if number >= 0 else -1
    return places


def _by_name(old: int, new: int, parts: tuple[Trained, Trained]) -> list[int] | None:
    """The old index of each new one along an axis that counts the channels themselves, or several of each."""
    for before, after in ((part.inputs for part in parts), (part.outputs for part in parts)):
        each = old // len(before) if before else 0
        if each and (old, new) == (each * len(before), each * len(after)):
            firsts = [before.index(name) * each if name in before else -1 for name in after]
            return [first + k if first >= 0 else -1 for first in firsts for k in range(each)]
    return None


def _of_one_side(labels: Sequence[Labels] | None, shared: Sequence[frozenset[str]]) -> str:
    """The channels to which a weight of one network belongs, if none of them is in the other too; else ''."""
    sides = [pair for axis in labels or () for pair in axis]
    exclusive: set[str] = set()
    for number in (0, 1):
        channels = frozenset().union(*(pair[number] for pair in sides)) if sides else frozenset[str]()
        if channels and not channels & {SHARED, UNREAD} and not channels & shared[number]:
            exclusive |= channels
    return ", ".join(sorted(exclusive))


def _quieten(weights: dict[str, Tensor], fresh: Sequence[str]) -> None:
    """Set the last module of each part that is whole new to 0, so that it adds nothing yet."""
    last: dict[str, str] = {}
    for name in fresh:
        parent = name.rpartition(".")[0]
        last[".".join(parent.split(".")[:2])] = parent
    for name in fresh:
        if name.rpartition(".")[0] in last.values():
            weights[name] = torch.zeros_like(weights[name])


def account(
    fates: Sequence[Carried], old: Trained, new: Trained, weights: Mapping[str, Tensor], network: nn.Module
) -> dict[str, str]:
    """Tell in a few rows what was loaded, interpolated, begun anew and dropped, and whether old forecasts changed."""
    rows = {}
    for fate in ("loaded", "interpolated", "fresh", "dropped"):
        group = [row for row in fates if row.fate == fate]
        names = [f"{row.name} ({row.of})" if row.of else row.name for row in group if row.of or fate != "loaded"]
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        rows[fate] = f"{len(group)} weights" + (f": {', '.join(names[:SHOWN])}{more}" if names else "")
    for what, before, after in (("read", old.inputs, new.inputs), ("written", old.outputs, new.outputs)):
        added, dropped = ([c for c in a if c not in b] for a, b in ((after, before), (before, after)))
        changes = [f"{word} {', '.join(group)}" for word, group in (("new", added), ("dropped", dropped)) if group]
        rows[f"channels {what}"] = f"{len(after)}" + (f", {'; '.join(changes)}" if changes else ", the same")
    if set(old.inputs) <= set(new.inputs) and old.world.grid.same_as(new.world.grid):
        change = largest_change(old, new, weights, network)
        size = f"differ by up to {change:.2g} standard deviations at the first step"
        statement = "forecast as before, bit for bit" if change == 0 else f"forecast as before, to rounding ({size})"
        rows["old channels"] = statement if change <= SUMMING else size
    return rows


def largest_change(old: Trained, new: Trained, weights: Mapping[str, Tensor], network: nn.Module) -> float:
    """By how much the two networks differ, at most, in the channels of both, on random fields; normalised."""
    before = old.build(old.world)
    before.load_state_dict(dict(weights), strict=False)
    fields = torch.randn(1, len(new.inputs), *new.world.grid.shape, generator=torch.Generator().manual_seed(3))
    time = torch.tensor([1_000_000_000])
    shared = [name for name in old.outputs if name in new.outputs]
    with torch.no_grad():
        outputs = []
        for trained, model, inputs in (
            (old, before, fields[:, [new.inputs.index(name) for name in old.inputs]]),
            (new, network, fields),
        ):
            was_training = model.training
            torch.manual_seed(0)  # of networks that draw noise
            outputs.append(model.eval()(inputs, time)[:, [trained.outputs.index(name) for name in shared]])
            model.train(was_training)
    return float((outputs[0] - outputs[1]).abs().max()) if shared else 0.0


def mixed_scales(old: Mapping[str, Scale], new: Mapping[str, Scale]) -> dict[str, Scale]:
    """The scales of both data taken together, half and half, for channels of both; else those that there are."""

    def both(a: Scale, b: Scale) -> Scale:
        variance = (a.std**2 + b.std**2) / 2 + (a.mean - b.mean) ** 2 / 4
        tendency = ((a.tendency_std**2 + b.tendency_std**2) / 2) ** 0.5
        return replace(b, mean=(a.mean + b.mean) / 2, std=variance**0.5, tendency_std=tendency)

    return {name: both(old[name], scale) if name in old else scale for name, scale in new.items()}
