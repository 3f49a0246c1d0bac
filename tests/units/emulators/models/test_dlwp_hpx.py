"""DLWP-HPX: turning with the planet, cells in either order, its memory, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from emulators.grid import equiangular_grid, unit_vectors
from emulators.grids.catalogue import named_grid
from emulators.models.dlwp_hpx import DLWPHEALPix
from emulators.variables import Variable, VariableSet
from emulators.world import World

TIME = torch.zeros(2, dtype=torch.int64)
SMALL = {"channels": [6, 4, 4], "dilation": [1, 2, 2]}


def world(grid: str = "healpix:8", history: int = 1) -> World:
    sets = {name: VariableSet((Variable(name, "", (1.0, 2.0)),)) for name in ("prognostic", "forcing")}
    return World(named_grid(grid), timestep=np.timedelta64(6, "h"), history=history, **sets)


def network(where: World, **changes) -> DLWPHEALPix:
    torch.manual_seed(0)
    return DLWPHEALPix(where, **{**SMALL, **changes}).eval()


def fields_of(where: World) -> torch.Tensor:
    return torch.randn(2, where.input_channels, where.grid.size, generator=torch.Generator().manual_seed(1))


def nearest(grid: str, degrees: float = 0.0, of: str = "") -> np.ndarray:
    """For each cell of a grid the one that is there before the planet turns east, in the order of another scheme."""
    (latitude, longitude), others = named_grid(grid).points, named_grid(of or grid).points
    distance, cell = cKDTree(unit_vectors(*others)).query(unit_vectors(latitude, longitude - degrees))
    assert distance.max() < 1e-9
    return cell


@pytest.mark.parametrize("grid", ["healpix:8", "healpix:8:nested"])
@pytest.mark.parametrize("block", ["convnext", "symmetric"])
def test_a_quarter_turn_of_the_planet_turns_the_answer(grid, block):
    where = world(grid, history=2)
    net, fields, turned = network(where, block=block), fields_of(where), nearest(grid, 90.0)
    with torch.no_grad():
        torch.testing.assert_close(net(fields[..., turned], TIME), net(fields, TIME)[..., turned])
        assert not torch.allclose(net(fields[..., turned], TIME), net(fields, TIME))


def test_the_order_of_cells_does_not_matter():
    ring, nested = world("healpix:8"), world("healpix:8:nested")
    fields, order = fields_of(ring), nearest("healpix:8:nested", of="healpix:8")
    with torch.no_grad():
        expected, got = network(ring)(fields, TIME), network(nested)(fields[..., order], TIME)
    torch.testing.assert_close(got, expected[..., order])


def test_information_crosses_the_poles_and_the_corners_of_three_faces():
    """The cells that the output at a pole and at such a corner depends on lie all around it."""
    where = world()
    net, points = network(where), unit_vectors(*where.grid.points)
    for latitude, longitude in ((90.0, 0.0), (-90.0, 0.0), (41.81, 0.0), (-41.81, 90.0)):
        place = unit_vectors(latitude, longitude)
        fields = fields_of(where).requires_grad_()
        net(fields, TIME)[0, :, np.argmax(points @ place)].sum().backward()
        assert torch.isfinite(fields.grad).all()
        reached = fields.grad[0].abs().sum(0).numpy() > 0
        assert reached[points @ place > np.cos(np.deg2rad(12.0))].all()


def test_states_before_the_last_pass_are_known_by_memory_alone():
    where = world(history=2)
    net, fields = network(where), fields_of(where)
    other = fields.clone()
    other[:, :2] += 1.0  # the earlier state
    with torch.no_grad():
        assert not torch.allclose(net(other, TIME), net(fields, TIME))
        for memory in net.memory:
            size = memory.candidate.out_channels
            memory.gates.weight[size:] = 0.0
            memory.gates.bias[size:] = -1e9  # never renewed
        assert torch.equal(net(other, TIME), net(fields, TIME))
        plain = network(world(), recurrent=False)
        plain.load_state_dict({name: value for name, value in net.state_dict().items() if "memory" not in name})
        torch.testing.assert_close(plain(fields[:, 2:], TIME), net(fields, TIME))


def test_a_pass_reads_as_many_states_as_it_is_told():
    where = world(history=4)
    sizes = {states: network(where, states=states).down[0].layers[0].in_channels for states in (1, 2, None)}
    assert sizes == {1: 4, 2: 6, None: 10}
    assert network(where, states=None, recurrent=False)(fields_of(where), TIME).shape == (2, 2, 768)
    for wrong in ({"states": 3}, {"states": 0}, {"states": 2, "recurrent": False}):
        with pytest.raises(ValueError, match=r"divide the history of 4.*got states="):
            network(where, **wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dilation": [1, 2]}, "one dilation"),
        ({"channels": []}, "one dilation"),
        ({"dilation": [1, 2, 4]}, "at least 1, 2, 4 cells on a side.*got 8, 4, 2.*healpix:16"),
        ({"channels": [4] * 5, "dilation": [1] * 5}, "5 levels halve.*got 8, 4, 2, 1, 0.5"),
        ({"block": "residual"}, "'convnext' or 'symmetric'; got 'residual'"),
    ],
)
def test_wrong_options_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        network(world(), **changes)


def test_rows_and_columns_are_refused():
    grid = equiangular_grid(8)
    with pytest.raises(ValueError, match=r"Expected a HEALPix grid.*got equiangular 16x8.*data=regridded"):
        DLWPHEALPix(World(grid, world().prognostic, np.timedelta64(6, "h")), **SMALL)


def test_caps_of_published_activations_are_left_out():
    from emulators.models.dlwp_hpx import adapted

    names = ["encoder.encoder.1.1.convblock.1.cap", "encoder.encoder.1.1.convblock.2.layers.1.bias"]
    assert list(adapted(dict.fromkeys(names, torch.ones(1)))) == ["down.1.layers.1.bias"]
