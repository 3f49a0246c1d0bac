"""Two stages in one step: encoders and decoders around a translator at rest, the translator between them at rest.

    rec = (1 / n) sum_k sum_loss loss(decoder(T'(encoder(x)))_k, y_k)      encoder and decoder learn
    lat = mean |T(encoder(x)) - encoder(y)|^2                              the translator T learns
    L = rec + latent * lat,     T' <- momentum T' + (1 - momentum) T       after each optimiser step

x are the known states, y as many that follow; each mean is over what it compares. Met2Net (Li et al. 2025, arXiv
2507.17189). As there, a single optimiser step makes both stages, so that the second reads the encoders that the first
has read, at rest. The paper moves T' at the end of the stage, as here; the published code does so between the forward
and the backward pass, with T as it was, so that its encoders' gradients go through another T' than their loss.
Forecasts take T.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.interfaces import Loss, Objective
from emulators.state import State, Window
from emulators.world import World


@runtime_checkable
class Translating(Protocol):
    """Describe a network with a Module `translator` between encoders and decoders."""

    def encoded(self, fields: Tensor) -> Tensor:
        """Latents (batch, time, ...) of the fields that the network reads."""
        ...

    def decoded_frames(self, latents: Tensor) -> Tensor:
        """The output at all times, (batch, time, channel, *grid)."""
        ...


class TwoStage(nn.Module, Objective):
    """Train encoder and decoder on states, and the translator between them on latents, in one step.

    momentum: of the averaged translator that the first stage uses. latent: weight of the second stage.
    """

    keeps_copies = True

    def __init__(self, world: World, *, momentum: float = 0.9, latent: float = 1.0) -> None:
        super().__init__()
        if not 0 <= momentum < 1 or latent <= 0:
            raise ValueError(
                "objective.momentum must be a share in [0, 1) and objective.latent a positive weight; "
                f"got {momentum} and {latent}."
            )
        self.history, self.momentum, self.latent = world.history, momentum, latent
        self.at_rest: nn.Module = nn.Identity()

    @property
    def longest(self) -> int:
        """Timesteps that a window must hold: as many as the history."""
        return self.history

    def length(self, step: int) -> int:
        """The same at every optimiser step."""
        return self.longest

    def begin(self, step: Any) -> None:
        """Copy the network's translator for the first stage; ValueError where it has none."""
        network = step.network
        if not isinstance(network, Translating):
            raise ValueError(
                f"{type(network).__name__} has no translator between encoders and decoders; take model=met2net or "
                "another objective."
            )
        if step.output != "absolute":
            raise ValueError("What the decoders write are states, not changes; take step.output=absolute.")
        self.at_rest = copy.deepcopy(step.network.translator).requires_grad_(False)

    @torch.no_grad()
    def follow(self, step: Any) -> None:
        """Move the first stage's translator towards the trained one."""
        at_rest, moved = (list(module.parameters()) for module in (self.at_rest, step.network.translator))
        torch._foreach_lerp_(at_rest, moved, 1.0 - self.momentum)

    def forward(self, step: Any, window: Window, losses: Mapping[str, Loss]) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its detached parts: by loss and lead, and `latent`."""
        network = step.network
        latents = network.encoded(step.inputs(window.history, window.forcing[0])[0])
        frames = network.decoded_frames(self.at_rest(latents)).float()
        with torch.no_grad():
            truth = network.encoded(step.inputs(window.target, window.forcing[0])[0])
        size = step.world.prognostic.size
        gap = F.mse_loss(network.translator(latents.detach())[:, :size].float(), truth[:, :size].float())
        total, parts = self.latent * gap, {"latent": gap.detach()}
        for lead, state in enumerate(states(step, window, frames), start=1):
            for name, loss in losses.items():
                value = loss(state, window.target[lead - 1]).mean()
                parts[f"{name}_{lead}"] = value.detach()
                total = total + value / len(window.target)
        return total, parts


def states(step: Any, window: Window, frames: Tensor) -> Iterator[State]:
    """States from frames (batch, time, channel, *grid), each constrained with the one before."""
    before = window.history[-1].select(step.world.prognostic.names)
    for raw, forcing in zip(frames.unbind(1), window.forcing, strict=True):
        state = step.constrained(before, step.physical(raw, before, forcing), forcing)
        yield state
        before = state.select(step.world.prognostic.names)
