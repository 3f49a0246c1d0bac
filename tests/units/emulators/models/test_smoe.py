"""Spatial mixtures of experts: who is chosen, and what their weights learn."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from emulators.grid import equiangular_grid
from emulators.layers.convolution import Edges
from emulators.models.smoe import SpatialExperts, is_right, routing_labels

GRID = equiangular_grid(4)


def layer(**options) -> SpatialExperts:
    torch.manual_seed(0)
    return SpatialExperts(2, 3, 5, GRID.shape, Edges(GRID), **options)


def test_every_place_has_its_best_experts_in_order():
    net, x = layer(), torch.randn(2, 2, *GRID.shape)
    answers, y = net.experts(x), net(x)
    for lat, lon in ((0, 0), (3, 5)):
        best = net.gate[:, lat, lon].argsort(descending=True)[:3]
        torch.testing.assert_close(y[:, :, lat, lon], answers[:, best, lat, lon] * net.gate[best, lat, lon])


def test_without_labels_and_damping_it_is_differentiated_as_it_is_written():
    net, x = layer(routing="gradient", damping=False), torch.randn(2, 2, *GRID.shape)
    slopes = torch.randn(2, 3, *GRID.shape)
    found = torch.autograd.grad((net(x) * slopes).sum(), list(net.parameters()))
    weights, index = net.gate.topk(3, dim=0)
    plain = net.experts(x).gather(1, index.expand(2, -1, -1, -1)) * weights
    for got, expected in zip(found, torch.autograd.grad((plain * slopes).sum(), list(net.parameters())), strict=True):
        torch.testing.assert_close(got, expected)


def test_weights_learn_to_choose_who_was_right():
    net, x = layer(right=0.6), torch.randn(2, 2, *GRID.shape)
    slopes = torch.randn(2, 3, *GRID.shape)
    (net(x) * slopes).sum().backward()
    index = net.gate.topk(3, dim=0).indices.expand(2, -1, -1, -1)
    right = is_right(slopes * net.experts(x).gather(1, index), 0.6, 1e-5).detach()
    assert float(right.mean()) == pytest.approx(0.6, abs=0.02)
    labels = routing_labels(right, index, 5)
    torch.testing.assert_close(labels.sum(1), torch.full((2, *GRID.shape), 3.0))
    loss = F.binary_cross_entropy_with_logits(net.gate.expand(2, -1, -1, -1), labels)
    torch.testing.assert_close(net.gate.grad, torch.autograd.grad(loss, net.gate)[0])


def test_too_few_experts():
    with pytest.raises(ValueError, match="more experts than the 3"):
        SpatialExperts(2, 3, 3, GRID.shape, Edges(GRID))
