import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attest import transcript as module
from attest.dialects import SHAPES, Budget
from attest.digests import digest
from attest.errors import FormatError
from attest.sse import EventSplitter
from attest.transcript import Dialect, Outcome, Transcript, Usage, output_digest

VECTORS = Path(__file__).parents[2] / "vectors" / "vllm-0.32"
CHAT, COMPLETIONS = Dialect.CHAT, Dialect.COMPLETIONS
DONE = b"data: [DONE]\n\n"


def from_stream(stream, dialect=CHAT, expected=None):
    transcript, splitter = (
        Transcript(dialect, expected_choices=expected),
        EventSplitter(),
    )
    for event in splitter.feed(stream):
        transcript.feed_event(event)
    transcript.end(splitter.flush())
    return transcript


def from_body(body, dialect=CHAT, expected=None):
    transcript = Transcript(dialect, expected_choices=expected)
    transcript.feed_body(body if isinstance(body, bytes) else json.dumps(body).encode())
    return transcript


def event(value):
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(part, *, index=0, finish_reason=None):
    return event(
        {
            "id": "chatcmpl-1",
            "model": "m",
            "choices": [
                {"index": index, "delta": part, "finish_reason": finish_reason}
            ],
        }
    )


def body(*messages, finish_reason="stop"):
    choices = [
        {"index": i, "message": message, "finish_reason": finish_reason}
        for i, message in enumerate(messages)
    ]
    return {"id": "chatcmpl-1", "model": "m", "choices": choices}


def vector(name):
    return (VECTORS / name).read_bytes()


# Recorded answers.


@pytest.mark.parametrize(
    ("whole", "stream"),
    [
        ("chat", "chat_stream"),
        ("chat", "chat_stream_usage"),
        ("chat", "chat_stream_usage_continuous"),
        ("chat_logprobs", "chat_logprobs_stream"),
        ("chat_logprobs", "chat_token_ids_stream"),
    ],
)
def test_recorded_stream_equals_recorded_body(whole, stream):
    one = from_body(vector(f"{whole}.response.json"))
    other = from_stream(vector(f"{stream}.response.sse"))
    assert one.outputs() == other.outputs()
    assert one.outputs()[0]["content"]
    assert one.outcome() == other.outcome() == Outcome.COMPLETE
    assert not other.terminator_missing


def test_recorded_completion_stream_equals_recorded_body():
    one = from_body(vector("completion.response.json"), COMPLETIONS)
    other = from_stream(vector("completion_stream.response.sse"), COMPLETIONS)
    expected = ({"index": 0, "text": "", "finish_reason": "stop"},)
    assert one.outputs() == other.outputs() == expected
    assert one.usage == other.usage == Usage(2, 1)


def test_recorded_chat():
    transcript = from_body(vector("chat.response.json"))
    assert transcript.response_id == "chatcmpl-842d806df8e799bf"
    assert transcript.response_model == "tiny"
    assert transcript.finish_reasons == ("length",)
    assert transcript.usage == Usage(37, 8)
    assert transcript.outputs() == (
        {
            "index": 0,
            "role": "assistant",
            "content": "\u0007\u0000\ufffdmo a\ufffd%h",
            "refusal": None,
            "reasoning": None,
            "tool_calls": [],
            "finish_reason": "length",
        },
    )


def test_recorded_two_choices():
    transcript = from_stream(vector("chat_n2_stream.response.sse"), expected=2)
    assert [output["content"] for output in transcript.outputs()] == [
        "\ufffd\u0010",
        "vis\u0007",
    ]
    assert transcript.outcome() == Outcome.COMPLETE


def test_recorded_batch_of_completions():
    transcript = from_body(
        vector("completion_n2_batch.response.json"), COMPLETIONS, expected=4
    )
    assert [o["text"] for o in transcript.outputs()] == ["es", "ju", " sig", " llare"]
    assert transcript.choice_count == 4
    assert transcript.outcome() == Outcome.COMPLETE


def test_recorded_tool_call():
    transcript = from_stream(vector("chat_tools_named_stream.response.sse"))
    (output,) = transcript.outputs()
    assert output["content"] is None
    assert output["tool_calls"] == [
        {
            "index": 0,
            "id": "chatcmpl-tool-a05d2965f44a4f18",
            "type": "function",
            "name": "get_weather",
            "arguments": "",
        }
    ]


def test_recorded_error_body():
    transcript = from_body(vector("chat_bad_model.response.json"))
    assert transcript.error_seen
    assert transcript.outputs() == ()


