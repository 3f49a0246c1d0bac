"""A token for every variable at every patch, and all variables of a patch gathered into one by a learned query.

    x_v = W_v patch_v + b_v + e_v,     y = W_o sum_v softmax_v(q . K x_v / sqrt(d)) V x_v      head by head

As the query is the same everywhere, it is taken through K first, and V after the sum: exact, and the cost of K and V no
longer grows with the number of variables. ClimaX: Nguyen et al. 2023, arXiv 2301.10343.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from emulators.layers.attention.patches import waves
from emulators.layers.attention.transformer import refuse_heads


class VariableTokens(nn.Module):
    """(batch, variable, lat, lon) -> tokens (batch, place, variable, width); each variable has a map of its own."""

    def __init__(self, variables: int, width: int, patch: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(variables, width, patch, patch), std=0.02))
        self.bias = nn.Parameter(torch.zeros(variables, width))
        self.identity = nn.Parameter(torch.tensor(waves(np.arange(variables), width), dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        patch = self.weight.shape[-1]
        cells = x.unflatten(-1, (-1, patch)).unflatten(-3, (-1, patch)).permute(0, 2, 4, 1, 3, 5)
        cells = cells.flatten(4).flatten(1, 2)  # batch, place, variable, p * q
        return torch.einsum("blvp,vdp->blvd", cells, self.weight.flatten(2)) + (self.bias + self.identity)


class VariableAggregation(nn.Module):
    """Tokens (batch, place, variable, width) -> (batch, place, width) by attention with one learned query.

    weight, bias: of queries, keys and values, in this order. A bias of the keys changes nothing; it is there as stored
    weights have it.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        refuse_heads(width, heads)
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(width))
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(3 * width, width)))
        self.bias = nn.Parameter(torch.zeros(3 * width))
        self.projection = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        to_query, to_key, to_value = self.weight.unflatten(0, (3, self.heads, -1))
        of_query, _, of_value = self.bias.unflatten(0, (3, self.heads, -1))
        query = torch.einsum("hdw,w->hd", to_query, self.query) + of_query
        logits = x @ torch.einsum("hdw,hd->wh", to_key, query * query.shape[-1] ** -0.5)
        gathered = logits.softmax(dim=-2).to(x.dtype).mT @ x  # batch, place, head, width
        values = torch.einsum("blhw,hdw->blhd", gathered, to_value) + of_value
        return self.projection(values.flatten(2))
