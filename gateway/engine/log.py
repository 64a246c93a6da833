"""The engine's own output: a bounded file, its last lines, and what they say."""

import re
from collections import deque
from collections.abc import Callable
from pathlib import Path

__all__ = ["EngineLog"]

_MAX_FILE_BYTES = 4 << 20
_TAIL_LINES = 20
_MAX_LINE = 400

# A progress bar rewrites its line with carriage returns.
_LINE_END = re.compile(rb"[\r\n]+")
_SHARDS = re.compile(r"Loading safetensors checkpoint shards: +(\d{1,3})% ")
_PHASES = (
    ("Starting to load model", "loading weights"),
    ("Loading weights took", "warming up"),
)


class EngineLog:
    """Takes the engine's output as it comes.

    The file is made with mode 0600. Beyond 4 MiB it is renamed to `<name>.1`, so that
    at most 8 MiB are kept.

    Attributes:
        tail: the last 20 lines, cut to 400 characters each.
    """

    def __init__(self, path: Path, on_progress: Callable[[str], None]) -> None:
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._path, self._report = path, on_progress
        self._rest, self._phase = b"", ""
        self._open()

    def _open(self) -> None:
        self._path.unlink(missing_ok=True)
        self._path.touch(0o600)
        self._file = self._path.open("ab", buffering=0)
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Write what came and report a new phase if it tells of one."""
        if self._size > _MAX_FILE_BYTES:
            self._file.close()
            self._path.replace(self._path.with_name(self._path.name + ".1"))
            self._open()
        self._file.write(data)
        self._size += len(data)
        *lines, self._rest = _LINE_END.split(self._rest + data)
        self._rest = self._rest[-_MAX_LINE:]
        for line in lines:
            self._line(line[:_MAX_LINE].decode("utf-8", "replace"))

    def close(self) -> None:
        """Close the file; the last lines stay."""
        self._file.close()

    def _line(self, text: str) -> None:
        if not text.strip():
            return
        self.tail.append(text)
        phase = next((word for mark, word in _PHASES if mark in text), self._phase)
        if shards := _SHARDS.search(text):
            phase = f"loading weights, {shards[1]}%"
        if phase != self._phase:
            self._phase = phase
            self._report(phase)
