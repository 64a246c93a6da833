"""Progress bars for long work: on a terminal's stderr and nowhere else."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from attest.cli._run import is_quiet

__all__ = ["counted_progress", "hashing_progress"]


@contextmanager
def hashing_progress(
    context: typer.Context, total: int
) -> Iterator[Callable[[int], None] | None]:
    """Gives a function to tell of bytes done, or None where nobody would see a bar.

    The function may be called from several threads, one call at a time.
    """
    if is_quiet(context) or not sys.stderr.isatty():
        yield None
        return
    # Imported here: a pipeline that sees no bar need not wait for it.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = [BarColumn(), DownloadColumn(), TransferSpeedColumn()]
    with Progress(
        TextColumn("hashing"),
        *columns,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def counted_progress(
    context: typer.Context,
) -> Iterator[Callable[[str, int, int], None] | None]:
    """Gives a function to tell of steps: what is done, how many are, of how many.

    None where nobody would see it.
    """
    if is_quiet(context) or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield tell
