"""Somebody between gateway and client changes an answer."""

import json
from dataclasses import replace

import pytest
from fakes.attested_gateway import COMPLETION_REQUEST, COMPLETIONS, Reply
from fakes.clients import ask
from fakes.world import ANSWER, REQUEST, STREAM, STREAM_REQUEST, with_comment

from attest.errors import EvidenceUnavailableError, VerificationError
from attest.verify import verify


def changed(old, new):
    return lambda reply: reply.swapped(old, new)


def test_one_word_of_a_body(flavour, attested):
    attested.mangle = changed(b"Paris", b"Milan")
    answer = ask(flavour, attested)
    assert isinstance(answer.error, VerificationError)
    assert "step 6 content" in str(answer.error)
    assert answer.body == b""


def test_one_word_of_a_stream(flavour, attested):
    attested.mangle = changed(b"Paris", b"Milan")
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert isinstance(answer.error, VerificationError)
    assert "step 6 content" in str(answer.error)
    # Without its terminal event no reader takes it for whole.
    assert b"[DONE]" not in answer.body


def test_white_space_of_a_body(flavour, attested):
    def respelled(reply: Reply) -> Reply:
        return replace(
            reply, body=json.dumps(json.loads(reply.body), indent=1).encode()
        )

    attested.mangle = respelled
    assert isinstance(ask(flavour, attested).error, VerificationError)


def test_a_completion(flavour, attested):
    attested.mangle = changed(b'"4"', b'"5"')
    answer = ask(flavour, attested, COMPLETION_REQUEST, path=COMPLETIONS)
    assert isinstance(answer.error, VerificationError)


def test_the_terminal_event_of_a_stream(flavour, attested):
    attested.mangle = changed(b"data: [DONE]\n\n", b"data: [DONE]\n\ndata: more\n\n")
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert isinstance(answer.error, VerificationError)


@pytest.mark.parametrize("content_type", ["text/plain", "text/event-stream"])
def test_its_content_type_alone_changes_nothing(flavour, attested, content_type):
    def relabelled(reply: Reply) -> Reply:
        return replace(reply, headers={**reply.headers, "content-type": content_type})

    attested.mangle = relabelled
    answer = ask(flavour, attested, REQUEST)
    assert (answer.body, answer.error) == (ANSWER, None)


def test_compressed_under_way(flavour, attested):
    def compressed(reply: Reply) -> Reply:
        return replace(reply, headers={**reply.headers, "content-encoding": "gzip"})

    attested.mangle = compressed
    answer = ask(flavour, attested)
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert "compressed" in str(answer.error)


def test_a_refusal_passed_off_as_an_answer(flavour, attested):
    attested.status = 400
    attested.mangle = lambda reply: replace(reply, status=200)
    assert isinstance(ask(flavour, attested).error, VerificationError)


def test_the_status_alone(flavour, attested):
    attested.mangle = lambda reply: replace(reply, status=201)
    answer = ask(flavour, attested)
    assert isinstance(answer.error, VerificationError)
    assert "status 201" in str(answer.error)


def test_the_request_instead(flavour, attested):
    """The gateway answers another question than was asked."""
    token = attested.world.token

    def other(request, body, **exchange):
        return token(request.replace(b"France", b"Ghana"), body, **exchange)

    attested.forge = other
    answer = ask(flavour, attested)
    assert isinstance(answer.error, VerificationError)
    assert "the request is not the attested one" in str(answer.error)


@pytest.mark.parametrize("stream", [False, True])
def test_one_word_in_a_kept_bundle(world, stream):
    request, response = (STREAM_REQUEST, STREAM) if stream else (REQUEST, ANSWER)
    bundle = world.bundle(request, response)
    if stream:
        bundle = replace(bundle, response=with_comment(response, bundle.token))
    assert verify(bundle, world.policy, at=world.now).proven
    lie = replace(bundle, response=bundle.response.replace(b"Paris", b"Milan"))
    problem = verify(lie, world.policy, at=world.now).problem
    assert (problem.number, problem.code) == (6, "transcript_mismatch")


def test_one_word_of_the_question_in_a_kept_bundle(world):
    bundle = world.bundle()
    lie = replace(bundle, request=REQUEST.replace(b"France", b"Ghana"))
    problem = verify(lie, world.policy, at=world.now).problem
    assert (problem.number, problem.code) == (6, "transcript_mismatch")
