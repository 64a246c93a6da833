"""The durable home of attestations and of the log: a file, or a database server."""

from attest.errors import ConfigurationError
from gateway.settings import Settings
from gateway.store.records import RecordStore
from gateway.store.sqlite import SqliteStore

__all__ = ["open_store"]


def open_store(
    settings: Settings, *, log: bool, shared: bool = False, check: bool = True
) -> RecordStore:
    """The store that the settings describe, ready to take records.

    Args:
        settings: of the gateway.
        log: whether a log is kept.
        shared: whether other processes of this host write to it too; a database server
            takes any number anyway.
        check: whether the whole log is checked first.

    Raises:
        ConfigurationError: it can't be opened or written, or its driver is missing.
        StartupRefusedError: the log in it was damaged.
    """
    if settings.postgres_dsn_file is None:
        path = settings.state_dir / "attestations.sqlite"
        return SqliteStore.open(path, log=log, shared=shared, check=check)
    try:
        from gateway.store.postgres import PostgresStore, read_dsn  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"postgres_dsn_file: needs the library {error.name}",
            hint="type: pip install 'attest-gateway[postgres]'",
        ) from error
    return PostgresStore.open(
        read_dsn(settings.postgres_dsn_file), log=log, check=check
    )
