"""The log's rows: leaves, the hashes above them, and the checkpoints that were signed.

Rows are only ever added, in the transaction that keeps what they stand for, by the
store's one writer. Level 0 of the tree is made from the leaves when it is asked for;
above it there is one row per 256 hashes.
"""

from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from attest import disclosures
from attest.errors import FormatError
from attest.log.checkpoint import parse_checkpoint
from attest.log.merkle import HASH_SIZE, leaf_hash
from attest.log.proof import LogProof
from attest.log.tiles import TILE_WIDTH, Edge, Tile, inclusion_proof, tree_root
from gateway.errors import StartupRefusedError
from gateway.store.database import Connection

__all__ = [
    "LogTables",
    "LoggedRecord",
    "keep_checkpoint",
    "latest_checkpoint",
    "log_proof",
    "log_root",
    "log_size",
    "read_entries",
    "read_records",
    "read_tile",
]

T = TypeVar("T")

_ROWS = 10_000


class LoggedRecord(NamedTuple):
    """A new leaf and what it stands for: a kept attestation, by id, or a record."""

    leaf: bytes
    attestation: str | None = None
    record: str | None = None


def damaged(what: str) -> StartupRefusedError:
    """The refusal to go on with a log that is not the one that was signed."""
    return StartupRefusedError(
        f"log: the database is not the one that was signed: {what}",
        hint="bring the database back as it was; a log that lost entries must end, and "
        "a new one begin: another state_dir, log_key and log_origin",
    )


class LogTables:
    """The writer's side of the log. Once the store runs, only its writer may use it.

    Attributes:
        size: leaves that are on disk; any thread may read it.
    """

    def __init__(self) -> None:
        self._edge = Edge()
        self._stale = False
        self.size = 0

    def check(self, connection: Connection) -> None:
        """Recompute the whole tree from its leaves, and go on at its end.

        Takes some 1.5 s per million leaves. All that is read must be of one moment.

        Raises:
            StartupRefusedError: a leaf is missing, or a hash that is kept is not of
                these leaves.
        """
        edge, hashes = Edge(), _kept_hashes(connection)
        for index, leaf in _kept_leaves(connection):
            if index != edge.size or len(leaf) != HASH_SIZE:
                raise damaged(f"entry {edge.size} is missing")
            for level, above, node in edge.append(leaf):
                if hashes.pop((level, above), None) != node:
                    raise damaged(f"entries up to {index} have other hashes")
        if hashes:
            raise damaged(f"entries after {edge.size - 1} are missing")
        self._edge, self.size = edge, edge.size

    def begin(self, connection: Connection, *, shared: bool) -> None:
        """A transaction begins; where others write too, go on where they ended."""
        if shared:
            self.size = log_size(connection)
            self._stale = self._stale or not self._follow(connection)
        if self._stale:
            self._edge = Edge.restore(
                self.size, lambda level, tile: read_tile(connection, level, tile)
            )
            self._stale = False

    def _follow(self, connection: Connection) -> bool:
        """Take in what others added since; false where that is too much, or less."""
        new = self.size - self._edge.size
        if not 0 <= new <= TILE_WIDTH:
            return False
        if new:
            rows = connection.execute(
                "SELECT leaf FROM log_leaves WHERE idx >= ? ORDER BY idx",
                (self._edge.size,),
            )
            for (leaf,) in rows:
                self._edge.append(leaf)  # the hashes above it are on disk already
        return self.size == self._edge.size

    def append(self, connection: Connection, *items: LoggedRecord) -> None:
        """Add leaves within the transaction that is open."""
        rows, hashes = [], []
        for item in items:
            rows.append((self._edge.size, item.leaf, item.attestation, item.record))
            hashes += self._edge.append(item.leaf)
        connection.executemany(
            "INSERT INTO log_leaves (idx, leaf, attestation, record) "
            "VALUES (?, ?, ?, ?)",
            rows,
        )
        if hashes:
            connection.executemany(
                "INSERT INTO log_hashes (level, idx, hash) VALUES (?, ?, ?)", hashes
            )

    def committed(self) -> None:
        """The transaction is on disk."""
        if not self._stale:
            self.size = self._edge.size

    def rolled_back(self) -> None:
        """The transaction is undone; the next leaf goes where the disk ends."""
        self._stale = True


def _kept_leaves(connection: Connection) -> Iterator[tuple[int, bytes]]:
    """All leaves in their order; drivers would hold every row of one statement."""
    after = -1
    while rows := connection.execute(
        "SELECT idx, leaf FROM log_leaves WHERE idx > ? ORDER BY idx LIMIT ?",
        (after, _ROWS),
    ).fetchall():
        yield from rows
        after = rows[-1][0]


