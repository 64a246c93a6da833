"""Anthropic's messages, as vLLM has them.

The output is that of a chat: text blocks are its content, thinking blocks its
reasoning, tool_use blocks its tool calls, and `stop_reason` its finish reason. A body
holds the input of a tool as an object, a stream as text; both are hashed as the RFC
8785 form of the object. Text that is no object, because the answer was cut, is hashed
as it is. Signatures of thinking blocks are covered by the digest of the raw bytes
alone.
"""

from collections.abc import Mapping
from typing import Any

from attest.canonical import canonical, read_object
from attest.dialects._answer import Message, SingleAnswer, ToolCall
from attest.dialects._request import Prompt, message_text, objects
from attest.dialects._values import (
    Budget,
    finish_reason,
    items,
    joined,
    object_of,
    once,
    position,
    text_of,
)
from attest.errors import FormatError

__all__ = ["MessagesAnswer", "messages_prompt"]

# Only says what may be cached.
_HINTS = ("cache_control",)
_MAX_INPUT = 8 * 1024 * 1024
_DELTAS = {
    "text_delta": ("content", "text"),
    "thinking_delta": ("reasoning", "thinking"),
}


class _ToolUse(ToolCall):
    def __init__(self, budget: Budget, block: Mapping[str, Any]) -> None:
        super().__init__(budget)
        self.name(block, block)
        self._whole = object_of(block, "input")

    @property
    def arguments(self) -> str:
        text = joined(self._arguments)
        if not text:
            return canonical(self._whole).decode()
        try:
            value = read_object(text.encode(), max_bytes=_MAX_INPUT)
        except FormatError:
            return text
        return canonical(value).decode()


class _Message(Message):
    def _numbered_calls(self) -> list[tuple[int, ToolCall]]:
        # Their keys are those of blocks.
        return list(enumerate(call for _, call in super()._numbered_calls()))


class MessagesAnswer(SingleAnswer):
    """An answer of `/v1/messages`: one choice, index 0."""

    finished = frozenset(
        [
            "end_turn",
            "max_tokens",
            "model_context_window_exceeded",
            "refusal",
            "stop_sequence",
            "tool_use",
        ]
    )

    def _event(self, kind: str, value: Mapping[str, Any]) -> None:
        if kind == "message_start":
            self._start(object_of(value, "message"))
        elif kind == "content_block_start":
            self._block(position(value, "index"), object_of(value, "content_block"))
        elif kind == "content_block_delta":
            self._delta(position(value, "index"), object_of(value, "delta"))
        elif kind == "message_delta":
            self._open(value)
            self._stop(object_of(value, "delta"))

    def _body(self, value: Mapping[str, Any]) -> None:
        if value.get("type") != "message":
            raise FormatError("answer: type must be message")
        self._start(value)

    def _message(self) -> _Message:
        if 0 not in self.choices:
            self.choices[0] = _Message(self._budget)
        message = self.choices[0]
        assert isinstance(message, _Message)  # noqa: S101  # nothing else is put there
        return message

    def _start(self, value: Mapping[str, Any]) -> None:
        self._open(value)
        message = self._message()
        message.role = once(message.role, value, "role")
        for index, block in enumerate(items(value, "content")):
            self._block(index, block)
        self._stop(value)

    def _stop(self, value: Mapping[str, Any]) -> None:
        message = self._message()
        message.finish_reason = finish_reason(
            message.finish_reason, value, "stop_reason"
        )

    def _block(self, index: int, block: Mapping[str, Any]) -> None:
        message, kind = self._message(), text_of(block, "type")
        if kind == "text":
            message.add("content", text_of(block, "text"), (index,))
        elif kind == "thinking":
            message.add("reasoning", text_of(block, "thinking"), (index,))
        elif kind == "tool_use" and index not in message.tool_calls:
            message.tool_calls[index] = _ToolUse(self._budget, block)
        else:
            message.opaque = True

    def _delta(self, index: int, delta: Mapping[str, Any]) -> None:
        message, kind = self._message(), text_of(delta, "type")
        if kind in _DELTAS:
            name, member = _DELTAS[kind]
            message.add(name, text_of(delta, member), (index,))
        elif kind == "input_json_delta":
            if index not in message.tool_calls:
                raise FormatError("answer: input for a tool that was not called")
            message.tool_calls[index].add(text_of(delta, "partial_json"))
        elif kind != "signature_delta":
            message.opaque = True


def messages_prompt(body: Mapping[str, Any]) -> Prompt:
    """The prompt of a message; raises FormatError where its types are wrong.

    System messages that stand among the others count too.
    """
    messages, system = objects(body, "messages"), body.get("system")
    if system is not None and not isinstance(system, str):
        objects(body, "system")
    contents = [] if system is None or system == [] else [system]
    contents += [
        message.get("content")
        for message in messages
        if message.get("role") == "system"
    ]
    semantic = {
        "system": system,
        "messages": messages,
        "tools": body.get("tools") or None,
    }
    return Prompt(semantic, [message_text(one, hints=_HINTS) for one in contents])
