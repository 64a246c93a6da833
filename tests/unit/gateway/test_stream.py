import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attest.delivery import split_stream
from attest.dialects import Dialect
from attest.errors import FormatError
from attest.sse import MAX_EVENT
from attest.transcript import Outcome, Transcript
from gateway.stream import StreamRelay

VECTORS = Path(__file__).parents[2] / "vectors" / "vllm-0.32"
STREAM = (VECTORS / "chat_stream.response.sse").read_bytes()
EVENTS = [event + b"\n\n" for event in STREAM.split(b"\n\n")[:-1]]
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "x"}}\n\n'
TOKEN = "a.b.c~"
COMMENT = b": attestation a.b.c~\n\n"


class Relayed:
    """A relay that was fed; `sent` is what went out before the seal."""

    def __init__(self, *chunks, broken=False, batches=False):
        self.transcript = Transcript(Dialect.CHAT)
        self.relay = StreamRelay(self.transcript, Dialect.CHAT)
        self.sent = b""
        for chunk in chunks:
            if not self.relay.ended:
                self.sent += self.relay.feed(chunk)
                if batches:
                    self.relay.account_in_batches()
                else:
                    self.relay.account()
        self.relay.account()
        self.sent += self.relay.finish(broken=broken)

    def body(self, token=TOKEN):
        return self.sent + self.relay.closing(token)

    def is_accounted(self):
        covered = self.body(None)
        return self.relay.content_digest == "sha256:" + hashlib.sha256(
            covered
        ).hexdigest() and self.relay.content_bytes == len(covered)


def cut(data, positions):
    edges = [0, *sorted({min(p, len(data)) for p in positions}), len(data)]
    return [data[edges[i] : edges[i + 1]] for i in range(len(edges) - 1)]


LINES = st.sampled_from(
    [
        b"",
        b"data: a",
        b"data: [DONE]",
        b": attestation x.y.z",
        b":Attestation",
        b": ping",
        b"event: attestation",
        b'data: {"error": 1}',
        b"\xef\xbb\xbf",
        b"id: 1",
    ]
)
STREAMS = st.lists(
    st.tuples(LINES, st.sampled_from([b"\n", b"\r", b"\r\n"])).map(b"".join),
    max_size=14,
).map(b"".join)
CUTS = st.lists(st.integers(0, 150), max_size=12)


@given(STREAMS, CUTS)
def test_digest_is_of_what_the_client_gets_without_our_comment(stream, positions):
    relayed = Relayed(*cut(stream, positions))
    assert relayed.is_accounted()
    covered, token = split_stream(relayed.body())
    assert covered == relayed.body(None)
    assert token in (TOKEN, None)


@given(STREAMS, CUTS)
def test_nothing_of_upstreams_goes_out_under_our_name(stream, positions):
    body = Relayed(*cut(stream, positions)).body(None)
    lines = [line.removeprefix(b"\xef\xbb\xbf") for line in body.splitlines()]
    assert not [
        line
        for line in lines
        if line.lower().replace(b" ", b"")[:12] == b":attestation"
    ]


@given(STREAMS, CUTS)
def test_chunks_do_not_change_what_is_relayed(stream, positions):
    one, other = Relayed(stream), Relayed(*cut(stream, positions))
    # A dropped event may take the LF of the line before it along; see EventSplitter.
    bodies = [
        re.sub(rb"\n{2,}", b"\n\n", re.sub(rb"\r\n|\r", b"\n", relayed.body(None)))
        for relayed in (one, other)
    ]
    assert bodies[0].lstrip(b"\n") == bodies[1].lstrip(b"\n")


TOKENS = st.lists(st.text(max_size=4), max_size=30)
OTHERS = st.sampled_from(
    [
        DONE,
        ERROR,
        b": ping\n\n",
        b": attestation x\n\n",
        b"data: {\r\n\r\n",
        b"data: {}\r: attestation x\n\n",
        b"data: {}\n: attestation x\n\n",
        b"event: attestation\ndata: {}\n\n",
        b"data: {\n",
        b"\xef\xbb\xbfdata: {}\n\n",
    ]
)


def token_event(text):
    delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return b"data: " + json.dumps({"id": "x", "choices": [delta]}).encode() + b"\n\n"


def facts(transcript):
    return (
        transcript.outputs(),
        transcript.outcome(),
        transcript.malformed,
        transcript.error_seen,
        transcript.terminal_seen,
    )


@settings(max_examples=300)
@given(TOKENS, st.lists(OTHERS, max_size=2), TOKENS, CUTS, st.booleans())
@example(["a", "b"], [b"data: {}\r: attestation x\n\n"], ["c"], [], True)
@example(["a", "b"], [b"data: {}\n: attestation x\n\n"], ["c"], [], True)
@example(["a", "b"], [b"data: {}\n\n: attestation x"], ["c"], [], True)
@example(["a", "b"], [ERROR], ["c"], [], True)
def test_tokens_are_relayed_and_read_however_they_are_written(
    before, others, after, positions, whole
):
    events = [*map(token_event, before), *others, *map(token_event, after)]
    stream = b"".join(events)
    byte_by_byte = Relayed(*(stream[n : n + 1] for n in range(len(stream))))
    chunks = events if whole else cut(stream, positions)
    relayed = Relayed(*chunks, batches=True)
    assert relayed.is_accounted()
    # A dropped event may take the LF of the line before it along; see EventSplitter.
    bodies = [
        re.sub(rb"\n{2,}", b"\n\n", re.sub(rb"\r\n|\r", b"\n", one.body(None)))
        for one in (relayed, byte_by_byte)
    ]
    assert bodies[0].lstrip(b"\n") == bodies[1].lstrip(b"\n")
    assert facts(relayed.transcript) == facts(byte_by_byte.transcript)


