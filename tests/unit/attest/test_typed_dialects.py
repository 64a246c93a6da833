"""Readers of messages and responses: what a body says, its stream says too."""

import itertools
import json
from pathlib import Path

import pytest
from fakes.answers import SPOKEN
from hypothesis import given, settings
from hypothesis import strategies as st

from attest.canonical import canonical
from attest.dialects import SHAPES, Dialect
from attest.errors import FormatError
from attest.request import request_facts, semantic_digest
from attest.sse import EventSplitter
from attest.transcript import Outcome, Transcript, output_digest

VECTORS = Path(__file__).parents[2] / "vectors" / "vllm-0.32"
MESSAGES, RESPONSES = Dialect.MESSAGES, Dialect.RESPONSES


def from_stream(dialect, *events):
    transcript, splitter = Transcript(dialect), EventSplitter()
    for value in events:
        raw = (
            value
            if isinstance(value, bytes)
            else SPOKEN[dialect].event(value, ascii_only=True)
        )
        for event in splitter.feed(raw):
            transcript.feed_event(event)
    transcript.end(splitter.flush())
    return transcript


def from_body(dialect, value):
    transcript = Transcript(dialect)
    transcript.feed_body(json.dumps(value).encode())
    return transcript


def output_of(transcript):
    (output,) = transcript.outputs()
    return output


def pieces(draw, text):
    """The text in parts; what stands outside the BMP may be cut within, as UTF-16."""
    units = text.encode("utf-16-le")
    count = len(units) // 2
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=3)))
    edges = [0, *cuts, count]
    return [
        units[2 * a : 2 * b].decode("utf-16-le", "surrogatepass")
        for a, b in itertools.pairwise(edges)
    ]


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
NAME = TEXT.filter(bool)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(
    allow_nan=False, allow_infinity=False
)
INPUT = st.dictionaries(TEXT, TEXT | NUMBERS | st.none() | st.booleans(), max_size=3)


# Messages.

BLOCK = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": TEXT}),
    st.fixed_dictionaries(
        {"type": st.just("thinking"), "thinking": TEXT, "signature": TEXT}
    ),
    st.fixed_dictionaries(
        {"type": st.just("tool_use"), "id": NAME, "name": NAME, "input": INPUT}
    ),
)


def block_events(draw, index, block):
    kind = block["type"]
    empty = {"text": {"text": ""}, "thinking": {"thinking": ""}, "tool_use": {}}[kind]
    started = {**block, **empty, "input": {}} if kind == "tool_use" else block | empty
    yield {"type": "content_block_start", "index": index, "content_block": started}
    member, delta, text = {
        "text": ("text", "text_delta", block.get("text")),
        "thinking": ("thinking", "thinking_delta", block.get("thinking")),
        "tool_use": (
            "partial_json",
            "input_json_delta",
            json.dumps(block.get("input")),
        ),
    }[kind]
    for part in pieces(draw, text):
        part_of = {"type": delta, member: part}
        yield {"type": "content_block_delta", "index": index, "delta": part_of}
    yield {"type": "content_block_stop", "index": index}


@st.composite
def messages(draw):
    blocks = draw(st.lists(BLOCK, max_size=4))
    reason = draw(st.sampled_from(["end_turn", "tool_use", "stop_sequence"]))
    body = {**SPOKEN["messages"].whole(""), "content": blocks, "stop_reason": reason}
    start, *_, stop = SPOKEN["messages"].parts("")
    events = [start, {"type": "ping"}]
    for index, block in enumerate(blocks):
        events += block_events(draw, index, block)
    stop = {**stop, "delta": {"stop_reason": reason}}
    return body, [*events, stop, {"type": "message_stop"}]


@settings(max_examples=80)
@given(messages())
def test_any_stream_of_a_message_equals_its_body(answer):
    body, events = answer
    one, other = from_body(MESSAGES, body), from_stream(MESSAGES, *events)
    assert output_of(one) == output_of(other)
    assert one.outcome() == other.outcome() == Outcome.COMPLETE
    assert output_digest(output_of(one))


def started(*blocks):
    return {**SPOKEN["messages"].whole(""), "content": list(blocks)}


