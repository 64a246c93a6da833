"""Answers that hold no text of the model: embeddings, scores, ranks and classes.

They have no output object: thousands of numbers have no spelling that two languages
share, so the digest of the raw bytes alone covers them. A whole answer is one JSON
object with the list that its dialect has.
"""

from collections.abc import Mapping
from typing import Any

from attest.dialects._answer import Answer
from attest.dialects._request import Prompt, message_text, objects
from attest.dialects._values import Budget
from attest.errors import FormatError

__all__ = ["PlainAnswer", "plain_prompt"]

# What the model reads, in the spellings that vLLM knows.
_INPUTS = (
    "input",
    "messages",
    "text_1",
    "text_2",
    "queries",
    "documents",
    "items",
    "data_1",
    "data_2",
    "query",
    "data",
    "instruction",
)


class PlainAnswer(Answer):
    """An answer without choices; never a stream."""

    finished = frozenset()
    counts = ("prompt_tokens", "completion_tokens")

    def __init__(self, budget: Budget, member: str) -> None:
        super().__init__(budget)
        self._member = member

    def event(self, value: Mapping[str, Any]) -> None:
        """Raise FormatError: no such answer is streamed."""
        del value
        raise FormatError("answer: a stream, where a body was expected")

    def body(self, value: Mapping[str, Any]) -> None:
        """Take in a whole body; raises FormatError where its list is missing."""
        self._open(value)
        if not isinstance(value.get(self._member), list):
            raise FormatError(f"answer: {self._member} must be a list")


def plain_prompt(body: Mapping[str, Any]) -> Prompt:
    """What is to be embedded, scored, ranked or classified.

    Raises:
        FormatError: `messages` is there, and not a list of objects, or the answer is
            to be bytes whose meaning would stand in a header, which is not attested.
    """
    if body.get("encoding_format") in ("bytes", "bytes_only"):
        raise FormatError("encoding_format: float and base64 are served")
    semantic = {name: body[name] for name in _INPUTS if body.get(name) is not None}
    messages = objects(body, "messages") if "messages" in semantic else []
    texts = [
        message_text(message.get("content"))
        for message in messages
        if message.get("role") in ("system", "developer")
    ]
    return Prompt(semantic, texts, choices=0)