# A stream and a body of the same answer.

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
TOOL_CALL = st.fixed_dictionaries(
    {
        "id": TEXT.filter(bool),
        "type": st.just("function"),
        "function": st.fixed_dictionaries(
            {"name": TEXT.filter(bool), "arguments": TEXT}
        ),
    }
)
MESSAGE = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.none() | TEXT},
    optional={
        "refusal": st.none() | TEXT,
        "reasoning": st.none() | TEXT,
        "tool_calls": st.lists(TOOL_CALL, max_size=3),
    },
)


def pieces(draw, text):
    """The text in parts; what stands outside the BMP may be cut within, as UTF-16."""
    units = text.encode("utf-16-le", "surrogatepass")
    count = len(units) // 2
    cuts = sorted(draw(st.lists(st.integers(0, count), max_size=3)))
    edges = [0, *cuts, count]
    return [
        units[2 * a : 2 * b].decode("utf-16-le", "surrogatepass")
        for a, b in itertools.pairwise(edges)
    ]


@st.composite
def answers(draw):
    """A body, and a stream of the same answer that was cut into deltas at random."""
    messages = draw(st.lists(MESSAGE, min_size=1, max_size=3))
    reason = draw(st.sampled_from(["stop", "length", "tool_calls"]))
    queues = []
    for index, message in enumerate(messages):
        deltas = [{"role": "assistant", "content": ""}]
        for name in ("content", "refusal", "reasoning"):
            deltas += [{name: part} for part in pieces(draw, message.get(name) or "")]
        for number, call in enumerate(message.get("tool_calls", [])):
            head = {"index": number, "id": call["id"], "type": "function"}
            name = {"name": call["function"]["name"]}
            deltas.append({"tool_calls": [{**head, "function": name}]})
            for part in pieces(draw, call["function"]["arguments"]):
                tail = {"index": number, "function": {"arguments": part}}
                deltas.append({"content": None, "tool_calls": [tail]})
        queue = [delta(part, index=index) for part in deltas]
        queues.append([*queue, delta({}, index=index, finish_reason=reason)])
    stream = b""
    while any(queues):
        stream += draw(st.sampled_from([q for q in queues if q])).pop(0)
    return body(*messages, finish_reason=reason), stream + DONE


@settings(max_examples=60)
@given(answers())
def test_any_deltas_of_an_answer_equal_its_body(answer):
    whole, stream = answer
    count = len(whole["choices"])
    one = from_body(whole, expected=count)
    other = from_stream(stream, expected=count)
    assert one.outputs() == other.outputs()
    assert len(one.outputs()) == count
    assert one.outcome() == other.outcome() == Outcome.COMPLETE
    for left, right in zip(one.outputs(), other.outputs(), strict=True):
        assert output_digest(left) == output_digest(right)


@settings(max_examples=60)
@given(st.binary(max_size=200), st.sampled_from(Dialect))
def test_arbitrary_bytes_never_raise(data, dialect):
    for transcript in (from_stream(data, dialect), from_body(data, dialect)):
        assert transcript.outcome() in Outcome
        assert transcript.outputs() == ()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "index",
                    "delta",
                    "message",
                    "text",
                    "content",
                    "tool_calls",
                    "function",
                    "usage",
                    "id",
                    "finish_reason",
                    "prompt_tokens",
                    "name",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(["choices", "usage", "id", "model"]), JSON))
def test_wrong_types_never_raise(value):
    for dialect in Dialect:
        for transcript in (
            from_stream(event(value), dialect),
            from_body(value, dialect),
        ):
            for output in transcript.outputs():
                output_digest(output)
            assert transcript.unattestable is not None


@pytest.mark.parametrize("content", [{}, {"content": None}, {"content": ""}])
def test_absent_null_and_empty_are_one_value(content):
    message = {"role": "assistant", **content}
    assert from_body(body(message)).outputs()[0]["content"] is None


def test_role_is_assistant_where_the_engine_says_none():
    stream = delta({"content": "a"}, finish_reason="stop") + DONE
    assert from_stream(stream).outputs()[0]["role"] == "assistant"


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_both_names_of_reasoning(name):
    assert from_body(body({name: "r"})).outputs()[0]["reasoning"] == "r"


def test_reasoning_under_both_names_counts_once():
    message = {"reasoning": "r", "reasoning_content": "r"}
    assert from_body(body(message)).outputs()[0]["reasoning"] == "r"