def test_blocks_of_a_message():
    body = started(
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "a"},
        {
            "type": "tool_use",
            "id": "t",
            "name": "f",
            "input": {"b": 1.0, "a": "\u20ac"},
        },
        {"type": "text", "text": "b"},
    )
    assert output_of(from_body(MESSAGES, body)) == {
        "index": 0,
        "role": "assistant",
        "content": "ab",
        "refusal": None,
        "reasoning": "hm",
        "tool_calls": [
            {
                "index": 0,
                "id": "t",
                "type": "function",
                "name": "f",
                "arguments": '{"a":"\u20ac","b":1}',
            }
        ],
        "finish_reason": "end_turn",
    }


def tool_events(*parts):
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    start, *_, stop = SPOKEN["messages"].parts("")
    deltas = [
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": part},
        }
        for part in parts
    ]
    opened = {"type": "content_block_start", "index": 0, "content_block": block}
    return [start, opened, *deltas, stop]


@pytest.mark.parametrize(
    ("parts", "arguments"),
    [
        ([], "{}"),
        ([""], "{}"),
        (['{ "a" :', " 1.0}"], '{"a":1}'),
        (['{"a": 1'], '{"a": 1'),
        (['{"a": 1, "a": 2}'], '{"a": 1, "a": 2}'),
        (["[1]"], "[1]"),
        (["nonsense"], "nonsense"),
    ],
)
def test_streamed_input_of_a_tool(parts, arguments):
    output = output_of(from_stream(MESSAGES, *tool_events(*parts)))
    assert output["tool_calls"][0]["arguments"] == arguments


def test_input_that_rfc_8785_cannot_write_is_left_out():
    transcript = from_stream(MESSAGES, *tool_events('{"a": 9007199254740993}'))
    assert transcript.outputs() == ()
    assert transcript.unattestable == (0,)
    assert not transcript.malformed


@pytest.mark.parametrize(
    "block",
    [
        {"type": "redacted_thinking", "data": "x"},
        {"type": "server_tool_use", "id": "t", "name": "web_search", "input": {}},
        {"text": "a"},
    ],
)
def test_block_of_another_kind_is_left_out_and_no_fault(block):
    transcript = from_body(MESSAGES, started({"type": "text", "text": "a"}, block))
    assert transcript.outputs() == ()
    assert transcript.unattestable == (0,)
    assert transcript.outcome() == Outcome.COMPLETE


def delta(value, index=0):
    return {"type": "content_block_delta", "index": index, "delta": value}


@pytest.mark.parametrize(
    "event",
    [
        delta({"type": "text_delta", "text": 1}),
        delta({"type": "text_delta", "text": "a"}, index=-1),
        delta({"type": "text_delta", "text": "a"}, index=128),
        delta({"type": "text_delta", "text": "a"}, index="0"),
        delta({"type": "input_json_delta", "partial_json": "{}"}),
        delta([]),
        {"type": "content_block_start", "index": 0, "content_block": "x"},
        {"type": "message_delta", "delta": {"stop_reason": 1}},
        {"type": "message_start", "message": {"content": {}}},
        {"type": "message_start", "message": {"content": [], "role": []}},
        {"type": 7},
        {"typ": "message_start"},
    ],
)
def test_wrong_types_in_a_message_are_malformed(event):
    raw = b"data: " + json.dumps(event).encode() + b"\n\n"
    transcript = from_stream(MESSAGES, SPOKEN["messages"].parts("a")[0], raw)
    assert transcript.malformed


def test_delta_of_another_kind_leaves_the_message_out():
    citation = delta({"type": "citations_delta", "citation": {}})
    transcript = from_stream(MESSAGES, *SPOKEN["messages"].parts("a"), citation)
    assert transcript.unattestable == (0,)
    assert not transcript.malformed


def test_unknown_event_is_passed_over():
    parts = SPOKEN["messages"].parts("a")
    transcript = from_stream(MESSAGES, *parts, {"type": "something_new", "x": 1})
    assert output_of(transcript)["content"] == "a"


