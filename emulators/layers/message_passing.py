"""Message passing along the edges of a graph: what edges read of their nodes, and what nodes receive from their edges.

    e' = norm(W2 f(W_e e + W_s x[sender] + W_r y[receiver] + b1) + b2)
    y' = norm(W2 f(W_y y + W_m sum over incoming edges of e' + b1) + b2)

The maps W_s and W_r of nodes are applied before nodes are gathered to edges, which are several times as many. Edges lie
in the order of their receivers, so that sums are over segments of consecutive rows; the gradient of a gather is such a
sum in the order of senders. All sums are made in a fixed order and in single precision at least, so that results are
the same at every run and in every division of a batch. Interaction networks: Battaglia et al. 2016, arXiv
1612.00222; as in Sanchez-Gonzalez et al. 2020, arXiv 2002.09405.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from emulators.layers.conditioned_norms import recomputed
from emulators.meshes.edges import Edges

Activation = Callable[[Tensor], Tensor]
Norm = Callable[[int], nn.Module]


class Graph(nn.Module):
    """Hold edges as tables for gathers and sums, and the features of each edge, (1, edge, feature).

    features: float32 (edge, feature); default, none. chunks: portions of receivers, with all edges of each, in which
    edges are updated to save memory.
    """

    senders: Tensor
    receivers: Tensor
    by_sender: Tensor
    by_receiver: Tensor
    sender_offsets: Tensor
    receiver_offsets: Tensor
    features: Tensor

    def __init__(self, edges: Edges, features: np.ndarray | None = None, chunks: int = 1) -> None:
        super().__init__()
        self.sender_count, self.receiver_count, self.size = edges.sender_count, edges.receiver_count, len(edges)
        edge_features = np.zeros((len(edges), 0), np.float32) if features is None else features
        tables = {
            "senders": edges.senders,
            "receivers": edges.receivers,
            "by_sender": np.argsort(edges.senders, kind="stable"),
            "by_receiver": np.arange(len(edges)),
            "sender_offsets": _offsets(edges.senders, edges.sender_count),
            "receiver_offsets": _offsets(edges.receivers, edges.receiver_count),
            "features": edge_features[None],
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.as_tensor(table), persistent=False)
        self.bounds, self.cuts = [0, edges.receiver_count], [0, len(edges)]
        self.portions = nn.ModuleList()
        if chunks > 1:
            self.bounds = np.linspace(0, edges.receiver_count, chunks + 1).astype(int).tolist()
            self.cuts = tables["receiver_offsets"][self.bounds].tolist()
            for first, last, start, stop in zip(
                self.bounds[:-1], self.bounds[1:], self.cuts[:-1], self.cuts[1:], strict=True
            ):
                cut = slice(start, stop)
                portion = Edges(edges.senders[cut], edges.receivers[cut] - first, edges.sender_count, last - first)
                self.portions.append(Graph(portion))

    def read(self, edges: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """Return edges + senders + receivers at each edge, (batch, edge, channel); a batch of one is that of all."""
        return _Read.apply(
            edges,
            senders,
            receivers,
            self.senders,
            self.receivers,
            self.by_sender,
            self.by_receiver,
            self.sender_offsets,
            self.receiver_offsets,
        )

    def gathered(self, receivers: Tensor) -> Tensor:
        """Return the receiver of each edge, (batch, edge, channel), from (batch, node, channel)."""
        return _Gather.apply(receivers, self.receivers, self.by_receiver, self.receiver_offsets)

    def sent(self, senders: Tensor) -> Tensor:
        """Return the sender of each edge, (batch, edge, channel), from (batch, node, channel)."""
        return _Gather.apply(senders, self.senders, self.by_sender, self.sender_offsets)

    def softmax(self, scores: Tensor) -> Tensor:
        """Return scores (batch, edge, head) as shares that sum to one over the incoming edges of each receiver."""
        return _Softmax.apply(scores.float(), self.receivers, self.by_receiver, self.receiver_offsets)

    def products(self, receivers: Tensor, senders: Tensor, heads: int) -> Tensor:
        """Return the scalar product of receiver and sender of each edge, head by head, (batch, edge, head)."""
        return _Products.apply(receivers, senders, heads, *self._tables())

    def mixed(self, shares: Tensor, senders: Tensor) -> Tensor:
        """Return the sum of senders, each times the share (batch, edge, head) of its edge, (batch, node, channel)."""
        return _Mixed.apply(shares, senders, *self._tables())

    def _tables(self) -> tuple[Tensor, ...]:
        sides = (self.senders, self.by_sender, self.sender_offsets)
        return (*sides, self.receivers, self.by_receiver, self.receiver_offsets)

    def summed(self, edges: Tensor) -> Tensor:
        """Return the sum of the incoming edges of each receiver, (batch, node, channel), at least in float32."""
        wide = edges if edges.dtype == torch.float64 else edges.float()
        return _SegmentSum.apply(wide, self.receivers, self.by_receiver, self.receiver_offsets)


def _offsets(index: np.ndarray, count: int) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(np.bincount(index, minlength=count))]).astype(np.int64)


def _rows(nodes: Tensor, index: Tensor) -> Tensor:
    """Take rows (batch, index, channel) of nodes (batch, node, channel)."""
    start = nodes.shape[1] * torch.arange(len(nodes), device=nodes.device)[:, None]
    return nodes.flatten(0, 1).index_select(0, (start + index).flatten()).unflatten(0, (len(nodes), -1))


def _sums(rows: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
    """Sum rows (batch, edge, channel), taken in an order, between consecutive offsets, (batch, node, channel)."""
    batch, edges, channels = rows.shape
    start = edges * torch.arange(batch, device=rows.device)[:, None]
    bounds = torch.cat([(start + offsets[:-1]).flatten(), start.new_full((1,), batch * edges)])
    places = (start + order).flatten()
    bags = torch.embedding_bag(rows.reshape(-1, channels), places, bounds, False, 0, False, None, True)[0]
    return bags.unflatten(0, (batch, -1))


def _of_batch(gradient: Tensor, batch: int) -> Tensor:
    """Return the gradient of what was given for a batch, or once for all."""
    return gradient if len(gradient) == batch else gradient.sum(0, keepdim=True)


class _Gather(torch.autograd.Function):
    """Gather rows of nodes by index; the gradient of a node is the sum over its edges."""

    @staticmethod
    def forward(ctx, nodes: Tensor, index: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(order, offsets)
        return _rows(nodes, index)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        order, offsets = ctx.saved_tensors
        return _sums(gradient, order, offsets), None, None, None


class _SegmentSum(torch.autograd.Function):
    """Sum over segments of consecutive rows; the gradient of a row is that of its sum."""

    @staticmethod
    def forward(ctx, rows: Tensor, index: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
        ctx.save_for_backward(index)
        return _sums(rows, order, offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        return _rows(gradient, index), None, None, None


def _weighted(rows: Tensor, weights: Tensor) -> Tensor:
    """Multiply rows (batch, edge, channel) in place by weights (batch, edge, head)."""
    rows.unflatten(-1, (weights.shape[-1], -1)).mul_(weights[..., None].to(rows.dtype))
    return rows


def _headwise(left: Tensor, right: Tensor, heads: int) -> Tensor:
    """Return scalar products of rows by head, (batch, edge, head), in single precision; `left` is written over."""
    return left.mul_(right).unflatten(-1, (heads, -1)).sum(-1, dtype=torch.float32)


class _Products(torch.autograd.Function):
    """Compute scalar products of nodes at the two ends of edges, which are gathered again for the gradient."""

    @staticmethod
    def forward(ctx, receivers: Tensor, senders: Tensor, heads: int, *tables: Tensor) -> Tensor:
        ctx.save_for_backward(receivers, senders, *tables)
        return _headwise(_rows(receivers, tables[3]), _rows(senders, tables[0]), heads)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        receivers, senders, *tables = ctx.saved_tensors
        of_receivers = _sums(_weighted(_rows(senders, tables[0]), gradient), *tables[4:])
        of_senders = _sums(_weighted(_rows(receivers, tables[3]), gradient), *tables[1:3])
        return of_receivers, of_senders, *[None] * 7


class _Mixed(torch.autograd.Function):
    """Compute weighted sums of senders at receivers; senders are gathered again for the gradient."""

    @staticmethod
    def forward(ctx, shares: Tensor, senders: Tensor, *tables: Tensor) -> Tensor:
        ctx.save_for_backward(shares, senders, *tables)
        return _sums(_weighted(_rows(senders, tables[0]).float(), shares), *tables[4:])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        shares, senders, *tables = ctx.saved_tensors
        of_edges = _rows(gradient, tables[3])
        of_senders = _sums(_weighted(of_edges.clone(), shares), *tables[1:3]).to(senders.dtype)
        of_shares = _headwise(of_edges, _rows(senders, tables[0]), shares.shape[-1])
        return of_shares, of_senders, *[None] * 6


class _Softmax(torch.autograd.Function):
    """Compute exponentials as shares of their sum over a segment."""

    @staticmethod
    def forward(ctx, scores: Tensor, index: Tensor, order: Tensor, offsets: Tensor) -> Tensor:
        by_edge = scores.transpose(0, 1).contiguous()
        largest = torch.segment_reduce(by_edge, "max", offsets=offsets, axis=0).transpose(0, 1)
        shares = (scores - _rows(largest.contiguous(), index)).exp_()
        shares /= _rows(_sums(shares, order, offsets), index)
        ctx.save_for_backward(shares, index, order, offsets)
        return shares

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        shares, index, order, offsets = ctx.saved_tensors
        weighted = gradient * shares
        return weighted - shares * _rows(_sums(weighted, order, offsets), index), None, None, None


class _Read(torch.autograd.Function):
    """Compute edge + sender + receiver without storing gathered senders and receivers."""

    @staticmethod
    def forward(
        ctx,
        edges: Tensor,
        senders: Tensor,
        receivers: Tensor,
        sender_index: Tensor,
        receiver_index: Tensor,
        by_sender: Tensor,
        by_receiver: Tensor,
        sender_offsets: Tensor,
        receiver_offsets: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(by_sender, by_receiver, sender_offsets, receiver_offsets)
        ctx.batches = len(edges), len(senders), len(receivers)
        sent, received = _rows(senders, sender_index), _rows(receivers, receiver_index)
        if len(sent) < len(received):
            sent, received = received, sent
        if len(sent) < len(edges):
            return edges + sent + received
        return sent.add_(received).add_(edges)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_sender, by_receiver, sender_offsets, receiver_offsets = ctx.saved_tensors
        of_edges, of_senders, of_receivers = (_of_batch(gradient, batch) for batch in ctx.batches)
        senders = _sums(of_senders, by_sender, sender_offsets)
        receivers = _sums(of_receivers, by_receiver, receiver_offsets)
        return of_edges, senders, receivers, *[None] * 6


class Update(nn.Module):
    """Apply an MLP to the concatenation of several parts, each with its own first map, and a norm.

    sizes: channels of the parts. hidden, layers: channels and number of hidden layers. out: channels that come out.
    norm: makes the norm that ends it; None for none. activation: after each hidden layer.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        hidden: int,
        out: int,
        *,
        layers: int = 1,
        norm: Norm | None = nn.LayerNorm,
        activation: Activation = F.silu,
    ) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Linear(size, hidden, bias=n == 0) for n, size in enumerate(sizes))
        self.hidden = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers - 1))
        self.out = nn.Linear(hidden, out)
        self.norm = nn.Identity() if norm is None else norm(out)
        self.activation = activation
        bound = 1.0 / math.sqrt(sum(sizes))  # as of one map of all parts
        for parameter in self.parts.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, *parts: Tensor) -> Tensor:
        first, *others = (linear(part) for linear, part in zip(self.parts, parts, strict=True))
        for term in others:
            first = first + term
        return self.finished(first)

    def finished(self, first: Tensor) -> Tensor:
        """Return what follows the sum of the first maps."""
        for linear in self.hidden:
            first = linear(self.activation(first))
        return self.norm(self.out(self.activation(first)))