def test_output_digest_is_of_the_rfc_8785_form():
    (output,) = from_body(body({"content": "\u20ac"})).outputs()
    assert output_digest(output) == digest(
        '{"content":"\u20ac","finish_reason":"stop","index":0,"reasoning":null,'
        '"refusal":null,"role":"assistant","tool_calls":[]}'.encode()
    )


# How it ended.


def test_done_alone_is_not_complete():
    assert from_stream(DONE).outcome() == Outcome.INCOMPLETE


def test_no_finish_reason_before_done_is_incomplete():
    assert from_stream(delta({"content": "a"}) + DONE).outcome() == Outcome.INCOMPLETE


@pytest.mark.parametrize("reason", ["abort", "error", "repetition", "something_new"])
def test_abnormal_finish_reason_is_incomplete(reason):
    stream = delta({"content": "a"}, finish_reason=reason) + DONE
    assert from_stream(stream).outcome() == Outcome.INCOMPLETE
    assert (
        from_body(body({"content": "a"}, finish_reason=reason)).outcome()
        == Outcome.INCOMPLETE
    )


def test_one_of_two_choices_finished_is_incomplete():
    stream = delta({"content": "a"}, finish_reason="stop") + delta({}, index=1) + DONE
    assert from_stream(stream, expected=2).outcome() == Outcome.INCOMPLETE


def test_fewer_choices_than_asked_for_is_incomplete():
    stream = delta({"content": "a"}, finish_reason="stop") + DONE
    assert from_stream(stream, expected=2).outcome() == Outcome.INCOMPLETE
    assert from_stream(stream, expected=1).outcome() == Outcome.COMPLETE


def test_missing_terminator_after_a_finish_reason_is_noted():
    transcript = from_stream(delta({"content": "a"}, finish_reason="stop"))
    assert transcript.outcome() == Outcome.COMPLETE
    assert transcript.terminator_missing


def test_end_before_a_finish_reason_is_truncated():
    assert from_stream(delta({"content": "a"})).outcome() == Outcome.TRUNCATED


def test_cut_within_a_data_line_is_truncated():
    stream = delta({"content": "a"}, finish_reason="stop") + b'data: {"id": "cha'
    assert from_stream(stream).outcome() == Outcome.TRUNCATED
    assert from_stream(b'data: {"id": "cha').outcome() == Outcome.TRUNCATED


def test_cut_within_a_comment_is_not_truncated():
    stream = delta({"content": "a"}, finish_reason="stop") + DONE + b": pi"
    assert from_stream(stream).outcome() == Outcome.COMPLETE


def test_error_event():
    stream = delta({"content": "a"}) + event({"error": {"message": "x"}}) + DONE
    transcript = from_stream(stream)
    assert transcript.error_seen
    assert transcript.outcome() == Outcome.UPSTREAM_ERROR
    assert transcript.outputs()[0]["content"] == "a"


def test_old_form_of_error_event():
    assert from_stream(event({"object": "error", "message": "x"})).error_seen


def test_null_error_is_none():
    value = body({"content": "a"}) | {"error": None}
    assert from_body(value).outcome() == Outcome.COMPLETE


@pytest.mark.parametrize("data", [b"", b"<html>", b"[]", b'{"choices": 1}', b"{}"])
def test_body_of_another_kind_is_malformed(data):
    assert from_body(data).outcome() == Outcome.UPSTREAM_MALFORMED


@pytest.mark.parametrize("data", [b"", b"<html>\n\n</html>\n", b": ping\n\n"])
def test_stream_of_another_kind_is_malformed(data):
    assert from_stream(data).outcome() == Outcome.UPSTREAM_MALFORMED


def test_nothing_fed_is_malformed():
    assert Transcript(CHAT).outcome() == Outcome.UPSTREAM_MALFORMED


def test_data_after_the_terminal_event_is_malformed_and_not_read():
    stream = delta({"content": "a"}, finish_reason="stop") + DONE
    transcript = from_stream(stream + delta({"content": "b"}))
    assert transcript.outcome() == Outcome.UPSTREAM_MALFORMED
    assert transcript.outputs()[0]["content"] == "a"


def test_duplicate_keys_are_malformed():
    data = b'data: {"choices":[],"choices":[]}\n\n'
    assert from_stream(data).malformed


# What cannot be attested.


def test_lone_surrogate_is_left_out_and_flagged():
    stream = (
        delta({"content": "a"}, finish_reason="stop")
        + b'data: {"choices":[{"index":1,"delta":{"content":"\\ud83d"}}]}\n\n'
        + delta({}, index=1, finish_reason="stop")
        + DONE
    )
    transcript = from_stream(stream, expected=2)
    assert [output["index"] for output in transcript.outputs()] == [0]
    assert transcript.unattestable == (1,)
    assert transcript.finish_reasons == ("stop", "stop")


