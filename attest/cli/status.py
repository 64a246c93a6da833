"""`attest status`: make and show the lists by which manifests and keys are recalled."""

from pathlib import Path
from typing import Annotated, Any

import typer

from attest import tokens
from attest.cli._read import AuthorityOption, now, parse_time, read_input, read_policy
from attest.cli._run import Answer, command, new_app
from attest.cli._sign import read_signers, refuse_existing, write_new
from attest.cli._state import replace_file
from attest.cli._text import clean, moment
from attest.errors import ConfigurationError, FormatError, VerificationError
from attest.recall import MAX_ENTRIES, StatusList

__all__ = ["app"]

app = new_app("Recall manifests and keys: make and show status lists.")

_File = Annotated[
    Path, typer.Argument(metavar="FILE", help="The status list.", show_default=False)
]
_Key = Annotated[
    str,
    typer.Option(
        metavar="FILE", help="Private key of the authority, or of a key's issuer."
    ),
]


@command(app)
def issue(
    file: _File,
    *,
    key: _Key,
    uri: Annotated[
        str, typer.Option(help="The list's identity; manifests and keys name it.")
    ] = "",
    size: Annotated[
        int, typer.Option(min=1, help="Entries of a new list.")
    ] = MAX_ENTRIES,
) -> Answer:
    """Begin a list in which nothing is revoked, or sign an old one anew, as of now.

    A list says how things stood when it was signed, so sign it again from time to time.
    """
    signer = read_signers([key])[0]
    if file.exists():
        if uri:
            raise ConfigurationError(f"{file}: exists", hint="leave out --uri")
        items = _read(file, [signer.public])
        compact = items.sign(signer, now=now())
        replace_file(file, compact.encode() + b"\n")
    else:
        if not uri:
            raise typer.BadParameter("a new list needs --uri")
        refuse_existing(file)
        try:
            items = StatusList.new(uri, size)
        except FormatError as error:
            raise ConfigurationError(str(error)) from error
        compact = items.sign(signer, now=now())
        write_new(file, compact.encode() + b"\n")
    return _answer(StatusList.read(compact, [signer.public]), file)


@command(app)
def revoke(
    file: _File,
    *,
    key: _Key,
    index: Annotated[
        int, typer.Option(min=0, help="Entry of the manifest or certificate.")
    ],
    since: Annotated[
        int | None,
        typer.Option(
            metavar="TIME",
            parser=parse_time,
            help="Void from this UTC time on (2026-01-31T00:00:00Z). Default: now.",
        ),
    ] = None,
) -> Answer:
    """Revoke one entry, and sign the list anew.

    What was signed from that time on is then proven false. What was signed before stays
    proven: for a manifest by its own word, for a key only where witnesses saw it
    before, since whoever stole a key can date back. Name the earliest time at which it
    can have been stolen.
    """
    signer = read_signers([key])[0]
    items = _read(file, [signer.public])
    try:
        items = items.revoked(index, now() if since is None else since)
    except FormatError as error:
        raise ConfigurationError(str(error)) from error
    compact = items.sign(signer, now=now())
    replace_file(file, compact.encode() + b"\n")
    return _answer(StatusList.read(compact, [signer.public]), file)


@command(app)
def show(file: _File, *, authority: AuthorityOption = None) -> Answer:
    """Verify a status list and show what is revoked."""
    keys = read_policy(authority).authorities
    return _answer(_read(file, keys), file)


def _read(file: Path, keys: Any) -> StatusList:
    compact = read_input(str(file), max_bytes=tokens.MAX_TOKEN + 1)
    try:
        return StatusList.read(compact.decode("ascii", "replace").strip(), keys)
    except VerificationError as error:
        raise type(error)(
            f"{file}: {error}", hint="give the key that signed the list"
        ) from error


def _answer(items: StatusList, file: Path) -> Answer:
    revoked = {
        index: items.revoked_at.get(index)
        for index in range(items.size)
        if items.status(index)
    }
    data = {
        "path": str(file),
        "uri": items.uri,
        "issued_at": items.issued_at,
        "size": items.size,
        "revoked": {str(index): since for index, since in revoked.items()},
    }

    def text() -> str:
        lines = [
            f"status list {clean(items.uri)}",
            f"{items.size} entries, as of {moment(items.issued_at)}",
        ]
        for index, since in revoked.items():
            when = "from the beginning" if since is None else f"from {moment(since)} on"
            lines.append(f"entry {index}: revoked {when}")
        return "\n".join(lines if revoked else [*lines, "nothing is revoked"])

    return Answer(data, text)
