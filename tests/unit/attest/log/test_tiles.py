import hashlib
import json
from base64 import b64decode
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.errors import FormatError
from attest.log.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from attest.log.tiles import (
    Edge,
    Tile,
    consistency_proof,
    decode_entries,
    encode_entries,
    entry_tiles,
    inclusion_proof,
    parse_path,
    tree_root,
)

VECTORS = json.loads(
    (Path(__file__).parents[3] / "vectors/c2sp/notes.json").read_text("utf-8")
)


def leaf(index):
    return hashlib.sha256(b"%d" % index).digest()


class Kept:
    """A growing tree: the hashes of each level as an `Edge` gave them."""

    def __init__(self):
        self.edge = Edge()
        self.levels = {0: []}

    def grow(self, size):
        while self.edge.size < size:
            data = leaf(self.edge.size)
            self.levels[0].append(leaf_hash(data))
            for level, index, node in self.edge.append(data):
                hashes = self.levels.setdefault(level, [])
                assert index == len(hashes)
                hashes.append(node)
        return self

    def __call__(self, level, tile):
        start = tile.number * 256
        return b"".join(self.levels[level][start : start + tile.width])


@pytest.fixture(scope="module")
def kept():
    return Kept().grow(70_000)


@pytest.fixture(scope="module")
def tree():
    tree = MerkleTree()
    for index in range(1100):
        tree.append(leaf(index))
    return tree


def sizes_of(path):
    """Level and tile of a path like tile/1/x001/067.p/3."""
    _, level, rest = path.split("/", 2)
    return int(level), parse_path(rest)


@pytest.mark.parametrize("size", VECTORS["trees"])
def test_tiles_equal_the_independent_writers(kept, size):
    vector = VECTORS["trees"][size]
    for path, digest in vector["tiles"].items():
        assert hashlib.sha256(kept(*sizes_of(path))).hexdigest() == digest, path
    assert tree_root(int(size), kept) == b64decode(vector["root"])


def test_entries_equal_the_independent_writers():
    for path, digest in VECTORS["trees"]["600"]["entries"].items():
        tile = parse_path(path.removeprefix("tile/entries/"))
        start = tile.number * 256
        data = encode_entries([leaf(i) for i in range(start, start + tile.width)])
        assert hashlib.sha256(data).hexdigest() == digest
        assert decode_entries(data, tile.width)[0] == leaf(start)


@pytest.mark.parametrize(("number", "path"), VECTORS["paths"].items())
def test_paths_equal_the_independent_ones(number, path):
    assert Tile(int(number)).path == path
    assert parse_path(path) == Tile(int(number))


@given(st.integers(0, 2**55), st.integers(1, 256))
def test_path_that_is_written_is_read(number, width):
    assert parse_path(Tile(number, width).path) == Tile(number, width)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "0",
        "00",
        "0000",
        "1000",
        "x000/001",
        "001/x001",
        "001/001",
        "001.p/0",
        "001.p/01",
        "001.p/256",
        "001.p/",
        "../001",
        "x001/067/",
        "x001//067",
        "001\n",
        "\u0660\u0660\u0661",
    ],
)
def test_other_path_is_refused(path):
    with pytest.raises(FormatError):
        parse_path(path)


@given(st.text(max_size=40))
def test_any_path_is_read_or_refused(path):
    try:
        assert parse_path(path).path == path
    except FormatError:
        return


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 513, 1099])
def test_proofs_equal_the_trees(kept, tree, size):
    assert tree_root(size, kept) == tree.root(size)
    for index in {0, size // 2, size - 1, max(0, size - 257)}:
        proof = inclusion_proof(index, size, kept)
        assert proof == tree.inclusion_proof(index, size)
        verify_inclusion(
            leaf_hash(leaf(index)),
            index=index,
            size=size,
            proof=proof,
            root=tree.root(size),
        )
    for first in {0, 1, size // 2, size - 1, size}:
        assert consistency_proof(first, size, kept) == tree.consistency_proof(
            first, size
        )


@settings(max_examples=40)
@given(st.data())
def test_proofs_of_a_large_tree_verify(kept, data):
    second = data.draw(st.integers(60_000, 70_000))
    first = data.draw(st.integers(0, second))
    index = data.draw(st.integers(0, second - 1))
    root = tree_root(second, kept)
    verify_inclusion(
        leaf_hash(leaf(index)),
        index=index,
        size=second,
        proof=inclusion_proof(index, second, kept),
        root=root,
    )
    verify_consistency(
        tree_root(first, kept),
        root,
        first=first,
        second=second,
        proof=consistency_proof(first, second, kept),
    )


def test_no_leaves():
    def read(level, tile):
        raise AssertionError("nothing to read")

    assert tree_root(0, read) == EMPTY_ROOT == Edge().root()
    assert Edge.restore(0, read).root() == EMPTY_ROOT


@pytest.mark.parametrize("size", [1, 255, 256, 257, 600, 65_535, 65_536, 65_537])
def test_edge_goes_on_where_it_stood(kept, size):
    edge = Edge.restore(size, kept)
    assert (edge.size, edge.root()) == (size, tree_root(size, kept))
    for index in range(size, size + 300):
        edge.append(leaf(index))
    assert edge.root() == tree_root(size + 300, kept)


def test_short_tile_is_refused(kept):
    def read(level, tile):
        return kept(level, tile)[:-1]

    for work in (
        lambda: tree_root(600, read),
        lambda: inclusion_proof(5, 600, read),
        lambda: Edge.restore(600, read),
    ):
        with pytest.raises(FormatError, match="expected"):
            work()


def test_each_tile_is_read_once(kept):
    asked = []

    def read(level, tile):
        asked.append((level, tile))
        return kept(level, tile)

    inclusion_proof(3, 70_000, read)
    assert len(asked) == len(set(asked)) <= 5


@pytest.mark.parametrize(
    ("start", "size", "paths"),
    [
        (0, 0, []),
        (0, 5, ["000.p/5"]),
        (5, 5, ["000.p/5"]),
        (0, 256, ["000"]),
        (256, 256, []),
        (300, 600, ["001", "002.p/88"]),
    ],
)
def test_tiles_that_hold_the_new_leaves(start, size, paths):
    assert [tile.path for tile in entry_tiles(start, size)] == paths


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x02a", b"\x00\x01ab"])
def test_broken_entries_are_refused(data):
    with pytest.raises(FormatError):
        decode_entries(data, 1)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_entries_that_are_written_are_read(entries):
    assert decode_entries(encode_entries(entries), len(entries)) == entries


def test_entry_beyond_two_bytes_of_length_is_refused():
    with pytest.raises(FormatError, match="65535"):
        encode_entries([b"x" * 65_536])
