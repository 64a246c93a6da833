"""Somebody cuts a stream, or leaves out, repeats or moves parts of it.

Whatever is done: no reader is handed the end of the stream without an error.
"""

from dataclasses import replace

import pytest
from fakes.attested_gateway import Reply
from fakes.clients import ask
from fakes.world import STREAM, STREAM_REQUEST

from attest.delivery import ID_HEADER, comment
from attest.errors import AttestError, EvidenceUnavailableError, VerificationError
from attest.sse import EventSplitter


def events(body: bytes) -> list[bytes]:
    splitter = EventSplitter()
    return [event.raw for event in splitter.feed(body)]


def on_events(change):
    """Apply `change` to the list of events, the comment is the last but one."""

    def mangle(reply: Reply) -> Reply:
        return replace(reply, body=b"".join(change(events(reply.body))))

    return mangle


def cut_at(find, *, keep_id=True):
    def mangle(reply: Reply) -> Reply:
        reply = reply if keep_id else reply.without(ID_HEADER)
        return replace(reply, body=reply.body[: find(reply.body)])

    return mangle


def test_whole(flavour, attested):
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert (answer.body, answer.error) == (STREAM, None)


@pytest.mark.parametrize("at", [0, 1, 100, 700])
def test_before_the_comment(flavour, attested, at):
    attested.mangle = cut_at(lambda _: at, keep_id=False)
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert isinstance(answer.error, EvidenceUnavailableError)


@pytest.mark.parametrize("at", [0, 1, 100, 700])
def test_before_the_comment_with_its_id(flavour, attested, at):
    """The gateway can be asked what it sent: then it is known to be false."""
    attested.mangle = cut_at(lambda _: at)
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert isinstance(answer.error, VerificationError)


def test_within_the_comment(flavour, attested):
    attested.mangle = cut_at(
        lambda body: body.index(b": attestation") + 50, keep_id=False
    )
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert isinstance(answer.error, EvidenceUnavailableError)


def test_after_the_comment(flavour, attested):
    attested.mangle = on_events(lambda items: items[:-1])
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert isinstance(answer.error, VerificationError)
    assert b"attestation" not in answer.body


def test_within_the_terminal_event(flavour, attested):
    attested.mangle = cut_at(lambda body: len(body) - 3)
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert isinstance(answer.error, VerificationError)
    assert b"[DONE]" not in answer.body


CHANGES = {
    "first event dropped": lambda items: items[1:],
    "middle event dropped": lambda items: [*items[:3], *items[4:]],
    "last content dropped": lambda items: [*items[:-3], *items[-2:]],
    "event repeated": lambda items: [*items[:3], items[3], *items[3:]],
    "events swapped": lambda items: [*items[:2], items[3], items[2], *items[4:]],
    "event slipped in": lambda items: [items[0], b": hello\n\n", *items[1:]],
    "terminal event repeated": lambda items: [*items, items[-1]],
    "event after the end": lambda items: [*items, items[1]],
    "second comment": lambda items: [comment("a.b.c"), *items],
    "comment of a stranger last": lambda items: [*items, comment("a.b.c")],
    "comment alone": lambda items: [items[-2]],
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed(flavour, attested, name):
    attested.mangle = on_events(CHANGES[name])
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert isinstance(answer.error, VerificationError)
    assert b"[DONE]" not in answer.body


@pytest.mark.parametrize(
    "early",
    [
        b"data: [DONE]\n\n",
        b"data:[DONE]\r\n\r\n",
        b"data: [DONE] and more\n\n",
        b'data: {"id": "1"}\x0bdata: [DONE]\x0b\x0b\n\n',
        "data: {}\u2028data: [DONE]\u2028\u2028\n\n".encode(),
    ],
)
def test_an_early_end(flavour, attested, early):
    """Readers stop at it and would never see what fails."""
    attested.mangle = on_events(lambda items: [*items[:3], early, *items[3:]])
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert isinstance(answer.error, AttestError)
    assert b"[DONE]" not in answer.body
    assert answer.body == b"".join(events(STREAM)[:3])


def test_a_comment_that_hides_events(flavour, attested):
    """Bytes between two comments are covered, whatever the comments say."""

    def hide(reply: Reply) -> Reply:
        *start, mark, last = events(reply.body)
        return replace(reply, body=b"".join([mark, *start, mark, last]))

    attested.mangle = hide
    assert isinstance(ask(flavour, attested, STREAM_REQUEST).error, VerificationError)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_however_it_is_cut_into_chunks(flavour, attested, size):
    attested.chunk = size
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert (answer.body, answer.error) == (STREAM, None)
