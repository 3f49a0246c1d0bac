"""Aurora 1.5's ensemble: noise for each token, smooth waves of the lead time, variables that are only written.

Their insolation is a variable like others here: that of the next time is written over it after the network.
"""

from __future__ import annotations

from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn

from case import BATCH, Case, drawn
from emulators.layers.sample_draws import normal
from zoo.aurora import COLUMNS, OURS, ROWS, STATIC, run, theirs

READ, UNREAD = ("2t", "msl", "insolation"), ("i10fg", "scaled_tp_1h")


def noisy(net: nn.Module, x: Tensor) -> Tensor:
    """With the noise that ours draws, as they have tokens."""
    tokens = torch.stack(normal(BATCH, (4, ROWS // 2, COLUMNS // 2, 16), "cpu", drawn())).flatten(1, 3)
    with mock.patch("torch.randn", return_value=tokens):
        return run(net, x, READ, (*READ, *UNREAD))


CASE = Case(
    "aurora.Aurora",
    {**OURS, "smooth_leads": True, "noisy": True},
    partial(
        theirs, "AuroraV1p5Ensemble", ("2t", "msl", *UNREAD, "insolation"), output_only_surf_vars=UNREAD, autocast=False
    ),
    {
        "prognostic": {"t": 3, "q": 3, **dict.fromkeys(READ, 0)},
        "diagnostic": dict.fromkeys(UNREAD, 0),
        "forcing": dict.fromkeys(STATIC, 0),
    },
    (ROWS, COLUMNS),
    noisy,
    history=2,
    draws=True,
)