def test_surrogate_halves_in_two_deltas_are_one_character():
    halves = [
        rb'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}' + b"\n\n"
    ] * 2
    stream = halves[0] % rb"\ud83d" + halves[1] % rb"\ude00"
    assert from_stream(stream).outputs()[0]["content"] == "\U0001f600"


@pytest.mark.parametrize(
    "message",
    [
        {"content": ["a"]},
        {"role": 1},
        {"refusal": {}},
        {"tool_calls": {"0": {}}},
        {"tool_calls": [1]},
        {"tool_calls": [{"function": {"arguments": {}}}]},
        {"tool_calls": [{"function": []}]},
        {"tool_calls": [{"type": "custom", "custom": {"input": "x"}}]},
    ],
)
def test_member_of_a_wrong_type_is_left_out_and_flagged(message):
    transcript = from_body(body(message))
    assert transcript.malformed
    assert transcript.outputs() == ()
    assert transcript.unattestable == (0,)


@pytest.mark.parametrize("index", [None, True, -1, 128, "0"])
def test_choice_without_a_usable_index_is_malformed(index):
    value = {"choices": [{"index": index, "message": {}, "finish_reason": "stop"}]}
    assert from_body(value).malformed


@pytest.mark.parametrize("index", [None, True, -1, 128])
def test_tool_call_delta_without_a_usable_index_is_malformed(index):
    assert from_stream(delta({"tool_calls": [{"index": index}]})).malformed


def test_two_choices_with_one_index_in_a_body_are_malformed():
    value = body({"content": "a"}, {"content": "b"})
    value["choices"][1]["index"] = 0
    transcript = from_body(value)
    assert transcript.malformed
    assert transcript.outputs() == ()


@pytest.mark.parametrize(
    "first", [{"role": "user"}, {"tool_calls": [{"index": 0, "id": "a"}]}]
)
def test_value_that_changes_within_a_stream_is_malformed(first):
    second = json.loads(json.dumps(first).replace("user", "tool").replace('"a"', '"b"'))
    assert not from_stream(delta(first) + delta(first)).malformed
    assert from_stream(delta(first) + delta(second)).malformed


@pytest.mark.parametrize("reason", ["stop\n", "\u00e9", "x" * 65, 1])
def test_finish_reason_that_is_no_word_is_malformed(reason):
    assert from_body(body({"content": "a"}, finish_reason=reason)).malformed


def test_text_beyond_the_bound_is_malformed(monkeypatch):
    monkeypatch.setattr(module, "MAX_TEXT", 4)
    assert not from_stream(delta({"content": "ab"}) * 2).malformed
    assert from_stream(delta({"content": "ab"}) * 3).malformed


@pytest.mark.parametrize("value", [None, 7, "", "x" * 257, "\ud800"])
def test_unusable_id_and_model_are_absent(value):
    transcript = from_body({"id": value, "model": value, "choices": []})
    assert transcript.response_id is None
    assert transcript.response_model is None


@pytest.mark.parametrize("count", [True, -1, 2**53, "1", 1.0, None])
def test_unusable_token_count_is_absent(count):
    usage = {"prompt_tokens": count, "completion_tokens": 3}
    transcript = from_body({"choices": [], "usage": usage})
    assert transcript.usage == Usage(None, 3)


def test_last_usage_counts():
    chunks = [
        event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": n}})
        for n in (1, 2)
    ]
    assert from_stream(b"".join(chunks) + DONE).usage == Usage(1, 2)


def test_output_of_another_origin_has_no_digest():
    with pytest.raises(FormatError):
        output_digest({"content": "\ud800"})


# Many events at a time.

TEXTS = st.sampled_from(["", *"abcdefgh", " c", "\n", "é", "\ud800"])


def part(index, text, reason, **more):
    delta = {"content": text, **more}
    return {"index": index, "delta": delta, "finish_reason": reason}


def chunk_of(*choices, **members):
    return {"id": "x", "model": "m", "choices": list(choices), **members}


