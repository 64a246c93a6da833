"""Small JSON files in which a command remembers what it saw the last time."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attest.canonical import read_object
from attest.errors import ConfigurationError, FormatError
from attest.files import write_durably

__all__ = ["read_state", "replace_file", "state_lock", "write_state"]

_MAX_STATE = 64 * 1024 * 1024


def read_state(path: Path) -> dict[str, Any] | None:
    """What was written last, None where there is no file.

    Raises:
        ConfigurationError: unreadable, or not what `write_state` wrote.
    """
    try:
        return read_object(path.read_bytes(), max_bytes=_MAX_STATE)
    except FileNotFoundError:
        return None
    except (OSError, FormatError) as error:
        raise ConfigurationError(
            f"state: {path}: {getattr(error, 'strerror', None) or error}",
            hint="this file is what makes a fork visible: bring it back, or begin anew "
            "with another and say so",
        ) from error


def write_state(path: Path, value: dict[str, Any]) -> None:
    """Replace the file, wholly or not at all; returns when it is on disk.

    Raises:
        ConfigurationError: it can't be written.
    """
    replace_file(path, json.dumps(value, indent=1).encode())


def replace_file(path: Path, data: bytes) -> None:
    """As `write_state`, for any bytes.

    Raises:
        ConfigurationError: it can't be written.
    """
    try:
        write_durably(path, data)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written: {error.strerror}") from (
            error
        )


@contextlib.contextmanager
def state_lock(path: Path) -> Iterator[None]:
    """Keep other processes away from a state file.

    Raises:
        ConfigurationError: another process has it.
    """
    try:
        with path.with_name(path.name + ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except OSError as error:
        raise ConfigurationError(
            f"state: {path}: {error.strerror}", hint="another process may be using it"
        ) from error
