"""Words for a terminal, from values that somebody else wrote."""

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["clean", "moment", "rendered", "shortened", "status_line"]

_COLORS = {"ok": "green", "FAILED": "red", "unknown": "yellow"}


def clean(text: str) -> str:
    """`text` on one line, with every character that a terminal could act on spelt out.

    Escape sequences can rewrite what was printed before, and right-to-left marks can
    turn a no into a yes.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in text
    )


def shortened(value: Any, limit: int = 72) -> str:
    """A value of a parsed document as clean text of at most `limit` characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    # Cut first: a value can be megabytes long.
    return clean(text[: limit - 1] + "…" if len(text) > limit else text)


def moment(seconds: int) -> str:
    """A time for people, UTC; the number itself where no calendar reaches it."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return str(seconds)


def status_line(status: str, name: str, detail: str) -> str:
    """One line of a verdict; `detail` may come from outside."""
    word = typer.style(f"{status:<12}", fg=_COLORS.get(status), bold=status == "FAILED")
    return f"{word} {name:<12} {clean(detail)}"


def rendered(item: "RenderableType") -> str:
    """Tables and trees as text, coloured where stdout is a terminal."""
    # Imported here: it takes longer than a whole verification.
    from rich.console import Console  # noqa: PLC0415

    # In a pipe there is no width to keep to, and a digest in two halves helps nobody.
    console = Console(width=None if sys.stdout.isatty() else 140)
    with console.capture() as capture:
        console.print(item)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
