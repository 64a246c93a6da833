"""A tree of as many leaves as one likes, most of them equal. See `scale.py`.

Any complete subtree is known without its leaves, so that the project's own code for
tiles, edges and proofs can run over ten billion of them.
"""

import bisect

from attest.log.merkle import MerkleTree, leaf_hash, node_hash
from attest.log.tiles import (
    TILE_WIDTH,
    Edge,
    Tile,
    consistency_proof,
    inclusion_proof,
    tree_root,
)

OLD = b"\x5a" * 32


def real_leaf(index: int) -> bytes:
    return b"real" + index.to_bytes(28, "big")


class SyntheticTree:
    """`size` old leaves of which those in `planted` differ, then leaves that are added.

    `read` gives tiles as a store would, and counts them.
    """

    def __init__(self, size: int, planted: list[int]) -> None:
        self.size, self.planted = size, sorted(planted)
        self.uniform = [leaf_hash(OLD)]
        for _ in range(64):
            self.uniform.append(node_hash(self.uniform[-1], self.uniform[-1]))
        self.added: dict[tuple[int, int], bytes] = {}
        self._known: dict[tuple[int, int], bytes] = {}
        self._tiles: dict[tuple[int, Tile], bytes] = {}
        self.reads = 0

    def leaf(self, index: int) -> bytes:
        at = bisect.bisect_left(self.planted, index)
        planted = at < len(self.planted) and self.planted[at] == index
        return real_leaf(index) if planted or index >= self.size else OLD

    def node(self, height: int, index: int) -> bytes:
        """The root of the complete subtree `index` of 2^height leaves."""
        start, end = index << height, (index + 1) << height
        if height % 8 == 0 and (height // 8, index) in self.added:
            return self.added[height // 8, index]
        if height == 0:
            return leaf_hash(self.leaf(index))
        plants = bisect.bisect_left(self.planted, start)
        if end <= self.size and (
            plants == len(self.planted) or self.planted[plants] >= end
        ):
            return self.uniform[height]
        key = height, index
        if key not in self._known:
            below = height - 1
            self._known[key] = node_hash(
                self.node(below, 2 * index), self.node(below, 2 * index + 1)
            )
        return self._known[key]

    def read(self, level: int, tile: Tile) -> bytes:
        self.reads += 1
        if (level, tile) not in self._tiles:
            first = tile.number * TILE_WIDTH
            self._tiles[level, tile] = b"".join(
                self.node(8 * level, i) for i in range(first, first + tile.width)
            )
        return self._tiles[level, tile]

    def append(self, edge: Edge) -> None:
        for level, index, node in edge.append(real_leaf(edge.size)):
            self.added[level, index] = node


def check_against_real_trees() -> None:
    """The synthetic tree is the real one, wherever that can be built.

    Raises:
        AssertionError: it is not, so that no figure from it would mean anything.
    """
    for size in (1, 2, 255, 256, 257, 1000, 65_536, 66_000):
        planted = [i for i in (0, 3, 255, 256, size - 1) if i < size]
        tree = SyntheticTree(size, planted)
        edge, real = Edge.restore(size, tree.read), MerkleTree()
        for index in range(size):
            real.append(tree.leaf(index))
        for _ in range(300):
            tree.append(edge)
            real.append(real_leaf(real.size))
        new = real.size
        assert edge.root() == real.root() == tree_root(new, tree.read)
        assert tree_root(size, tree.read) == real.root(size)
        for index in (0, size // 2, size - 1, new - 1):
            assert inclusion_proof(index, new, tree.read) == real.inclusion_proof(index)
        assert consistency_proof(size, new, tree.read) == real.consistency_proof(size)
