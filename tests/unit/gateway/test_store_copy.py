"""Moving from a file to a server: every row, or none."""

import asyncio

import pytest
from fakes.postgres import PostgresServer, needs_postgres
from typer.testing import CliRunner

from attest.errors import ConfigurationError
from gateway.cli import app
from gateway.store.boots import boot_digests
from gateway.store.copy import COLUMNS, copy_store
from gateway.store.log import keep_checkpoint, latest_checkpoint, log_root
from gateway.store.postgres import PostgresStore
from gateway.store.records import Record
from gateway.store.sqlite import SqliteStore

pytestmark = needs_postgres


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture
def dsn(server):
    return server.new_database("copied")


@pytest.fixture
async def source(tmp_path):
    path = tmp_path / "attestations.sqlite"
    store = SqliteStore.open(path, log=True)
    for boot in ("one", "two"):
        store.add_boot(f"sha256:{boot}", boot.encode(), f"{boot}.x.y")
    await asyncio.gather(
        *(
            store.put(Record.of(f"att_{i}", "sha256:one", i, f"{i}.x.y~d~"))
            for i in range(1500)
        )
    )
    await store.write(lambda c: keep_checkpoint(c, 1502, "a note\n", witnessed=True))
    store.close()
    return path


async def test_copy_is_the_same_store(source, dsn):
    counts = await copy_store(source, dsn)
    assert counts["attestations"] == 1500
    assert counts["log_leaves"] == 1502
    old, new = SqliteStore.open(source, log=True), PostgresStore.open(dsn, log=True)
    for name in ("att_0", "att_1499"):
        assert await new.get(name) == await old.get(name)
    boots = [await s.read(lambda c: boot_digests(c, 2)) for s in (old, new)]
    assert boots[0] == boots[1]
    for digest in boots[0]:
        assert await new.endorsements(digest) == await old.endorsements(digest)
    assert await new.read(latest_checkpoint) == "a note\n"
    roots = [await s.read(lambda c: log_root(c, 1502)) for s in (old, new)]
    assert roots[0] == roots[1]
    await new.put(Record.of("att_new", "sha256:one", 1500, "n.x.y~"))
    old.close()
    new.close()


async def test_second_copy_into_the_same_database_is_refused(source, dsn):
    await copy_store(source, dsn)
    with pytest.raises(ConfigurationError, match="not empty"):
        await copy_store(source, dsn)


async def test_source_that_is_not_there_makes_no_file(tmp_path, dsn):
    with pytest.raises(ConfigurationError, match="expected the attestations"):
        await copy_store(tmp_path / "absent.sqlite", dsn)
    assert not (tmp_path / "absent.sqlite").exists()


def test_command(source, dsn, tmp_path):
    path = tmp_path / "dsn"
    path.write_text(dsn)
    command = ["store", "copy", str(source), "--postgres-dsn-file", str(path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "1500 attestations" in result.output
    assert CliRunner().invoke(app, command).exit_code == 4


async def test_every_column_is_copied(source):
    """A column that is added to the schema must be added here too."""
    store = SqliteStore.open(source)
    for table, columns in COLUMNS.items():
        rows = await store.read(
            lambda c, table=table: c.execute(f"PRAGMA table_info({table})").fetchall()
        )
        assert tuple(row[1] for row in rows) == columns
    store.close()
