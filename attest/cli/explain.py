"""`attest explain`: what evidence claims, in words. It verifies nothing."""

import re
from typing import Annotated

import typer

from attest.bundle import MAX_BUNDLE
from attest.cli._explain import Document, Row, explained
from attest.cli._read import read_input
from attest.cli._run import Answer, command
from attest.cli._text import clean, moment, rendered, shortened
from attest.cli._unverified import NOT_VERIFIED

__all__ = ["app"]

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@command(app)
def explain(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A bundle, manifest, refusal or any of our tokens, or -.",
            show_default=False,
        ),
    ],
) -> Answer:
    """Say what evidence claims, what each claim means and what it does not prove.

    Nothing is verified: it shows what was written, by whomever.
    """
    documents = explained(read_input(file, max_bytes=MAX_BUNDLE))
    return Answer(
        {"verified": False, "documents": [item.to_json() for item in documents]},
        lambda: "\n\n".join([NOT_VERIFIED, *map(_text, documents), _ADVICE]),
    )


_ADVICE = (
    "To verify: attest verify bundle, response or refusal; attest manifest verify."
)
_DIGEST = re.compile(r"(sha256:[0-9a-f]{12})[0-9a-f]{52}")
_TIMES = frozenset(["exp", "iat", "nbf", "toe"])


def _text(document: Document) -> str:
    # Imported here: JSON output needs no tables.
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("claim", "value", "means", "does not prove"):
        table.add_column(column, overflow="fold")
    for row in document.rows:
        name = Text(clean(row.name), style="" if row.known else "yellow")
        value = Text(_value(row))
        table.add_row(name, value, Text(row.meaning), Text(row.not_proven))
    return f"{clean(document.title)}\n{rendered(table)}"


def _value(row: Row) -> str:
    if row.name in _TIMES and isinstance(row.value, int):
        return f"{row.value} ({moment(row.value)})"
    if row.name == "_sd" and isinstance(row.value, list):
        return f"{len(row.value)} digests"
    # Digests are for machines, who read JSON; the words around them are for people.
    return _DIGEST.sub(r"\1…", shortened(row.value, 400))
