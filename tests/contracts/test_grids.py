"""What every grid of emulators/grids must do: weigh its cells, come back from a checkpoint, and carry every part."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from emul.contracts import built
from emulators.contracts.example_worlds import column_world, example_state, small_world
from emulators.contracts.parts import CONSTRAINT, LOSS
from emulators.grid import grid_from_plain, unit_vectors
from emulators.grids.catalogue import cells_of, families, named_grid, recognised
from emulators.models.linear import Linear
from emulators.statistics.area_means import region_weights
from emulators.world import World
from places import CONF

NAMES = [name for module in families().values() for name in module.EXAMPLES]
STATED = {"healpix:4": 1 / (32 * 16), "healpix:4:nested": 1 / (32 * 16), "stretched:2:4:60:10:15": 4.0**-2 / 50}
GIVEN = {
    "shallow_water": {"depth": "depth"},
    "prescribed": {"variables": {"skin_temperature": "sea_surface_temperature"}, "mask": "land_sea_mask"},
    "slab_ocean": {"temperature": "skin_temperature", "mask": "land_sea_mask", "invert": True},
    "masked": {"variables": {"skin_temperature": ["land_sea_mask", 270.0]}},
}


@pytest.fixture(params=NAMES)
def grid(request):
    return named_grid(request.param)


def test_a_checkpoint_brings_it_back(grid):
    back = grid_from_plain(json.loads(json.dumps(grid.plain())))
    assert repr(back) == repr(grid)
    assert back.same_as(grid, 1e-12)
    np.testing.assert_array_equal(back.weights, grid.weights)
    assert (back.is_global, back.raster) == (grid.is_global, grid.raster)


def test_weights_are_the_areas_of_its_cells(grid):
    assert grid.weights.mean() == pytest.approx(1.0, abs=1e-14)
    if not grid.coverage:
        with pytest.raises(ValueError, match="no cells"):
            cells_of(grid)
        return
    areas = cells_of(grid).areas
    np.testing.assert_allclose(areas / areas.mean(), grid.weights, rtol=8e-3)
    assert areas.sum() / (4 * np.pi) == pytest.approx(grid.coverage, rel=1e-3)


def test_low_harmonics_have_their_means(grid):
    """Area means of spherical harmonics up to degree 2, which are 0, to the error that the grid states."""
    if not grid.is_global:
        return
    x, y, z = unit_vectors(*grid.points).T
    fields = np.stack([x, y, z, x * y, x * z, y * z, x * x - y * y, z * z - 1 / 3])
    assert np.abs(fields @ grid.weights / grid.size).max() <= 1.05 * STATED.get(grid.name, 1e-14)


def test_points_are_known_again(grid):
    raster = grid.raster
    found = recognised(*grid.points, raster)
    assert found.same_as(grid)
    np.testing.assert_allclose(found.weights, grid.weights, rtol=0.3 if grid.name.endswith("triangles") else 5e-2)


@pytest.mark.parametrize("name", ["O0", "N33", "healpix:3:nested", "cubed_sphere", "stretched:2:4:95:10:15", "F0"])
def test_other_names_are_refused(name):
    with pytest.raises(ValueError, match=name):
        named_grid(name)


def test_regions_are_by_points():
    weights = region_weights(named_grid("O8"), ["global", "northern-hemisphere", "europe"])
    np.testing.assert_allclose(weights.matrix.sum(0), 1.0)
    north = named_grid("O8").points[0] >= 20
    assert (weights.matrix[:, 1] > 0).sum() == north.sum()


def carries(folder, contracts, file):
    """Check a part on a world of cells by all its contracts; True where it refuses such a world in words."""
    ((name, options),) = OmegaConf.to_container(OmegaConf.load(CONF / folder / file), resolve=True).items()
    world = column_world(grid="cells")
    try:
        part = built(options | GIVEN.get(name, {}), world)
    except ValueError as error:
        if "rows and columns" not in str(error):
            raise
        return True
    for contract in contracts:
        contract(part, world)
    return False


def test_losses_take_cells_or_say_why_not():
    files = sorted(path.name for path in (CONF / "loss").glob("*.yaml"))
    refused = {file for file in files if carries("loss", LOSS, file)}
    assert {"mse.yaml", "mae.yaml", "crps.yaml"} <= set(files) - refused
    assert "power_spectrum.yaml" in refused


def test_constraints_take_cells_or_say_why_not():
    files = sorted(path.name for path in (CONF / "constraint").glob("*.yaml"))
    refused = {file for file in files if carries("constraint", CONSTRAINT, file)}
    assert refused == {"shallow_water.yaml"}


def test_models_of_rows_refuse_cells_in_words():
    with pytest.raises(ValueError, match="rows and columns"):
        Linear(small_world("cells"), kernel=3)


def test_a_linear_model_on_cells_is_that_on_rows():
    """A map of each point by itself does not know how the points lie."""
    rows, cells = small_world("gaussian"), small_world("cells")
    torch.manual_seed(0)
    on_rows, on_cells = (Linear(world, kernel=1, bands=1) for world in (rows, cells))
    with torch.no_grad():
        on_cells.weight.normal_()
        on_rows.load_state_dict(on_cells.state_dict())
    fields = torch.randn(2, rows.input_channels, *rows.grid.shape)
    flat = torch.zeros(2, rows.input_channels, cells.grid.size)
    count = min(rows.grid.size, cells.grid.size)
    flat[..., :count] = fields.flatten(2)[..., :count]
    time = np.array(["2000-01-01"] * 2, dtype="datetime64[s]")
    made = on_cells(flat, time)
    assert made.shape == (2, cells.output_channels, cells.grid.size)
    torch.testing.assert_close(made[..., :count], on_rows(fields, time).flatten(2)[..., :count])


def test_a_world_of_cells_comes_back():
    world = small_world("cells")
    back = World.from_plain(world.plain())
    assert back.grid.same_as(world.grid)
    state = example_state(back, back.predicted, 0)
    assert state["temperature"].shape == (2, 2, world.grid.size)
    assert state["2m_temperature"].shape == (2, world.grid.size)
