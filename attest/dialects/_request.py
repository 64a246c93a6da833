"""What the readers of requests have in common."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from attest.errors import FormatError

__all__ = ["Prompt", "integer", "message_text", "objects", "text"]

# Stands between the texts of several parts of one message. It keeps a prompt that was
# cut in two, which the model reads differently, from passing as the whole one.
SEPARATOR = "\x1e"

_TEXT_PARTS = ("text", "input_text")


class Prompt(NamedTuple):
    """What a request gives the model to read.

    Attributes:
        semantic: the prompt, whatever its spelling.
        system: texts of the system and developer messages, in the order in which the
            model reads them.
        choices: how many answers it asks for.
    """

    semantic: dict[str, Any]
    system: list[str]
    choices: int = 1


def integer(body: Mapping[str, Any], name: str, *, default: int) -> int:
    """A member that is an integer.

    Raises:
        FormatError: it is something else.
    """
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int:
        raise FormatError(f"{name}: must be an integer")
    return value


def objects(body: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """A member that is a list of objects.

    Raises:
        FormatError: it is something else.
    """
    value = body.get(name)
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise FormatError(f"{name}: must be a list of objects")
    return value


def text(body: Mapping[str, Any], name: str) -> str | None:
    """A member that is a string, None where it is absent or null.

    Raises:
        FormatError: it is something else.
    """
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise FormatError(f"{name}: must be a string")
    return value


def message_text(content: Any, *, hints: tuple[str, ...] = ()) -> str:
    """The text of a message, its parts joined by U+001E.

    A part that is not plain text stands as its JSON. `hints` names the members of a
    text part that change nothing of what the model reads.
    """
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return SEPARATOR.join(_part_text(part, hints) for part in parts)


def _part_text(part: Any, hints: tuple[str, ...]) -> str:
    if isinstance(part, dict) and part.get("type") in _TEXT_PARTS:
        found = part.get("text")
        if isinstance(found, str) and part.keys() <= {"type", "text", *hints}:
            return found
    return json.dumps(part, sort_keys=True)
