"""A log of ten billion entries, and the full check of a real one. See `scale.py`.

The tree is synthetic below its end. What runs over it is the project's own code: tiles,
edge, proofs, verifiers, the log's tables.
"""

import hashlib
import random
import sqlite3
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from scale_meter import cost, timed
from scale_tree import SyntheticTree, real_leaf

from attest.keys import PrivateKey
from attest.log.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from attest.log.merkle import (
    HASH_SIZE,
    Frontier,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from attest.log.note import KeyKind, NoteSigner
from attest.log.proof import LogProof
from attest.log.tiles import (
    TILE_WIDTH,
    Edge,
    consistency_proof,
    inclusion_proof,
    tree_root,
)
from gateway.store.log import (
    LoggedRecord,
    LogTables,
    keep_checkpoint,
    log_proof,
    log_root,
)
from gateway.store.sqlite import SqliteStore

ORIGIN = "scale.test/log"


def frontier_root(tree: SyntheticTree) -> bytes:
    """The root by the other algorithm that the project has: one peak per set bit."""
    state, start = tree.size.to_bytes(8, "big"), 0
    for height in reversed(range(tree.size.bit_length())):
        if tree.size >> height & 1:
            state += tree.node(height, start >> height)
            start += 1 << height
    return Frontier.restore(state).root()


def measure_tree(size: int, *, added: int, proofs: int, seed: int) -> dict[str, Any]:
    """Edge, proofs and heads of a log of `size` entries, in memory."""
    rng = random.Random(seed)
    planted = sorted(rng.randrange(size) for _ in range(proofs))
    tree = SyntheticTree(size, planted)
    edge, _ = timed(lambda: Edge.restore(size, tree.read))
    tree.reads = 0
    edge, restore = timed(lambda: Edge.restore(size, tree.read), 5)
    restore_reads = tree.reads // 5
    old_root, root_cold = timed(lambda: tree_root(size, tree.read))
    assert old_root == edge.root() == frontier_root(tree)

    _, appending = timed(lambda: [tree.append(edge) for _ in range(added)])
    new, root = edge.size, edge.root()
    taken, reads, lengths = [], [], []
    for index in [*planted, *(rng.randrange(size, new) for _ in range(proofs // 10))]:
        inclusion_proof(index, new, tree.read)  # the synthetic tiles are made here
        tree.reads = 0
        proof, seconds = timed(partial(inclusion_proof, index, new, tree.read))
        taken.append(seconds)
        reads.append(tree.reads)
        lengths.append(len(proof))
        leaf = leaf_hash(tree.leaf(index))
        verify_inclusion(leaf, index=index, size=new, proof=proof, root=root)
    verified = timed(
        lambda: verify_inclusion(leaf, index=index, size=new, proof=proof, root=root), 9
    )[1]

    between, seconds = timed(lambda: consistency_proof(size, new, tree.read), 9)
    verify_consistency(old_root, root, first=size, second=new, proof=between)
    signer = NoteSigner(ORIGIN, KeyKind.LOG, PrivateKey.generate())

    def head() -> str:
        found = Checkpoint(ORIGIN, new, tree_root(new, tree.read))
        return str(sign_checkpoint(found, signer))

    note, signing = timed(head, 9)
    assert open_checkpoint(note, [signer.key])[0].root == root
    hashes = sum(new >> 8 * level for level in range(1, 8))
    text = len(str(LogProof(index, note, tuple(proof)).to_json()))
    return {
        "entries": size,
        "edge_restore_ms": restore * 1e3,
        "edge_restore_tiles": restore_reads,
        "appends_per_s": added / appending,
        "inclusion_hashes": [min(lengths), max(lengths)],
        "inclusion_bytes_max": 32 * max(lengths),
        "inclusion_json_bytes": text,
        "inclusion_ms_median": sorted(taken)[len(taken) // 2] * 1e3,
        "inclusion_tiles_max": max(reads),
        "inclusion_verify_us": verified * 1e6,
        "proofs_verified": len(lengths),
        "consistency_hashes": len(between),
        "consistency_ms": seconds * 1e3,
        "root_ms_cold": root_cold * 1e3,
        "checkpoint_ms": signing * 1e3,
        "hash_bytes_above_per_entry": 32 * hashes / new,
        "hash_bytes_above": 32 * hashes,
    }


@contextmanager
def log_database(folder: Path) -> Iterator[sqlite3.Connection]:
    """A database with the gateway's own tables and settings."""
    path = folder / "log.db"
    SqliteStore.open(path, log=True).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    try:
        yield connection
    finally:
        connection.close()


def _add(
    tables: LogTables, connection: sqlite3.Connection, count: int, batch: int
) -> list[float]:
    """Append `count` leaves in transactions of `batch`; the seconds of each."""
    taken = []
    for start in range(0, count, batch):
        began = time.perf_counter()
        with connection:
            tables.begin(connection, shared=True)
            first = tables.size
            leaves = map(real_leaf, range(first, first + min(batch, count - start)))
            # Ids are random in life, and so are these.
            items = [
                LoggedRecord(leaf, attestation=hashlib.sha256(leaf).hexdigest()[:40])
                for leaf in leaves
            ]
            tables.append(connection, *items)
        tables.committed()
        taken.append(time.perf_counter() - began)
    return taken


def measure_tables(size: int, folder: Path, *, commits: int) -> dict[str, Any]:
    """The log's own tables at `size`, in SQLite files that hold the right edge alone.

    All that adding, signing and proving the end of a log reads is there. The files are
    small: what a B-tree of this depth costs is not in these figures.
    """
    tree = SyntheticTree(size, [])
    with log_database(folder) as connection:
        first = size - size % TILE_WIDTH
        with connection:
            connection.executemany(
                "INSERT INTO log_leaves (idx, leaf) VALUES (?, ?)",
                ((index, tree.leaf(index)) for index in range(first, size)),
            )
            connection.executemany(
                "INSERT INTO log_hashes (level, idx, hash) VALUES (?, ?, ?)",
                (
                    (level, index, tree.node(8 * level, index))
                    for level in range(1, 6)
                    for index in range(size >> 8 * level + 8 << 8, size >> 8 * level)
                ),
            )
        tables = LogTables()
        _, restore = timed(lambda: tables.begin(connection, shared=True))
        taken = _add(tables, connection, TILE_WIDTH * commits, TILE_WIDTH)
        signer = NoteSigner(ORIGIN, KeyKind.LOG, PrivateKey.generate())
        root, rooting = timed(lambda: log_root(connection, tables.size), 5)
        head = Checkpoint(ORIGIN, tables.size, root)
        note = str(sign_checkpoint(head, signer))
        with connection:
            keep_checkpoint(connection, tables.size, note, witnessed=False)
        name, leaf = connection.execute(
            "SELECT attestation, leaf FROM log_leaves ORDER BY idx DESC LIMIT 1"
        ).fetchone()
        proof, proving = timed(lambda: log_proof(connection, name), 5)
        assert proof is not None
        proof.verify(leaf, logs=[signer.key], witnesses=[])
    return {
        "entries": size,
        "edge_restore_ms": restore * 1e3,
        "commit_256_ms_median": sorted(taken)[len(taken) // 2] * 1e3,
        "root_ms": rooting * 1e3,
        "proof_ms": proving * 1e3,
    }


def measure_check(sizes: list[int], folder: Path) -> list[dict[str, Any]]:
    """`LogTables.check` over files of these sizes, smallest first."""
    rows = []
    with log_database(folder) as connection:
        tables = LogTables()
        for size in sizes:
            _add(tables, connection, size - tables.size, 16_384)
            fresh = LogTables()
            row: dict[str, Any] = {"entries": size}
            with cost(row, "check"):
                fresh.check(connection)
            assert fresh.size == size
            pages = connection.execute("PRAGMA page_count").fetchone()[0]
            row["us_per_entry"] = row["check_s"] / size * 1e6
            row["file_bytes_per_entry"] = pages * 4096 / size
            rows.append(row)
    return rows


def kept_hash_bytes(count: int = 200_000) -> float:
    """Memory per hash above the leaves, held as the check holds them."""
    tracemalloc.start()
    kept = {(1, i): i.to_bytes(HASH_SIZE, "big") for i in range(count)}
    found = tracemalloc.get_traced_memory()[0] / len(kept)
    tracemalloc.stop()
    return found
