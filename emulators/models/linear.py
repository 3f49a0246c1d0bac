"""Linear regression on the neighbourhood of each point, one matrix for the whole planet, solved in closed form.

    y_o(i, j) = b_o + sum_c sum_kl W_ockl x_c(i + k, j + l),    W = argmin  mean(a_ij |y - target|^2) + ridge |W|^2

a_ij are cell areas with mean 1; the normal equations are summed in float64. Hoerl & Kennard 1970,
doi 10.1080/00401706.1970.10488634.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from emulators.grid import Grid
from emulators.layers.convolution import Edges, pole_mirror
from emulators.world import World


class Linear(nn.Module):
    """Map fields (batch, input channel, *grid) to (batch, output channel, *grid).

    kernel: width of the neighbourhood in points, odd; 1 on a set of cells. bands: number of latitude bands, each with a
    bias of its own. ridge: penalty on the weights, in units of the inputs' variance. edges: padding, `cross`,
    `replicate` or `zeros` (default by the grid). The weights are zero at the start, which is persistence under a Step
    with residual output; `fit` solves for them, and they may also be trained.
    """

    areas: Tensor
    row_bands: Tensor

    def __init__(
        self, world: World, *, kernel: int = 3, bands: int = 1, ridge: float = 1e-4, edges: str | None = None
    ) -> None:
        super().__init__()
        self.shape = world.grid.shape if kernel == 1 else world.lat_lon.shape
        nlat, nlon = self.plane = (*self.shape, 1)[:2]
        widest = nlon if nlat == 1 or nlon == 1 else min(nlat, nlon)
        if kernel % 2 == 0 or kernel > widest or not 1 <= bands <= nlat or ridge < 0:
            raise ValueError(
                f"Expected an odd kernel up to {widest}, 1 to {nlat} bands and a ridge of at least 0 on "
                f"{world.grid!r}; got kernel={kernel}, bands={bands}, ridge={ridge}."
            )
        self.kernel, self.ridge = kernel, ridge
        self.edges = Edges(world.lat_lon, edges) if kernel > 1 else None
        self.mirror = pole_mirror(world) if kernel > 1 else None
        self.weight = nn.Parameter(torch.zeros(world.output_channels, world.input_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(bands, world.output_channels))
        self.register_buffer("row_bands", _southward(world.grid) * bands // nlat, persistent=False)
        self.register_buffer("areas", torch.from_numpy(world.grid.weights.reshape(-1)), persistent=False)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        mapped = F.conv2d(self._padded(fields), self.weight) + self.bias[self.row_bands].T.unsqueeze(-1)
        return mapped.reshape(*mapped.shape[:2], *self.shape)

    def _padded(self, fields: Tensor) -> Tensor:
        """Fields (batch, channel, *grid) as (batch, channel, row, column) with borders; cells are rows of one point."""
        border, fields = self.kernel // 2, fields.reshape(*fields.shape[:2], *self.plane)
        if self.edges is None:
            return fields
        return self.edges.pad(fields, border, border, border, border, mirror=self.mirror)

    @torch.no_grad()
    def fit(self, examples: Iterable[tuple[Tensor, Tensor, Tensor]]) -> None:
        """Solve the ridge regression over all examples (fields, time, target). Raises ValueError if there are none."""
        size, bands = self.weight[0].numel(), self.bias.shape[0]
        gram = torch.zeros(size + bands, size + bands, dtype=torch.float64, device=self.weight.device)
        moment = gram.new_zeros(size + bands, self.weight.shape[0])
        membership = (
            F.one_hot(self.row_bands, bands).double().repeat_interleave(self.areas.numel() // len(self.row_bands), 0)
        )
        count = 0
        for fields, _, target in examples:
            for field, truth in zip(fields.double(), target.double(), strict=True):
                patches = F.unfold(self._padded(field[None]), self.kernel)[0].T
                predictors = torch.cat([patches, membership], dim=1)
                weighted = (predictors * self.areas[:, None]).T
                gram += weighted @ predictors
                moment += weighted @ truth.flatten(1).T
                count += self.areas.numel()
        if count == 0:
            raise ValueError("A linear model needs at least one example to fit; got none.")
        penalty = torch.diag(gram.new_tensor([self.ridge * count] * size + [0.0] * bands))
        solution = torch.linalg.lstsq(gram + penalty, moment, driver=None if gram.is_cuda else "gelsd").solution
        self.weight.copy_(solution[:size].T.reshape(self.weight.shape))
        self.bias.copy_(solution[size:])


def _southward(grid: Grid) -> Tensor:
    """Return the place of each row, or of each cell, from north to south."""
    if len(grid.shape) == 2:
        return torch.arange(grid.shape[0])
    return torch.from_numpy(np.argsort(np.argsort(-grid.points[0], kind="stable")))
