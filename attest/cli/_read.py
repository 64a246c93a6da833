"""What a command reads: files, `-` for stdin, and the options that name them."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from attest.errors import ConfigurationError, FormatError
from attest.keys import PublicKey
from attest.log.note import KeyKind, NoteKey
from attest.policy import Policy

__all__ = [
    "AtOption",
    "AuthorityOption",
    "PolicyOption",
    "now",
    "parse_time",
    "read_input",
    "read_policy",
    "read_public_key",
    "read_vkeys",
]

_MAX_SMALL_FILE = 1024 * 1024

AuthorityOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="Public key of a training authority that you trust; repeatable.",
    ),
]
PolicyOption = Annotated[
    str,
    typer.Option(
        metavar="FILE", help="What you demand, as JSON: see docs/reference.md."
    ),
]


def parse_time(text: str) -> int:
    """Seconds since the epoch of a time like 2026-01-31T00:00:00Z."""
    try:
        moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise typer.BadParameter("expected a time like 2026-01-31T00:00:00Z") from None
    return int(moment.timestamp())


AtOption = Annotated[
    int | None,
    typer.Option(
        metavar="TIME",
        parser=parse_time,
        help="Judge as of this UTC time (2026-01-31T00:00:00Z), not as of now.",
    ),
]


def now() -> int:
    """The clock of this machine, in seconds since the epoch."""
    return int(datetime.now(UTC).timestamp())


def read_input(path: str, *, max_bytes: int = _MAX_SMALL_FILE) -> bytes:
    """The bytes of a file, or of stdin for `-`.

    Raises:
        ConfigurationError: it can't be read, is larger, or nothing came on stdin.
    """
    try:
        if path == "-":
            data = sys.stdin.buffer.read(max_bytes + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(max_bytes + 1)
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror}", hint="check the path"
        ) from error
    if len(data) > max_bytes:
        raise ConfigurationError(f"{path}: more than {max_bytes} bytes")
    if path == "-" and not data:
        raise ConfigurationError(
            "stdin: nothing came", hint="only one input can be - (stdin)"
        )
    return data


def read_public_key(path: str) -> PublicKey:
    """The public key in a PEM or JWK file.

    Raises:
        ConfigurationError: unreadable, or not a public key.
    """
    try:
        return PublicKey.from_bytes(read_input(path))
    except FormatError as error:
        raise ConfigurationError(
            f"{path}: {error}",
            hint="give the public half, such as authority.pub.pem",
        ) from error


def read_vkeys(texts: Sequence[str] | None, kind: KeyKind) -> tuple[NoteKey, ...]:
    """The keys of logs or of witnesses that options name.

    Raises:
        ConfigurationError: one is no vkey, or of the other kind.
    """
    found = []
    for text in texts or ():
        try:
            found.append(NoteKey.parse(text))
        except FormatError as error:
            raise ConfigurationError(
                str(error), hint="show it with: attest log key FILE --name NAME"
            ) from error
        if found[-1].kind is not kind:
            raise ConfigurationError(
                f"vkey: {found[-1].name} is not the key of a {kind.name.lower()}",
                hint="a witness's key is shown with --witness",
            )
    return tuple(found)


def read_policy(
    authorities: Sequence[str] | None, policy: str = "", *, threshold: int = 1
) -> Policy:
    """The policy in a file, or the strict default for some authorities."""
    if bool(authorities) == bool(policy):
        raise typer.BadParameter("give either --authority or --policy")
    if policy:
        return Policy.from_json(read_input(policy))
    keys = tuple(map(read_public_key, authorities or ()))
    return Policy(authorities=keys, threshold=threshold)
