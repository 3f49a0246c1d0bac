"""Neighbourhoods against powers of the adjacency matrix, attention against dense attention, conditioned norms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from emulators.layers.attention.neighbourhood_attention import (
    MeshTransformer,
    NeighbourhoodAttention,
    Neighbours,
    compact_blocks,
    neighbourhoods,
)
from emulators.layers.conditioned_norms import ConditionedNorm, tell
from emulators.meshes.icosahedra import icosahedra


def within(level: int, hops: int) -> np.ndarray:
    """Which node is within so many edges of which."""
    edges, nodes = icosahedra(level)[-1].edges, 10 * 4**level + 2
    step = np.eye(nodes)
    step[edges.receivers, edges.senders] = 1.0
    return np.linalg.matrix_power(step, hops) > 0


@pytest.mark.parametrize(("level", "hops"), [(0, 1), (1, 2), (2, 1), (2, 3), (3, 4), (2, 30)])
def test_neighbourhoods_are_those_of_the_graph(level, hops):
    found, expected = neighbourhoods(level, hops), within(level, hops)
    got = np.zeros_like(expected)
    for queries, keys, allowed in zip(found.queries, found.keys, found.allowed, strict=True):
        for query, row in zip(queries, allowed, strict=True):
            assert len(set(keys[row])) == row.sum()
            got[query, keys[row]] = True
    np.testing.assert_array_equal(got, expected)
    np.testing.assert_array_equal(found.queries.reshape(-1)[found.place], np.arange(len(expected)))


def test_blocks_are_compact_and_even():
    nodes = icosahedra(4)[-1].nodes
    blocks = compact_blocks(nodes, 40)
    assert {len(block) for block in blocks} == {64, 65}
    np.testing.assert_array_equal(np.sort(np.concatenate(blocks)), np.arange(len(nodes)))
    radius = max(np.linalg.norm(nodes[b] - nodes[b].mean(0), axis=1).max() for b in blocks)
    assert radius < 3.0 * np.sqrt(4.0 / 40)  # of a disc of the same area: sqrt(4 / 40)


def test_published_neighbourhoods():
    """3 h (h + 1) + 1 nodes away from the twelve nodes of five neighbours, where there are fewer."""
    sizes = neighbourhoods(4, 8).allowed.sum(-1)
    assert (sizes.max(), sizes.min()) == (217, 1 + 5 * 36)
    with pytest.raises(ValueError, match="at least 1"):
        neighbourhoods(2, 0)


@pytest.mark.parametrize("hops", [3, 30])
def test_attention_is_dense_attention_of_what_is_near(hops):
    torch.manual_seed(0)
    layer, neighbours = NeighbourhoodAttention(8, 2).double(), Neighbours(2, hops)
    x = torch.randn(3, 162, 8, dtype=torch.float64, requires_grad=True)
    q, k, v = (part(x).unflatten(-1, (2, 4)).transpose(1, 2) for part in (layer.q, layer.k, layer.v))
    scores = (q @ k.mT / 2.0).masked_fill(~torch.as_tensor(within(2, hops)), -torch.inf)
    expected = layer.projection((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))
    got = layer(x, neighbours)
    torch.testing.assert_close(got, expected)
    slopes = torch.randn_like(expected)
    ways = (torch.autograd.grad((out * slopes).sum(), [x, *layer.parameters()]) for out in (got, expected))
    for mine, theirs in zip(*ways, strict=True):
        torch.testing.assert_close(mine, theirs)


def transformed(net: MeshTransformer, x: torch.Tensor, precision: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """What comes out, and its gradients."""
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        out = net(x)
    return [out.detach(), *torch.autograd.grad(out.float().square().sum(), [x, *net.parameters()])]


@pytest.fixture
def transformer():
    torch.manual_seed(0)
    net = MeshTransformer(2, 16, layers=2, heads=4, hidden=32, hops=4)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net


def test_transformer_repeats_bit_by_bit_and_when_computed_again(transformer):
    x = torch.randn(2, 162, 16)
    first = transformed(transformer, x)
    assert all(torch.equal(a, b) for a, b in zip(first, transformed(transformer, x), strict=True))
    transformer.recompute = True
    for a, b in zip(first, transformed(transformer, x), strict=True):
        torch.testing.assert_close(a, b)


def test_transformer_bears_half_precision(transformer):
    x = torch.randn(2, 162, 16)
    ways = transformed(transformer, x), transformed(transformer, x, torch.bfloat16)
    for single, half in zip(*ways, strict=True):
        assert (half.float() - single).norm() < 0.03 * single.norm()


def test_conditioned_norms():
    torch.manual_seed(0)
    norm = ConditionedNorm(6, 3)
    with pytest.raises(RuntimeError, match="tell"):
        norm(torch.ones(1, 2, 6))
    x, told = torch.randn(1, 5, 6), torch.randn(4, 3)
    plain = torch.nn.functional.layer_norm(x, (6,))
    tell(norm, told)
    torch.testing.assert_close(norm(x), plain.expand(4, -1, -1), atol=1e-6, rtol=1e-6)  # at first
    torch.nn.init.normal_(norm.linear.weight)
    torch.nn.init.normal_(norm.linear.bias)
    scale, shift = (told @ norm.linear.weight.mT + norm.linear.bias)[:, None].chunk(2, -1)
    torch.testing.assert_close(norm(x), plain * (1.0 + scale) + shift)
