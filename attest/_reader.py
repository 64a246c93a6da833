"""Typed access to parsed JSON; every refusal names the path of the member."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from attest.digests import parse_digest
from attest.errors import FormatError

__all__ = ["Reader"]

_MAX_TEXT = 4096


class Reader:
    """An object of a parsed document, and where in the document it stands.

    Every method raises FormatError where the member is missing or of another kind.
    Members that nobody asks for are not looked at.

    Args:
        value: the object.
        path: its place, such as `$.predicate`.
        document: what messages call the document.
    """

    def __init__(
        self, value: Mapping[str, Any], path: str = "$", *, document: str = "manifest"
    ) -> None:
        self.value, self.path, self.document = value, path, document

    def refuse(self, key: str, problem: str) -> FormatError:
        """The error that says what is wrong with a member."""
        return FormatError(f"{self.document}: {self.path}.{key} {problem}")

    def _get(self, key: str, kind: type, default: Any) -> Any:
        value = self.value.get(key, default)
        # bool is an int in Python; JSON keeps the two apart.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.refuse(key, f"must be {kind.__name__}")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A text of 1 to 4,096 characters."""
        text: str = self._get(key, str, default)
        if not text or len(text) > _MAX_TEXT:
            raise self.refuse(key, "is empty or too long")
        return text

    def integer(self, key: str, *, least: int | None = None) -> int:
        """A whole number, not below `least`."""
        number: int = self._get(key, int, None)
        if least is not None and number < least:
            raise self.refuse(key, f"must be at least {least}")
        return number

    def boolean(self, key: str) -> bool:
        """True or false."""
        value: bool = self._get(key, bool, None)
        return value

    def digest(self, key: str) -> str:
        """A text digest."""
        text = self.text(key)
        parse_digest(text)
        return text

    def optional_digest(self, key: str) -> str | None:
        """A text digest, or None where there is no such member or it is null."""
        return None if self.value.get(key) is None else self.digest(key)

    def time(self, key: str) -> int:
        """A time like 2026-01-31T00:00:00Z, in seconds since the epoch."""
        text = self.text(key)
        try:
            moment = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise self.refuse(key, "must be like 2026-01-31T00:00:00Z") from None
        return int(moment.timestamp())

    def child(self, key: str, *, optional: bool = False) -> "Reader":
        """An object; where it is optional and missing, an empty one."""
        value = self._get(key, dict, {} if optional else None)
        return Reader(value, f"{self.path}.{key}", document=self.document)

    def optional_child(self, key: str) -> "Reader | None":
        """An object, or None where there is no such member or it is null."""
        return None if self.value.get(key) is None else self.child(key)

    def children(self, key: str) -> list["Reader"]:
        """A list of objects; empty where there is no such member."""
        items = self._get(key, list, [])
        if not all(isinstance(item, dict) for item in items):
            raise self.refuse(key, "must hold objects")
        return [
            Reader(item, f"{self.path}.{key}[{i}]", document=self.document)
            for i, item in enumerate(items)
        ]

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty where there is no such member."""
        items = self._get(key, list, [])
        if not all(isinstance(item, str) for item in items):
            raise self.refuse(key, "must hold strings")
        return tuple(items)
