"""Steps on latent fields: an autoencoder, and diffusion of several states at once between its two halves, at rest.

    z = d (encoder(x) - m) / s,    (z_1, ..., z_n) ~ sampler(network(z_0, noisy z_1, ..., z_n, noise level)),
    x_k = decoder(m + s z_k / d)

m and s are the mean and standard deviation of each latent field over the training split, d is `data_std`. After n
timesteps x_n is encoded again, so that constraints act on what follows; LaDCast (Zhuang & Duraisamy 2025, arXiv
2506.09193) goes on with z_n instead. A State holds one time, so each of the n timesteps samples all z_k from the same
State and the same noise, and decodes its own: generators go on after the last of them alone. What the timestep before
has sampled is kept, and only a rollout that begins among the n samples again, the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from emulators.grid import LatLonGrid, equiangular_grid
from emulators.interfaces import Constraint, Sampler
from emulators.layers.conditioned_norms import NumberInNorms
from emulators.layers.noise import FieldNoise
from emulators.layers.noise_levels import Process
from emulators.layers.sample_draws import Generators
from emulators.state import State, Window
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World, timesteps_between

KNOWN, LEVEL = "known", "noise_level"
AUTOENCODER = "step=latent_diffusion needs a run of step=autoencoding: parts.autoencoder=outputs/train/<name>."


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

        x^ = mean + std * decoder(encoder((x - mean) / std))

    x is the true state at the time of the target, which the data prescribe like a forcing, so that its error is what is
    lost. Objectives, validation and `emul eval` score the reconstruction as they score a forecast; it does not depend
    on the lead.

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


@dataclass(frozen=True)
class Block:
    """Hold frames that were sampled together: from which State, and where generators were before and after."""

    first: State
    before: list[Tensor]
    after: list[Tensor]
    frames: Tensor


class LatentDiffusionStep(Step):
    """Make one timestep out of `frames` that are made at once; the memory of a rollout reaches as far back.

    network: on latent fields, those of all frames being its prognostic variables; it reads the known ones and the
    noise level, log(s) / 4, as further channels, and the level as `scalars` where it declares these. autoencoder: a
    trained Step of `latents` latent fields on a grid `reduction` times coarser, at rest. data_std, norms: as in
    DenoisingStep; `measure` finds m and s. Raises ValueError where world.history is not `frames`, or the autoencoder is
    another.
    """

    latent_mean: Tensor
    latent_std: Tensor

    def __init__(
        self,
        world: World,
        network: nn.Module,
        constraints: Mapping[str, Constraint] | None = None,
        sampler: Sampler | None = None,
        autoencoder: Step | None = None,
        *,
        frames: int = 4,
        latents: int = 32,
        reduction: int = 4,
        data_std: float = 0.5,
        norms: int = 0,
        truncation: Literal["data"] | int | None = "data",
    ) -> None:
        super().__init__(world, network, constraints, output="absolute", truncation=truncation)
        if sampler is None or "edm" not in sampler.processes:
            raise ValueError("step=latent_diffusion needs a sampler of process=edm; take sampler=heun.")
        if world.history != frames:
            raise ValueError(f"Expected history={frames}, as many states as step.frames; got {world.history}.")
        if not isinstance(autoencoder, AutoencodingStep):
            raise ValueError(AUTOENCODER)
        if (autoencoder.latents, autoencoder.reduction) != (latents, reduction):
            raise ValueError(
                f"Expected step.latents={autoencoder.latents} and step.reduction={autoencoder.reduction}, those of the "
                f"autoencoder; got {latents} and {reduction}."
            )
        self.sampler, self.frames, self.process = sampler, frames, Process("edm", data_std)
        self.autoencoder = autoencoder.requires_grad_(False).eval()
        inner = latent_world(world, frames, latents, reduction)
        self.latent_variables, self.latent_shape = inner.prognostic, (latents, *inner.grid.shape)
        self.noise = FieldNoise(inner, spectrum="point", channels=frames * latents)
        self.level_in_norms = NumberInNorms(network, norms) if norms else None
        self.register_buffer("latent_mean", torch.zeros(latents, 1, 1))
        self.register_buffer("latent_std", torch.ones(latents, 1, 1))
        self.block: Block | None = None

    @classmethod
    def network_world(
        cls, world: World, parts: Collection[str] = (), options: Mapping[str, Any] | None = None
    ) -> World:
        """The World of latent fields: all frames are predicted, the known fields and the noise level prescribed."""
        sizes = options or {}
        return latent_world(world, *(int(sizes[name]) for name in ("frames", "latents", "reduction")))

    @classmethod
    def compared_world(cls, world: World, options: Mapping[str, Any]) -> World:
        """The World of latent fields, in which losses compare."""
        return cls.network_world(world, (), options)

    @classmethod
    def stand_in(cls, world: World, options: Mapping[str, Any]) -> Step:
        """An autoencoder without weights."""
        return AutoencodingStep(world, Uncompressed(int(options["latents"]), int(options["reduction"])))

    @property
    def is_random(self) -> bool:
        """True: every member starts from noise of its own."""
        return True

    def train(self, mode: bool = True) -> LatentDiffusionStep:
        """Set the mode of all but the autoencoder, which stays at rest."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    def forward(
        self, history: tuple[State, ...], forcing: State, *, generator: Generators = None, **conditioning: Any
    ) -> State:
        """The State of `world.predicted` at forcing.time, sampled; arguments as of Step."""
        last, passed = history[-1].select(self.world.prognostic.names), 0
        if last.origin is not None:
            passed = timesteps_between(self.world.timestep, last.start.time, last.time) % self.frames
        drawn = [generator] if isinstance(generator, torch.Generator) else [*(generator or ())]
        block = self._block(history[-1 - passed], passed, drawn, generator)
        for each, state in zip(drawn, block.after if passed + 1 == self.frames else block.before, strict=True):
            each.set_state(state)
        values = self.truncation(self.autoencoder.decoded(self.unscaled(block.frames[:, passed])))
        values = values.reshape(*last.lead, *values.shape[1:])
        return self.constrained(last, State(values, self.world.predicted, forcing.time, last.rank), forcing)

    def restored_pair(self, window: Window, levels: Tensor) -> tuple[State, State, Tensor]:
        """Latent fields of all frames restored from noise, without noise, and the weight of each case, for training."""
        first, time = window.history[-1], window.target[0].time
        initial = self.scaled(first)
        clean = torch.cat([self.scaled(state) for state in window.target], dim=1)
        noisy = clean + _column(levels, clean) * self.noise(len(clean), clean.device)
        restored = self.restored(initial, noisy, levels, self._seconds(first))
        states = (State(values, self.latent_variables, time) for values in (restored, clean))
        return *states, self.process.weight(levels)  # type: ignore[return-value]

    def restored(self, initial: Tensor, x: Tensor, levels: Tensor, time: Tensor) -> Tensor:
        """The network's estimate of the clean latent fields in `x`, (row, frame x latent, row, column)."""
        scalars = self.process.scalar(levels)
        if self.level_in_norms is not None:
            self.level_in_norms(scalars)
        keywords = {"scalars": scalars[:, None] / 4.0} if "scalars" in self.conditioning else {}

        def network(noisy: Tensor) -> Tensor:
            level = _column(scalars / 4.0, noisy).expand(-1, 1, *noisy.shape[2:])
            raw: Tensor = self.network(torch.cat([noisy, initial, level], dim=1), time, **keywords)
            return raw.float()

        return self.process.restored(network, x, _column(levels, x))

    @torch.no_grad()
    def measure(self, windows: Iterable[Window]) -> None:
        """Measure mean and standard deviation of each latent field over all points of all windows."""
        total, squares = (torch.zeros(len(self.latent_mean), dtype=torch.float64) for _ in range(2))
        count = 0
        for window in windows:
            fields = self.autoencoder.encoded(window.history[-1].select(self.world.prognostic.names)).double().cpu()
            total, squares = total + fields.sum((0, 2, 3)), squares + fields.square().sum((0, 2, 3))
            count += fields[:, 0].numel()
        if not count:
            raise ValueError("Latent fields are standardised over the training split, which has no window.")
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0.0).sqrt()
        if not (std > 0).all():
            raise ValueError(f"Latent field {int(std.argmin())} never changes; train the autoencoder longer.")
        for buffer, values in ((self.latent_mean, mean), (self.latent_std, std)):
            buffer.copy_(values.reshape(buffer.shape))

    @torch.no_grad()
    def scaled(self, state: State) -> Tensor:
        """Latent fields of a State, of standard deviation data_std, (row, latent, row, column)."""
        fields = self.autoencoder.encoded(state.select(self.world.prognostic.names))
        return (fields - self.latent_mean) * (self.process.data_std / self.latent_std)

    def unscaled(self, latents: Tensor) -> Tensor:
        """The inverse of what `scaled` does after encoding."""
        return latents * (self.latent_std / self.process.data_std) + self.latent_mean

    def _block(self, first: State, passed: int, drawn: list[torch.Generator], generator: Generators) -> Block:
        """The frames that follow `first`, (row, frame, latent, row, column); those at hand where they are the same."""
        before, block = [each.get_state() for each in drawn], self.block
        is_at_hand = block is not None and block.first is first and len(before) == len(block.before)
        if passed and is_at_hand and all(map(torch.equal, before, block.before)):  # type: ignore[union-attr]
            return block  # type: ignore[return-value]
        initial, time = self.scaled(first), self._seconds(first)
        shape = self.frames * self.latent_shape[0], *self.latent_shape[1:]

        def draw() -> Tensor:
            if generator is None and not self.training:
                return torch.zeros(len(initial), *shape, device=initial.device)
            return self.noise(len(initial), initial.device, generator)

        def restore(x: Tensor, level: float) -> Tensor:
            return self.restored(initial, x, torch.full((len(x),), level, device=x.device), time)

        frames = self.sampler(self.process, restore, draw).unflatten(1, (self.frames, -1))
        self.block = Block(first, before, [each.get_state() for each in drawn], frames)
        return self.block

    def _seconds(self, first: State) -> Tensor:
        """The time of the first frame of each row, int64 seconds since 1970."""
        time = self.world.after(first.time).astype(np.int64)
        return torch.as_tensor(time, device=first.values.device).expand(first.lead).reshape(-1)