def _kept_hashes(connection: Connection) -> dict[tuple[int, int], bytes]:
    rows = connection.execute("SELECT level, idx, hash FROM log_hashes")
    return {(level, index): bytes(node) for level, index, node in rows}


def log_size(connection: Connection) -> int:
    """How many leaves are on disk."""
    row = connection.execute("SELECT max(idx) FROM log_leaves").fetchone()
    return 0 if row is None or row[0] is None else int(row[0]) + 1


def read_tile(connection: Connection, level: int, tile: Tile) -> bytes:
    """The hashes of a tile.

    Raises:
        FormatError: the tree is not that large.
    """
    span = tile.number * TILE_WIDTH, tile.number * TILE_WIDTH + tile.width
    if level == 0:
        found = b"".join(map(leaf_hash, read_entries(connection, tile)))
    else:
        rows = connection.execute(
            "SELECT hash FROM log_hashes WHERE level = ? AND idx >= ? AND idx < ? "
            "ORDER BY idx",
            (level, *span),
        )
        found = b"".join(node for (node,) in rows)
    return _whole(found, len(found) // HASH_SIZE, tile)


def read_entries(connection: Connection, tile: Tile) -> list[bytes]:
    """What the leaves of a tile hold.

    Raises:
        FormatError: the tree is not that large.
    """
    start = tile.number * TILE_WIDTH
    rows = connection.execute(
        "SELECT leaf FROM log_leaves WHERE idx >= ? AND idx < ? ORDER BY idx",
        (start, start + tile.width),
    )
    found = [leaf for (leaf,) in rows]
    return _whole(found, len(found), tile)


def read_records(connection: Connection, tile: Tile) -> list[str]:
    """The tokens that the leaves of a tile stand for, without their disclosures.

    One that is not kept any more is an empty text.

    Raises:
        FormatError: the tree is not that large.
    """
    start = tile.number * TILE_WIDTH
    rows = connection.execute(
        "SELECT coalesce(record, token, '') FROM log_leaves LEFT JOIN attestations "
        "ON attestations.id = log_leaves.attestation "
        "WHERE idx >= ? AND idx < ? ORDER BY idx",
        (start, start + tile.width),
    )
    found = [disclosures.split(text)[0] if "~" in text else text for (text,) in rows]
    return _whole(found, len(found), tile)


def _whole(found: T, count: int, tile: Tile) -> T:
    if count != tile.width:
        raise FormatError(f"tile {tile.path}: the log is not that large")
    return found


def log_root(connection: Connection, size: int) -> bytes:
    """The root over the first `size` leaves.

    Raises:
        FormatError: there are fewer.
    """
    return tree_root(size, lambda level, tile: read_tile(connection, level, tile))


def keep_checkpoint(
    connection: Connection, size: int, note: str, *, witnessed: bool
) -> None:
    """Keep a signed head. Of those that no majority cosigned only the last stays."""
    connection.execute(
        "INSERT INTO log_checkpoints (size, note, witnessed) VALUES (?, ?, ?) "
        "ON CONFLICT (size) DO UPDATE SET note = excluded.note, "
        "witnessed = excluded.witnessed",
        (size, note, int(witnessed)),
    )
    connection.execute(
        "DELETE FROM log_checkpoints WHERE size < ? AND witnessed = 0", (size,)
    )


def latest_checkpoint(connection: Connection) -> str | None:
    """The signed head of the largest tree, None when nothing was signed yet."""
    row = connection.execute(
        "SELECT note FROM log_checkpoints ORDER BY size DESC LIMIT 1"
    ).fetchone()
    return None if row is None else str(row[0])


def log_proof(connection: Connection, attestation_id: str) -> LogProof | None:
    """That an attestation is in the log, None while no checkpoint covers it.

    The first witnessed checkpoint that covers it is taken, since its time is the
    closest to `iat`; without one, the latest.
    """
    row = connection.execute(
        "SELECT idx FROM log_leaves WHERE attestation = ?", (attestation_id,)
    ).fetchone()
    if row is None:
        return None
    index = int(row[0])
    row = connection.execute(
        "SELECT note FROM log_checkpoints WHERE size > ? "
        "ORDER BY witnessed DESC, "
        "CASE WHEN witnessed = 1 THEN size ELSE -size END LIMIT 1",
        (index,),
    ).fetchone()
    if row is None:
        return None
    note = str(row[0])
    size = parse_checkpoint(note)[0].size
    path = inclusion_proof(
        index, size, lambda level, tile: read_tile(connection, level, tile)
    )
    return LogProof(index, note, tuple(path))
