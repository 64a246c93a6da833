"""What the store needs of a database: little enough for SQLite and PostgreSQL alike.

Statements are written once, in the SQL that both take, with `?` for parameters.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

__all__ = ["Connection", "Cursor", "Database", "Text"]

Text = str
"""SQL. Never built from what a client sent."""


class Cursor(Protocol):
    """What a statement found."""

    rowcount: int

    def fetchone(self) -> Any:
        """The next row, None where there is none."""

    def fetchall(self) -> list[Any]:
        """All rows."""

    def __iter__(self) -> Any: ...


class Connection(Protocol):
    """One connection, used by one thread at a time."""

    def execute(self, statement: Text, parameters: Sequence[Any] = (), /) -> Cursor:
        """Run a statement."""

    def executemany(self, statement: Text, rows: Iterable[Sequence[Any]], /) -> object:
        """Run a statement for each row."""

    def close(self) -> None:
        """Give it up."""


class Database(Protocol):
    """Where connections come from.

    Attributes:
        name: for messages; without passwords.
        schema: statements that make what is not there yet, separated by `;`.
        errors: what its driver raises.
        shared: whether other processes write to it, too.
        hint: what to do when it can't be opened.
    """

    name: str
    schema: Text
    errors: tuple[type[Exception], ...]
    shared: bool
    hint: str

    def connect(self) -> Connection:
        """A new connection; what it commits survives a power failure."""

    def transaction(self, connection: Connection) -> AbstractContextManager[object]:
        """Commits at its end, rolls back when what is in it raises."""

    def snapshot(self, connection: Connection) -> AbstractContextManager[object]:
        """A transaction that reads one moment, and keeps nobody from writing."""

    def turn(self) -> AbstractContextManager[object]:
        """Held around each transaction that writes, where one writes at a time.

        Raises:
            One of `errors`: there is no turn to be had.
        """

    def lock_log(self, connection: Connection) -> None:
        """Within a transaction: nobody else adds to the log until it ends."""
