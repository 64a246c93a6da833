"""Hours of tokens in PostgreSQL: one table, or partitions. See `scale.py`.

The plain table is the gateway's own. The partitioned one is what it would have to
become; that the schema as it stands can't be partitioned is asked of the server.
"""

import secrets
import threading
import time
from typing import Any

import psycopg
from scale_meter import cost, timed
from scale_replicas import BATCH, records
from scale_tree import real_leaf

from attest.log.tiles import Edge
from gateway.store.postgres import PostgresStore

_FILL = """
INSERT INTO {table} SELECT md5(i::text), '{boot}', i, '{token}' {more}
FROM generate_series({first}, {last}) i
"""
_PARTITIONED = """
CREATE TABLE by_hour (
    id TEXT NOT NULL, boot TEXT NOT NULL REFERENCES boots, seq BIGINT NOT NULL,
    token TEXT NOT NULL, hour BIGINT NOT NULL,
    PRIMARY KEY (id, hour), UNIQUE (boot, seq, hour)
) PARTITION BY RANGE (hour)
"""
_AS_IT_STANDS = {
    "attestations: PRIMARY KEY (id)": "CREATE TABLE t (id TEXT PRIMARY KEY, "
    "hour BIGINT NOT NULL) PARTITION BY RANGE (hour)",
    "attestations: UNIQUE (boot, seq)": "CREATE TABLE t (boot TEXT, seq BIGINT, "
    "hour BIGINT NOT NULL, UNIQUE (boot, seq)) PARTITION BY RANGE (hour)",
    "log_leaves by idx: UNIQUE (attestation)": "CREATE TABLE t (idx BIGINT PRIMARY KEY,"
    " attestation TEXT UNIQUE) PARTITION BY RANGE (idx)",
}
Connection = psycopg.Connection[Any]


def _refusals(connection: Connection) -> dict[str, str]:
    """What the server says to partitions of the constraints that there are."""
    found = {}
    for name, statement in _AS_IT_STANDS.items():
        try:
            with connection.transaction():
                connection.execute(statement)
                raise psycopg.Rollback
        except psycopg.Error as error:
            found[name] = str(error).splitlines()[0]
        else:
            found[name] = "accepted"
    return found


def _insert(
    connection: Connection, table: str, boot: str, hour: int | None, *, batches: int
) -> dict[str, float]:
    """Rows a second: each row a round trip, then as one pipeline, as the store does."""
    marks = "%s, %s, %s, %s" + ("" if hour is None else ", %s")
    statement = f"INSERT INTO {table} VALUES ({marks})"
    more = () if hour is None else (hour,)
    rates, seq = {}, 10**9
    for way in ("one_by_one", "pipelined"):
        rows = [(*r, *more) for r in records(boot, seq, BATCH * batches)]
        seq += len(rows)
        started = time.perf_counter()
        for at in range(0, len(rows), BATCH):
            with connection.transaction(), connection.cursor() as cursor:
                if way == "pipelined":
                    cursor.executemany(statement, rows[at : at + BATCH])
                else:
                    for row in rows[at : at + BATCH]:
                        connection.execute(statement, row)
        rates[way] = len(rows) / (time.perf_counter() - started)
    return rates


def measure_partitions(dsn: str, *, rows: int, hours: int) -> dict[str, Any]:
    """Insert rates, then an hour dropped against an hour deleted.

    Filled by the server with short tokens, as 2.5 kB each would take gigabytes; the
    rows whose insertion is timed have their real length.
    """
    PostgresStore.open(dsn).close()
    boot, found, each = secrets.token_hex(32), {}, rows // hours
    with psycopg.connect(dsn, autocommit=True) as connection:
        found["as_it_stands"] = _refusals(connection)
        connection.execute("INSERT INTO boots VALUES (%s, '')", (boot,))
        connection.execute(_PARTITIONED)
        for hour in range(hours + 1):
            connection.execute(
                f"CREATE TABLE hour_{hour} PARTITION OF by_hour "
                f"FOR VALUES FROM ({hour}) TO ({hour + 1})"
            )
        fill = {"boot": boot, "token": "x" * 64}
        for hour in range(hours):
            span = {"first": hour * each, "last": (hour + 1) * each - 1}
            for table, more in (("attestations", ""), ("by_hour", f", {hour}")):
                filling = _FILL.format(table=table, more=more, **span, **fill)
                connection.execute(filling)
        connection.execute("CHECKPOINT")
        found |= {"rows": rows, "rows_an_hour": each, "insert": {}}
        for table, hour in (("attestations", None), ("by_hour", hours)):
            rates = _insert(connection, table, boot, hour, batches=12)
            found["insert"][table] = rates
        found |= _removal(connection, each)
    return found


def _removal(connection: Connection, each: int) -> dict[str, Any]:
    def size(table: str) -> int:
        row = connection.execute(
            "SELECT pg_total_relation_size(%s)", (table,)
        ).fetchone()
        return 0 if row is None else int(row[0])

    def wal() -> int:
        row = connection.execute("SELECT pg_current_wal_lsn() - '0/0'").fetchone()
        return 0 if row is None else int(row[0])

    found, before, start = {}, size("attestations"), wal()
    _, seconds = timed(
        lambda: connection.execute("DELETE FROM attestations WHERE seq < %s", (each,))
    )
    _, vacuum = timed(lambda: connection.execute("VACUUM attestations"))
    found["delete"] = {
        "seconds": seconds,
        "vacuum_seconds": vacuum,
        "wal_bytes": wal() - start,
        "bytes_freed_to_the_disk": before - size("attestations"),
    }
    before, start = size("hour_0"), wal()
    _, seconds = timed(lambda: connection.execute("DROP TABLE hour_0"))
    found["drop"] = {
        "seconds": seconds,
        "wal_bytes": wal() - start,
        "bytes_freed_to_the_disk": before,
    }
    return found


def measure_restart(dsn: str, *, entries: int) -> dict[str, Any]:
    """How long a replica's commit waits while another one starts and checks the log."""
    first = PostgresStore.open(dsn, log=True)
    boot = "sha256:" + secrets.token_hex(32)
    first.add_boot(boot, b"{}")
    with psycopg.connect(dsn) as raw, raw.cursor() as cursor:
        copy_log(cursor, entries)
    alone = timed(lambda: first.add_boot(secrets.token_hex(32), b"{}"))[1]
    found: dict[str, Any] = {"entries": entries, "commit_alone_ms": alone * 1e3}

    def restart() -> None:
        with cost(found, "start"):
            second = PostgresStore.open(dsn, log=True)
        second.close()

    thread = threading.Thread(target=restart)
    thread.start()
    longest = 0.0
    while thread.is_alive():
        commit = timed(lambda: first.add_boot(secrets.token_hex(32), b"{}"))[1]
        longest = max(longest, commit)
    thread.join()
    first.close()
    return found | {"longest_commit_meanwhile_ms": longest * 1e3}


def copy_log(cursor: "psycopg.Cursor[Any]", entries: int) -> None:
    """Fill the log's tables with a real tree of `entries` leaves."""
    edge, hashes = Edge(), []
    with cursor.copy("COPY log_leaves (idx, leaf) FROM STDIN") as copy:
        for index in range(entries):
            hashes += edge.append(real_leaf(index))
            copy.write_row((index, real_leaf(index)))
    with cursor.copy("COPY log_hashes (level, idx, hash) FROM STDIN") as copy:
        for row in hashes:
            copy.write_row(row)
