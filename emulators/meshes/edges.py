"""Edges between nodes on the sphere, and what a network is told of their geometry.

Nodes are unit vectors. Edges are kept in the order of their receivers, then senders, so that what a node receives is
one segment. What is told of an edge is its length and direction in the receiver's own frame of up, east and north,
divided by the length of the longest edge (Lam et al. 2023, doi 10.1126/science.adi2336).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TypeVar

import numpy as np
from scipy.spatial import cKDTree

Result = TypeVar("Result")
REMEMBERED = 64  # results of one function


@dataclass(frozen=True, eq=False)
class Edges:
    """Hold directed edges in the order of their receivers. senders, receivers: int64 (edge,); counts: of the nodes."""

    senders: np.ndarray
    receivers: np.ndarray
    sender_count: int
    receiver_count: int

    @classmethod
    def of(cls, senders: np.ndarray, receivers: np.ndarray, sender_count: int, receiver_count: int) -> Edges:
        """Return the edges in order."""
        order = np.lexsort((senders, receivers))
        return cls(
            np.asarray(senders, dtype=np.int64)[order],
            np.asarray(receivers, dtype=np.int64)[order],
            sender_count,
            receiver_count,
        )

    def __len__(self) -> int:
        return len(self.senders)

    @property
    def reversed(self) -> Edges:
        """The same edges in the other direction."""
        return Edges.of(self.receivers, self.senders, self.receiver_count, self.sender_count)


def cached_by_arrays(function: Callable[..., Result]) -> Callable[..., Result]:
    """Let a function of arrays and numbers remember its results in this process."""
    results: dict[tuple, Result] = {}

    @wraps(function)
    def remembering(*args: object) -> Result:
        key = tuple(
            (a.shape, str(a.dtype), hashlib.blake2b(a.tobytes()).digest()) if isinstance(a, np.ndarray) else a
            for a in args
        )
        if key not in results:
            if len(results) >= REMEMBERED:
                del results[next(iter(results))]
            results[key] = function(*args)
        return results[key]

    return remembering


@cached_by_arrays
def within_radius(senders: np.ndarray, receivers: np.ndarray, radius: float) -> Edges:
    """Return an edge from every sender to every receiver that is no further away than `radius`, a chord in radii."""
    near = cKDTree(receivers).query_ball_point(senders, radius, return_sorted=True)
    counts = np.array([len(indices) for indices in near])
    neighbours = np.concatenate([np.asarray(indices, dtype=np.int64) for indices in near])
    return Edges.of(np.repeat(np.arange(len(senders)), counts), neighbours, len(senders), len(receivers))


@cached_by_arrays
def nearest(senders: np.ndarray, receivers: np.ndarray, count: int) -> Edges:
    """Return edges to every receiver from the `count` senders nearest to it. Raises ValueError for too few senders."""
    if not 1 <= count <= len(senders):
        raise ValueError(f"Expected 1 to {len(senders)} nearest nodes, as many as there are; got {count}.")
    near = cKDTree(senders).query(receivers, k=count)[1].reshape(-1)
    return Edges.of(near, np.repeat(np.arange(len(receivers)), count), len(senders), len(receivers))


def position_features(nodes: np.ndarray) -> np.ndarray:
    """Return sine of latitude, cosine and sine of longitude of nodes, float32 (node, 3)."""
    phi = np.arctan2(nodes[:, 1], nodes[:, 0])
    return np.stack([nodes[:, 2], np.cos(phi), np.sin(phi)], axis=-1).astype(np.float32)


def edge_features(edges: Edges, senders: np.ndarray, receivers: np.ndarray, longest: float | None = None) -> np.ndarray:
    """Return length, and offset up, east and north of each edge, float32 (edge, 4).

    senders, receivers: nodes as unit vectors. longest: length that all are divided by; default, that of the longest.
    """
    phi = np.arctan2(receivers[:, 1], receivers[:, 0])
    east = np.stack([-np.sin(phi), np.cos(phi), np.zeros_like(phi)], axis=-1)
    frame = np.stack([receivers, east, np.cross(receivers, east)], axis=1)
    offset = senders[edges.senders] - receivers[edges.receivers]
    local = np.einsum("eij,ej->ei", frame[edges.receivers], offset)
    length = np.linalg.norm(local, axis=-1, keepdims=True)
    return (np.concatenate([length, local], axis=-1) / (longest or length.max())).astype(np.float32)


def direction_features(edges: Edges, senders: np.ndarray, receivers: np.ndarray) -> np.ndarray:
    """Return angle and direction of each edge as AIFS has them, float32 (edge, 3): each divided by its deviation.

    The direction is that in which the sender lies once the shortest turn has brought the receiver to the north pole.
    """
    sent, received = senders[edges.senders], receivers[edges.receivers]
    angle = 2.0 * np.arcsin(np.clip(0.5 * np.linalg.norm(sent - received, axis=-1), 0.0, 1.0))
    phi = np.arctan2(received[:, 1], received[:, 0])
    east = np.stack([-np.sin(phi), np.cos(phi), np.zeros_like(phi)], axis=-1)
    along = [(sent * to).sum(-1) for to in (east, np.cross(received, east))]
    turned = np.stack(
        [-along[0] * np.sin(phi) - along[1] * np.cos(phi), along[0] * np.cos(phi) - along[1] * np.sin(phi)], axis=-1
    )
    turned /= np.maximum(np.linalg.norm(turned, axis=-1, keepdims=True), 1e-8)
    features = [angle[:, None], turned]
    return np.concatenate([feature / (feature.std(ddof=1) or 1.0) for feature in features], axis=-1).astype(np.float32)
