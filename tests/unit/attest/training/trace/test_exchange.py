import json
from dataclasses import replace

import pytest
from fakes.traced_run import chat
from fakes.world import ANSWER, REQUEST, STREAM, STREAM_REQUEST, TEXT, make_world
from hypothesis import given, settings
from hypothesis import strategies as st

from attest import disclosures
from attest.errors import EvidenceUnavailableError
from attest.training.trace.exchange import read_exchange
from attest.transcript import Dialect


@pytest.fixture(scope="module")
def world():
    return make_world()


def exchange(world, request, response, **options):
    bundle = world.bundle(request, response, **options)
    _, private = world.claims(request, response, **options)
    return read_exchange(bundle, private)


def completion(text, prompt, finish_reason="stop"):
    choice = {"index": 0, "text": text, "finish_reason": finish_reason}
    response = {"id": "c", "object": "text_completion", "model": "m"}
    return (
        json.dumps({"model": "m", "prompt": prompt}).encode(),
        json.dumps({**response, "choices": [choice]}).encode(),
    )


@pytest.mark.parametrize(
    ("request_", "response"), [(REQUEST, ANSWER), (STREAM_REQUEST, STREAM)]
)
def test_chat_and_its_stream_are_the_same_exchange(world, request_, response):
    found = exchange(world, request_, response)
    assert found.answer == TEXT
    assert [m["role"] for m in found.messages] == ["system", "user"]
    assert found.prompt is None
    assert found.ended
    assert found.choices == 1


def test_completion_of_a_text(world):
    found = exchange(
        world, *completion(" a lion", "the king is"), dialect=Dialect.COMPLETIONS
    )
    assert (found.prompt, found.answer, found.messages) == (
        "the king is",
        " a lion",
        None,
    )


def test_cut_answer_has_no_end(world):
    bodies = completion("a", "b", "length")
    assert not exchange(world, *bodies, dialect=Dialect.COMPLETIONS).ended


@pytest.mark.parametrize("missing", ["request", "response"])
def test_bundle_without_a_body_cannot_tell(world, missing):
    bundle = replace(world.bundle(), **{missing: None})
    with pytest.raises(EvidenceUnavailableError, match="no request and response"):
        read_exchange(bundle, {})


def test_text_that_was_not_disclosed_is_not_guessed(world):
    with pytest.raises(EvidenceUnavailableError, match="disclosed"):
        read_exchange(world.bundle(), {})


def test_text_other_than_the_disclosed_one_is_refused(world):
    _, private = world.claims(*chat("a", "another"))
    with pytest.raises(EvidenceUnavailableError):
        read_exchange(world.bundle(*chat("a", "b")), private)


@pytest.mark.parametrize("prompt", [["a", "b"], [1, 2, 3], None])
def test_prompt_that_is_no_text_is_named(world, prompt):
    bodies = completion("a", prompt)
    if prompt == ["a", "b"]:  # two prompts expect two choices
        bodies = (bodies[0].replace(b'["a", "b"]', b'["a"]'), bodies[1])
    with pytest.raises(EvidenceUnavailableError, match="one text"):
        exchange(world, *bodies, dialect=Dialect.COMPLETIONS)


@pytest.mark.parametrize(
    "message",
    [
        {"content": None, "refusal": "no"},
        {"reasoning": "let me see"},
        {
            "content": None,
            "tool_calls": [
                {
                    "id": "1",
                    "type": "function",
                    "function": {"name": "f", "arguments": "{}"},
                }
            ],
        },
    ],
)
def test_answer_with_more_than_text_is_named(world, message):
    with pytest.raises(EvidenceUnavailableError, match="tools, reasoning"):
        exchange(world, *chat("a", "b", **message))


def test_message_with_an_image_is_named(world):
    request, response = chat("a", "b")
    body = json.loads(request)
    body["messages"][0]["content"] = [{"type": "image_url", "image_url": {"url": "x"}}]
    with pytest.raises(EvidenceUnavailableError, match="not plain text"):
        exchange(world, json.dumps(body).encode(), response)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "text"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(messages=JSON, prompt=JSON, tools=JSON)
def test_any_request_is_read_or_cannot_tell(world, messages, prompt, tools):
    """A gateway attested it, so it is proven; that does not make it usable."""
    body = {"messages": messages, "prompt": prompt, "tools": tools}
    for dialect, (asked, response) in (
        (Dialect.CHAT, chat("a", "b")),
        (Dialect.COMPLETIONS, completion("a", "b")),
    ):
        bundle = replace(world.bundle(), request=json.dumps(body).encode())
        _, private = world.claims(asked, response, dialect=dialect)
        try:
            found = read_exchange(replace(bundle, response=response), private)
        except EvidenceUnavailableError:
            continue
        assert found.messages == messages or found.prompt == prompt


def test_disclosed_names_are_those_of_the_token(world):
    """What `verify` reveals is what `read_exchange` looks for."""
    token = world.token()
    claims = world.claims()[1]
    assert "out.0" in claims
    assert disclosures.split(token)[1]
