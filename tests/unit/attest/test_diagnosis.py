"""What the vectors do not show: hostile copies, and what no copy may lead to."""

import json
from dataclasses import replace

import pytest
from fakes.verdicts import sound
from fakes.world import (
    ABSENT,
    ANSWER,
    NOW,
    REQUEST,
    STREAM,
    STREAM_REQUEST,
    TEXT,
    make_world,
    with_comment,
)
from hypothesis import given
from hypothesis import strategies as st

from attest.steps import Status
from attest.transcript import Dialect
from attest.verify import verify

WORLD = make_world()
PLAIN = WORLD.bundle()
STREAMED = WORLD.bundle(STREAM_REQUEST, STREAM)
SPELT = json.dumps(json.loads(ANSWER), sort_keys=True)


def content(bundle, **copies):
    verdict = sound(verify(replace(bundle, **copies), WORLD.policy, at=NOW))
    return verdict.step(6)


def codes(bundle, copy):
    return [finding.code for finding in content(bundle, response=copy).findings]


@given(st.binary(max_size=300), st.sampled_from([PLAIN, STREAMED]))
def test_arbitrary_bytes_are_never_the_answer(data, bundle):
    assert content(bundle, response=data).status is Status.FAILED
    assert content(bundle, request=data).status is Status.FAILED


