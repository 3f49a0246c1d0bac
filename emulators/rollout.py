"""The one loop there is: a Step fed with its own output. Training, forecasting and verification all iterate it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from emulators.state import State


def rollout(
    step: Callable[[tuple[State, ...], State], State], history: tuple[State, ...], forcings: Iterable[State]
) -> Iterator[State]:
    """The States at lead 1, 2, ... as they are made, one for each forcing; memory does not grow with the lead."""
    for forcing in forcings:
        state = step(history, forcing)
        history = (*history[1:], state)
        yield state
