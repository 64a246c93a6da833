"""What an answer says, whether it came as one body or as a stream.

`Transcript` reads either form and gives, for each choice, the same small object. Its
digest is what a token commits to, so that somebody who only kept the text can still
prove it. Log-probabilities, token ids and vendor members are covered by the digest of
the raw bytes alone.

One rule makes the two forms meet: for content, refusal and reasoning, an absent member,
null and the empty string are one value, null. A stream opens with `"content": ""` where
the body of the same answer says null. The text of a completion is always a string.
"""

from typing import Any, NamedTuple

from attest.canonical import canonical, read_object
from attest.claims import Outcome
from attest.dialects import MAX_CHOICES, SHAPES, Budget, Choice, Dialect
from attest.digests import digest
from attest.errors import FormatError
from attest.request import RequestFacts, request_facts
from attest.sse import MAX_EVENT, Event

__all__ = [
    "MAX_BODY",
    "Dialect",
    "Outcome",
    "RequestFacts",
    "Transcript",
    "Usage",
    "holds_error",
    "output_digest",
    "request_facts",
]

MAX_BODY = 64 * 1024 * 1024
MAX_TEXT = 64 * 1024 * 1024
_MAX_NAME = 256

# Reasons by which an engine says that an answer is whole. vLLM's others are abort,
# error and repetition; one that is unknown here proves nothing either.
_FINISHED = frozenset(
    ["stop", "length", "tool_calls", "function_call", "content_filter"]
)


class Usage(NamedTuple):
    """Tokens as the engine counted them, None where it did not say."""

    input_tokens: int | None = None
    output_tokens: int | None = None


