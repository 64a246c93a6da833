"""Processes of one host that write to one SQLite file, and one that is killed there."""

import itertools
import subprocess
import sys

import pytest

from gateway.errors import StoreError
from gateway.store.log import log_root, log_size
from gateway.store.records import Record
from gateway.store.sqlite import SqliteStore

# Keeps records in waves of eight, for ever or so many, and says which are on disk.
WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from gateway.store.records import Record
from gateway.store.sqlite import SqliteStore

async def main(path, name, count):
    store = SqliteStore.open(Path(path), log=True, shared=True, check=False)
    store.add_boot(f"sha256:{name}", b"{}", f"boot{name}.x.y")
    print("ready", flush=True)
    sys.stdin.readline()
    for wave in itertools.count(0, 8) if count is None else range(0, count, 8):
        records = [Record.of(f"att_{name}_{i}", f"sha256:{name}", i, f"{name}.{i}.z~")
                   for i in range(wave, wave + 8)]
        await asyncio.gather(*map(store.put, records))
        for record in records:
            print(record[0], flush=True)
    store.close()

asyncio.run(main(*sys.argv[1:3], int(sys.argv[3]) if sys.argv[3:] else None))
"""
COUNT = 240


def start(path, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, path, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The file, and what each of two writers said it had kept; one was killed."""
    path = tmp_path_factory.mktemp("shared") / "attestations.sqlite"
    SqliteStore.open(path, log=True, shared=True).close()
    with start(path, "a", str(COUNT)) as one, start(path, "b") as other:
        writers = (one, other)
        assert [w.stdout.readline() for w in writers] == ["ready\n"] * 2
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        said = {"a": [one.stdout.readline().strip() for _ in range(COUNT // 2)]}
        said["b"] = [other.stdout.readline().strip() for _ in range(COUNT // 2)]
        other.kill()
        said["b"] += other.stdout.read().split()
        said["a"] += one.stdout.read().split()
    assert (one.returncode, other.returncode) == (0, -9)
    return path, said


@pytest.fixture
def store(written):
    # Opened with its check: every leaf and every hash above it is looked at.
    store = SqliteStore.open(written[0], log=True, shared=True)
    yield store
    store.close()


async def test_what_either_said_was_kept_is_there(store, written):
    _, said = written
    assert len(said["a"]) == COUNT
    for name in (*said["a"], *said["b"]):
        assert await store.get(name) is not None


async def test_log_has_no_gap_and_each_in_its_own_order(store):
    def rows(reader):
        return reader.execute(
            "SELECT idx, attestation FROM log_leaves ORDER BY idx"
        ).fetchall()

    found = await store.read(rows)
    assert [index for index, _ in found] == list(range(len(found)))
    for writer in "ab":
        names = [n for _, n in found if n and n.startswith(f"att_{writer}_")]
        assert names == [f"att_{writer}_{i}" for i in range(len(names))]


async def test_they_took_turns(store):
    def order(reader):
        rows = reader.execute(
            "SELECT boot FROM log_leaves JOIN attestations "
            "ON attestations.id = attestation ORDER BY idx"
        )
        return [boot for (boot,) in rows]

    boots = await store.read(order)
    changes = sum(a != b for a, b in itertools.pairwise(boots))
    assert changes > 2


async def test_another_goes_on_where_they_ended(store, written):
    size = await store.read(log_size)
    late = SqliteStore.open(written[0], log=True, shared=True, check=False)
    late.add_boot(f"sha256:{size}", b"{}", f"late{size}.x.y")
    await store.put(Record.of(f"att_{size}", f"sha256:{size}", 0, f"{size}.y.z~"))
    late.close()
    assert await store.read(log_size) == size + 2
    root = await store.read(lambda reader: log_root(reader, size + 2))
    # The check of the next one to open it recomputes the tree.
    again = SqliteStore.open(written[0], log=True, shared=True)
    assert await again.read(lambda reader: log_root(reader, size + 2)) == root
    again.close()


async def test_lock_file_that_cannot_be_had_is_a_store_error(tmp_path):
    store = SqliteStore.open(tmp_path / "attestations.sqlite", shared=True)
    store.add_boot("sha256:b", b"{}")
    (turn,) = tmp_path.glob("*-turn")
    turn.unlink()
    turn.mkdir()
    with pytest.raises(StoreError, match="no lock"):
        await store.put(Record.of("att_1", "sha256:b", 0, "token~"))
    turn.rmdir()
    await store.put(Record.of("att_1", "sha256:b", 0, "token~"))
    store.close()
