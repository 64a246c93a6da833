"""OpenAI's responses, as vLLM has them.

The output is that of a chat: the text of all messages is its content, refusals and the
text of reasoning items likewise, function calls are its tool calls under their
`call_id`, and the finish reason is `incomplete_details.reason`, or else `status`.
Summaries of reasoning are covered by the digest of the raw bytes alone.

A stream says everything twice: in parts, and as a whole in its last event. Both must
say the same, else the answer is malformed: people read the parts, programs the whole.
"""

from collections.abc import Mapping
from typing import Any

from attest.dialects._answer import Message, SingleAnswer, ToolCall
from attest.dialects._request import Prompt, message_text, objects, text
from attest.dialects._values import (
    Budget,
    finish_reason,
    items,
    object_of,
    once,
    position,
    text_of,
)
from attest.errors import FormatError
from attest.sse import MAX_EVENT

__all__ = ["TERMINAL", "ResponsesAnswer", "responses_prompt"]

TERMINAL = (b"response.completed", b"response.failed", b"response.incomplete")

_PARTS = {
    "output_text": ("content", "text"),
    "refusal": ("refusal", "refusal"),
    "reasoning_text": ("reasoning", "text"),
}
_DELTAS = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning",
}
_SYSTEM = ("system", "developer")


class _Response(Message):
    """The output items of one response."""

    def item(self, index: int, item: Mapping[str, Any]) -> None:
        kind = text_of(item, "type")
        if kind == "function_call":
            self._call(index, item)
        elif kind == "message":
            self.role = once(self.role, item, "role")
        elif kind != "reasoning":
            self.opaque = True

    def whole_item(self, index: int, item: Mapping[str, Any]) -> None:
        self.item(index, item)
        # A reasoning item may have no content: null.
        if item.get("type") != "function_call" and item.get("content") is not None:
            for number, part in enumerate(items(item, "content")):
                self.part((index, number), part)

    def part(self, at: tuple[int, int], part: Mapping[str, Any]) -> None:
        kind = text_of(part, "type")
        if kind in _PARTS:
            name, member = _PARTS[kind]
            self.add(name, text_of(part, member), at)
        else:
            self.opaque = True

    def arguments(self, index: int, part: str) -> None:
        if index not in self.tool_calls:
            raise FormatError("answer: arguments for a function that was not called")
        self.tool_calls[index].add(part)

    def _call(self, index: int, item: Mapping[str, Any]) -> None:
        if index in self.tool_calls:
            raise FormatError("answer: two calls at one place")
        call = self.tool_calls[index] = ToolCall(self.budget)
        call.name(item, item, "call_id")
        call.add(text_of(item, "arguments"))

    def _numbered_calls(self) -> list[tuple[int, ToolCall]]:
        # Their keys are those of items.
        return list(enumerate(call for _, call in super()._numbered_calls()))


class ResponsesAnswer(SingleAnswer):
    """An answer of `/v1/responses`: one choice, index 0."""

    # vLLM says completed after an abort too, so here that word proves less than a
    # finish reason does in the other dialects.
    finished = frozenset(["completed", "content_filter", "max_output_tokens"])

    def _event(self, kind: str, value: Mapping[str, Any]) -> None:
        response = self._response()
        if kind.encode(errors="replace") in TERMINAL:
            self._end(response, object_of(value, "response"))
        elif kind in _DELTAS:
            at = position(value, "output_index"), position(value, "content_index")
            response.add(_DELTAS[kind], text_of(value, "delta"), at)
        elif kind == "response.content_part.added":
            at = position(value, "output_index"), position(value, "content_index")
            response.part(at, object_of(value, "part"))
        elif kind == "response.output_item.added":
            response.item(position(value, "output_index"), object_of(value, "item"))
        elif kind == "response.function_call_arguments.delta":
            part = text_of(value, "delta")
            response.arguments(position(value, "output_index"), part)
        elif "response" in value:
            self._open(object_of(value, "response"))

    def _body(self, value: Mapping[str, Any]) -> None:
        if value.get("object") != "response":
            raise FormatError("answer: object must be response")
        self._read(self._response(), value)

    def _response(self) -> _Response:
        if 0 not in self.choices:
            self.choices[0] = _Response(self._budget)
        response = self.choices[0]
        assert isinstance(response, _Response)  # noqa: S101  # nothing else is put there
        return response

    def _read(self, response: _Response, value: Mapping[str, Any]) -> None:
        self._open(value)
        for index, item in enumerate(items(value, "output")):
            response.whole_item(index, item)
        details = object_of(value, "incomplete_details")
        reason = finish_reason(None, details, "reason")
        response.finish_reason = reason or finish_reason(None, value, "status")
        self.failed = bool(value.get("error")) or value.get("status") == "failed"

    def _end(self, streamed: _Response, value: Mapping[str, Any]) -> None:
        whole = self.choices[0] = _Response(Budget(MAX_EVENT))
        self._read(whole, value)
        if streamed.is_empty or streamed.opaque or whole.opaque:
            return
        streamed.finish_reason = whole.finish_reason
        if streamed.output(0) != whole.output(0):
            raise FormatError("answer: the last event contradicts the parts before it")


def responses_prompt(body: Mapping[str, Any]) -> Prompt:
    """The prompt of a response; raises FormatError where its types are wrong."""
    instructions, given = text(body, "instructions"), body.get("input")
    contents: list[Any] = [] if instructions is None else [instructions]
    if not isinstance(given, str):
        contents += [
            item.get("content")
            for item in objects(body, "input")
            if item.get("role") in _SYSTEM
        ]
    semantic = {
        "instructions": instructions,
        "input": given,
        "tools": body.get("tools") or None,
    }
    return Prompt(semantic, [message_text(content) for content in contents])
