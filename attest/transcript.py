"""What an answer says, whether it came as one body or as a stream.

`Transcript` reads either form and gives, for each choice, the same small object. Its
digest is what a token commits to, so that somebody who only kept the text can still
prove it. Log-probabilities, token ids and vendor members are covered by the digest of
the raw bytes alone.

One rule makes the two forms meet: for content, refusal and reasoning, an absent member,
null and the empty string are one value, null. A stream opens with `"content": ""` where
the body of the same answer says null. The text of a completion is always a string.
Embeddings, scores, ranks and classes are no text: they have no such object.
"""

from collections.abc import Callable, Iterable
from typing import Any

from attest._recurring import RecurringReader
from attest.canonical import canonical, read_object
from attest.claims import Outcome
from attest.dialects import SHAPES, Budget, Dialect, Usage
from attest.digests import digest
from attest.errors import FormatError
from attest.request import RequestFacts, request_facts
from attest.sse import MAX_EVENT, Event, split_run

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


class Transcript:
    """Gathers one answer: `feed_event(s)` and `end`, or `feed_body` once.

    Nothing here raises on bad input: an answer that breaks the rules of its dialect is
    a fact about the answer. After that what could be read stays readable.

    Attributes:
        terminal_seen: the stream's last event came. It alone never means complete:
            vLLM sends it after an abort too.
        malformed: something is not JSON, has the wrong type, contradicts itself, comes
            after the terminal event, or is beyond a bound.
    """

    def __init__(
        self, dialect: Dialect, *, expected_choices: int | None = None
    ) -> None:
        self._shape = SHAPES[dialect]
        self._answer = self._shape.answer(Budget(MAX_TEXT))
        self._expected = 1 if expected_choices is None else expected_choices
        self._streamed = self._fed = self._cut = False
        self._error = False
        self._events = RecurringReader(max_bytes=MAX_EVENT)
        self._judged, self._joinable = 0, False
        self.terminal_seen = self.malformed = False

    def feed_event(self, event: Event) -> None:
        """Take in the next event of a stream; comments count for nothing."""
        self._streamed = True
        data = event.data
        if data is None:
            return
        self._fed = True
        if self.terminal_seen:
            self.malformed = True
            return
        self.terminal_seen = self._shape.ends(event)
        if not data.startswith(b"[DONE]"):
            self._read(data, self._events.read, self._answer.event)

    def feed_events(self, events: Iterable[Event]) -> None:
        """The same as `feed_event` for each, in order; cheaper where they are alike.

        Tokens that come one to an event, with nothing else new, are read as one.
        """
        texts: list[str] = []
        for event in events:
            data = event.data
            if data is not None and self._joins() and not self.terminal_seen:
                text = self._events.text(data)
                if text is not None:
                    texts.append(text)
                    continue
            self._join(texts)
            self.feed_event(event)
        self._join(texts)

    def feed_run(self, run: bytes) -> None:
        """The same for whole events of which each is one line `data: …` and two LF.

        That is not checked.
        """
        if self._joins() and not self.terminal_seen:
            text = self._events.run(run)
            if text is not None:
                self._join([text])
                return
        self.feed_events(split_run(run))

    def _join(self, texts: list[str]) -> None:
        if texts:
            value = self._events.filled("".join(texts))
            texts.clear()
            self._streamed = self._fed = True
            self._take(value, self._answer.event)

    def _joins(self) -> bool:
        """Whether events of the form that is known may be read as one."""
        if self._judged != self._events.version:
            self._judged = self._events.version
            self._joinable = self._answer.joins(*self._events.form)
        return self._joinable

    def feed_body(self, body: bytes) -> None:
        """Take in a whole JSON body, at most 64 MiB."""
        self._fed = True
        self._read(body, _read_body, self._answer.body)

    def end(self, rest: bytes = b"") -> None:
        """The stream is over; `rest` is what its splitter still held."""
        self._streamed = True
        self._cut = any(line.startswith(b"data") for line in rest.splitlines())

    @property
    def response_id(self) -> str | None:
        """`id` of the answer, None if absent or over 256 characters."""
        return self._answer.response_id

    @property
    def response_model(self) -> str | None:
        """`model` of the answer, likewise."""
        return self._answer.response_model

    @property
    def usage(self) -> Usage:
        """The token counts that were seen last."""
        return self._answer.usage

    @property
    def error_seen(self) -> bool:
        """Whether the answer is or holds an error object."""
        return self._error or self._answer.failed

    @property
    def choice_count(self) -> int:
        """Choices that were seen, also unattestable ones."""
        return len(self._answer.choices)

    @property
    def finish_reasons(self) -> tuple[str | None, ...]:
        """Finish reason of each choice, sorted by its index."""
        return self._answer.finish_reasons

    @property
    def terminator_missing(self) -> bool:
        """Whether this is a stream whose last event did not come."""
        return self._streamed and not self.terminal_seen

    @property
    def unattestable(self) -> tuple[int, ...]:
        """Indexes of the choices that `outputs` leaves out, sorted.

        Their text holds a lone surrogate, which no UTF-8 text equals, their members
        have wrong types, or they hold more than text, reasoning and function calls.
        """
        kept = {output["index"] for output in self.outputs()}
        return tuple(sorted(self._answer.choices.keys() - kept))

    def outputs(self) -> tuple[dict[str, Any], ...]:
        """The object to hash for each choice, sorted by index.

        chat, responses and messages: {index, role, content, refusal, reasoning,
        tool_calls[{index, id, type, name, arguments}], finish_reason}; completions:
        {index, text, finish_reason}; audio: {index, text}. The modules of
        `attest.dialects` say what stands where. `arguments` is the exact string of the
        engine, in messages the RFC 8785 form of the input. What RFC 8785 cannot write
        is left out, never replaced.
        """
        outputs = []
        for index, choice in sorted(self._answer.choices.items()):
            if index in self._answer.broken:
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
        ended = self._answer.has_ended(self._expected)
        if self._cut or (
            self.terminator_missing and not (ended and self._answer.reasons_end)
        ):
            return Outcome.TRUNCATED
        whole = ended and self._answer.is_whole
        return Outcome.COMPLETE if whole else Outcome.INCOMPLETE

    def _read(
        self,
        data: bytes,
        read: Callable[[bytes], dict[str, Any]],
        take: Callable[[dict[str, Any]], None],
    ) -> None:
        try:
            value = read(data)
        except FormatError:
            self.malformed = True
        else:
            self._take(value, take)

    def _take(
        self, value: dict[str, Any], take: Callable[[dict[str, Any]], None]
    ) -> None:
        if _is_error(value):
            self._error = True
            return
        try:
            take(value)
        except FormatError:
            self.malformed = True


def _read_body(body: bytes) -> dict[str, Any]:
    return read_object(body, max_bytes=MAX_BODY)


def _is_error(value: dict[str, Any]) -> bool:
    # The second form is that of older engines, the third that of typed events.
    return (
        bool(value.get("error"))
        or value.get("object") == "error"
        or value.get("type") == "error"
    )


def holds_error(data: bytes) -> bool:
    """Whether the data of an event is an error object, at which SDKs stop reading."""
    try:
        return _is_error(read_object(data, max_bytes=MAX_EVENT))
    except FormatError:
        return False


def output_digest(
    output: dict[str, Any], *, write: Callable[[Any], bytes] = canonical
) -> str:
    """Digest of the RFC 8785 form of one object of `Transcript.outputs`.

    `write` makes that form as `canonical` does, for a caller that has a faster way.

    Raises:
        FormatError: it was not made by `outputs` and has no RFC 8785 form.
    """
    return digest(write(output))
