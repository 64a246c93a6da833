"""The Merkle tree of Certificate Transparency (RFC 9162 §2.1, the same as RFC 6962).

Hashes are 32 raw bytes. A leaf hash and a node hash never collide, since each input
starts with a byte of its own: whoever shows a node as a leaf shows nothing.
"""

import hashlib
import hmac
from collections.abc import Callable, Iterator, Sequence

from attest.errors import FormatError, VerificationError

__all__ = [
    "EMPTY_ROOT",
    "HASH_SIZE",
    "MAX_SIZE",
    "Frontier",
    "MerkleTree",
    "consistency_ranges",
    "inclusion_ranges",
    "leaf_hash",
    "node_hash",
    "range_root",
    "verify_consistency",
    "verify_inclusion",
]

HASH_SIZE = 32
# SQLite and C2SP checkpoints count leaves in 63 bits; a path is never longer than that.
MAX_SIZE = 2**63 - 1

EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """The hash of a leaf that holds `data`."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of the node above two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """An append-only tree that keeps only what its root needs.

    It holds the root of one complete subtree per set bit of the size: at most 63
    hashes, however many leaves there are. It gives no proofs; `MerkleTree` does.
    """

    def __init__(self) -> None:
        self._size = 0
        self._peaks: list[bytes] = []  # largest subtree first

    @property
    def size(self) -> int:
        """How many leaves were appended."""
        return self._size

    def append(self, data: bytes) -> None:
        """Add a leaf that holds `data`."""
        node = leaf_hash(data)
        carry = self._size
        while carry & 1:
            node = node_hash(self._peaks.pop(), node)
            carry >>= 1
        self._peaks.append(node)
        self._size += 1

    def root(self) -> bytes:
        """The root over all leaves; `EMPTY_ROOT` where there are none."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root

    def serialise(self) -> bytes:
        """The state: the size in 8 bytes, big-endian, then the hashes it holds.

        `Frontier.restore(f.serialise())` goes on where `f` stood.
        """
        return self._size.to_bytes(8, "big") + b"".join(self._peaks)

    @classmethod
    def restore(cls, state: bytes) -> "Frontier":
        """The frontier that `serialise` wrote.

        The hashes cannot be checked: whoever can write the state can choose the root.

        Raises:
            FormatError: a length that does not fit the size.
        """
        size = int.from_bytes(state[:8], "big")
        count = size.bit_count()
        if size > MAX_SIZE or len(state) != 8 + HASH_SIZE * count:
            raise FormatError(f"frontier: {len(state)} bytes do not fit {size} leaves")
        frontier = cls()
        frontier._size = size
        frontier._peaks = [
            state[at : at + HASH_SIZE] for at in range(8, len(state), HASH_SIZE)
        ]
        return frontier


