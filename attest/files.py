"""Writing a file so that a crash leaves the old content or the new, never a half."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

__all__ = ["replace_durably", "sync_folder", "write_durably"]


def write_durably(path: Path, data: bytes) -> None:
    """Replace the content of `path`; it is on disk when this returns.

    Raises:
        OSError: it can't be written; the old content is then still there.
    """
    with replace_durably(path) as file:
        file.write(data)


@contextmanager
def replace_durably(path: Path) -> Iterator[BinaryIO]:
    """A file to write the new content of `path` to; it is on disk when the block ends.

    Where the block raises, or the process is killed in it, the old content stays.

    Raises:
        OSError: as `write_durably`.
    """
    beside = path.with_name(path.name + ".new")
    with beside.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Return when what was made, renamed and taken away in a directory is on disk.

    Raises:
        OSError: it can't be written.
    """
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