KINDS = [
    lambda text: chunk_of(part(0, text, None)),
    lambda text: chunk_of({"index": 0, "text": text}),
    lambda text: chunk_of({"index": 0, "text": text, "finish_reason": "stop"}),
    lambda text: chunk_of(part(0, text, None), part(1, "b", None)),
    lambda text: chunk_of(part(0, text, "stop")),
    lambda text: chunk_of(part(0, text, None, role="assistant")),
    lambda text: chunk_of(part(0, text, None, role=None, reasoning="")),
    lambda text: chunk_of(part(0, text, None, reasoning="r")),
    lambda text: chunk_of(part(0, "c", None, reasoning=text)),
    lambda text: chunk_of(part(0, text, None, refusal="no")),
    lambda text: chunk_of(part(0, text, None), usage={"prompt_tokens": 1}),
    lambda text: chunk_of(
        part(0, text, None, tool_calls=[{"index": 0, "function": {"arguments": "a"}}])
    ),
    lambda text: chunk_of(
        part(0, None, None, tool_calls=[{"index": 0, "function": {"arguments": text}}])
    ),
    lambda text: chunk_of(part(0, text, None), error="e"),
    lambda text: chunk_of(part(-1, text, None)),
    lambda text: chunk_of({"index": 0, "delta": {"content": "a"}, "x": text}),
    lambda text: {"id": text, "choices": []},
    lambda text: {"choices": {"0": text}},
]
RAW = st.sampled_from([DONE, b": ping\n\n", b"data: {\n\n", b"event: x\ndata: {}\n\n"])
# Runs of one kind, since only what is alike is read together.
RUNS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.lists(TEXTS, max_size=8)), max_size=3
).map(lambda runs: [event(kind(text)) for kind, texts in runs for text in texts])


def facts(transcript):
    return {
        "outputs": transcript.outputs(),
        "outcome": transcript.outcome(),
        "malformed": transcript.malformed,
        "error": transcript.error_seen,
        "terminal": transcript.terminal_seen,
        "reasons": transcript.finish_reasons,
        "usage": transcript.usage,
        "names": (transcript.response_id, transcript.response_model),
        "choices": (transcript.choice_count, transcript.unattestable),
    }


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("kind", KINDS)
def test_alike_events_together_are_the_events_one_by_one(kind, dialect):
    stream = b"".join(event(kind(text)) for text in "abcdefgh")
    one_by_one = facts(from_stream(stream, dialect))
    assert facts(in_batches(stream, [], dialect)) == one_by_one


def in_batches(stream, sizes, dialect):
    transcript, splitter = Transcript(dialect), EventSplitter()
    events = splitter.feed(stream)
    for size in sizes:
        transcript.feed_events(events[:size])
        events = events[size:]
    transcript.feed_events(events)
    transcript.end(splitter.flush())
    return transcript


@settings(max_examples=300)
@given(
    RUNS,
    st.lists(RAW, max_size=1),
    RUNS,
    st.lists(st.integers(0, 5), max_size=6),
    st.sampled_from([CHAT, COMPLETIONS]),
)
def test_events_together_are_the_events_one_by_one(before, raw, after, sizes, dialect):
    stream = b"".join([*before, *raw, *after])
    expected = facts(from_stream(stream, dialect))
    assert facts(in_batches(stream, sizes, dialect)) == expected


@settings(max_examples=300)
@given(RUNS, st.lists(st.integers(1, 5), max_size=6))
def test_run_is_the_events_one_by_one(events, sizes):
    transcript, rest = Transcript(CHAT), list(events)
    for size in [*sizes, len(rest)]:
        transcript.feed_run(b"".join(rest[:size]))
        rest = rest[size:]
    transcript.end()
    assert facts(transcript) == facts(from_stream(b"".join(events), CHAT))


@pytest.mark.parametrize("dialect", [CHAT, COMPLETIONS])
def test_alike_events_are_read_as_one(dialect, monkeypatch):
    name = "delta" if dialect is CHAT else "text"
    texts = [f"t{n}" for n in range(40)]
    stream = b"".join(
        event(
            chunk_of({"index": 0, name: {"content": text} if dialect is CHAT else text})
        )
        for text in texts
    )
    reader = SHAPES[dialect].answer(Budget(99)).__class__
    calls, read = [], reader.event
    monkeypatch.setattr(reader, "event", lambda *args: calls.append(1) or read(*args))
    transcript = in_batches(stream, [], dialect)
    (output,) = transcript.outputs()
    assert output["content" if dialect is CHAT else "text"] == "".join(texts)
    assert len(calls) < 5


@pytest.mark.parametrize(
    "path", sorted(VECTORS.glob("*_stream.response.sse")), ids=lambda path: path.name
)
def test_streams_of_the_engine_together(path):
    for dialect in Dialect:
        stream = path.read_bytes()
        one_by_one = facts(from_stream(stream, dialect))
        for size in (1, 3, 32):
            assert facts(in_batches(stream, [size] * 99, dialect)) == one_by_one
