import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import FormatError
from attest.request import request_facts, semantic_digest
from attest.transcript import Dialect

CHAT, COMPLETIONS = Dialect.CHAT, Dialect.COMPLETIONS
USER = {"role": "user", "content": "hello"}


def chat(*messages, **more):
    return request_facts({"messages": list(messages) or [USER], **more}, CHAT)


def completion(prompt="a", **more):
    return request_facts({"prompt": prompt, **more}, COMPLETIONS)


def test_facts_of_a_plain_chat():
    facts = chat(USER, model="tiny")
    assert facts.model == "tiny"
    assert facts.stream is False
    assert facts.expected_choices == 1
    assert facts.sampling == {}
    assert facts.system_prompt is None
    assert facts.semantic == {"messages": [USER], "tools": None}


@pytest.mark.parametrize("value", [None, False])
def test_no_stream(value):
    assert chat(stream=value).stream is False


def test_stream():
    assert chat(stream=True).stream is True


@pytest.mark.parametrize("tools", [None, []])
def test_no_tools_null_and_empty_are_the_same_request(tools):
    assert semantic_digest(chat(tools=tools)) == semantic_digest(chat())


def test_semantic_digest_is_of_the_rfc_8785_form():
    facts = chat(tools=[{"type": "function"}])
    expected = {"messages": [USER], "tools": [{"type": "function"}]}
    assert semantic_digest(facts) == digest(canonical(expected))


@pytest.mark.parametrize("content", [2**53, [-(2**53)], "\ud800", {"\udc00": 1}])
def test_request_without_a_canonical_form_has_no_semantic_digest(content):
    facts = chat({"role": "user", "content": content})
    assert semantic_digest(facts) is None


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(st.characters())
        | st.floats(allow_nan=False, allow_infinity=False),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.text(st.characters()), inner)
        ),
        max_leaves=8,
    )
)
def test_semantic_digest_is_none_exactly_where_rfc_8785_fails(content):
    facts = chat({"role": "user", "content": content})
    try:
        canonical(content)
    except FormatError:
        assert semantic_digest(facts) is None
    else:
        assert semantic_digest(facts)


# System prompts.


def test_system_prompt():
    assert chat({"role": "system", "content": "Be terse."}, USER).system_prompt == (
        "Be terse."
    )


def test_system_and_developer_messages_in_order():
    facts = chat(
        {"role": "developer", "content": "b"}, USER, {"role": "system", "content": "a"}
    )
    assert facts.system_prompt == "b\x1ea"


def test_prompt_cut_in_two_differs_from_the_whole():
    system = [{"role": "system", "content": text} for text in ("Be", "terse")]
    for whole in ("Beterse", "Be terse", "Be\nterse", "Be\n\nterse"):
        assert chat(*system).system_prompt != whole


def test_text_part_is_the_text():
    part = {"type": "text", "text": "Be terse."}
    assert chat({"role": "system", "content": [part]}).system_prompt == "Be terse."


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "x"}},
        {"type": "text", "text": 7},
        {"type": "text", "text": "Be terse.", "more": 1},
        "Be terse.",
        None,
    ],
)
def test_part_that_is_no_plain_text_stands_as_json(part):
    facts = chat({"role": "system", "content": [part]})
    assert facts.system_prompt == json.dumps(part, sort_keys=True)


@pytest.mark.parametrize("content", [None, 7, {}])
def test_content_that_is_no_text_stands_as_json(content):
    facts = chat({"role": "system", "content": content})
    assert facts.system_prompt == json.dumps(content)


def test_system_prompt_with_a_lone_surrogate_can_be_hashed():
    facts = chat({"role": "system", "content": "a\ud800"})
    assert facts.system_prompt == '"a\\ud800"'


def test_completion_has_no_system_prompt():
    facts = completion("You are terse.")
    assert facts.system_prompt is None
    assert facts.semantic == {"prompt": "You are terse."}


# Choices.


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("a", 1),
        (["a"], 1),
        (["a", "b"], 2),
        ([1, 2, 3], 1),
        ([[1, 2], [3]], 2),
        (None, 1),
    ],
)
def test_choices_of_a_batch(prompt, count):
    assert completion(prompt, n=2).expected_choices == 2 * count


@pytest.mark.parametrize("n", [0, -1, 129, 10**30])
def test_number_of_choices_out_of_bounds(n):
    with pytest.raises(FormatError, match=r"^n: "):
        chat(n=n)


def test_batch_out_of_bounds():
    with pytest.raises(FormatError, match=r"^n: 130 choices"):
        completion(["a"] * 65, n=2)
    with pytest.raises(FormatError, match=r"^n: 0 choices"):
        completion([])


# Types.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stream", "true"),
        ("stream", 1),
        ("n", "2"),
        ("n", 2.0),
        ("n", True),
        ("model", 7),
        ("model", ""),
        ("model", "x" * 257),
        ("model", "\ud800"),
        ("messages", None),
        ("messages", {}),
        ("messages", ["hello"]),
    ],
)
def test_wrong_type_is_refused_by_name(name, value):
    with pytest.raises(FormatError, match=rf"^{name}: "):
        chat(**{"messages": [USER], name: value}) if name != "messages" else (
            request_facts({"messages": value}, CHAT)
        )


def test_wrong_type_of_prompt_is_refused():
    with pytest.raises(FormatError, match=r"^prompt: "):
        completion({"text": "a"})


# Sampling parameters.


def test_sampling_parameters_are_json_texts():
    facts = chat(
        temperature=0.7, seed=2**60, stop=["a", "\u20ac"], ignore_eos=True, top_p=None
    )
    assert facts.sampling == {
        "temperature": "0.7",
        "seed": str(2**60),
        "stop": '["a","\\u20ac"]',
        "ignore_eos": "true",
    }


@given(st.integers() | st.floats() | st.booleans() | st.text(max_size=20))
def test_every_single_value_stands_as_its_json(value):
    assert chat(seed=value).sampling == {"seed": json.dumps(value)}


def test_other_members_are_no_sampling_parameters():
    assert chat(user="me", stream=True, metadata={}).sampling == {}


def test_long_sampling_parameter_is_given_as_digest():
    bias = {str(i): 1 for i in range(300)}
    text = json.dumps(bias, separators=(",", ":"), sort_keys=True)
    assert chat(logit_bias=bias).sampling["logit_bias"] == digest(text.encode())
