"""The one loop there is: a Step fed with its own output. Training, forecasting and verification all iterate it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from emulators.state import State


def rollout(
    step: Callable[..., State], history: tuple[State, ...], forcings: Iterable[State], **told: Any
) -> Iterator[State]:
    """The States at lead 1, 2, ... as they are made, one for each forcing; memory does not grow with the lead.

    told: what the step is told at each: `generator`, `labels`, `scalars`, as `Step.forward` says.
    """
    for forcing in forcings:
        state = step(history, forcing, **told)
        history = (*history[1:], state)
        yield state


def generators(seed: int, members: Sequence[int], inits: np.ndarray) -> list[torch.Generator]:
    """One generator a case, members first, each seeded by (seed, member, initial time).

    A member of a forecast is what it is, whichever other members and initial times are made beside it.
    """
    times = np.asarray(inits, dtype="datetime64[s]").astype(np.int64) & (2**63 - 1)  # entropy is not negative
    seeds = [np.random.SeedSequence((seed, m, int(t))).generate_state(1, np.uint64)[0] for m in members for t in times]
    return [torch.Generator().manual_seed(int(entropy) >> 1) for entropy in seeds]
