"""Transcriptions and translations of speech, as vLLM has them.

The output of either form is {index, text}. A body gives no reason why it ended. A
stream gives one for each part of a long recording, so that none of them proves its end;
only `[DONE]` does.
"""

from collections.abc import Mapping
from typing import Any

from attest.dialects._answer import Answer
from attest.dialects._request import Prompt
from attest.dialects._values import (
    Budget,
    finish_reason,
    items,
    joined,
    object_of,
    text_of,
)
from attest.errors import FormatError

__all__ = ["AudioAnswer", "audio_prompt"]

_INPUTS = ("file", "hotwords", "language", "prompt", "to_language")


class _Speech:
    def __init__(self, budget: Budget) -> None:
        self.finish_reason: str | None = None
        self._budget = budget
        self._text: list[str] = []

    def add(self, text: str) -> None:
        self._budget.take(len(text))
        self._text.append(text)

    def output(self, index: int) -> dict[str, Any]:
        return {"index": index, "text": joined(self._text)}


class AudioAnswer(Answer):
    """An answer of `/v1/audio/transcriptions` and `/v1/audio/translations`."""

    finished = frozenset(["stop", "length"])
    counts = ("prompt_tokens", "completion_tokens")
    reasons_end = False

    def __init__(self, budget: Budget) -> None:
        super().__init__(budget)
        self._is_body = False

    def event(self, value: Mapping[str, Any]) -> None:
        """Take in a chunk; raises FormatError where a type is wrong."""
        self._open(value)
        for item in items(value, "choices"):
            speech = self._speech()
            speech.add(text_of(object_of(item, "delta"), "content"))
            reason = finish_reason(None, item)
            # One part that did not end well leaves the whole unfinished.
            if speech.finish_reason is None or speech.finish_reason in self.finished:
                speech.finish_reason = reason or speech.finish_reason

    def body(self, value: Mapping[str, Any]) -> None:
        """Take in a whole body; raises FormatError where it has no text."""
        self._open(value)
        if not isinstance(value.get("text"), str):
            raise FormatError("answer: text must be a string")
        self._speech().add(value["text"])
        self._is_body = True

    def has_ended(self, expected: int) -> bool:
        """A body has; a stream where it gave a reason."""
        return self._is_body or super().has_ended(expected)

    @property
    def is_whole(self) -> bool:
        """A body is; a stream where its reasons are those of a whole answer."""
        return self._is_body or super().is_whole

    def _speech(self) -> _Speech:
        speech = self.choices.setdefault(0, _Speech(self._budget))
        assert isinstance(speech, _Speech)  # noqa: S101  # nothing else is put there
        return speech


def audio_prompt(body: Mapping[str, Any]) -> Prompt:
    """What is to be heard; the recording stands as its digest.

    Raises:
        FormatError: there is no recording, or more than one answer is asked for.
    """
    if "file" not in body:
        raise FormatError("file: is missing")
    if body.get("n") not in (None, "1"):
        raise FormatError("n: one answer is served")
    return Prompt({name: body[name] for name in _INPUTS if name in body}, [])