class Uncompressed(nn.Module):
    """Stand for a network with latent fields where only their number and grid matter."""

    def __init__(self, latents: int, reduction: int) -> None:
        super().__init__()
        self.latents, self.reduction = latents, reduction

    def encoded(self, fields: Tensor) -> Tensor:
        """Refuse: there are no weights."""
        raise ValueError(AUTOENCODER)

    def decoded(self, latents: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Refuse: there are no weights."""
        raise ValueError(AUTOENCODER)


def latent_world(world: World, frames: int, latents: int, reduction: int) -> World:
    """Return the World of latent fields of all frames. ValueError for a grid that `reduction` does not divide.

    Rows of the grid are blocks of the rows of `world`; on a whole sphere they are evenly spaced.
    """
    grid = world.lat_lon
    if min(frames, latents, reduction) < 1 or any(size % reduction for size in grid.shape):
        raise ValueError(
            "Expected step.frames and step.latents of at least 1 and a grid that step.reduction divides; got "
            f"{frames}, {latents}, and {reduction} of {grid!r}."
        )
    rows, columns = (size // reduction for size in grid.shape)
    longitude = np.unwrap(grid.longitude, period=360.0).reshape(columns, reduction).mean(1)
    latitude = grid.latitude.reshape(rows, reduction).mean(1)
    coarse = LatLonGrid(equiangular_grid(rows, columns).latitude if grid.is_global else latitude, longitude)
    numbers = tuple(float(n) for n in range(1, latents + 1))
    predicted = VariableSet(tuple(Variable(f"latent_{frame}", "1", numbers) for frame in range(1, frames + 1)))
    prescribed = VariableSet((Variable(KNOWN, "1", numbers), Variable(LEVEL, "1")))
    scales = {channel: Scale(0.0, 1.0, 1.0) for channel in (*predicted.channels, *prescribed.channels)}
    return World(coarse, predicted, world.timestep, forcing=prescribed, scales=scales)


def _column(numbers: Tensor, like: Tensor) -> Tensor:
    """Numbers of each row in a shape that broadcasts with fields."""
    return numbers.reshape(-1, *[1] * (like.ndim - 1))
