"""`attest bundle`: fetch the evidence about an answer, check it, show a part of it."""

import os
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from attest.bundle import MAX_BUNDLE, MEDIA_TYPE, Bundle
from attest.cli._http import check_address, fetch
from attest.cli._read import read_input
from attest.cli._run import Answer, command, new_app
from attest.cli._sign import refuse_existing, write_new
from attest.cli._text import clean
from attest.cli.verify import MAX_BODY
from attest.cli.verify import bundle as verify
from attest.errors import (
    AttestError,
    ConfigurationError,
    EvidenceUnavailableError,
)

__all__ = ["app"]

app = new_app("Fetch, verify and redact the evidence about one answer.")

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
# The gateway says 202 while the answer is still going out.
_MAX_WAIT_SECONDS = 30.0

_Bundle = Annotated[
    str, typer.Argument(metavar="FILE", help="A bundle, or -.", show_default=False)
]
_Output = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Where to write the bundle.")
]

command(app, "verify")(verify)


@command(app)
def get(  # noqa: PLR0913  # one parameter per option
    url: Annotated[
        str, typer.Argument(help="The gateway's address.", show_default=False)
    ],
    id: Annotated[  # noqa: A002  # what the user types
        str,
        typer.Argument(
            metavar="ID",
            help="The answer's Attestation-Id, such as att_….",
            show_default=False,
        ),
    ],
    *,
    api_key_env: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Environment variable that holds the API key."
        ),
    ] = "",
    request: Annotated[
        str,
        typer.Option(metavar="FILE", help="The exact body that was sent, to add it."),
    ] = "",
    response: Annotated[
        str,
        typer.Option(
            metavar="FILE", help="The exact body that was received, to add it."
        ),
    ] = "",
    output: _Output = None,
) -> Answer:
    """Fetch the evidence about one answer from the gateway that gave it.

    Nothing is verified here. The gateway keeps no bodies: add yours.
    """
    check_address(url)
    if not _ID.fullmatch(id):
        raise typer.BadParameter("ID: letters, digits, _ and - alone")
    path = output or Path(f"{id}.bundle.json")
    refuse_existing(path)
    found = _fetched(f"{url.rstrip('/')}/v1/attestations/{id}", _key(api_key_env))
    if request:
        found = replace(found, request=read_input(request, max_bytes=MAX_BODY))
    if response:
        found = replace(found, response=read_input(response, max_bytes=MAX_BODY))
    write_new(path, found.dumps())
    data = {"path": str(path), "id": id, "disclosed": list(found.disclosed_names)}
    return Answer(data, lambda: f"{path}: not verified yet: attest bundle verify")


@command(app)
def redact(
    file: _Bundle,
    *,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLAIM",
            help="A disclosed claim to keep, such as out.0; repeatable.",
        ),
    ] = None,
    output: _Output = None,
) -> Answer:
    """Write a bundle that discloses nothing but the claims named by --keep.

    Both bodies are left out too. The rest verifies as before: the claims that the token
    states in the clear, such as model, times and token counts, are signed as they are.
    """
    whole = Bundle.loads(read_input(file, max_bytes=MAX_BUNDLE))
    if output is None and file == "-":
        raise typer.BadParameter("a bundle from stdin needs --output")
    path = output or Path(file.removesuffix(".bundle.json") + ".redacted.bundle.json")
    refuse_existing(path)
    before = whole.disclosed_names
    kept = set(keep or ())
    if missing := sorted(kept.difference(before)):
        raise ConfigurationError(
            f"{file}: discloses no {', '.join(missing)}",
            hint=f"it discloses: {', '.join(map(clean, before)) or 'nothing'}",
        )
    write_new(path, whole.redacted(kept).dumps())
    dropped = [name for name in before if name not in kept]
    data = {"path": str(path), "kept": sorted(kept), "dropped": dropped}

    def text() -> str:
        return "\n".join(
            [
                f"{path}: discloses {', '.join(sorted(kept)) or 'nothing'}",
                f"left out: {', '.join(map(clean, dropped)) or 'no claim'}, and bodies",
            ]
        )

    return Answer(data, text)


def _key(name: str) -> str:
    if not name:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigurationError(f"environment: {name} is not set")
    return key


def _pause(retry_after: str) -> float:
    """Seconds to wait; a date (RFC 9110 §10.2.3) or nonsense counts as one second."""
    if re.fullmatch(r"[0-9]{1,2}", retry_after):
        return max(0.1, float(retry_after))
    return 1.0


def _fetched(url: str, api_key: str) -> Bundle:
    waited = 0.0
    while (found := fetch(url, api_key=api_key, max_bytes=MAX_BUNDLE)).status == 202:
        pause = _pause(found.retry_after)
        waited += pause
        if waited > _MAX_WAIT_SECONDS:
            raise EvidenceUnavailableError(
                f"{url}: not ready after {_MAX_WAIT_SECONDS:.0f} s",
                hint="the answer is still going out; ask again later",
            )
        time.sleep(pause)
    try:
        bundle = Bundle.loads(found.body)
        _ = bundle.disclosed_names  # whatever is written to a file can be redacted
    except AttestError as error:
        raise EvidenceUnavailableError(
            f"{url}: no bundle ({error})", hint=f"a gateway sends {MEDIA_TYPE}"
        ) from error
    return bundle
