"""Members of an answer, read strictly; absent and null are one value."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from attest.errors import FormatError

__all__ = [
    "MAX_PARTS",
    "Budget",
    "Usage",
    "finish_reason",
    "items",
    "joined",
    "object_of",
    "once",
    "position",
    "text_of",
]

# Tool calls of one choice, blocks of one message, items of one response, parts of one
# item.
MAX_PARTS = 128
_MAX_FINISH_REASON = 64


class Budget:
    """How many characters of text the choices of one answer may still hold."""

    def __init__(self, characters: int) -> None:
        self._left = characters

    def take(self, characters: int) -> None:
        """Spend some.

        Raises:
            FormatError: the answer holds more text than allowed.
        """
        self._left -= characters
        if self._left < 0:
            raise FormatError("answer: more text than is kept for one answer")


class Usage(NamedTuple):
    """Tokens as the engine counted them, None where it did not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None


def text_of(item: Mapping[str, Any], name: str) -> str:
    """A member that is a string; absent and null count as empty.

    Raises:
        FormatError: it is something else.
    """
    value = item.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FormatError(f"answer: {name} must be a string or null")
    return value


def object_of(item: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A member that is an object; absent and null count as empty.

    Raises:
        FormatError: it is something else.
    """
    value = item.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FormatError(f"answer: {name} must be an object or null")
    return value


def items(item: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A member that is a list of objects.

    Raises:
        FormatError: it is something else, or absent.
    """
    value = item.get(name)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise FormatError(f"answer: {name} must be a list of objects")
    return value


def position(item: Mapping[str, Any], name: str) -> int:
    """A member that says to which part of an answer something belongs.

    Raises:
        FormatError: it is no small number. A guess would mix two parts.
    """
    value = item.get(name)
    if type(value) is not int or not 0 <= value < MAX_PARTS:
        raise FormatError(f"answer: {name} must be a number below {MAX_PARTS}")
    return value


def once(current: str | None, item: Mapping[str, Any], name: str) -> str | None:
    """A value that comes whole and may be repeated, but not changed.

    Raises:
        FormatError: it changes, or is no string.
    """
    value = text_of(item, name)
    if not value or value == current:
        return current
    if current is not None:
        raise FormatError(f"answer: {name} changes within one answer")
    return value


def finish_reason(
    current: str | None, item: Mapping[str, Any], name: str = "finish_reason"
) -> str | None:
    """Why a choice ended; comes once.

    Raises:
        FormatError: it is not a short ASCII word, or changes.
    """
    reason = once(current, item, name)
    if reason is not None and not (
        len(reason) <= _MAX_FINISH_REASON and reason.isascii() and reason.isprintable()
    ):
        raise FormatError(f"answer: {name} is not a short ASCII word")
    return reason


def joined(parts: list[str]) -> str:
    """The text, with surrogate halves that two parts of a stream split put together.

    JSON strings are UTF-16 code units (RFC 8259 §7), so a part may end between them.

    Raises:
        FormatError: it holds a lone surrogate, which UTF-8 cannot carry.
    """
    text = "".join(parts)
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            raise FormatError("answer: a text holds a lone surrogate") from None
    return text
