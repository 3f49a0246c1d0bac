"""Networks from the drivers of a window of years to the map of its last year, trained on years of all scenarios.

    y(t) = network(x(t - window + 1), ..., x(t))

Drivers and variable are normalised by mean and standard deviation over the years of training; a global driver fills the
map. The loss is the mean square weighted by the cosine of latitude. `CnnLstm` is the network of ClimateBench
(Watson-Parris et al. 2022, doi 10.1029/2021MS002954); any other of `emulators.models` serves as well (ClimateSet:
Kaltenborn et al. 2023, arXiv 2311.03721).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from emulators.grid import LatLonGrid
from emulators.projections.scenarios import Scenario, ScenarioSet
from emulators.variables import Variable, VariableSet
from emulators.world import World

TIME = "1850-01-01"  # networks that read the time are given one and the same


class NetworkProjection:
    """Train a network. network: built on the World of window x drivers in, one variable out.

    window: years of drivers that it reads. steps: of the optimiser, Adam at rate `rate` falling to zero along a cosine.
    batch: years a step. seed: of weights and of the order of years.
    """

    def __init__(
        self,
        *,
        network: Callable[[World], nn.Module],
        window: int = 1,
        steps: int = 1000,
        batch: int = 16,
        rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        if min(window, steps, batch) < 1:
            raise ValueError(f"window, steps and batch should be at least 1; got {window}, {steps} and {batch}.")
        self.network, self.window, self.steps = network, window, steps
        self.batch, self.rate, self.seed = batch, rate, seed
        self.trained: nn.Module | None = None
        self.scales: dict[str, tuple[float, float]] = {}
        self.scale = (0.0, 1.0)

    def world(self, data: ScenarioSet, variable: str) -> World:
        """The World of the network: drivers, oldest year first, are forcing; the variable is diagnostic."""
        drivers = data.training[0].drivers
        forcing = [Variable(f"{name}_{self.window - 1 - lag}") for lag in range(self.window) for name in drivers]
        return World(
            LatLonGrid(data.latitude, data.longitude),
            VariableSet(),
            np.timedelta64(12, "M"),
            forcing=VariableSet(tuple(forcing)),
            diagnostic=VariableSet((Variable(variable, data.units.get(variable, "")),)),
        )

    def inputs(self, data: ScenarioSet, scenario: Scenario) -> Tensor:
        """Return normalised drivers of every year, (year, window * driver, lat, lon); oldest year first."""
        shape = (len(scenario.years), self.window, len(data.latitude), len(data.longitude))
        columns = []
        for name, (mean, spread) in self.scales.items():
            series = (scenario.history(name, self.window) - mean) / spread
            maps = series[..., None, None] if series.ndim == 2 else series
            columns.append(np.broadcast_to(maps, shape))
        stacked = np.stack(columns, axis=2).astype(np.float32)  # (year, window, driver, lat, lon)
        return torch.as_tensor(stacked.reshape(shape[0], -1, *shape[2:]))

    def fit(self, data: ScenarioSet, variable: str) -> None:
        """Measure scales and train."""
        targets = data.targets(variable)
        self.scale = _scale(targets)
        names = data.training[0].drivers
        self.scales = {n: _scale(np.concatenate([scenario.drivers[n] for scenario in data.training])) for n in names}
        inputs = torch.cat([self.inputs(data, scenario) for scenario in data.training])
        normalised = torch.as_tensor(((targets - self.scale[0]) / self.scale[1]).astype(np.float32))
        weights = torch.as_tensor(data.weights.astype(np.float32))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.trained = self.network(self.world(data, variable))
            self._train(self.trained, inputs, normalised, weights)

    def _train(self, network: nn.Module, inputs: Tensor, targets: Tensor, weights: Tensor) -> None:
        optimizer = torch.optim.Adam(network.parameters(), lr=self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.steps)
        for _ in range(self.steps):
            rows = torch.randint(len(inputs), (self.batch,))
            error = network(inputs[rows], _times(len(rows)))[:, 0] - targets[rows]
            optimizer.zero_grad()
            (weights * error.square()).mean().backward()
            optimizer.step()
            schedule.step()

    @torch.no_grad()
    def project(self, data: ScenarioSet, scenario: Scenario) -> np.ndarray:
        """Return the maps, (year, lat, lon)."""
        assert self.trained is not None, "fit before project"
        network = self.trained.eval()
        parts = self.inputs(data, scenario).split(self.batch)
        maps = torch.cat([network(part, _times(len(part)))[:, 0] for part in parts]).double().numpy()
        return maps * self.scale[1] + self.scale[0]


class CnnLstm(nn.Module):
    """Map (batch, window * driver, lat, lon) to (batch, 1, lat, lon): a convolution and the mean of each year, an LSTM
    over the years, a linear map to all points.

    window: years in the channels, oldest first; their number must divide that of the channels. filters: of the 3x3
    convolution. hidden: width of the LSTM, whose activation is tanh (that of the original is a rectifier).
    """

    def __init__(self, world: World, *, window: int = 10, filters: int = 20, hidden: int = 25) -> None:
        super().__init__()
        if world.input_channels % window:
            raise ValueError(
                f"A window of {window} years does not divide {world.input_channels} channels; give projection and "
                "network the same window."
            )
        self.window, self.shape = window, world.grid.shape
        self.convolution = nn.Conv2d(world.input_channels // window, filters, 3, padding=1)
        self.memory = nn.LSTM(filters, hidden, batch_first=True)
        self.head = nn.Linear(hidden, world.output_channels * world.grid.size)

    def forward(self, fields: Tensor, time: Tensor) -> Tensor:
        """Return normalised maps; time is not used."""
        years = fields.reshape(-1, fields.shape[1] // self.window, *self.shape)
        features = torch.relu(self.convolution(years)).mean(dim=(-2, -1))
        states, _ = self.memory(features.reshape(len(fields), self.window, -1))
        return self.head(states[:, -1]).reshape(len(fields), -1, *self.shape)


def _scale(values: np.ndarray) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) or 1.0


def _times(count: int) -> Tensor:
    return torch.full((count,), int(np.datetime64(TIME, "s").astype(np.int64)))
