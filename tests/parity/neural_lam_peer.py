"""Networks of neural-lam 0.7 on graphs that its own code makes, from and to fields (batch, channel, lat, lon).

Needs neural-lam and torch-geometric 2.3.1, installed without their dependencies, and loguru, tueplots, parse, isodate.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import tempfile
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
from torch import Tensor, nn

from case import Case
from emulators.meshes.levels import plane

LATENT, STEPS, SIDES = 8, 2, (30.0, 66.0, -60.0, 60.0)
# No point lies midway between two of the 27 rows or columns of nodes, where rounding chooses which of them it reads.
GRID = (12, 84)
STATES, FORCING = 3, 2
ABSENT = ("botocore", "cartopy", "mlflow", "mllam_data_prep", "plotly", "wandb", "weather_model_graphs")


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Answer for packages that theirs imports and these networks do not need."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        return importlib.machinery.ModuleSpec(name, self) if name.split(".")[0] in ABSENT else None

    def create_module(self, spec: Any) -> Any:
        module = MagicMock(name=spec.name)
        module.__spec__, module.__path__ = spec, []
        return module

    def exec_module(self, module: Any) -> None:
        """Leave it as it is."""


def network(build: Callable[..., nn.Module], **options: Any) -> Callable[[], nn.Module]:
    """Their network of a class; hierarchical: which of their graphs."""
    hierarchical, deep = options.pop("hierarchical"), options.pop("deep", {"processor_layers": STEPS})

    def theirs() -> nn.Module:
        sys.meta_path.append(Absent())
        from neural_lam.create_graph import create_graph

        rows, columns = GRID
        points, _ = plane(case("", {}).where)
        xy = points.reshape(rows, columns, 2).transpose(1, 0, 2)
        with tempfile.TemporaryDirectory() as folder:
            create_graph(str(Path(folder) / "graph" / "graph"), xy, hierarchical=hierarchical)
            store = datastore(Path(folder), xy)
            return build()(store, graph_name="graph", hidden_dim=LATENT, **deep, **STEPPED, **options)

    return theirs


STEPPED = {"num_past_forcing_steps": 0, "num_future_forcing_steps": 0}


def datastore(folder: Path, xy: np.ndarray) -> Any:
    """What their networks ask of a datastore, with scales of one and means of zero."""
    size = xy.shape[0] * xy.shape[1]
    scales = {
        "state_mean": 0.0, "state_std": 1.0, "state_diff_mean_standardized": 0.0, "state_diff_std_standardized": 1.0,
    }  # fmt: skip
    told = {name: types.SimpleNamespace(values=np.full(STATES, value)) for name, value in scales.items()}
    return types.SimpleNamespace(
        root_path=folder,
        num_grid_points=size,
        get_standardization_dataarray=lambda *_, **__: types.SimpleNamespace(**told),
        get_xy_extent=lambda *_, **__: [xy[..., 0].min(), xy[..., 0].max(), xy[..., 1].min(), xy[..., 1].max()],
        get_num_data_vars=lambda category: {"state": STATES, "forcing": FORCING}[category],
        get_vars_names=lambda category: [f"v{n}" for n in range(STATES)],
        get_dataarray=lambda *_, **__: None,
    )


def call(net: nn.Module, fields: Tensor) -> Tensor:
    """The increment of the network. fields: two states, the newer first as theirs read them, and forcing.

    Their points go column by column.
    """
    rows = fields.transpose(-1, -2).flatten(2).transpose(1, 2)
    newer, older, forcing = rows.split([STATES, STATES, FORCING], dim=-1)
    out = net(newer, older, forcing)[0] - newer
    return out.transpose(1, 2).unflatten(-1, (GRID[1], GRID[0])).transpose(-1, -2)


def case(target: str, options: dict[str, Any], peer: Callable[[], nn.Module] = nn.Identity) -> Case:
    return Case(
        target,
        {"latent": LATENT, "steps": STEPS, **options},
        peer,
        {"prognostic": STATES, "forcing": FORCING},
        GRID,
        call,
        history=2,
        sides=SIDES,
    )