class Interaction(nn.Module):
    """Pass messages once along the edges of a graph: edges are updated from nodes, then receivers from their edges.

        m = update(edge, sender, receiver),   edge + m,   receiver + update(receiver, sum of m)

    edge, node: channels of edges, and of senders and receivers. message: of what edges tell; default, as of edges.
    reads_receivers: whether edges read these too. divisor: of the sums. options: of Update.
    """

    def __init__(
        self,
        edge: int,
        node: int,
        hidden: int,
        *,
        message: int | None = None,
        reads_receivers: bool = True,
        divisor: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__()
        width, ends = message or edge, 1 + reads_receivers
        self.edges = Update((edge, *[node] * ends), hidden, width, **options)
        self.nodes = Update((node, width), hidden, node, **options)
        self.divisor = divisor

    def forward(self, graph: Graph, edges: Tensor, senders: Tensor, receivers: Tensor) -> tuple[Tensor, Tensor]:
        """Return edges (batch, edge, channel) and receivers (batch, node, channel), updated.

        Each of the three may have a batch of one, where it is the same for all cases.
        """
        messages, sums = self.messages(graph, edges, senders, receivers)
        return edges + messages, receivers + self.nodes(receivers, sums)

    def received(self, graph: Graph, edges: Tensor, senders: Tensor, receivers: Tensor) -> Tensor:
        """Return the updated receivers alone."""
        return receivers + self.nodes(receivers, self.messages(graph, edges, senders, receivers)[1])

    def messages(self, graph: Graph, edges: Tensor, senders: Tensor, receivers: Tensor) -> tuple[Tensor, Tensor]:
        """Return the message of each edge, and the sums that receivers receive."""
        of_edges, of_senders, *of_receivers = self.edges.parts
        senders = of_senders(senders)
        read = of_receivers[0](receivers) if of_receivers else None
        if not graph.portions:
            return self._portion(graph, of_edges(edges), senders, read)
        outputs = []
        for number, portion in enumerate(graph.portions):
            cut = slice(*graph.cuts[number : number + 2])
            to = slice(*graph.bounds[number : number + 2])
            inputs = edges[:, cut], senders, None if read is None else read[:, to]
            outputs.append(recomputed(self, self._of_portion, portion, *inputs))
        messages, sums = zip(*outputs, strict=True)
        return torch.cat(messages, dim=1), torch.cat(sums, dim=1)

    def _of_portion(self, graph: Graph, edges: Tensor, senders: Tensor, receivers: Any) -> tuple[Tensor, Tensor]:
        return self._portion(graph, self.edges.parts[0](edges), senders, receivers)

    def _portion(self, graph: Graph, edges: Tensor, senders: Tensor, receivers: Any) -> tuple[Tensor, Tensor]:
        first = edges + graph.sent(senders) if receivers is None else graph.read(edges, senders, receivers)
        messages = self.edges.finished(first)
        sums = graph.summed(messages)
        return messages, sums if self.divisor == 1.0 else sums / self.divisor
