"""Reading the objects of a stream in which each differs from the last in one string.

Of an engine's stream nearly every event is the one before it with another token. Where
that is proven, only the token is read.
"""

import re
from collections.abc import Mapping
from typing import Any

from attest.canonical import read_object

__all__ = ["Path", "RecurringReader"]

# The inside of a string literal that stands for itself: no quote, no escape, nothing
# that must be escaped.
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*+\Z')
_HOLE = "\u241b hole \u241b"
# A stream whose events have no common form is read in the ordinary way.
_MAX_ATTEMPTS = 16

Path = tuple[str | int, ...]


class RecurringReader:
    """Gives for each text what `read_object` gives, values and errors alike.

    Two texts in a row that differ within one string literal are a hint. The proof is to
    parse the text with a mark in place of that literal: where the mark comes out as one
    whole string and nothing else has changed, any other literal that needs no escape
    would come out likewise, since a parser reads from left to right. The objects that
    hold the string are new each time; the others are shared, and must not be changed.

    Attributes:
        version: counts the forms that were learnt.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._last = b""
        self._attempts = 0
        self._prefix = self._suffix = b""
        self._value: dict[str, Any] = {}
        self._path: Path = ()
        self.version = 0

    @property
    def form(self) -> tuple[Mapping[str, Any], Path]:
        """An object of the known form, and where its string stands; () for nowhere."""
        return self._value, self._path

    def read(self, data: bytes) -> dict[str, Any]:
        """The object; see `read_object`.

        Raises:
            FormatError: as `read_object`.
        """
        text = self.text(data)
        if text is not None:
            return self.filled(text)
        value = read_object(data, max_bytes=self._max_bytes)
        if self._attempts < _MAX_ATTEMPTS and self._last:
            self._learn(data, value)
        self._last = data
        return value

    def text(self, data: bytes) -> str | None:
        """The one string by which a text differs from those before it.

        None where the text is not of their form, or nothing is known about that.
        """
        start, end = len(self._prefix), len(data) - len(self._suffix)
        if (
            self._path
            and start <= end <= self._max_bytes - len(self._suffix)
            and data.startswith(self._prefix)
            and data.endswith(self._suffix)
        ):
            inside = data[start:end]
            if _PLAIN.match(inside):
                try:
                    return inside.decode()
                except UnicodeDecodeError:
                    pass  # the ordinary way says what is wrong
        return None

    def run(self, events: bytes) -> str | None:
        """The strings of events that are one line of data each, as one; see `text`.

        None where one of them is not of the known form.
        """
        opening, closing = b"data: " + self._prefix, self._suffix + b"\n\n"
        start, end = len(opening), len(events) - len(closing)
        if (
            self._path
            and start <= end <= self._max_bytes
            and events.startswith(opening)
            and events.endswith(closing)
        ):
            inside = events[start:end].split(closing + opening)
            if _PLAIN.match(b"".join(inside)):
                try:
                    return "".join([text.decode() for text in inside])
                except UnicodeDecodeError:
                    pass  # the ordinary way says what is wrong
        return None

    def filled(self, text: str) -> dict[str, Any]:
        """The object of the known form with this string in it."""
        root: dict[str, Any] = self._value.copy()
        node: Any = root
        for step in self._path[:-1]:
            node[step] = node = node[step].copy()
        node[self._path[-1]] = text
        return root

    def _learn(self, data: bytes, value: dict[str, Any]) -> None:
        self._attempts += 1
        at = _first_difference(self._last, data)
        start, end = data.rfind(b'"', 0, at) + 1, data.find(b'"', at)
        if not 0 < start <= end or len(data) + len(_HOLE) * 4 > self._max_bytes:
            return
        prefix, suffix = data[:start], data[end:]
        try:
            marked = read_object(
                prefix + _HOLE.encode() + suffix, max_bytes=self._max_bytes
            )
        except ValueError:
            return
        path = _only_difference(value, marked)
        if path:
            self._prefix, self._suffix = prefix, suffix
            self._value, self._path = value, path
            self.version += 1


def _first_difference(one: bytes, other: bytes) -> int:
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _only_difference(value: Any, marked: Any) -> Path | None:
    """Where `marked` has the mark for a string; None where more than that differs."""
    paths: list[Path] = []
    stack: list[tuple[Path, Any, Any]] = [((), value, marked)]
    while stack:
        path, one, other = stack.pop()
        if type(one) is not type(other):
            return None
        if isinstance(one, dict):
            if list(one) != list(other):
                return None
            stack.extend(((*path, key), one[key], other[key]) for key in one)
        elif isinstance(one, list):
            if len(one) != len(other):
                return None
            both = enumerate(zip(one, other, strict=True))
            stack.extend(((*path, i), a, b) for i, (a, b) in both)
        elif one != other:
            if other != _HOLE:
                return None
            paths.append(path)
    return paths[0] if len(paths) == 1 else None