class Transcript:
    """Gathers one answer: `feed_event` for each event and `end`, or `feed_body` once.

    Nothing here raises on bad input: an answer that breaks the rules of its dialect is
    a fact about the answer. After that what could be read stays readable.

    Attributes:
        response_id: `id` of the answer, None if absent or over 256 characters.
        response_model: `model` of the answer, likewise.
        usage: last token counts that were seen.
        terminal_seen: the stream's last event came. It alone never means complete:
            vLLM sends it after an abort too.
        error_seen: the answer holds an error object.
        malformed: something is not JSON, has the wrong type, contradicts itself, comes
            after the terminal event, or is beyond a bound.
    """

    def __init__(
        self, dialect: Dialect, *, expected_choices: int | None = None
    ) -> None:
        self._shape = SHAPES[dialect]
        self._expected = expected_choices or 1
        self._budget = Budget(MAX_TEXT)
        self._choices: dict[int, Choice] = {}
        self._broken: set[int] = set()
        self._streamed = self._fed = self._cut = False
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.usage = Usage()
        self.terminal_seen = self.error_seen = self.malformed = False

    def feed_event(self, event: Event) -> None:
        """Take in the next event of a stream; comments count for nothing."""
        self._streamed = True
        data = event.data
        if data is None:
            return
        self._fed = True
        if self.terminal_seen:
            self.malformed = True
        elif data.startswith(self._shape.terminal):
            self.terminal_seen = True
        else:
            self._read(data, max_bytes=MAX_EVENT)

    def feed_body(self, body: bytes) -> None:
        """Take in a whole JSON body, at most 64 MiB."""
        self._fed = True
        self._read(body, max_bytes=MAX_BODY)

    def end(self, rest: bytes = b"") -> None:
        """The stream is over; `rest` is what its splitter still held."""
        self._streamed = True
        self._cut = any(line.startswith(b"data") for line in rest.splitlines())

    @property
    def choice_count(self) -> int:
        """Choices that were seen, also unattestable ones."""
        return len(self._choices)

    @property
    def finish_reasons(self) -> tuple[str | None, ...]:
        """Finish reason of each choice, sorted by its index."""
        return tuple(
            choice.finish_reason for _, choice in sorted(self._choices.items())
        )

    @property
    def terminator_missing(self) -> bool:
        """Whether this is a stream whose last event did not come."""
        return self._streamed and not self.terminal_seen

    @property
    def unattestable(self) -> tuple[int, ...]:
        """Indexes of the choices that `outputs` leaves out, sorted.

        Their text holds a lone surrogate, which no UTF-8 text equals, or their members
        have wrong types.
        """
        kept = {output["index"] for output in self.outputs()}
        return tuple(sorted(self._choices.keys() - kept))

    def outputs(self) -> tuple[dict[str, Any], ...]:
        """The object to hash for each choice, sorted by index.

        chat: {index, role, content, refusal, reasoning, tool_calls[{index, id, type,
        name, arguments}], finish_reason}; completions: {index, text, finish_reason}.
        `arguments` is the exact string of the engine. What RFC 8785 cannot write is
        left out, never replaced.
        """
        outputs = []
        for index, choice in sorted(self._choices.items()):
            if index in self._broken:
                continue
            try:
                outputs.append(choice.output(index))
            except FormatError:
                continue
        return tuple(outputs)

    def outcome(self) -> Outcome:
        """How the answer ended, as far as its own bytes tell.

        The caller knows more: a client that left, a status of 400 and above, a
        connection that broke.
        """
        if self.error_seen:
            return Outcome.UPSTREAM_ERROR
        if self.malformed or not (self._fed or self._cut):
            return Outcome.UPSTREAM_MALFORMED
        reasons = self.finish_reasons
        ended = len(reasons) >= self._expected and None not in reasons
        if self._cut or (self.terminator_missing and not ended):
            return Outcome.TRUNCATED
        whole = ended and _FINISHED.issuperset(reasons)
        return Outcome.COMPLETE if whole else Outcome.INCOMPLETE

    def _read(self, data: bytes, *, max_bytes: int) -> None:
        try:
            value = read_object(data, max_bytes=max_bytes)
            if _is_error(value):
                self.error_seen = True
                return
            self._read_envelope(value)
            self._read_choices(value.get("choices"))
        except FormatError:
            self.malformed = True

    def _read_envelope(self, value: dict[str, Any]) -> None:
        if self.response_id is None:
            self.response_id = _name(value.get("id"))
        if self.response_model is None:
            self.response_model = _name(value.get("model"))
        usage = value.get("usage")
        if isinstance(usage, dict):
            self.usage = Usage(
                _count(usage.get("prompt_tokens")),
                _count(usage.get("completion_tokens")),
            )

    def _read_choices(self, items: Any) -> None:
        if not isinstance(items, list):
            raise FormatError("answer: choices must be a list")
        for item in items:
            index = item.get("index") if isinstance(item, dict) else None
            if type(index) is not int or not 0 <= index < MAX_CHOICES:
                raise FormatError("answer: a choice without a usable index")
            self._merge(index, item)

    def _merge(self, index: int, item: dict[str, Any]) -> None:
        if index not in self._choices:
            self._choices[index] = self._shape.choice(self._budget)
        elif not self._streamed:
            self._broken.add(index)
            raise FormatError("answer: two choices with the same index")
        try:
            self._choices[index].merge(item, streamed=self._streamed)
        except FormatError:
            self._broken.add(index)
            raise


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


def _is_error(value: dict[str, Any]) -> bool:
    # The second form is that of older engines.
    return bool(value.get("error")) or value.get("object") == "error"


def holds_error(data: bytes) -> bool:
    """Whether the data of an event is an error object, at which SDKs stop reading."""
    try:
        return _is_error(read_object(data, max_bytes=MAX_EVENT))
    except FormatError:
        return False


def output_digest(output: dict[str, Any]) -> str:
    """Digest of the RFC 8785 form of one object of `Transcript.outputs`.

    Raises:
        FormatError: it was not made by `outputs` and has no RFC 8785 form.
    """
    return digest(canonical(output))