def test_recorded_stream():
    relayed = Relayed(*EVENTS)
    assert relayed.sent == b"".join(EVENTS[:-1])
    assert relayed.body() == relayed.sent + COMMENT + DONE
    assert relayed.is_accounted()
    assert relayed.transcript.outcome() == Outcome.COMPLETE


def test_event_goes_out_with_the_chunk_that_completes_it():
    relay = StreamRelay(Transcript(Dialect.CHAT), Dialect.CHAT)
    assert relay.feed(EVENTS[0][:-1]) == b""
    assert relay.feed(b"\n" + EVENTS[1][:5]) == EVENTS[0]
    assert relay.feed(EVENTS[1][5:]) == EVENTS[1]


def test_terminal_event_ends_the_relay():
    relay = StreamRelay(Transcript(Dialect.CHAT), Dialect.CHAT)
    assert relay.feed(EVENTS[0] + DONE + EVENTS[1]) == EVENTS[0]
    assert relay.ended


def test_nothing_follows_the_terminal_event():
    relayed = Relayed(STREAM + EVENTS[1] + DONE + b"data: x")
    assert relayed.body(None) == STREAM
    assert not relayed.transcript.malformed


def test_error_event_is_held_with_what_follows():
    relayed = Relayed(EVENTS[0], ERROR, b": ping\n\n", DONE)
    assert relayed.sent == EVENTS[0]
    assert relayed.relay.closing(TOKEN) == COMMENT + ERROR + b": ping\n\n" + DONE
    assert relayed.is_accounted()
    assert relayed.transcript.error_seen
    assert relayed.transcript.terminal_seen


def test_error_event_without_a_terminal_event():
    relayed = Relayed(EVENTS[0], ERROR)
    assert relayed.body() == EVENTS[0] + COMMENT + ERROR


def test_what_follows_an_error_event_is_bounded():
    relayed = Relayed(ERROR, *[EVENTS[0]] * 1000, DONE)
    assert relayed.relay.ended
    assert len(relayed.body(None)) < 64 * 1024 + len(EVENTS[0]) * 2
    assert relayed.is_accounted()


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[{"index":0,"delta":{"content":"\\"error\\""}}]}\n\n',
        b"data: error\n\n",
        b'data: {"error": null, "choices": []}\n\n',
        b"event: error\n\n",
    ],
)
def test_word_error_alone_holds_nothing(event):
    assert Relayed(event).sent == event


def test_fragment_is_passed_and_nothing_follows_it():
    relayed = Relayed(EVENTS[0] + b'data: {"id"')
    assert relayed.body() == EVENTS[0] + b'data: {"id"'
    assert relayed.is_accounted()
    assert relayed.transcript.outcome() == Outcome.TRUNCATED


def test_fragment_of_a_broken_stream_is_dropped():
    relayed = Relayed(EVENTS[0] + b'data: {"id"', broken=True)
    assert relayed.body() == EVENTS[0] + COMMENT
    assert relayed.is_accounted()


def test_fragment_after_an_error_event_is_dropped():
    relayed = Relayed(ERROR + b"data: x")
    assert relayed.body() == COMMENT + ERROR
    assert relayed.is_accounted()


def test_line_end_that_comes_late_stays_before_the_comment():
    relayed = Relayed(b"data: {}\r\n\r", b"\ndata: [DONE]\r\n\r\n")
    assert relayed.body() == b"data: {}\r\n\r\n" + COMMENT + b"data: [DONE]\r\n\r\n"
    assert split_stream(relayed.body()) == (relayed.body(None), TOKEN)


def test_without_a_token_the_stream_is_upstreams():
    assert Relayed(STREAM).body(None) == STREAM


def test_comment_of_ours_within_an_event_is_cut_out():
    relayed = Relayed(b": attestation a.b.c\nid: 1\ndata: {}\n: ping\n\n")
    assert relayed.sent == b"id: 1\ndata: {}\n: ping\n\n"


def test_line_ends_around_a_comment_of_ours_stay_two():
    relayed = Relayed(b"data: a\r: attestation a.b.c\n\n")
    assert relayed.sent == b"data: a\r\n\n"


def test_event_beyond_bounds():
    relay = StreamRelay(Transcript(Dialect.CHAT), Dialect.CHAT)
    with pytest.raises(FormatError):
        relay.feed(b"data: " + b"x" * MAX_EVENT)
    assert relay.salvaged == b""


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n"])
def test_events_before_one_beyond_bounds_are_passed(monkeypatch, end):
    monkeypatch.setattr("attest.sse.MAX_EVENT", 100)
    before = b"data: 1" + end + b": ping" + end
    relay = StreamRelay(Transcript(Dialect.CHAT), Dialect.CHAT)
    assert relay.feed(before * 9) == before * 9  # more than one event may have
    with pytest.raises(FormatError):
        relay.feed(before + b"data: " + b"x" * 200 + end)
    assert relay.salvaged == before