class MerkleTree:
    """An append-only tree in memory that proves inclusion and consistency.

    It keeps the root of every complete subtree (64 bytes per leaf in all), never the
    leaves' data, so that every root and every proof of every earlier size costs
    O(log² n) at most.
    """

    def __init__(self) -> None:
        # _levels[k] holds the roots of the complete subtrees of 2^k leaves.
        self._levels: list[bytearray] = [bytearray()]

    @property
    def size(self) -> int:
        """How many leaves were appended."""
        return len(self._levels[0]) // HASH_SIZE

    def append(self, data: bytes) -> int:
        """Add a leaf that holds `data`; returns its index."""
        index = carry = self.size
        node = leaf_hash(data)
        level = 0
        self._levels[0] += node
        while carry & 1:
            node = node_hash(self._node(level, carry - 1), node)
            level, carry = level + 1, carry >> 1
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += node
        return index

    def root(self, size: int | None = None) -> bytes:
        """The root over the first `size` leaves, all of them by default.

        Raises:
            FormatError: the tree has no `size` leaves.
        """
        size = self._checked(self.size if size is None else size)
        return self._range(0, size) if size else EMPTY_ROOT

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """The path from leaf `index` to `root(size)` (RFC 9162 §2.1.3.1), leaf first.

        Raises:
            FormatError: `index` is not below `size`, or the tree has no `size` leaves.
        """
        size = self._checked(self.size if size is None else size)
        return [self._range(*span) for span in inclusion_ranges(index, size)]

    def consistency_proof(self, first: int, second: int | None = None) -> list[bytes]:
        """The proof that `root(second)` extends `root(first)` (RFC 9162 §2.1.4.1).

        Empty where `first` is 0 or equals `second`.

        Raises:
            FormatError: `first` is above `second`, or the tree has no `second` leaves.
        """
        second = self._checked(self.size if second is None else second)
        return [self._range(*span) for span in consistency_ranges(first, second)]

    def _checked(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise FormatError(f"tree: has {self.size} leaves, asked for {size}")
        return size

    def _node(self, level: int, index: int) -> bytes:
        at = index * HASH_SIZE
        return bytes(self._levels[level][at : at + HASH_SIZE])

    def _range(self, start: int, end: int) -> bytes:
        return range_root(start, end, self._node)


Range = tuple[int, int]


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The leaves [start, end) under each hash of an inclusion proof, leaf first.

    RFC 9162 §2.1.3.1, for the first `size` leaves.

    Raises:
        FormatError: `index` is not below `size`.
    """
    if not 0 <= index < size:
        raise FormatError(f"inclusion proof: no leaf {index} among {size}")
    start, end = 0, size
    path: list[Range] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return path[::-1]


def consistency_ranges(first: int, second: int) -> list[Range]:
    """The leaves [start, end) under each hash of a consistency proof.

    RFC 9162 §2.1.4.1. Empty where `first` is 0 or equals `second`.

    Raises:
        FormatError: `first` is above `second`.
    """
    if not 0 <= first <= second:
        raise FormatError(f"consistency proof: {first} leaves before {second}")
    if first in (0, second):
        return []
    start, end = 0, second
    path: list[Range] = []
    while first != end:
        middle = start + _split(end - start)
        if first <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    if start:  # else the verifier knows this subtree: it is the first tree itself
        path.append((start, end))
    return path[::-1]


def range_root(start: int, end: int, node: Callable[[int, int], bytes]) -> bytes:
    """The root over the leaves [start, end), which some split of a tree gave.

    Args:
        start: first leaf, a multiple of the largest power of two in the range.
        end: one after the last leaf.
        node: gives the root of the complete subtree number i of 2^k leaves, as
            `node(k, i)`.
    """
    count = end - start
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return node(level, start >> level)
    middle = start + _split(count)
    return node_hash(range_root(start, middle, node), range_root(middle, end, node))


def verify_inclusion(
    leaf: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that `leaf` is leaf `index` of the tree with `size` leaves and `root`.

    `leaf` is a leaf hash: compute it with `leaf_hash` from the data at hand, never take
    it from whoever sent the proof. That `root` is the log's is for a checkpoint to say.

    Raises:
        FormatError: no proof at all: a hash that is not 32 bytes, an index outside the
            tree, a size beyond 2^63.
        VerificationError: the path does not lead from this leaf to this root.
    """
    _check_hashes("inclusion proof", (leaf, root, *proof))
    if not 0 <= index < size <= MAX_SIZE:
        raise FormatError(f"inclusion proof: no leaf {index} among {size}")
    found = leaf
    for step, is_left in _climb("inclusion proof", index, size - 1, proof):
        found = node_hash(step, found) if is_left else node_hash(found, step)
    if not hmac.compare_digest(found, root):
        raise VerificationError("inclusion proof: the leaf does not lead to the root")


def verify_consistency(
    first_root: bytes,
    second_root: bytes,
    *,
    first: int,
    second: int,
    proof: Sequence[bytes],
) -> None:
    """Check that the tree of `second` leaves begins with the tree of `first` leaves.

    Raises:
        FormatError: no proof at all: a hash that is not 32 bytes, sizes out of order or
            beyond 2^63.
        VerificationError: the second root does not extend the first.
    """
    _check_hashes("consistency proof", (first_root, second_root, *proof))
    if not 0 <= first <= second <= MAX_SIZE:
        raise FormatError(f"consistency proof: {first} leaves before {second}")
    if first in (0, second):
        known = EMPTY_ROOT if first == 0 else second_root
        if proof or not hmac.compare_digest(first_root, known):
            raise VerificationError("consistency proof: the first root does not fit")
        return
    # A complete first tree is itself a node of the second: the proof leaves it out.
    steps = [first_root, *proof] if first & (first - 1) == 0 else proof
    if not steps:
        raise VerificationError("consistency proof: empty")
    index, last = first - 1, second - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    old = new = steps[0]
    for step, is_left in _climb("consistency proof", index, last, steps[1:]):
        if is_left:
            old, new = node_hash(step, old), node_hash(step, new)
        else:
            new = node_hash(new, step)
    if not hmac.compare_digest(old, first_root):
        raise VerificationError("consistency proof: does not lead to the first root")
    if not hmac.compare_digest(new, second_root):
        raise VerificationError("consistency proof: does not lead to the second root")


def _split(count: int) -> int:
    """The largest power of two below `count`: where RFC 9162 splits a tree."""
    return 1 << ((count - 1).bit_length() - 1)


def _check_hashes(what: str, hashes: Sequence[bytes]) -> None:
    if any(len(item) != HASH_SIZE for item in hashes):
        raise FormatError(f"{what}: every hash must be {HASH_SIZE} bytes")


def _climb(
    what: str, index: int, last: int, proof: Sequence[bytes]
) -> Iterator[tuple[bytes, bool]]:
    """Each step of a proof, and whether it is the left sibling.

    The loop that RFC 9162 §2.1.3.2 and §2.1.4.2 share: `index` is the node on the way
    up, `last` the right edge of the tree on the same level.
    """
    for step in proof:
        if last == 0:
            raise VerificationError(f"{what}: longer than the tree is high")
        is_left = index & 1 == 1 or index == last
        yield step, is_left
        while is_left and index and not index & 1:
            index, last = index >> 1, last >> 1
        index, last = index >> 1, last >> 1
    if last:
        raise VerificationError(f"{what}: shorter than the tree is high")
