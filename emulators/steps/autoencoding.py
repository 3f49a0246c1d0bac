"""Steps of autoencoders: the state at the target's time is encoded and decoded, so that its error is what is lost.

    x^ = mean + std * decoder(encoder((x - mean) / std))

x is the true state at the time of the target, which the data prescribe like a forcing. Objectives, validation and `emul
eval` score the reconstruction as they score a forecast; it does not depend on the lead. A Step on latent fields holds
one at rest (LaDCast: Zhuang & Duraisamy 2025, arXiv 2506.09193).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from emulators.interfaces import Constraint
from emulators.state import State
from emulators.steps.step import Step
from emulators.variables import VariableSet
from emulators.world import World


@runtime_checkable
class Compressing(Protocol):
    """Describe a network with latent fields in its middle. latents: their number; reduction: of rows and columns."""

    latents: int
    reduction: int

    def encoded(self, fields: Tensor) -> Tensor:
        """Latent fields (batch, latent, row, column) of what the network reads."""
        ...

    def decoded(self, latents: Tensor, shape: Sequence[int]) -> Tensor:
        """The network's output of latent fields, on a grid of `shape`."""
        ...


class AutoencodingStep(Step):
    """Encode and decode the State at the target's time; diagnostic variables are decoded from the same latent fields.

    network: a `Compressing` one; it reads prognostic and static fields. truncation: as in Step. Raises ValueError for
    another network.
    """

    def __init__(
        self,
        world: World,
        network: nn.Module,
        constraints: Mapping[str, Constraint] | None = None,
        *,
        truncation: Literal["data"] | int | None = "data",
    ) -> None:
        super().__init__(world, network, constraints, output="absolute", truncation=truncation)
        if not isinstance(network, Compressing):
            raise ValueError(f"{type(network).__name__} has no latent fields; take model=dcae with step=autoencoding.")
        self.latents, self.reduction = network.latents, network.reduction

    @classmethod
    def data_world(cls, world: World, options: Mapping[str, Any]) -> World:
        """The World of the Step: the state at the target's time is what is prescribed, in place of all forcings."""
        return replace(world, forcing=world.prognostic)

    @classmethod
    def network_world(
        cls, world: World, parts: Collection[str] = (), options: Mapping[str, Any] | None = None
    ) -> World:
        """The World of the Step with one known state and without forcings."""
        return replace(world, forcing=VariableSet(), history=1)

    def unlike(self, host: World) -> list[str]:
        """What of `host`, the World of a Step that would hold this one, is not as it must be, by name."""
        same = {
            "grid": self.world.grid.same_as(host.grid),
            "predicted variables": self.world.predicted.channels == host.predicted.channels,
            "prognostic variables": self.world.prognostic.channels == host.prognostic.channels,
        }
        return [name for name, holds in same.items() if not holds]

    def forward(self, history: tuple[State, ...], forcing: State, **conditioning: Any) -> State:
        """The reconstruction of the State that `forcing` holds; arguments as of Step."""
        state = forcing.select(self.world.prognostic.names)
        fields = self.encoder_fields(state)
        seconds = torch.zeros(len(fields), dtype=torch.int64, device=fields.device)  # it is told no time
        values = self.written_fields(self.network(fields, seconds))
        last = history[-1].select(self.world.prognostic.names)
        values = values.reshape(*state.lead, *values.shape[1:]).expand(*last.lead, *values.shape[1:])
        return self.constrained(last, State(values, self.world.predicted, forcing.time, last.rank), forcing)

    def encoder_fields(self, state: State) -> Tensor:
        """What the network reads of a State, (row, channel, *grid)."""
        fields = self.prognostic(state.values).reshape(-1, *state.values.shape[state.channel_axis :])
        return torch.cat([fields, self.static.expand(len(fields), *self.static.shape)], dim=1)

    def written_fields(self, raw: Tensor) -> Tensor:
        """Physical fields (row, predicted channel, *grid) of what the network wrote."""
        return self.truncation(self.predicted.inverse(raw.float()))

    def encoded(self, state: State) -> Tensor:
        """Latent fields (row, latent, row, column) of a State of the prognostic variables, as the network has them."""
        network: Any = self.network
        encoded: Tensor = network.encoded(self.encoder_fields(state)).float()
        return encoded

    def decoded(self, latents: Tensor) -> Tensor:
        """Physical fields (row, predicted channel, *grid) of latent fields."""
        network: Any = self.network
        return self.written_fields(network.decoded(latents, self.world.grid.shape))
