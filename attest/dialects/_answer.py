"""What the readers of all dialects have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from attest.dialects._values import Budget, Usage, joined, once, text_of
from attest.errors import FormatError

__all__ = ["MAX_CHOICES", "Answer", "Choice", "Message", "SingleAnswer", "ToolCall"]

MAX_CHOICES = 128
_MAX_NAME = 256


class Choice(Protocol):
    """One choice of an answer while it is gathered."""

    finish_reason: str | None

    def output(self, index: int) -> dict[str, Any]:
        """The object that is hashed for this choice.

        Raises:
            FormatError: it holds what such an object cannot show.
        """


class ToolCall:
    """One call of a function, and the exact text of its arguments."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._id: str | None = None
        self._name: str | None = None
        self._arguments: list[str] = []

    def name(
        self, item: Mapping[str, Any], function: Mapping[str, Any], id_: str = "id"
    ) -> None:
        """Note the call's id and the function's name where these members hold them.

        Raises:
            FormatError: one changes, or is no string.
        """
        self._id = once(self._id, item, id_)
        self._name = once(self._name, function, "name")

    def add(self, arguments: str) -> None:
        """Take in the next part of the arguments.

        Raises:
            FormatError: more text than allowed.
        """
        if arguments:
            self._budget.take(len(arguments))
            self._arguments.append(arguments)

    @property
    def arguments(self) -> str:
        """The arguments as they are hashed.

        Raises:
            FormatError: they hold a lone surrogate.
        """
        return joined(self._arguments)

    def output(self, index: int) -> dict[str, Any]:
        """The object in `tool_calls`; raises as `arguments`."""
        return {
            "index": index,
            "id": self._id,
            "type": "function",
            "name": self._name,
            "arguments": self.arguments,
        }


Place = tuple[int, ...]


class Message:
    """Text, refusal, reasoning and tool calls of one choice.

    Parts have a place, and are put together in the order of their places, however they
    came. Parts of one place are put together as they came.

    Attributes:
        opaque: it holds something besides these four; it then has no output.
    """

    def __init__(self, budget: Budget) -> None:
        self.finish_reason: str | None = None
        self.role: str | None = None
        self.opaque = False
        self.budget = budget
        self.tool_calls: dict[int, ToolCall] = {}
        self._texts: dict[str, dict[Place, list[str]]] = {}

    def add(self, name: str, text: str, at: Place = ()) -> None:
        """Take in a part of content, refusal or reasoning.

        Raises:
            FormatError: more text than allowed.
        """
        if text:
            self.budget.take(len(text))
            self._texts.setdefault(name, {}).setdefault(at, []).append(text)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said yet."""
        return not (self._texts or self.tool_calls or self.opaque)

    def output(self, index: int) -> dict[str, Any]:
        """The object that is hashed.

        Raises:
            FormatError: a text holds a lone surrogate, or the message is opaque.
        """
        if self.opaque:
            raise FormatError("answer: a part of a kind that is not read here")
        return {
            "index": index,
            "role": self.role or "assistant",
            "content": self._text("content"),
            "refusal": self._text("refusal"),
            "reasoning": self._text("reasoning"),
            "tool_calls": [
                call.output(number) for number, call in self._numbered_calls()
            ],
            "finish_reason": self.finish_reason,
        }

    def _text(self, name: str) -> str | None:
        if name not in self._texts:
            return None
        parts = [part for _, some in sorted(self._texts[name].items()) for part in some]
        return joined(parts) or None

    def _numbered_calls(self) -> list[tuple[int, ToolCall]]:
        return sorted(self.tool_calls.items())


def _name(value: Any) -> str | None:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


class Answer(ABC):
    """One answer of a dialect: `event` for each event of a stream, or `body` once.

    Attributes:
        choices: what was gathered, by index.
        broken: indexes of choices that contradict themselves or have wrong types.
        failed: the answer says itself that it failed.
        response_id: `id` of the answer, None if absent or over 256 characters.
        response_model: `model` of the answer, likewise.
        usage: last token counts that were seen.
    """

    # Reasons by which an engine says that an answer is whole.
    finished: ClassVar[frozenset[str]]
    # What the dialect calls the two token counts.
    counts: ClassVar[tuple[str, str]] = ("input_tokens", "output_tokens")
    # Whether reasons for all choices mean that a stream is at its end.
    reasons_end: ClassVar[bool] = True

    def __init__(self, budget: Budget) -> None:
        self.choices: dict[int, Choice] = {}
        self.broken: set[int] = set()
        self.failed = False
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.usage = Usage()
        self._budget = budget

    @abstractmethod
    def event(self, value: Mapping[str, Any]) -> None:
        """Take in the data of the next event.

        Raises:
            FormatError: it has a wrong type, or contradicts an earlier one.
        """

    @abstractmethod
    def body(self, value: Mapping[str, Any]) -> None:
        """Take in a whole body; raises as `event`."""

    def joins(
        self,
        value: Mapping[str, Any],  # noqa: ARG002  # for those that override it
        path: tuple[str | int, ...],  # noqa: ARG002
    ) -> bool:
        """Whether events like `value` come to the same as one with their texts joined.

        They differ from it in the string at `path` alone, and come in a row.
        """
        return False

    @property
    def finish_reasons(self) -> tuple[str | None, ...]:
        """Finish reason of each choice, sorted by its index."""
        choices = sorted(self.choices.items())
        return tuple([choice.finish_reason for _, choice in choices])

    def has_ended(self, expected: int) -> bool:
        """Whether so many choices gave a reason why they ended."""
        reasons = self.finish_reasons
        return len(reasons) >= expected and None not in reasons

    @property
    def is_whole(self) -> bool:
        """Whether all reasons are those of a whole answer."""
        return self.finished.issuperset(self.finish_reasons)

    def _open(self, value: Mapping[str, Any]) -> None:
        """Read what stands around the choices."""
        if self.response_id is None:
            self.response_id = _name(value.get("id"))
        if self.response_model is None:
            self.response_model = _name(value.get("model"))
        usage = value.get("usage")
        if isinstance(usage, dict):
            given, made = self.counts
            self.usage = Usage(_count(usage.get(given)), _count(usage.get(made)))


class SingleAnswer(Answer):
    """An answer of a dialect whose events have a `type` and whose one choice is 0."""

    def event(self, value: Mapping[str, Any]) -> None:
        """Take in an event; new kinds may come at any time, and are passed over.

        Raises:
            FormatError: it has no type, a wrong type, or contradicts an earlier one.
        """
        kind = text_of(value, "type")
        if not kind:
            raise FormatError("answer: an event without a type")
        self._guard(lambda: self._event(kind, value))

    def body(self, value: Mapping[str, Any]) -> None:
        """Take in a whole body; raises as `event`."""
        self._guard(lambda: self._body(value))

    @abstractmethod
    def _event(self, kind: str, value: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def _body(self, value: Mapping[str, Any]) -> None: ...

    def _guard(self, read: Callable[[], None]) -> None:
        try:
            read()
        except FormatError:
            self.broken.add(0)
            raise
