import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.claims import Measured, Outcome, SystemPrompt
from attest.errors import ConfigurationError, InputError
from attest.keys import Algorithm, PrivateKey
from attest.log.note import KeyKind, NoteKey
from attest.policy import Policy, Tier
from attest.rules import ConstitutionRule, PrincipleRule

KEYS = [PrivateKey.generate(alg).public for alg in Algorithm]
LOG = NoteKey.of("example.com/log", KeyKind.LOG, PrivateKey.generate().public)
WITNESS = NoteKey.of("example.com/w", KeyKind.WITNESS, PrivateKey.generate().public)
SMALLEST = {"authorities": [KEYS[0].jwk]}


def read(value):
    return Policy.from_json(json.dumps(value).encode())


POLICIES = st.builds(
    Policy,
    authorities=st.just(tuple(KEYS)),
    threshold=st.integers(1, 2),
    min_tier=st.sampled_from(Tier),
    min_measured=st.sampled_from(Measured),
    outcomes=st.frozensets(st.sampled_from(Outcome)),
    system_prompts=st.frozensets(st.sampled_from(SystemPrompt)),
    overrides=st.none() | st.frozensets(st.text(max_size=3)),
    max_age_seconds=st.none() | st.integers(0, 2**53),
    logs=st.none() | st.just((LOG,)),
    witnesses=st.none() | st.just((WITNESS,)) | st.just(()),
    witness_threshold=st.none() | st.integers(1, 9),
    max_log_delay_seconds=st.integers(0, 10**6),
    max_status_age_seconds=st.none() | st.integers(0, 10**6),
    constitutions=st.none()
    | st.just(())
    | st.just((ConstitutionRule("civic", ">=1.2,<2"), ConstitutionRule("toy"))),
    principles=st.just(())
    | st.just((PrincipleRule("honesty", Decimal("0.60"), 200), PrincipleRule("care"))),
)


@given(POLICIES)
def test_round_trip(policy):
    assert read(policy.to_json()) == policy


def test_the_defaults_are_strict():
    policy = read(SMALLEST)
    assert policy == Policy(authorities=(KEYS[0],))
    assert policy.min_tier is Tier.T1
    assert policy.min_measured is Measured.ENGINE
    assert policy.outcomes == {Outcome.COMPLETE}
    assert policy.overrides == frozenset()


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("min_teir", "T1"),
        ("authorities", []),
        ("authorities", {}),
        ("logs", {}),
        ("witnesses", ""),
        ("outcomes", {"complete": True}),
        ("system_prompts", {"governed": True}),
        ("authorities", 1),
        ("authorities", ["x"]),
        ("authorities", [{**KEYS[0].jwk, "d": "AAAA"}]),
        ("threshold", 0),
        ("threshold", 2),
        ("threshold", True),
        ("threshold", "1"),
        ("threshold", -1),
        ("threshold", 1.0),
        ("min_tier", "T9"),
        ("min_tier", 1),
        ("min_tier", []),
        ("min_measured", "believed"),
        ("outcomes", ["fine"]),
        ("outcomes", None),
        ("system_prompts", [[]]),
        ("overrides", "documents"),
        ("overrides", [1]),
        ("max_age_seconds", "60"),
        ("max_age_seconds", -1),
        ("logs", ["x"]),
        ("witnesses", 7),
        ("witness_threshold", 0),
        ("witness_threshold", "2"),
        ("max_log_delay_seconds", None),
        ("max_status_age_seconds", "1"),
        ("constitutions", {}),
        ("constitutions", ["civic"]),
        ("constitutions", [{"id": "civic", "versions": "1.2"}]),
        ("constitutions", [{"id": "civic", "version": "1"}]),
        ("principles", None),
        ("principles", [{"id": "honesty", "min_in_band": 0.6}]),
        ("principles", [{"id": "honesty"}] * 257),
    ],
)
def test_unusable_members_are_named(member, value):
    with pytest.raises(ConfigurationError, match=member.removesuffix("ies")):
        read({**SMALLEST, member: value})


def test_equal_demands_have_one_digest():
    policy = read({**SMALLEST, "principles": [{"id": "a", "min_in_band": "0.5"}]})
    assert read(policy.to_json()).digest == policy.digest
    assert read(SMALLEST).digest != policy.digest


def test_nobody_is_trusted_by_default():
    with pytest.raises(ConfigurationError, match="authorities is missing"):
        read({})
    with pytest.raises(ConfigurationError) as caught:
        Policy(authorities=())
    assert "--authority" in caught.value.hint


def test_one_key_twice_is_one_authority():
    with pytest.raises(ConfigurationError, match="1 authorities"):
        Policy(authorities=(KEYS[0], KEYS[0]), threshold=2)


@given(st.binary())
def test_arbitrary_bytes(data):
    with pytest.raises(ConfigurationError):
        Policy.from_json(data)


@given(
    st.dictionaries(
        st.sampled_from(sorted(Policy(authorities=(KEYS[0],)).to_json())),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
            max_leaves=4,
        ),
    )
)
def test_arbitrary_members(members):
    try:
        read({**SMALLEST, **members})
    except InputError:
        return


def test_tiers_have_an_order_and_a_meaning():
    assert [tier.rank for tier in Tier] == [0, 1, 2, 3, 4]
    assert all(tier.meaning for tier in Tier)
