"""Pairs of what is alike to clusters: who stays of each, and over whom each of the others is tied to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Clusters:
    """By node: the node that ``stays`` of its cluster (itself, if it is that one or alike to none), the neighbour ``via``
    which it is tied to it by the fewest steps, and how ``like`` that neighbour it is."""

    stays: Ints
    via: Ints
    like: Floats


def clusters(num_nodes: int, one: Ints, other: Ints, like: Floats) -> Clusters:
    """The connected components of a graph whose nodes stand in order: the first of a component stays.

    ``one``, ``other`` [edges] are the ends of each edge, once, in any order; so is the result the same for all orders.

    >>> clusters(4, np.array([3, 1]), np.array([1, 2]), np.array([0.9, 0.8])).stays.tolist()
    [0, 1, 1, 1]
    """
    starts, ends, likes = _neighbours(num_nodes, one, other, like)
    stays, via, found = np.full(num_nodes, -1), np.arange(num_nodes), np.ones(num_nodes)
    for start in range(num_nodes):
        if stays[start] >= 0:
            continue
        stays[start] = start
        queue = deque([start])
        while queue:
            node = queue.popleft()
            for place in range(starts[node], starts[node + 1]):
                neighbour = ends[place]
                if stays[neighbour] < 0:
                    stays[neighbour], via[neighbour], found[neighbour] = start, node, likes[place]
                    queue.append(neighbour)
    return Clusters(stays, via, found)


def _neighbours(
    num_nodes: int, one: Ints, other: Ints, like: Floats
) -> tuple[list[int], list[int], list[float]]:
    """Each node's neighbours in their order: those of node ``i`` stand at ``starts[i] : starts[i + 1]``."""
    left, right = np.concatenate([one, other]), np.concatenate([other, one])
    order = np.lexsort((right, left))
    starts = np.searchsorted(left[order], np.arange(num_nodes + 1))
    return starts.tolist(), right[order].tolist(), np.concatenate([like, like])[order].tolist()
