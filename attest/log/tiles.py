"""Tiles (C2SP tlog-tiles): a tree as files of 256 hashes, and every proof from them.

Level 0 holds leaf hashes; a hash of level L+1 is the root of a full tile of level L.
Nothing here opens anything: a `ReadTile` gives the bytes, from a database, a folder or
another machine. What it gives is believed, so a proof or a root made from tiles must be
checked against a checkpoint, like one that somebody sent.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from attest.errors import FormatError
from attest.log.merkle import (
    EMPTY_ROOT,
    HASH_SIZE,
    consistency_ranges,
    inclusion_ranges,
    leaf_hash,
    node_hash,
    range_root,
)

__all__ = [
    "TILE_WIDTH",
    "Edge",
    "ReadTile",
    "Tile",
    "consistency_proof",
    "decode_entries",
    "encode_entries",
    "entry_tiles",
    "inclusion_proof",
    "parse_path",
    "tree_root",
]

_HEIGHT = 8
TILE_WIDTH = 1 << _HEIGHT
MAX_LEVEL = 63
_MAX_ENTRY = 0xFFFF
# Up to six groups of three digits: 10^18 tiles, more than 2^63 leaves can fill.
_NUMBER = r"(?:x[0-9]{3}/){0,5}[0-9]{3}"
_PATH = re.compile(rf"({_NUMBER})(?:\.p/([1-9][0-9]{{0,2}}))?\Z")


@dataclass(frozen=True, slots=True)
class Tile:
    """Which part of a level: its number, and how many of the 256 hashes are there."""

    number: int
    width: int = TILE_WIDTH

    @property
    def path(self) -> str:
        """The path under its level: `x001/x234/067`, and `.p/W` when partial."""
        digits = f"{self.number:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        path = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        return path if self.width == TILE_WIDTH else f"{path}.p/{self.width}"


ReadTile = Callable[[int, Tile], bytes]
"""Gives the hashes of a tile of a level."""


def parse_path(path: str) -> Tile:
    """Read what `Tile.path` writes.

    Raises:
        FormatError: another form, more leading zeroes than the format has, or a width
            outside 1 to 255.
    """
    match = _PATH.match(path)
    if match is None:
        raise FormatError("tile: not a path like x001/234 or 000.p/7")
    number = int(re.sub(r"[x/]", "", match[1]))
    tile = Tile(number, int(match[2]) if match[2] else TILE_WIDTH)
    if tile.path != path:
        raise FormatError("tile: not the one spelling of its path")
    return tile


def _tile_of(level: int, index: int, size: int) -> Tile:
    """The tile of a tree of `size` leaves that holds hash `index` of `level`."""
    count = size >> (_HEIGHT * level)
    number = index // TILE_WIDTH
    return Tile(number, min(TILE_WIDTH, count - number * TILE_WIDTH))


def entry_tiles(start: int, size: int) -> Iterator[Tile]:
    """The tiles that hold the leaves from `start` up to `size`."""
    for number in range(start // TILE_WIDTH, -(-size // TILE_WIDTH)):
        yield _tile_of(0, number * TILE_WIDTH, size)


class _Nodes:
    """Gives any complete subtree of one tree, from its tiles; reads each once."""

    def __init__(self, size: int, read: ReadTile) -> None:
        self._size, self._read = size, read
        self._tiles: dict[tuple[int, Tile], bytes] = {}

    def __call__(self, height: int, index: int) -> bytes:
        level, rest = divmod(height, _HEIGHT)
        first = index << rest
        tile = _tile_of(level, first, self._size)
        start = (first % TILE_WIDTH) * HASH_SIZE
        hashes = self._tile(level, tile)[start : start + (HASH_SIZE << rest)]
        return _fold(hashes)

    def _tile(self, level: int, tile: Tile) -> bytes:
        key = level, tile
        if key not in self._tiles:
            data = self._read(level, tile)
            if len(data) != tile.width * HASH_SIZE:
                raise FormatError(
                    f"tile {level}/{tile.path}: expected {tile.width} hashes"
                )
            self._tiles[key] = data
        return self._tiles[key]


def _fold(hashes: bytes) -> bytes:
    """The root over a power of two of hashes."""
    nodes = [hashes[at : at + HASH_SIZE] for at in range(0, len(hashes), HASH_SIZE)]
    while len(nodes) > 1:
        pairs = zip(nodes[::2], nodes[1::2], strict=True)
        nodes = [node_hash(left, right) for left, right in pairs]
    return nodes[0]


def tree_root(size: int, read: ReadTile) -> bytes:
    """The root over the first `size` leaves.

    Raises:
        FormatError: a tile has another length than it must.
    """
    return range_root(0, size, _Nodes(size, read)) if size else EMPTY_ROOT


def inclusion_proof(index: int, size: int, read: ReadTile) -> list[bytes]:
    """The path from leaf `index` to the root over `size` leaves.

    Raises:
        FormatError: `index` is not below `size`, or a tile has the wrong length.
    """
    nodes = _Nodes(size, read)
    return [range_root(*span, nodes) for span in inclusion_ranges(index, size)]


def consistency_proof(first: int, second: int, read: ReadTile) -> list[bytes]:
    """The proof that the tree of `second` leaves begins with that of `first`.

    Raises:
        FormatError: `first` is above `second`, or a tile has the wrong length.
    """
    nodes = _Nodes(second, read)
    return [range_root(*span, nodes) for span in consistency_ranges(first, second)]


def encode_entries(entries: Sequence[bytes]) -> bytes:
    """An entry bundle: each entry after its length in two bytes, big-endian.

    Raises:
        FormatError: an entry of more than 65,535 bytes.
    """
    if any(len(entry) > _MAX_ENTRY for entry in entries):
        raise FormatError(f"entries: one has more than {_MAX_ENTRY} bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def decode_entries(data: bytes, count: int) -> list[bytes]:
    """The entries of a bundle that must hold `count` of them.

    Raises:
        FormatError: it holds more or fewer, or ends within one.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(data) and len(entries) < count:
        end = at + 2 + int.from_bytes(data[at : at + 2], "big")
        entries.append(data[at + 2 : end])
        at = end
    if at != len(data) or len(entries) != count:
        raise FormatError(f"entries: expected exactly {count}")
    return entries


