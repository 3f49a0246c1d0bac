"""Networks of others, built from checkouts of their code, and what is stored of them for where there are none.

EMUL_PEERS names a folder of checkouts: NVlabs/FourCastNet, aditya-grover/climate-learn, and so on, each under the name
of its repository. Weights are a recipe by name and shape, so that a stored case holds names, shapes, and what came out.
Each file of the folder zoo has one `CASE`.

    EMUL_PEERS=... python tests/parity/case.py afno vit      # writes tests/data/zoo/<case>.npz anew
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import types
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emulators.grid import Grid, LatLonGrid, equiangular_grid
from emulators.grids.catalogue import named_grid
from places import DATA

sys.path.insert(0, str(Path(__file__).parent))
ZOO = Path(__file__).parent / "zoo"
FOLDER = DATA / "zoo"
BATCH = 2
COMPLEX = "complex"
IN5_OUT3 = {"prognostic": 3, "forcing": 2}


@dataclass(frozen=True)
class Case:
    """One network. target, options: ours. channels: prognostic, forcing, diagnostic. peer: builds theirs.

    grid: rows and columns, or the name of a grid of cells. call: runs theirs on fields (batch, channel, *grid).
    told: what ours is told of every case of a batch. noise: numbers of noise=vector, `drawn` for each case. draws:
    whether ours draws others itself. even: channels of which only the mean is read. east: of the first column, in
    degrees. sides: south, north, west and east of a limited area. poles: whether the grid has a row at each.
    """

    target: str
    options: dict[str, Any]
    peer: Callable[[], nn.Module]
    channels: dict[str, Any]
    grid: tuple[int, int] | str
    call: Callable[[nn.Module, Tensor], Tensor] = lambda net, fields: net(fields)
    history: int = 1
    told: dict[str, float | list[int]] = field(default_factory=dict)
    noise: int = 0
    draws: bool = False
    even: tuple[int, ...] = ()
    east: float = 0.0
    sides: tuple[float, ...] = ()
    poles: bool = False

    @property
    def where(self) -> Grid:
        """The grid."""
        if isinstance(self.grid, str):
            return named_grid(self.grid)
        if self.sides:
            south, north, west, east = self.sides
            return LatLonGrid(np.linspace(north, south, self.grid[0]), np.linspace(west, east, self.grid[1]))
        grid = equiangular_grid(*self.grid, poles=self.poles)
        return LatLonGrid(grid.latitude, grid.longitude + self.east)

    @property
    def read(self) -> int:
        """Channels that the network reads."""
        counts = {
            name: sum(max(1, n) for n in count.values()) if isinstance(count, dict) else count
            for name, count in self.channels.items()
        }
        return self.history * counts["prognostic"] + counts.get("forcing", 0)


def noise(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Gaussian numbers that depend on the name alone."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)


def evened(case: Case, values: Tensor) -> Tensor:
    """Fields with the mean over all points in place of the channels of which it alone is read."""
    index = torch.tensor(case.even, dtype=torch.int64)
    return values.index_copy(1, index, values[:, index].mean((-2, -1), keepdim=True).expand_as(values[:, index]))


def drawn() -> torch.Generator:
    """Where the noise of a network comes from."""
    return torch.Generator().manual_seed(0)


def recipe(name: str, shape: tuple[Any, ...]) -> Tensor:
    """Weights by their name; statistics and norms stay near those of trained networks; complex ones say so first."""
    if shape and shape[0] == COMPLEX:
        return torch.view_as_complex(recipe(name, (*shape[1:], 2)))
    values = noise(name, shape)
    if name.endswith("running_var"):
        values = 0.5 + np.abs(values)
    elif name.endswith(("weight", ":scale")) and len(shape) == 1:
        values = 1.0 + 0.1 * values
    elif len(shape) > 1:
        values = values / np.sqrt(max(1, np.prod(shape[1:])))
    else:
        values = 0.1 * values
    return torch.from_numpy(values.astype(np.float32))


def fields(case: Case, channels: int) -> Tensor:
    return torch.from_numpy(noise("fields", (BATCH, channels, *case.where.shape)).astype(np.float32))


def randomised(net: nn.Module) -> dict[str, tuple[int, ...]]:
    """Fill a network of theirs by the recipe; names and shapes of what was filled."""
    shapes = {}
    state = net.state_dict()
    learned = dict(net.named_parameters())
    for name, value in state.items():
        if name in learned or "running_" in name:
            shapes[name] = (*([COMPLEX] if value.is_complex() else []), *value.shape)
            state[name] = recipe(name, shapes[name])
    net.load_state_dict(state)
    return shapes


def result(run: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """What comes out, and the gradient of a fixed sum of it with respect to the fields."""
    x = x.clone().requires_grad_()
    out = run(x)
    (out * torch.from_numpy(noise("slopes", tuple(out.shape)).astype(np.float32))).mean().backward()
    return out.detach(), x.grad


def sample(values: Tensor) -> Tensor:
    """Not more than some ten thousand of the numbers, evenly spread."""
    return values.flatten()[:: 1 + values.numel() // 10_000]


def checkout(name: str, inside: str = "") -> Path:
    """The folder of a checkout, put before all others from which modules come."""
    path = Path(os.environ["EMUL_PEERS"]) / name / inside
    if not path.exists():
        raise FileNotFoundError(f"no checkout at {path}")
    sys.path.insert(0, str(path))
    return path


def stub(name: str, **contents: Any) -> None:
    """A module with just these contents, where theirs is not needed."""
    if name not in sys.modules:
        module = types.ModuleType(name)
        module.__path__ = []
        sys.modules[name] = module
    for key, value in contents.items():
        setattr(sys.modules[name], key, value)


def package(root: Path, *names: str) -> None:
    """Packages of theirs without what their __init__ would import."""
    for name in names:
        stub(name)
        sys.modules[name].__path__ = [str(root / name.replace(".", "/"))]


def names() -> list[str]:
    return sorted(path.stem for path in ZOO.glob("*.py"))


def case(name: str) -> Case:
    return importlib.import_module(f"zoo.{name}").CASE


def write(name: str) -> None:
    told = case(name)
    net = told.peer().eval()
    shapes = randomised(net)
    out, gradient = result(lambda x: told.call(net, x), fields(told, told.read))
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.npz"
    np.savez_compressed(path, shapes=json.dumps(shapes), out=sample(out).numpy(), gradient=sample(gradient).numpy())
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, output of deviation {out.std():.3f}")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or names():
        write(wanted)
