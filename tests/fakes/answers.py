"""Answers in every dialect that streams: one text, as a body or as events.

spoken = SPOKEN["messages"]
engine.answer(sse(*spoken.events("hello")))
await gateway.chat(spoken.request(stream=True), path=spoken.path)
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["SPOKEN", "Spoken", "plain_event", "typed_event"]

USER = [{"role": "user", "content": "hello"}]


def plain_event(value: Any, *, ascii_only: bool = True) -> bytes:
    """An event of data alone."""
    return b"data: " + json.dumps(value, ensure_ascii=ascii_only).encode() + b"\n\n"


def typed_event(value: Any, *, ascii_only: bool = True) -> bytes:
    """An event under its own name."""
    return f"event: {value['type']}\n".encode() + plain_event(
        value, ascii_only=ascii_only
    )


@dataclass(frozen=True)
class Spoken:
    """One dialect.

    Attributes:
        parts: the events before the last one, in which the text stands.
        last: the event that ends the stream.
        whole: the body of the same answer.
    """

    path: str
    asked: dict[str, Any]
    parts: Callable[[str], list[Any]]
    last: Callable[[str], Any]
    whole: Callable[[str], Any]
    event: Callable[..., bytes]

    def request(self, **members: Any) -> dict[str, Any]:
        """A request in this dialect."""
        return {"model": "tiny", **self.asked, **members}

    def events(self, text: str, *, ascii_only: bool = True) -> list[bytes]:
        """The whole stream, event by event."""
        events = [self.event(part, ascii_only=ascii_only) for part in self.parts(text)]
        last = self.last(text)
        if last is None:
            return [*events, b"data: [DONE]\n\n"]
        return [*events, self.event(last, ascii_only=ascii_only)]

    def body(self, text: str) -> bytes:
        """The same as one body."""
        return json.dumps(self.whole(text)).encode()


def _chunk(choice: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
    kind = {"delta": "chat.completion.chunk", "message": "chat.completion"}
    return {
        "id": "chatcmpl-1",
        "object": kind.get(next(iter(choice)), "text_completion"),
        "created": 1,
        "model": "tiny",
        "choices": [{"index": 0, **choice, "finish_reason": reason}],
    }


def _chat(text: str) -> list[Any]:
    return [
        _chunk({"delta": {"role": "assistant", "content": ""}}),
        _chunk({"delta": {"content": text}}),
        _chunk({"delta": {}}, "stop"),
    ]


def _response(status: str, output: list[Any]) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "tiny",
        "status": status,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {
            "input_tokens": 3,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 2,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 5,
        },
    }


def _responded(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}
    return _response("completed", [{**item, "status": "completed"}])


def _numbered(events: list[dict[str, Any]]) -> list[Any]:
    return [{**event, "sequence_number": n} for n, event in enumerate(events)]


def _responses(text: str) -> list[Any]:
    message = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    item = {**message, "status": "in_progress"}
    return _numbered(
        [
            {"type": "response.created", "response": _response("in_progress", [])},
            {"type": "response.output_item.added", "output_index": 0, "item": item},
            {"type": "response.content_part.added", **at, "part": part},
            {
                "type": "response.output_text.delta",
                **at,
                "delta": text,
                "logprobs": [],
            },
            {
                "type": "response.output_text.done",
                **at,
                "text": text,
                "logprobs": [],
            },
        ]
    )


def _messages(text: str) -> list[Any]:
    started = {**_messaged(text), "content": [], "stop_reason": None}
    return [
        {"type": "message_start", "message": started},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": text},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"input_tokens": 3, "output_tokens": 2},
        },
    ]


def _messaged(text: str) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }


SPOKEN = {
    "chat": Spoken(
        path="/v1/chat/completions",
        asked={"messages": USER},
        parts=_chat,
        last=lambda _: None,
        whole=lambda text: _chunk(
            {"message": {"role": "assistant", "content": text}}, "stop"
        ),
        event=plain_event,
    ),
    "completions": Spoken(
        path="/v1/completions",
        asked={"prompt": "hello"},
        parts=lambda text: [_chunk({"text": text}), _chunk({"text": ""}, "stop")],
        last=lambda _: None,
        whole=lambda text: _chunk({"text": text}, "stop"),
        event=plain_event,
    ),
    "responses": Spoken(
        path="/v1/responses",
        asked={"input": "hello"},
        parts=_responses,
        last=lambda text: {
            "type": "response.completed",
            "sequence_number": 5,
            "response": _responded(text),
        },
        whole=_responded,
        event=typed_event,
    ),
    "messages": Spoken(
        path="/v1/messages",
        asked={"messages": USER, "max_tokens": 8},
        parts=_messages,
        last=lambda _: {"type": "message_stop"},
        whole=_messaged,
        event=typed_event,
    ),
}
