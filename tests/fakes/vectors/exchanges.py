"""The answers of the table: those of a real vLLM, and a few derived from them."""

import json
from collections.abc import Iterator

from fakes.vectors.damage import (
    Exchange,
    compact,
    events,
    lost,
    recorded,
    without,
)
from fakes.vectors.signed import false, harmless

from attest.transcript import Dialect

__all__ = ["CHAT", "USER", "exchanges"]

USER = [{"role": "user", "content": "What is the capital of France?"}]
SYSTEM = {"role": "system", "content": "Be brief and kind."}
CHAT = {"model": "tiny", "messages": [SYSTEM, *USER], "max_tokens": 8}
CALL = '{"city": "Paris", "days": 3}'


def _with_tool_call(body: bytes) -> bytes:
    """A recorded chat whose answer is a call of a function instead."""
    value = json.loads(body)
    function = {"name": "get_weather", "arguments": CALL}
    call = {"id": "call_1", "type": "function", "function": function}
    value["choices"][0]["message"] |= {"content": None, "tool_calls": [call]}
    value["choices"][0]["finish_reason"] = "tool_calls"
    return compact(value)


def _with_arguments(stream: bytes) -> bytes:
    """The recorded stream of a tool call, with arguments in two parts."""
    items = events(stream)
    chunk = json.loads(items[1].removeprefix(b"data: "))
    parts = []
    for text in (CALL[:9], CALL[9:]):
        chunk["choices"][0]["delta"] = {
            "tool_calls": [{"index": 0, "function": {"arguments": text}}]
        }
        parts.append(b"data: " + compact(chunk) + b"\n\n")
    return b"".join([*items[:2], *parts, *items[2:]])


def _with_tool_use(body: bytes) -> bytes:
    """A recorded message that uses a tool instead."""
    value = json.loads(body)
    block = {"type": "tool_use", "id": "toolu_1", "name": "get_weather"}
    value["content"] = [{**block, "input": json.loads(CALL)}]
    value["stop_reason"] = "tool_use"
    return compact(value)


def _with_function_call(body: bytes) -> bytes:
    """A recorded response that calls a function instead."""
    value = json.loads(body)
    call = {"type": "function_call", "id": "fc_1", "call_id": "call_1"}
    value["output"] = [{**call, "name": "get_weather", "arguments": CALL}]
    value |= {"status": "completed", "incomplete_details": None}
    return compact(value)


