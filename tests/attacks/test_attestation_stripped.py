"""Somebody takes the attestation off an answer, or a plain server stands in its place.

Nobody can then tell who answered: never an answer, and never called false either.
"""

from dataclasses import replace

import pytest
from fakes.attested_gateway import Reply
from fakes.clients import ask
from fakes.world import ANSWER, REQUEST, STREAM, STREAM_REQUEST

from attest.delivery import ATTESTATION_HEADER, ID_HEADER
from attest.errors import EvidenceUnavailableError


def stripped(reply: Reply) -> Reply:
    bare = reply.without(ATTESTATION_HEADER, ID_HEADER)
    is_stream = bare.headers["content-type"].startswith("text/event-stream")
    return replace(bare, body=STREAM) if is_stream else bare


def test_from_a_body(flavour, attested):
    attested.mangle = stripped
    answer = ask(flavour, attested)
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert "no attestation" in str(answer.error)
    assert "/.well-known/attestation" in answer.error.hint
    assert answer.body == b""


def test_from_a_stream(flavour, attested):
    attested.mangle = stripped
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert "no attestation" in str(answer.error)
    assert b"[DONE]" not in answer.body


@pytest.mark.parametrize("request_body", [REQUEST, STREAM_REQUEST])
def test_the_id_says_where_to_get_it(flavour, attested, request_body):
    """A proxy that drops comments and long header fields does no harm."""

    def shortened(reply: Reply) -> Reply:
        short = reply.without(ATTESTATION_HEADER)
        return replace(short, body=STREAM) if reply.body != ANSWER else short

    attested.mangle = shortened
    answer = ask(flavour, attested, request_body)
    assert answer.error is None
    assert answer.body in (ANSWER, STREAM)


def test_and_the_evidence_is_withheld(flavour, attested):
    attested.mangle = lambda reply: reply.without(ATTESTATION_HEADER)
    attested.evidence["/v1/attestations/att_0"] = Reply(404, {}, b"")
    answer = ask(flavour, attested)
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert "404" in str(answer.error)


@pytest.mark.parametrize("name", ["../admin", "a" * 129, "a?b", "a, b", ""])
def test_an_id_that_leads_elsewhere(flavour, attested, name):
    """It becomes part of a URL that gets the client's API key."""

    def elsewhere(reply: Reply) -> Reply:
        bare = reply.without(ATTESTATION_HEADER)
        return replace(bare, headers={**bare.headers, ID_HEADER: name})

    attested.mangle = elsewhere
    assert isinstance(ask(flavour, attested).error, EvidenceUnavailableError)
    assert attested.paths() == ["/v1/chat/completions"]


def test_a_redirect_to_another_server(flavour, attested):
    attested.mangle = lambda _: Reply(307, {"location": "https://other.test/"}, b"")
    answer = ask(flavour, attested)
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert "redirect" in str(answer.error)
    assert len(attested.received) == 1