@given(
    st.data(),
    st.sampled_from([(PLAIN, ANSWER), (STREAMED, STREAM)]),
)
def test_a_flipped_bit_is_never_called_whole(data, answer):
    """Outside the text it may be harmless, but the bytes are never called attested."""
    bundle, body = answer
    copy = bytearray(body)
    copy[data.draw(st.integers(0, len(copy) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    step = content(bundle, response=bytes(copy))
    assert step.status in {Status.FAILED, Status.CONTENT_ONLY}


@given(st.data(), st.sampled_from([(PLAIN, ANSWER), (STREAMED, STREAM)]))
def test_a_changed_text_is_never_harmless(data, answer):
    bundle, body = answer
    word = data.draw(st.sampled_from(TEXT.rstrip(".").split())).encode()
    other = word.swapcase()
    copy = body.replace(b'"content": "' + word, b'"content": "' + other)
    copy = copy.replace(word + b".", other + b".").replace(word + b" ", other + b" ")
    assert copy != body
    spelt = data.draw(
        st.sampled_from([copy, copy.replace(b"\n", b"\r\n"), copy + b"\n"])
    )
    step = content(bundle, response=spelt)
    assert step.status is Status.FAILED
    assert step.findings[0].code == "content.answer_changed"


@pytest.mark.parametrize(
    "copy",
    [
        b"{" * 100_000,
        b'{"choices":' + b"[" * 100_000,
        b'{"choices":[],' * 3000,
        b'{"choices":[{"index":0}]}' * 2,
        b'{"choices":[1]}',
        b'{"choices":{}}',
        b'{"object":"response","output":7}',
        b'{"type":"message","content":"x"}',
        b'{"type":"message"}',
        b'{"type":["message"]}',
        b'{"object":"chat.completion","choices":[{"index":0,"message":[]}]}',
        b"data: {}\n\n",
        b"data: [DONE]\n\n",
        b"data\n\n",
        b": only\n\n: comments\n\n",
        b"data: " + b"{" * 1000 + b"\n\n",
        b"data: x" * (2 * 1024 * 1024),
        b"\xff\xfe{",
        b"[]",
        b"null",
        "\ud800".encode("utf-16-le", "surrogatepass"),
    ],
    ids=range(21),
)
@pytest.mark.parametrize("bundle", [PLAIN, STREAMED], ids=["plain", "stream"])
def test_hostile_copies(bundle, copy):
    assert content(bundle, response=copy).status is Status.FAILED


def test_found_words_cannot_forge_a_line():
    lie = ANSWER.replace(b'"tiny"', b'"huge\\n10 policy ok\\u001b[2J"')
    detail = content(PLAIN, response=lie).detail
    assert "\n" not in detail
    assert "\x1b" not in detail
    assert len(detail) < 400


def test_an_added_member_is_not_vouched_for():
    """What the token does not state is not proven, and the bytes are not either."""
    copy = json.dumps({**json.loads(ANSWER), "note": "pay me"}).encode()
    assert codes(PLAIN, copy) == ["content.reencoded"]


def test_an_answer_in_another_dialect_is_another_answer():
    body = {
        "id": "chatcmpl-1",
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [{"type": "text", "text": TEXT}],
        "stop_reason": "stop",
        "usage": {"input_tokens": 21, "output_tokens": 7},
    }
    # The same object is hashed for both, so it says the same.
    assert codes(PLAIN, json.dumps(body).encode()) == ["content.reencoded"]
    body["content"][0]["text"] = "Milan"
    assert codes(PLAIN, json.dumps(body).encode()) == ["content.answer_changed"]


def test_an_answer_that_was_cut_by_the_gateway_itself():
    """The attested stream has no end: its copy is as whole as that was."""
    cut = STREAM[: STREAM.index(b"data: [DONE]")]
    cut = cut[: cut.rindex(b"data: ")]
    bundle = WORLD.bundle(STREAM_REQUEST, cut)
    assert content(bundle).status is Status.OK
    old, new = b'"created": %d, "model": "tiny"', b'"model": "tiny", "created": %d'
    spelt = cut.replace(old % NOW, new % NOW)
    assert codes(bundle, spelt) == ["content.reencoded"]
    assert codes(bundle, cut[:-300]) == ["content.truncated"]


def test_a_copy_with_the_comment_in_other_line_ends():
    sent = with_comment(STREAM, STREAMED.token)
    assert codes(STREAMED, sent) == []
    assert codes(STREAMED, sent.replace(b"\n", b"\r\n")) == ["content.line_endings"]


def test_embeddings_have_no_text_to_compare():
    request = json.dumps({"model": "tiny", "input": "x"}).encode()
    body = {"object": "list", "data": [{"index": 0, "embedding": [0.5]}], "model": "t"}
    answer = json.dumps(body).encode()
    bundle = WORLD.bundle(request, answer, dialect=Dialect.POOLING)
    assert codes(bundle, json.dumps(body, indent=1).encode()) == ["content.whitespace"]
    assert codes(bundle, json.dumps(body, sort_keys=True).encode()) == [
        "content.changed"
    ]


def test_both_bodies_are_spoken_of():
    step = content(
        PLAIN, request=REQUEST + b"\n", response=ANSWER.replace(b"Paris", b"Milan")
    )
    assert [finding.code for finding in step.findings] == [
        "content.request_form",
        "content.answer_changed",
    ]
    assert "the request is not the attested one and the response" in step.detail


def test_a_request_that_asks_for_no_sampling():
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}
    respelt = json.dumps({"messages": body["messages"], "model": "tiny"}).encode()
    bundle = WORLD.bundle(
        json.dumps(body).encode(), private={"request.sampling": ABSENT}
    )
    (finding,) = content(bundle, request=respelt).findings
    assert finding.code == "content.request_form"
    # Where something is hidden, it may be the sampling.
    token, *opened, end = bundle.token.split("~")
    hidden = replace(bundle, token="~".join([token, *opened[:-1], end]))
    (finding,) = content(hidden, request=respelt, response=None).findings
    assert finding.code == "content.request_changed"


def test_a_token_of_astronomic_many_choices_is_judged_in_time():
    bundle = WORLD.bundle(claims={"res": {"choices": 2**53 - 1}})
    lie = ANSWER.replace(b"Paris", b"Milan")
    assert codes(bundle, lie) == ["content.answer_changed"]
    assert codes(bundle, SPELT.encode()) == ["content.not_disclosed"]
