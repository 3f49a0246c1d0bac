"""Steps of variational ensembles: a network reads latent fields that are drawn from a distribution the state predicts.

    z ~ N(m, s^2),   (m, ln s) = prior(x) in forecasts,   posterior(x, y) in training, y the next state
    next = last + tendency_std * network(x, z)

FuXi-ENS (Zhong et al. 2024, arXiv 2405.05925); conditional variational autoencoders: Sohn et al. 2015. Both encoders
are three convolutions, and begin as N(0, 1). The size of latent fields and encoders of FuXi-ENS is not published.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from emulators.interfaces import Constraint
from emulators.layers.convolution import Convolution, Edges
from emulators.layers.noise import FieldNoise
from emulators.layers.sample_draws import Generators
from emulators.state import State
from emulators.steps.step import Step
from emulators.variables import Variable, VariableSet
from emulators.world import Scale, World

LATENT, LATENTS = "latent", 8
LIMITS = -5.0, 2.0  # of ln s


class LatentStep(Step):
    """One timestep of a variational ensemble.

    hidden: channels of the encoders. output, truncation: as in Step. A network reads `LATENTS` latent fields.
    """

    def __init__(
        self,
        world: World,
        network: nn.Module,
        constraints: Mapping[str, Constraint] | None = None,
        *,
        hidden: int = 32,
        output: Literal["residual", "absolute"] = "residual",
        truncation: Literal["data"] | int | None = "data",
    ) -> None:
        super().__init__(world, network, constraints, output=output, truncation=truncation)
        if hidden < 1:
            raise ValueError(f"step.hidden must be at least 1; got {hidden}.")
        edges = Edges(world.lat_lon)
        self.prior = encoder(world.input_channels, hidden, edges)
        self.posterior = encoder(world.input_channels + world.output_channels, hidden, edges)
        self.noise = FieldNoise(world, spectrum="point", channels=LATENTS)

    @classmethod
    def network_world(
        cls, world: World, parts: Collection[str] = (), options: Mapping[str, Any] | None = None
    ) -> World:
        """The World of the Step with latent fields as further forcings."""
        more = VariableSet(tuple(Variable(f"{LATENT}_{n}", "1") for n in range(LATENTS)))
        unit = {channel: Scale(0.0, 1.0, 1.0) for channel in more.channels}
        return replace(world, forcing=world.forcing + more, scales={**world.scales, **unit})

    @property
    def is_random(self) -> bool:
        """True: every member draws latent fields of its own."""
        return True

    @property
    def reconstructs(self) -> bool:
        """True: it has a posterior."""
        return True

    def forward(
        self, history: tuple[State, ...], forcing: State, *, generator: Generators = None, **conditioning: Any
    ) -> State:
        """The State of `world.predicted` at forcing.time, latent fields drawn from the prior; arguments as of Step.

        Without a generator a step in evaluation takes the mean of the prior.
        """
        fields, _ = self.inputs(history, forcing)
        return self._made(history, forcing, self._drawn(*distribution(self.prior, fields), generator), conditioning)

    def reconstructed(self, history: tuple[State, ...], forcing: State, target: State) -> tuple[State, Tensor]:
        """The State made of latent fields from the posterior, and its divergence from the prior, (*lead,).

        The divergence is a sum over latent fields, averaged over area.
        """
        fields, _ = self.inputs(history, forcing)
        lead = history[-1].lead
        truth = self.predicted(target.select(self.world.predicted.names).values)
        truth = truth.expand(*lead, *truth.shape[target.channel_axis :]).reshape(len(fields), -1, *fields.shape[2:])
        prior, posterior = distribution(self.prior, fields), distribution(self.posterior, torch.cat([fields, truth], 1))
        area = torch.as_tensor(self.world.grid.weights, dtype=fields.dtype, device=fields.device)
        divergence = (gaussian_divergence(*posterior, *prior).sum(1) * area).flatten(1).mean(1)
        return self._made(history, forcing, self._drawn(*posterior), {}), divergence.reshape(lead)

    def _drawn(self, mean: Tensor, log_std: Tensor, generator: Generators = None) -> Tensor:
        if generator is None and not self.training:
            return mean
        return mean + log_std.exp() * self.noise(len(mean), mean.device, generator)

    def _made(
        self, history: tuple[State, ...], forcing: State, latent: Tensor, conditioning: Mapping[str, Any]
    ) -> State:
        """The State that the network makes with latent fields, (row, latent, *grid)."""
        last = history[-1].select(self.world.prognostic.names)
        fields, time = self.inputs(history, forcing)
        before, static = fields.split([fields.shape[1] - len(self.static), len(self.static)], dim=1)
        keywords = {**self.hours(last, forcing, fields.device), **self._flattened(conditioning, last)}
        raw = self.network(torch.cat([before, latent, static], dim=1), time, **keywords).float()
        return self.constrained(last, self.physical(raw, last, forcing), forcing)


def encoder(channels: int, hidden: int, edges: Edges) -> nn.Sequential:
    """Return convolutions from fields to the means and log standard deviations of latent fields, all 0 at first."""
    last = nn.Conv2d(hidden, 2 * LATENTS, 1)
    nn.init.zeros_(last.weight)
    assert last.bias is not None
    nn.init.zeros_(last.bias)
    layers = [Convolution(channels, hidden, 3, edges), nn.GELU(), Convolution(hidden, hidden, 3, edges), nn.GELU()]
    return nn.Sequential(*layers, last)


def distribution(network: nn.Module, fields: Tensor) -> tuple[Tensor, Tensor]:
    """Return means and log standard deviations of latent fields, (row, latent, *grid) each."""
    mean, log_std = network(fields).float().chunk(2, dim=1)
    return mean, log_std.clamp(*LIMITS)


def gaussian_divergence(mean: Tensor, log_std: Tensor, prior_mean: Tensor, prior_log_std: Tensor) -> Tensor:
    """Kullback-Leibler divergence of normal distributions from a prior, number by number.

    KL = (s_q^2 / s_p^2 + (m_q - m_p)^2 / s_p^2 - 1 - ln(s_q^2 / s_p^2)) / 2
    """
    ratio = 2.0 * (log_std - prior_log_std)
    return 0.5 * (ratio.exp() + (mean - prior_mean).square() * (-2.0 * prior_log_std).exp() - 1.0 - ratio)
