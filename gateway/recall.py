"""Status lists that the gateway was given: read, not judged."""

from collections.abc import Sequence
from pathlib import Path

from attest.errors import ConfigurationError
from attest.tokens import MAX_TOKEN

__all__ = ["read_status_lists"]


def read_status_lists(files: Sequence[Path]) -> tuple[str, ...]:
    """The signed status lists in these files, unverified.

    Raises:
        ConfigurationError: a file can't be read, or is too large for a token.
    """
    found = []
    for path in files:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_TOKEN + 2)
        except OSError as error:
            raise ConfigurationError(
                f"status_lists: {path}: {error.strerror}",
                hint="make one: attest status issue FILE --key KEY --uri URI",
            ) from error
        if len(data) > MAX_TOKEN + 1:
            raise ConfigurationError(f"status_lists: {path}: is no status list")
        found.append(data.decode("ascii", "replace").strip())
    return tuple(found)
