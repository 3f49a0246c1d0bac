"""Gathers, sums and message passing against dense products; portions; half precision."""

from __future__ import annotations

import pytest
import torch

from emulators.layers.message_passing import Graph, Interaction
from emulators.meshes.edges import Edges


@pytest.fixture
def edges():
    generator = torch.Generator().manual_seed(0)
    senders, receivers = (torch.randint(0, n, (40,), generator=generator).numpy() for n in (7, 5))
    return Edges.of(senders, receivers, 7, 6)  # the last node receives nothing


def dense(index: torch.Tensor, count: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(index, count).double()


def same(mine, theirs, inputs) -> None:
    torch.testing.assert_close(mine, theirs)
    weight = torch.randn(mine.shape, dtype=mine.dtype)
    for a, b in zip(*(torch.autograd.grad((out * weight).sum(), inputs) for out in (mine, theirs)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("batches", [(2, 2, 2), (1, 2, 2), (2, 1, 2), (2, 2, 1), (1, 1, 2), (2, 1, 1)])
def test_reading(edges, batches):
    graph = Graph(edges)
    e, s, r = (
        torch.randn(batch, n, 3, dtype=torch.float64, requires_grad=True)
        for batch, n in zip(batches, (40, 7, 6), strict=True)
    )
    same(graph.read(e, s, r), e + dense(graph.senders, 7) @ s + dense(graph.receivers, 6) @ r, (e, s, r))


def test_gathers_and_sums(edges):
    graph = Graph(edges)
    nodes, e = (torch.randn(2, n, 3, dtype=torch.float64, requires_grad=True) for n in (6, 40))
    same(graph.gathered(nodes), dense(graph.receivers, 6) @ nodes, (nodes,))
    same(graph.summed(e), dense(graph.receivers, 6).mT @ e, (e,))
    assert (graph.summed(e)[:, 5] == 0).all()


def test_attention_products(edges):
    """Products by head, shares and sums against dense attention; a node without edges hears nothing."""
    graph = Graph(edges)
    q, k, v = (torch.randn(2, n, 6, requires_grad=True) for n in (6, 7, 7))
    at_senders, at_receivers = (dense(i, n).float() for i, n in ((graph.senders, 7), (graph.receivers, 6)))

    def scores():
        return ((at_receivers @ q) * (at_senders @ k)).unflatten(-1, (2, 3)).sum(-1)

    def shares():
        return scores().exp() / (at_receivers @ (at_receivers.mT @ scores().exp()))

    def heard():
        return at_receivers.mT @ ((at_senders @ v).unflatten(-1, (2, 3)) * shares()[..., None]).flatten(2)

    same(graph.products(q, k, 2), scores(), (q, k))
    same(graph.softmax(scores()), shares(), (q, k))
    same(graph.mixed(graph.softmax(scores()), v), heard(), (q, k, v))


def test_portions_change_nothing(edges):
    torch.manual_seed(0)
    interaction = Interaction(4, 3, 8)
    e, s, r = (torch.randn(2, n, c, requires_grad=True) for n, c in ((40, 4), (7, 3), (6, 3)))
    whole, portions = (interaction(Graph(edges, chunks=chunks), e, s, r) for chunks in (1, 4))
    same(*(torch.cat([out.flatten() for out in both]) for both in (portions, whole)), (e, s, r))


def test_sums_are_in_single_precision(edges):
    graph, many = Graph(edges), torch.full((1, 40, 1), 1.0, dtype=torch.bfloat16)
    assert graph.summed(many).dtype == torch.float32
    assert graph.summed(many).sum() == 40
