"""What an auditor can find, and how two postures differ."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from attest.digests import digest

__all__ = ["Finding", "Kind", "changes"]

_MAX_CHANGES = 12
_MAX_SHOWN = 80


class Kind(StrEnum):
    """What was found; the first eight say that the log or its operator lied."""

    FORKED = "forked"
    SHRUNK = "shrunk"
    HEAD = "head_not_signed"
    MISSING = "record_missing"
    TWICE = "record_forked"
    ALTERED = "record_altered"
    INVALID = "record_invalid"
    NOT_LOGGED = "token_not_in_log"
    BOOT = "boot"
    POSTURE = "posture_changed"
    SYSTEM_PROMPT = "system_prompt"
    REFUSED = "start_refused"

    @property
    def false(self) -> bool:
        """A definite no, not a change."""
        return list(Kind).index(self) < list(Kind).index(Kind.BOOT)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found.

    Attributes:
        index: entry of the log that it is about, None where it is about the whole.
    """

    kind: Kind
    index: int | None
    detail: str

    def to_json(self) -> dict[str, Any]:
        """The finding for machines."""
        return {"kind": str(self.kind), "index": self.index, "detail": self.detail}


def changes(before: Any, after: Any, path: str = "") -> list[str]:
    """What differs between two objects, by the path of each member; twelve at most."""
    if not (isinstance(before, dict) and isinstance(after, dict)):
        return (
            [] if before == after else [f"{path}: {_short(before)} → {_short(after)}"]
        )
    found: list[str] = []
    for name in sorted(before.keys() | after.keys()):
        inner = f"{path}.{name}" if path else name
        found += changes(before.get(name), after.get(name), inner)
    if not path and len(found) > _MAX_CHANGES:
        more = len(found) - _MAX_CHANGES
        return [*found[:_MAX_CHANGES], f"and {more} more"]
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MAX_SHOWN else digest(text.encode())