def exchanges() -> Iterator[Exchange]:
    """Every answer of the table."""
    chat, stream = recorded("chat"), recorded("chat_stream_usage")
    yield Exchange(
        "chat-plain",
        Dialect.CHAT,
        CHAT,
        chat,
        (
            ("one character changed", b" a\xef", b" b\xef", "answer_changed"),
            ("text added", b'"refusal":null', b'"refusal":"no"', "answer_changed"),
            (
                "usage changed",
                b'"completion_tokens":8',
                b'"completion_tokens":9',
                "usage_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            ("finish reason changed", b'"length"', b'"stop"', "finish_reason_changed"),
            ("id changed", b'"chatcmpl-842', b'"chatcmpl-000', "other_response"),
            (
                "tool call added",
                b'"reasoning":null',
                b'"tool_calls":[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]',
                "answer_changed",
            ),
        ),
        text=json.loads(chat)["choices"][0]["message"]["content"],
        more={
            "another answer": lambda _: (
                recorded("chat_request_id"),
                false("other_response", "answer_changed", "usage_changed"),
            ),
        },
    )
    yield Exchange(
        "chat-stream",
        Dialect.CHAT,
        {**CHAT, "stream": True, "stream_options": {"include_usage": True}},
        stream,
        (
            ("one character changed", b'" a"', b'" b"', "answer_changed"),
            (
                "usage changed",
                b'"completion_tokens":8',
                b'"completion_tokens":9',
                "usage_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            ("finish reason changed", b'"length"', b'"stop"', "finish_reason_changed"),
        ),
        more={
            "[DONE] lost": lost(harmless("done_lost"), -1),
            "[DONE] lost and line ends changed": lambda b: (
                without(-1)(b).replace(b"\n", b"\r\n"),
                harmless("line_endings", "done_lost"),
            ),
            "last events lost": lost(harmless("event_lost"), -1, -2),
            "usage lost": lost(harmless("event_lost"), -2),
            "finish reason and all after it lost": lost(false("truncated"), -1, -2, -3),
            "part of the text lost": lost(false("answer_changed"), 4),
            "empty event lost": lost(harmless("comments_lost"), 3),
            "put together to one body": lambda _: (
                _assembled(stream),
                harmless("reencoded"),
            ),
        },
    )
    commented = stream.replace(b"\n\n", b"\n\n: ping\n\n", 2)
    yield Exchange(
        "chat-stream-with-comments",
        Dialect.CHAT,
        {**CHAT, "stream": True},
        commented,
        (("one character changed", b'" a"', b'" b"', "answer_changed"),),
        more={
            "comments removed": lambda _: (stream, harmless("comments_lost")),
            # Which of the comments were attested, nobody can tell.
            "comment added": lambda b: (
                events(b)[0] + b": keep-alive\n\n" + b"".join(events(b)[1:]),
                harmless("reencoded"),
            ),
            "comment added, line ends changed": lambda b: (
                b": keep-alive\r\n\r\n" + b.replace(b"\n", b"\r\n"),
                harmless("reencoded"),
            ),
            "comments removed, [DONE] lost": lambda _: (
                without(-1)(stream),
                harmless("event_lost"),
            ),
        },
    )
    yield Exchange(
        "chat-choices-plain",
        Dialect.CHAT,
        {**CHAT, "n": 2},
        recorded("chat_n2"),
        (
            (
                "usage changed",
                b'"prompt_tokens":37',
                b'"prompt_tokens":38',
                "usage_changed",
            ),
        ),
        more={
            "second choice lost": lambda b: (
                compact({**(v := json.loads(b)), "choices": v["choices"][:1]}),
                false("answer_changed"),
            ),
        },
    )
    yield Exchange(
        "chat-tools-plain",
        Dialect.CHAT,
        {**CHAT, "tools": [{"type": "function", "function": {"name": "get_weather"}}]},
        _with_tool_call(chat),
        (
            ("argument changed", b"Paris", b"Milan", "tool_call_changed"),
            ("argument respelt", b"3}", b"3 }", "tool_call_changed"),
            (
                "function changed",
                b'"get_weather"',
                b'"set_weather"',
                "tool_call_changed",
            ),
            ("id of the call changed", b'"call_1"', b'"call_2"', "tool_call_changed"),
        ),
    )
    yield Exchange(
        "chat-tools-stream",
        Dialect.CHAT,
        {**CHAT, "stream": True},
        _with_arguments(recorded("chat_tools_named_stream")),
        (("argument changed", b"Paris", b"Milan", "tool_call_changed"),)
        if b"Paris" in _with_arguments(recorded("chat_tools_named_stream"))
        else (("argument changed", b"days", b"deys", "tool_call_changed"),),
        more={"part of the arguments lost": lost(false("tool_call_changed"), 3)},
    )
    yield from _completions()
    yield from _responses()
    yield from _messages()


def _assembled(stream: bytes) -> bytes:
    """The body that would have come without `stream`, as a library puts it together."""
    text, last, usage = "", {}, None
    for event in events(stream):
        data = event.removeprefix(b"data: ")
        if data.startswith(b"{"):
            value = json.loads(data)
            usage = value.get("usage") or usage
            for choice in value["choices"]:
                text += choice["delta"].get("content") or ""
                last = {**value, "finish_reason": choice["finish_reason"]}
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": last["finish_reason"]}
    return compact(
        {
            "id": last["id"],
            "object": "chat.completion",
            "created": last["created"],
            "model": last["model"],
            "choices": [choice],
            "usage": usage,
        }
    )


def _completions() -> Iterator[Exchange]:
    request = {"model": "tiny", "prompt": "hello", "max_tokens": 1}
    yield Exchange(
        "completions-plain",
        Dialect.COMPLETIONS,
        {**request, "echo": True},
        recorded("completion_echo"),
        (
            (
                "one character changed",
                b'"hello world"',
                b'"hello World"',
                "answer_changed",
            ),
            (
                "usage changed",
                b'"completion_tokens":1',
                b'"completion_tokens":2',
                "usage_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            ("finish reason changed", b'"stop"', b'"length"', "finish_reason_changed"),
        ),
        text="hello world",
        more={
            # Log-probabilities are covered by the digest of the bytes alone.
            "log-probability changed": lambda b: (
                b.replace(b"-6.158163070678711", b"-0.158163070678711", 1),
                harmless("reencoded"),
            ),
        },
    )
    yield Exchange(
        "completions-stream",
        Dialect.COMPLETIONS,
        {**request, "stream": True},
        recorded("completion_stream"),
        (
            ("one character added", b'"text":""', b'"text":"x"', "answer_changed"),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            ("finish reason changed", b'"stop"', b'"length"', "finish_reason_changed"),
        ),
        more={
            "[DONE] lost": lost(harmless("done_lost"), -1),
            "last events lost": lost(harmless("event_lost"), -1, -2),
            # Its text came whole: it is empty.
            "truncated": lambda b: (b[: len(b) * 2 // 3], harmless("event_lost")),
        },
    )


def _responses() -> Iterator[Exchange]:
    request = {"model": "tiny", "input": "hello", "max_output_tokens": 8}
    plain, stream = recorded("responses"), recorded("responses_stream")
    yield Exchange(
        "responses-plain",
        Dialect.RESPONSES,
        request,
        plain,
        (
            ("one character changed", b"eway", b"Eway", "answer_changed"),
            (
                "usage changed",
                b'"output_tokens":8',
                b'"output_tokens":9',
                "usage_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            (
                "finish reason changed",
                b'"reason":"max_output_tokens"',
                b'"reason":"content_filter"',
                "finish_reason_changed",
            ),
        ),
        text=json.loads(plain)["output"][0]["content"][0]["text"],
    )
    yield Exchange(
        "responses-stream",
        Dialect.RESPONSES,
        {**request, "stream": True},
        stream,
        (
            (
                "one character of a part changed",
                b'"delta":"C"',
                b'"delta":"D"',
                "answer_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
        ),
        more={
            "one character changed everywhere": lambda b: (
                b.replace(b'"C', b'"D'),
                false("answer_changed"),
            ),
            "usage changed": lambda b: (
                b.replace(b'"output_tokens":3', b'"output_tokens":4'),
                false("usage_changed"),
            ),
            "finish reason changed": lambda b: (
                b.replace(
                    b'"reason":"max_output_tokens"', b'"reason":"content_filter"'
                ),
                false("finish_reason_changed"),
            ),
            "last event lost": lost(harmless("event_lost"), -1),
            "truncated": lambda b: (b[: len(b) * 2 // 3], harmless("event_lost")),
            "truncated within the text": lambda b: (
                b[: b.index(b'"delta":"\\f')],
                false("truncated"),
            ),
        },
    )
    yield Exchange(
        "responses-tools-plain",
        Dialect.RESPONSES,
        request,
        _with_function_call(plain),
        (("argument changed", b"Paris", b"Milan", "tool_call_changed"),),
    )


def _messages() -> Iterator[Exchange]:
    request = {
        "model": "tiny",
        "max_tokens": 8,
        "system": "Be brief.",
        "messages": USER,
    }
    plain, stream = recorded("messages"), recorded("messages_stream")
    yield Exchange(
        "messages-plain",
        Dialect.MESSAGES,
        request,
        plain,
        (
            ("one character changed", b" brow", b" crow", "answer_changed"),
            (
                "usage changed",
                b'"output_tokens":8',
                b'"output_tokens":9',
                "usage_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            (
                "finish reason changed",
                b'"max_tokens"',
                b'"end_turn"',
                "finish_reason_changed",
            ),
        ),
        text=json.loads(plain)["content"][0]["text"],
    )
    yield Exchange(
        "messages-stream",
        Dialect.MESSAGES,
        {**request, "stream": True},
        stream,
        (
            ("one character changed", b'" at"', b'" et"', "answer_changed"),
            (
                "usage changed",
                b'"output_tokens":3',
                b'"output_tokens":4',
                "usage_changed",
            ),
            ("model changed", b'"tiny"', b'"huge"', "model_changed"),
            (
                "finish reason changed",
                b'"max_tokens"',
                b'"end_turn"',
                "finish_reason_changed",
            ),
        ),
        more={
            "last event lost": lost(harmless("done_lost"), -1),
            "last events lost": lost(harmless("event_lost"), -1, -2),
        },
    )
    yield Exchange(
        "messages-tools-plain",
        Dialect.MESSAGES,
        request,
        _with_tool_use(plain),
        (("argument changed", b"Paris", b"Milan", "tool_call_changed"),),
        more={
            # The input is an object here: its spelling says nothing.
            "argument respelt": lambda b: (
                b.replace(b'"city":"Paris"', b'"city": "Paris"'),
                harmless("whitespace"),
            ),
        },
    )
