"""Training of variational ensembles: members from the posterior are compared with the truth, the prior follows it.

    L = (1 / n) sum_lead  loss(members, y) + w KL(posterior(x, y) || prior(x))

The posterior sees the truth y of each lead and the prior does not, so that a forecast, which draws from the prior,
spreads as far as the truth cannot be told. FuXi-ENS (Zhong et al. 2024, arXiv 2405.05925), with the CRPS as loss; the
weight w is not published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from emulators.interfaces import Loss, Network, Objective, optional
from emulators.rollout import ensemble
from emulators.state import State, Window
from emulators.world import World


@runtime_checkable
class Latent(Protocol):
    """A Step that draws latent fields, or whose network draws latent numbers: `reconstructs`."""

    reconstructs: bool

    def reconstructed(self, history: tuple[State, ...], forcing: State, target: State) -> tuple[State, Tensor]:
        """The State made of latent fields from the posterior, and its divergence from the prior."""
        ...


def _reconstructs(step: Any) -> bool:
    return isinstance(step, Latent) and step.reconstructs


class Variational(Objective):
    """Train on rollouts of members that draw latent fields from the posterior.

    rollout: timesteps. members: of the ensemble, 2 or more for losses of ensembles. divergence: weight of KL, w above.
    """

    def __init__(self, world: World, *, rollout: int = 1, members: int = 2, divergence: float = 1e-3) -> None:
        if rollout < 1 or members < 1 or divergence <= 0.0:
            raise ValueError(
                "objective.rollout and objective.members must be at least 1, objective.divergence positive; got "
                f"{rollout}, {members} and {divergence:g}."
            )
        self.rollout, self.members, self.divergence = rollout, members, divergence

    @property
    def longest(self) -> int:
        """Timesteps that a window must hold."""
        return self.rollout

    def length(self, step: int) -> int:
        """The same at every optimiser step."""
        return self.rollout

    def size(self, step: int) -> int:
        """The same at every optimiser step."""
        return self.members

    def begin(self, step: Any) -> None:
        """Let a network's posterior learn. Raise ValueError where there is none."""
        if not _reconstructs(step):
            raise ValueError(
                f"{type(step).__name__} draws no latent fields; take step=latent, a network with latent numbers of its "
                "own such as model=graph_efm_small, or objective=forecast."
            )
        at_rest = tuple(optional(step.network, Network, "at_rest"))
        for name, parameter in step.network.named_parameters():
            if name.startswith(at_rest):
                parameter.requires_grad_(True)

    def __call__(
        self, step: torch.nn.Module, window: Window, losses: Mapping[str, Loss]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to minimise, and its detached parts by loss and lead, and `divergence`."""
        latent: Any = step
        history = ensemble(window.history, self.members) if self.members > 1 else window.history
        total, parts = torch.zeros((), device=window.history[-1].values.device), dict[str, Tensor]()
        for lead, (forcing, target) in enumerate(zip(window.forcing, window.target, strict=True), start=1):
            state, divergence = latent.reconstructed(history, forcing, target)
            history = (*history[1:], state)
            shares = {f"{name}_{lead}": loss(state, target).mean() for name, loss in losses.items()}
            shares[f"divergence_{lead}"] = self.divergence * divergence.mean()
            total = total + torch.stack([*shares.values()]).sum() / len(window.target)
            parts |= {name: share.detach() for name, share in shares.items()}
        return total, parts
