"""What differs between the API dialects, when a request and its answer are read.

One row of `SHAPES` per dialect.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any

from attest.canonical import read_object
from attest.dialects import audio, messages, openai, plain, responses
from attest.dialects._answer import MAX_CHOICES, Answer
from attest.dialects._request import SEPARATOR, Prompt
from attest.dialects._values import Budget, Usage
from attest.errors import FormatError
from attest.sse import MAX_EVENT, Event

__all__ = [
    "MAX_CHOICES",
    "SEPARATOR",
    "SHAPES",
    "Answer",
    "Budget",
    "Dialect",
    "Prompt",
    "Shape",
    "Usage",
]

# SDKs stop at an event that begins so, whatever follows, some in every dialect.
_DONE = b"[DONE]"


class Dialect(StrEnum):
    """An API whose answers can be attested."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    MESSAGES = "messages"
    POOLING = "pooling"
    RERANK = "rerank"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True)
class Shape:
    """One row of the table.

    Attributes:
        answer: makes a reader of one answer.
        prompt: reads what a request gives the model.
        terminals: types of the events that end a stream, besides `[DONE]`.
        words: one of them stands in every event that ends a stream. The quotes around
            a type keep it from standing in the text of an answer, where they are
            escaped.
    """

    answer: Callable[[Budget], Answer]
    prompt: Callable[[Mapping[str, Any]], Prompt]
    terminals: tuple[bytes, ...] = ()
    words: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        words = (_DONE, *(b'"%s"' % kind for kind in self.terminals))
        object.__setattr__(self, "words", words)

    def ends(self, event: Event) -> bool:
        """Whether no reader looks at anything that comes after this event."""
        data = event.data
        if data is None:
            return False
        if data.startswith(_DONE):
            return True
        if not self.terminals:
            return False
        # Looking for the word spares nearly every event a second parse.
        return event.name in self.terminals or (
            any(word in data for word in self.words) and _type(data) in self.terminals
        )


def _type(data: bytes) -> bytes | None:
    try:
        kind = read_object(data, max_bytes=MAX_EVENT).get("type")
    except FormatError:
        return None
    return kind.encode(errors="replace") if isinstance(kind, str) else None


SHAPES: Mapping[Dialect, Shape] = {
    Dialect.CHAT: Shape(openai.ChatAnswer, openai.chat_prompt),
    Dialect.COMPLETIONS: Shape(openai.CompletionAnswer, openai.completion_prompt),
    Dialect.RESPONSES: Shape(
        responses.ResponsesAnswer, responses.responses_prompt, responses.TERMINAL
    ),
    Dialect.MESSAGES: Shape(
        messages.MessagesAnswer, messages.messages_prompt, (b"message_stop",)
    ),
    Dialect.POOLING: Shape(
        partial(plain.PlainAnswer, member="data"), plain.plain_prompt
    ),
    Dialect.RERANK: Shape(
        partial(plain.PlainAnswer, member="results"), plain.plain_prompt
    ),
    Dialect.AUDIO: Shape(audio.AudioAnswer, audio.audio_prompt),
}
