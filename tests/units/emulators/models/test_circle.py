"""The Gaussian grid of one row, the equator: what one-dimensional worlds live on."""

import numpy as np
import pytest
import torch

from emulators.grid import LatLonGrid, gaussian_grid
from emulators.layers.convolution import Edges
from emulators.models.linear import Linear
from emulators.models.unet import UNet
from emulators.statistics.area_means import region_weights
from emulators.variables import Variable, VariableSet
from emulators.world import World


@pytest.fixture(scope="module")
def circle():
    return gaussian_grid(1, 12)


def test_circle_has_equal_cells_around_the_equator(circle):
    assert circle.kind == "gaussian"
    assert circle.is_cyclic
    assert circle.latitude.tolist() == [0.0]
    np.testing.assert_allclose(circle.weights, np.ones((1, 12)), rtol=1e-14)
    np.testing.assert_array_equal(circle.latitude_bounds, [90.0, -90.0])
    assert region_weights(circle, ["global", "tropics", "europe"]).names == ("global", "tropics")


@pytest.mark.parametrize(("latitude", "width"), [(45.0, 360.0), (0.0, 90.0)])
def test_single_row_anywhere_else_is_refused(latitude, width):
    with pytest.raises(ValueError, match="one row goes around the equator"):
        LatLonGrid(np.array([latitude]), np.arange(12) * width / 12)


def test_circle_closes_along_longitude_and_has_no_poles_to_cross(circle):
    field = torch.arange(12.0).view(1, 1, 1, 12)
    padded = Edges(circle).pad(field, 1, 1, 2, 2)
    assert padded.shape == (1, 1, 3, 16)
    assert padded[0, 0, 1].tolist() == [10.0, 11.0, *range(12), 0.0, 1.0]
    assert (padded[0, 0, 0] == padded[0, 0, 1]).all()
    with pytest.raises(ValueError, match="several rows"):
        Edges(circle, "cross")


@pytest.mark.parametrize(
    "network", [lambda w: Linear(w, kernel=5), lambda w: UNet(w, channels=[8], blocks=1)], ids=["linear", "unet"]
)
def test_networks_commute_with_a_turn_of_the_circle(circle, network):
    torch.manual_seed(0)
    world = World(circle, VariableSet((Variable("slow_variable", "1"),)), np.timedelta64(6, "h"))
    net = network(world)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.uniform_(-0.5, 0.5)
        fields, time = torch.randn(2, 1, 1, 12), torch.zeros(2, dtype=torch.int64)
        whole, turned = net(fields, time), net(fields.roll(5, -1), time)
    torch.testing.assert_close(whole.roll(5, -1), turned, rtol=1e-5, atol=1e-5)
    assert whole.std() > 1e-3
