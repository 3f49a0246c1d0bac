"""Graph-EFM of neural-lam on a limited area: a forecast by latent numbers of its prior, on levels."""

from __future__ import annotations

from unittest.mock import patch

import torch
from neural_lam_peer import FORCING, GRID, LATENT, SIDES, STATES, network
from torch import Tensor, nn

from case import BATCH, Case, drawn
from emulators.layers.sample_draws import normal

NUMBERS = 6
DEEP = {"latent_dim": NUMBERS, "encoder_intra_level_layers": 1, "decoder_intra_level_layers": 2}


def build():
    from neural_lam.models.step_predictors.graph.graph_efm import GraphEFM

    return GraphEFM


def call(net: nn.Module, fields: Tensor) -> Tensor:
    """The increment of the network, which reads the older state first, by the numbers that ours draws."""
    rows = fields.transpose(-1, -2).flatten(2).transpose(1, 2)
    older, newer, forcing = rows.split([STATES, STATES, FORCING], dim=-1)

    def rsample(self, shape=()):
        return self.loc + self.scale * torch.stack(normal(BATCH, self.loc.shape[1:], "cpu", drawn()))

    with patch.object(torch.distributions.Normal, "rsample", rsample):
        out = net(newer, older, forcing)[0] - newer
    return out.transpose(1, 2).unflatten(-1, (GRID[1], GRID[0])).transpose(-1, -2)


def case(peer, **options) -> Case:
    """Graph-EFM with options of ours."""
    options = {"latent": LATENT, "numbers": NUMBERS, "posterior_steps": 1, "decoder_steps": 2, **options}
    channels = {"prognostic": STATES, "forcing": FORCING}
    return Case("graph_efm.GraphEFM", options, peer, channels, GRID, call, history=2, sides=SIDES, draws=True)


DIAGONAL = {"prior_intra_level_layers": 1, "prior_dist": "diagonal"}
CASE = case(network(build, hierarchical=True, deep=DEEP, **DIAGONAL), prior_steps=1, spread="diagonal")