@pytest.mark.parametrize("reason", [None, "pause_turn", "something_new"])
def test_stop_reason_that_proves_nothing(reason):
    body = {**SPOKEN["messages"].whole("a"), "stop_reason": reason}
    assert from_body(MESSAGES, body).outcome() == Outcome.INCOMPLETE


def test_stop_reason_that_changes_is_malformed():
    stop = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}
    assert from_stream(MESSAGES, *SPOKEN["messages"].parts("a"), stop).malformed


# Responses.

PART = st.one_of(
    st.fixed_dictionaries({"type": st.just("output_text"), "text": TEXT}),
    st.fixed_dictionaries({"type": st.just("refusal"), "refusal": TEXT}),
)
ITEM = st.one_of(
    st.fixed_dictionaries(
        {
            "type": st.just("message"),
            "role": st.just("assistant"),
            "content": st.lists(PART, max_size=3),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("reasoning"),
            "summary": st.just([]),
            "content": st.lists(
                st.fixed_dictionaries(
                    {"type": st.just("reasoning_text"), "text": TEXT}
                ),
                max_size=2,
            ),
        }
    ),
    st.fixed_dictionaries(
        {
            "type": st.just("function_call"),
            "call_id": NAME,
            "name": NAME,
            "arguments": TEXT,
        }
    ),
)
DELTAS = {
    "output_text": "response.output_text.delta",
    "refusal": "response.refusal.delta",
    "reasoning_text": "response.reasoning_text.delta",
}


def item_events(draw, index, item):
    at = {"output_index": index}
    bare = {**item, "arguments": ""} if "arguments" in item else {**item, "content": []}
    yield {"type": "response.output_item.added", **at, "item": bare}
    if item["type"] == "function_call":
        kind = "response.function_call_arguments"
        for part in pieces(draw, item["arguments"]):
            yield {"type": f"{kind}.delta", **at, "delta": part}
        yield {"type": f"{kind}.done", **at, "arguments": item["arguments"]}
    for number, part in enumerate(item.get("content", [])):
        here = {**at, "content_index": number}
        member = "refusal" if part["type"] == "refusal" else "text"
        yield {
            "type": "response.content_part.added",
            **here,
            "part": {**part, member: ""},
        }
        for text in pieces(draw, part[member]):
            yield {"type": DELTAS[part["type"]], **here, "delta": text}
    yield {"type": "response.output_item.done", **at, "item": item}


@st.composite
def responses(draw):
    items = draw(st.lists(ITEM, max_size=3))
    first, *_ = SPOKEN["responses"].parts("")
    body = {**SPOKEN["responses"].whole(""), "output": items}
    events = [first]
    for index, item in enumerate(items):
        events += item_events(draw, index, item)
    return body, [*events, {"type": "response.completed", "response": body}]


@settings(max_examples=80)
@given(responses(), st.booleans())
def test_any_stream_of_a_response_equals_its_body(answer, cut):
    body, events = answer
    one = from_body(RESPONSES, body)
    other = from_stream(RESPONSES, *(events[:-1] if cut else events))
    assert not other.malformed
    if cut:
        assert other.outcome() == Outcome.TRUNCATED
        assert output_of(other) == {**output_of(one), "finish_reason": None}
    else:
        assert output_of(one) == output_of(other)
        assert one.outcome() == other.outcome() == Outcome.COMPLETE


def ended(**members):
    response = {**SPOKEN["responses"].whole("a"), **members}
    return {"type": "response.completed", "response": response}


def test_last_event_that_contradicts_the_parts():
    parts = SPOKEN["responses"].parts("b")
    transcript = from_stream(RESPONSES, *parts, ended())
    assert transcript.outcome() == Outcome.UPSTREAM_MALFORMED
    assert transcript.unattestable == (0,)


def test_response_without_parts_is_its_last_event():
    transcript = from_stream(RESPONSES, SPOKEN["responses"].parts("")[0], ended())
    assert output_of(transcript)["content"] == "a"
    assert transcript.outcome() == Outcome.COMPLETE


