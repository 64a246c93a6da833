"""What differs between the API dialects when an answer is read.

One row of `SHAPES` per dialect. The chat and completions dialects share the envelope
`{id, model, choices[], usage}` and differ in what one choice holds.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from attest.errors import FormatError

__all__ = ["MAX_CHOICES", "SHAPES", "Budget", "Choice", "Dialect", "Shape"]

MAX_CHOICES = 128
MAX_TOOL_CALLS = 128
_MAX_FINISH_REASON = 64


class Dialect(StrEnum):
    """An API whose answers can be attested."""

    CHAT = "chat"
    COMPLETIONS = "completions"


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


class Choice(Protocol):
    """One choice of an answer while it is gathered."""

    finish_reason: str | None

    def merge(self, item: Mapping[str, Any], *, streamed: bool) -> None:
        """Take in one member of `choices`: a part of a stream, or the whole of a body.

        Raises:
            FormatError: a member has the wrong type or contradicts an earlier one.
        """

    def output(self, index: int) -> dict[str, Any]:
        """The object that is hashed for this choice.

        Raises:
            FormatError: a text holds a lone surrogate, which UTF-8 cannot carry.
        """


def _text(item: Mapping[str, Any], name: str) -> str:
    value = item.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise FormatError(f"answer: {name} must be a string or null")
    return value


def _object(item: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = item.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise FormatError(f"answer: {name} must be an object or null")
    return value


def _once(current: str | None, item: Mapping[str, Any], name: str) -> str | None:
    """A value that comes whole and may be repeated, but not changed."""
    value = _text(item, name)
    if not value or value == current:
        return current
    if current is not None:
        raise FormatError(f"answer: {name} changes within one answer")
    return value


def _joined(parts: list[str]) -> str:
    """The text, with surrogate halves that two parts of a stream split put together.

    JSON strings are UTF-16 code units (RFC 8259 §7), so a part may end between them.
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


class _ToolCall:
    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._id: str | None = None
        self._type: str | None = None
        self._name: str | None = None
        self._arguments: list[str] = []

    def merge(self, item: Mapping[str, Any]) -> None:
        self._id = _once(self._id, item, "id")
        self._type = _once(self._type, item, "type")
        if self._type not in (None, "function"):
            raise FormatError("answer: a tool call that is not a function call")
        function = _object(item, "function")
        self._name = _once(self._name, function, "name")
        arguments = _text(function, "arguments")
        self._budget.take(len(arguments))
        self._arguments.append(arguments)

    def output(self, index: int) -> dict[str, Any]:
        return {
            "index": index,
            "id": self._id,
            "type": "function",
            "name": self._name,
            "arguments": _joined(self._arguments),
        }


class _ChatChoice:
    """Content, refusal, reasoning and tool calls of a chat message."""

    def __init__(self, budget: Budget) -> None:
        self.finish_reason: str | None = None
        self._budget = budget
        self._role: str | None = None
        self._content: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, _ToolCall] = {}

    def merge(self, item: Mapping[str, Any], *, streamed: bool) -> None:
        part = _object(item, "delta" if streamed else "message")
        self._role = _once(self._role, part, "role")
        self._add(self._content, _text(part, "content"))
        self._add(self._refusal, _text(part, "refusal"))
        # Older engines say reasoning_content; some say both, with the same text.
        reasoning = _text(part, "reasoning") or _text(part, "reasoning_content")
        self._add(self._reasoning, reasoning)
        if part.get("tool_calls"):
            self._merge_tool_calls(part["tool_calls"], streamed=streamed)
        self.finish_reason = _finish_reason(self.finish_reason, item)

    def output(self, index: int) -> dict[str, Any]:
        return {
            "index": index,
            "role": self._role or "assistant",
            "content": _joined(self._content) or None,
            "refusal": _joined(self._refusal) or None,
            "reasoning": _joined(self._reasoning) or None,
            "tool_calls": [
                call.output(number) for number, call in sorted(self._tool_calls.items())
            ],
            "finish_reason": self.finish_reason,
        }

    def _add(self, parts: list[str], text: str) -> None:
        if text:
            self._budget.take(len(text))
            parts.append(text)

    def _merge_tool_calls(self, calls: Any, *, streamed: bool) -> None:
        if not isinstance(calls, list):
            raise FormatError("answer: tool_calls must be a list")
        for position, call in enumerate(calls):
            if not isinstance(call, dict):
                raise FormatError("answer: a tool call must be an object")
            # A body lists whole calls in order; in a stream only the index tells which
            # call a part belongs to, and a guess would mix the arguments of two calls.
            index = call.get("index") if streamed else position
            if type(index) is not int or not 0 <= index < MAX_TOOL_CALLS:
                raise FormatError("answer: a tool call without a usable index")
            if index not in self._tool_calls:
                self._tool_calls[index] = _ToolCall(self._budget)
            self._tool_calls[index].merge(call)


class _CompletionChoice:
    """The text of a completion."""

    def __init__(self, budget: Budget) -> None:
        self.finish_reason: str | None = None
        self._budget = budget
        self._text: list[str] = []

    def merge(self, item: Mapping[str, Any], *, streamed: bool) -> None:  # noqa: ARG002
        text = _text(item, "text")
        self._budget.take(len(text))
        self._text.append(text)
        self.finish_reason = _finish_reason(self.finish_reason, item)

    def output(self, index: int) -> dict[str, Any]:
        return {
            "index": index,
            "text": _joined(self._text),
            "finish_reason": self.finish_reason,
        }


def _finish_reason(current: str | None, item: Mapping[str, Any]) -> str | None:
    reason = _once(current, item, "finish_reason")
    if reason is not None and not (
        len(reason) <= _MAX_FINISH_REASON and reason.isascii() and reason.isprintable()
    ):
        raise FormatError("answer: finish_reason is not a short ASCII word")
    return reason


@dataclass(frozen=True, slots=True)
class Shape:
    """One row of the table.

    Attributes:
        choice: makes an empty choice.
        terminal: the data with which the last event of a stream begins. SDKs stop at
            an event that begins so, whatever follows.
    """

    choice: Callable[[Budget], Choice]
    terminal: bytes


SHAPES: Mapping[Dialect, Shape] = {
    Dialect.CHAT: Shape(choice=_ChatChoice, terminal=b"[DONE]"),
    Dialect.COMPLETIONS: Shape(choice=_CompletionChoice, terminal=b"[DONE]"),
}