class Edge:
    """The right edge of a growing tree: what must be known to add a leaf.

    At most 255 hashes a level, however many leaves there are. `append` tells which
    hashes of level 1 and above came to be, for whoever keeps the tiles.
    """

    def __init__(self) -> None:
        self._size = 0
        self._levels: list[list[bytes]] = [[]]

    @property
    def size(self) -> int:
        """How many leaves were appended."""
        return self._size

    @classmethod
    def restore(cls, size: int, read: ReadTile) -> "Edge":
        """The edge of a tree that is kept in tiles.

        Raises:
            FormatError: a tile has the wrong length.
        """
        edge = cls()
        edge._size, edge._levels = size, []
        level, count = 0, size
        while count or not edge._levels:
            width = count % TILE_WIDTH
            tile = Tile(count // TILE_WIDTH, width)
            data = read(level, tile) if width else b""
            if len(data) != width * HASH_SIZE:
                raise FormatError(f"tile {level}/{tile.path}: expected {width} hashes")
            edge._levels.append(
                [data[at : at + HASH_SIZE] for at in range(0, len(data), HASH_SIZE)]
            )
            level, count = level + 1, count // TILE_WIDTH
        return edge

    def append(self, data: bytes) -> list[tuple[int, int, bytes]]:
        """Add a leaf that holds `data`.

        Returns:
            (level, index, hash) of each hash above level 0 that this leaf completed.
        """
        made = []
        node, level = leaf_hash(data), 0
        self._size += 1
        self._levels[0].append(node)
        while len(self._levels[level]) == TILE_WIDTH:
            node = _fold(b"".join(self._levels[level]))
            self._levels[level] = []
            level += 1
            if level == len(self._levels):
                self._levels.append([])
            self._levels[level].append(node)
            index = (self._size >> (_HEIGHT * level)) - 1
            made.append((level, index, node))
        return made

    def root(self) -> bytes:
        """The root over all leaves."""

        def node(height: int, index: int) -> bytes:
            level, rest = divmod(height, _HEIGHT)
            first = (index << rest) % TILE_WIDTH
            return _fold(b"".join(self._levels[level][first : first + (1 << rest)]))

        return range_root(0, self._size, node) if self._size else EMPTY_ROOT