@pytest.mark.parametrize(
    ("members", "reason", "outcome"),
    [
        ({}, "completed", Outcome.COMPLETE),
        (
            {
                "status": "incomplete",
                "incomplete_details": {"reason": "max_output_tokens"},
            },
            "max_output_tokens",
            Outcome.COMPLETE,
        ),
        ({"status": "incomplete"}, "incomplete", Outcome.INCOMPLETE),
        ({"status": "cancelled"}, "cancelled", Outcome.INCOMPLETE),
        ({"status": "queued"}, "queued", Outcome.INCOMPLETE),
        ({"status": "failed"}, "failed", Outcome.UPSTREAM_ERROR),
    ],
)
def test_how_a_response_ended(members, reason, outcome):
    body = {**SPOKEN["responses"].whole("a"), **members}
    transcript = from_body(RESPONSES, body)
    assert transcript.finish_reasons == (reason,)
    assert transcript.outcome() == outcome


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "id": "ws_1"},
        {"type": "custom_tool_call", "name": "f", "input": "x"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_audio"}]},
    ],
)
def test_item_of_another_kind_is_left_out_and_no_fault(item):
    body = {**SPOKEN["responses"].whole("a"), "output": [item]}
    streamed = from_stream(
        RESPONSES,
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.completed", "response": body},
    )
    for transcript in (from_body(RESPONSES, body), streamed):
        assert transcript.outputs() == ()
        assert transcript.unattestable == (0,)
        assert transcript.outcome() == Outcome.COMPLETE


def test_reasoning_without_content():
    item = {"type": "reasoning", "summary": [], "content": None}
    body = {**SPOKEN["responses"].whole("a"), "output": [item]}
    assert output_of(from_body(RESPONSES, body))["reasoning"] is None


AT = {"output_index": 0, "content_index": 0}


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_text.delta", **AT, "delta": 1},
        {"type": "response.output_text.delta", "output_index": 0, "delta": "a"},
        {"type": "response.output_text.delta", **AT, "output_index": 128, "delta": "a"},
        {"type": "response.function_call_arguments.delta", **AT, "delta": "a"},
        {"type": "response.output_item.added", **AT, "item": []},
        {"type": "response.content_part.added", **AT, "part": "x"},
        {"type": "response.created", "response": []},
        ended(output={}),
        ended(output=[{"type": "message", "content": "a"}]),
        ended(status=1),
        ended(incomplete_details="x"),
    ],
)
def test_wrong_types_in_a_response_are_malformed(event):
    assert from_stream(RESPONSES, SPOKEN["responses"].parts("")[0], event).malformed


def test_two_calls_at_one_place_are_malformed():
    item = {"type": "function_call", "call_id": "c", "name": "f", "arguments": ""}
    added = {"type": "response.output_item.added", "output_index": 0, "item": item}
    assert from_stream(RESPONSES, added, added).malformed


# Recorded answers.


@pytest.mark.parametrize(
    ("dialect", "name", "text", "reason"),
    [
        (
            RESPONSES,
            "responses.response.json",
            "C\f7eway\x10 qu=\x1f",
            "max_output_tokens",
        ),
        (RESPONSES, "responses_stream.response.sse", "C\f7", "max_output_tokens"),
        (MESSAGES, "messages.response.json", None, "max_tokens"),
        (MESSAGES, "messages_stream.response.sse", "\ufffdla at", "max_tokens"),
    ],
)
def test_recorded(dialect, name, text, reason):
    raw = (VECTORS / name).read_bytes()
    transcript = Transcript(dialect)
    if name.endswith(".sse"):
        transcript = from_stream(dialect, raw)
        assert transcript.terminal_seen
    else:
        transcript.feed_body(raw)
    output = output_of(transcript)
    assert text is None or output["content"] == text
    assert output["finish_reason"] == reason
    assert transcript.outcome() == Outcome.COMPLETE
    assert transcript.usage.input_tokens == 18


# Terminal events.


