"""Neighbourhoods on an icosahedral mesh: the nodes that are within a number of edges of each node, in dense blocks.

Nodes are divided into compact blocks of about equal size. All nodes of a block share one list of keys, which holds the
neighbours of any of them, and a mask tells which node has which. As a neighbourhood of h edges has 3 h (h + 1) + 1
nodes and neighbours share most of theirs, lists are about twice as long as they must be from 16 hops on, and four
times for 4 hops.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from emulators.meshes.icosahedra import TriangleMesh, icosahedra

SMALLEST, ALIGNED, WORD = 64, 8, 64  # nodes of a block; keys come in multiples; bits of a word


@dataclass(frozen=True, eq=False)
class Neighbourhoods:
    """Hold the nodes of each block, (block, query), what they may read, (block, key), and which of it each node does.

    allowed: (block, query, key). Rows that are shorter than others are filled with their last node, which is read
    nowhere; place: where each node stands among the flattened queries, (node,).
    """

    queries: np.ndarray
    keys: np.ndarray
    allowed: np.ndarray
    place: np.ndarray


@lru_cache(maxsize=8)
def neighbourhoods(level: int, hops: int) -> Neighbourhoods:
    """Return the neighbourhoods of the nodes of a mesh level, each in its own. ValueError for less than one hop."""
    if hops < 1:
        raise ValueError(f"Expected hops of at least 1, the edges to the furthest node of a neighbourhood; got {hops}.")
    mesh = icosahedra(level)[-1]
    nodes, neighbours = len(mesh.nodes), adjacent(mesh)
    blocks = compact_blocks(mesh.nodes, math.ceil(nodes / max(SMALLEST, hops * hops // 3)))
    lists = [_block(block, neighbours, hops) for block in blocks]
    width = max(map(len, blocks))
    length = -(-max(len(keys) for keys, _ in lists) // ALIGNED) * ALIGNED
    allowed = np.zeros((len(blocks), width, length), dtype=bool)
    for number, (keys, within) in enumerate(lists):
        allowed[number, : within.shape[0], : len(keys)] = within
        allowed[number, within.shape[0] :, : len(keys)] = within[-1]
    queries, keys = _filled(blocks, width), _filled([keys for keys, _ in lists], length)
    place = np.empty(nodes, dtype=np.int64)
    for number, block in enumerate(blocks):
        place[block] = number * width + np.arange(len(block))
    return Neighbourhoods(queries, keys, allowed, place)


def adjacent(mesh: TriangleMesh) -> np.ndarray:
    """Return the neighbours of each node, (node, 6); in place of the sixth, where there are five, the node itself."""
    edges = mesh.edges
    table = np.repeat(np.arange(len(mesh.nodes))[:, None], 6, axis=1)
    first = np.searchsorted(edges.receivers, np.arange(len(mesh.nodes)))
    table[edges.receivers, np.arange(len(edges)) - first[edges.receivers]] = edges.senders
    return table


def compact_blocks(points: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the points (point, 3) in `count` blocks whose sizes differ by no more than one, each compact.

    They are divided in two along their widest axis, and so on.
    """

    def divided(some: np.ndarray, parts: int) -> list[np.ndarray]:
        if parts == 1:
            return [np.sort(some)]
        axis = points[some].std(axis=0).round(9).argmax()
        ordered = some[np.lexsort((some, points[some, axis].round(9)))]
        cut = len(some) * (parts // 2) // parts
        return divided(ordered[:cut], parts // 2) + divided(ordered[cut:], parts - parts // 2)

    return divided(np.arange(len(points)), count)


def _block(block: np.ndarray, neighbours: np.ndarray, hops: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes within `hops` edges of any node of a block, and of each node, (query, key)."""
    reached, latest = np.zeros(len(neighbours), dtype=bool), block
    reached[block] = True
    for _ in range(hops):
        around = neighbours[latest].reshape(-1)
        latest = np.unique(around[~reached[around]])
        reached[latest] = True
    keys = np.flatnonzero(reached)
    local = np.full(len(neighbours), -1)
    local[keys] = np.arange(len(keys))
    near = local[neighbours[keys]]
    near = np.where(near < 0, np.arange(len(keys))[:, None], near).T.copy()  # less what no node of the block reaches
    number = np.arange(len(block))
    bit = np.uint64(1) << (number % WORD).astype(np.uint64)  # of each node of the block
    words = np.zeros((-(-len(block) // WORD), len(keys)), dtype=np.uint64)  # which of them each key is near to
    words[number // WORD, local[block]] = bit
    for _ in range(hops):
        before = words.copy()
        for column in near:
            words |= before.take(column, axis=1)
    return keys, np.stack([words[n // WORD] & bit[n] != 0 for n in number])


def _filled(rows: list[np.ndarray], length: int) -> np.ndarray:
    return np.stack([np.concatenate([row, np.repeat(row[-1:], length - len(row))]) for row in rows])
