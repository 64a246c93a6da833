"""The rows of boots and refusals, as whoever looks for keys reads them."""

from gateway.store.database import Connection

__all__ = ["boot_digests", "boot_endorsements"]


def boot_digests(reader: Connection, limit: int) -> list[str]:
    """The names of the last boots and refusals, the latest first."""
    rows = reader.execute(
        "SELECT digest FROM boots ORDER BY rowid DESC LIMIT ?", (limit,)
    )
    return [str(row[0]) for row in rows]


def boot_endorsements(reader: Connection, digest: str) -> bytes | None:
    """What a boot record or a refusal rests on, None when unknown."""
    row = reader.execute(
        "SELECT endorsements FROM boots WHERE digest = ?", (digest,)
    ).fetchone()
    return None if row is None else bytes(row[0])