@pytest.mark.parametrize("kind", [b"message_stop", b"response.completed"])
@pytest.mark.parametrize(
    "raw",
    [
        b"event: %s\ndata: {}\n\n",
        b'data: {"type": "%s"}\n\n',
        b'data: {"x": 1,"type" :\ndata: "%s"}\n\n',
        b"event: message\r\ndata:[DONE]\r\n\r\n",
    ],
)
def test_event_that_ends_a_stream(kind, raw):
    dialect = MESSAGES if kind == b"message_stop" else RESPONSES
    (event,) = EventSplitter().feed(raw % kind if b"%s" in raw else raw)
    assert SHAPES[dialect].ends(event)
    assert (
        any(word in event.raw for word in SHAPES[dialect].words) or event.name == kind
    )


@pytest.mark.parametrize(
    "raw",
    [
        b'data: {"type": "delta", "text": "message_stop"}\n\n',
        b'data: {"type": "delta", "text": "\\"message_stop\\""}\n\n',
        b'data: {"type": ["message_stop"]}\n\n',
        b'data: {"type": "message_stop"\n\n',
        b"event: message_stop\n\n",
        b": message_stop\n\n",
        b"data: message_stop\n\n",
    ],
)
def test_event_that_ends_nothing(raw):
    (event,) = EventSplitter().feed(raw)
    assert not SHAPES[MESSAGES].ends(event)
    assert not SHAPES[Dialect.CHAT].ends(event)


# Requests.


def facts(dialect, **members):
    return request_facts({**SPOKEN[dialect].asked, **members}, dialect)


@pytest.mark.parametrize(
    ("members", "prompt"),
    [
        ({}, None),
        ({"system": None}, None),
        ({"system": []}, None),
        ({"system": "Be terse."}, "Be terse."),
        ({"system": [{"type": "text", "text": "Be terse."}]}, "Be terse."),
        (
            {
                "system": [
                    {
                        "type": "text",
                        "text": "Be terse.",
                        "cache_control": {"type": "ephemeral"},
                    }
                ]
            },
            "Be terse.",
        ),
        (
            {
                "system": [
                    {"type": "text", "text": "Be"},
                    {"type": "text", "text": " terse."},
                ]
            },
            "Be\x1e terse.",
        ),
        (
            {
                "system": "a",
                "messages": [
                    {"role": "user", "content": "x"},
                    {"role": "system", "content": "b"},
                ],
            },
            "a\x1eb",
        ),
    ],
)
def test_system_prompt_of_a_message(members, prompt):
    assert facts("messages", **members).system_prompt == prompt


@pytest.mark.parametrize(
    ("members", "prompt"),
    [
        ({}, None),
        ({"instructions": None}, None),
        ({"instructions": "Be terse."}, "Be terse."),
        ({"instructions": ""}, ""),
        (
            {
                "instructions": "a",
                "input": [
                    {"role": "developer", "content": "b"},
                    {"role": "user", "content": "x"},
                    {
                        "type": "message",
                        "role": "system",
                        "content": [{"type": "input_text", "text": "c"}],
                    },
                ],
            },
            "a\x1eb\x1ec",
        ),
        (
            {
                "input": [
                    {"type": "function_call_output", "call_id": "c", "output": "x"}
                ]
            },
            None,
        ),
    ],
)
def test_system_prompt_of_a_response(members, prompt):
    assert facts("responses", **members).system_prompt == prompt


@pytest.mark.parametrize(
    ("dialect", "members", "name"),
    [
        ("messages", {"messages": "x"}, "messages"),
        ("messages", {"system": 1}, "system"),
        ("messages", {"system": ["x"]}, "system"),
        ("responses", {"instructions": ["x"]}, "instructions"),
        ("responses", {"input": None}, "input"),
        ("responses", {"input": ["x"]}, "input"),
        ("responses", {"stream": 1}, "stream"),
    ],
)
def test_wrong_type_is_refused_by_name(dialect, members, name):
    with pytest.raises(FormatError, match=rf"^{name}: "):
        facts(dialect, **members)


def test_semantic_requests():
    asked = SPOKEN["messages"].asked["messages"]
    assert facts("messages", tools=[]).semantic == {
        "system": None,
        "messages": asked,
        "tools": None,
    }
    found = facts("responses", instructions="i", temperature=0.5)
    assert found.semantic == {"instructions": "i", "input": "hello", "tools": None}
    assert found.sampling == {"temperature": "0.5"}
    assert semantic_digest(found)
    assert canonical(found.semantic)
