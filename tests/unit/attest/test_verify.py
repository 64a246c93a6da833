import json
from dataclasses import replace

import pytest
from fakes.log import SignedLog
from fakes.verdicts import sound
from fakes.world import (
    ABSENT,
    ANSWER,
    DAY,
    REQUEST,
    STREAM,
    STREAM_REQUEST,
    make_world,
    with_comment,
)
from hypothesis import given
from hypothesis import strategies as st

from attest.bundle import Bundle
from attest.claims import Measured, Outcome, SystemPrompt
from attest.digests import digest
from attest.errors import (
    AlgorithmError,
    ContentOnlyError,
    EvidenceUnavailableError,
    ExpiredError,
    PolicyError,
    SignatureError,
    TranscriptMismatchError,
    VerificationError,
)
from attest.keys import Algorithm, PrivateKey
from attest.log.proof import LogProof
from attest.policy import Policy, Tier
from attest.verify import Status, Step, Verdict, verify

WORLD = make_world()
BUNDLE = WORLD.bundle()
NAMES = (
    "form",
    "manifest",
    "key",
    "boot",
    "signature",
    "agreement",
    "content",
    "freshness",
    "log",
    "status",
    "policy",
)


def judge(bundle, world=WORLD, **options):
    return sound(verify(bundle, world.policy, **{"at": world.now, **options}))


def problem(bundle, world=WORLD, **options):
    """Number and code of the step that failed."""
    verdict = judge(bundle, world, **options)
    assert verdict.false
    assert not verdict.proven
    assert verdict.tier is Tier.T0
    assert verdict.steps[-1] is verdict.problem
    return verdict.problem.number, verdict.problem.code


@pytest.mark.parametrize("alg", list(Algorithm))
@pytest.mark.parametrize("stream", [False, True])
def test_proven(alg, stream):
    world = make_world(alg=alg)
    bundle = world.bundle(*((STREAM_REQUEST, STREAM) if stream else ()))
    verdict = judge(bundle, world)
    assert verdict.proven
    assert not verdict.false
    assert verdict.problem is None
    assert verdict.tier is Tier.T1
    assert [step.number for step in verdict.steps] == list(range(11))
    assert tuple(step.name for step in verdict.steps) == NAMES
    unchecked = {s.number for s in verdict.steps if s.status is Status.NOT_CHECKED}
    assert unchecked == {8, 9}
    assert all(step.code == "" for step in verdict.steps)
    assert verdict.disclosed["request.digest"] == digest(bundle.request)
    verdict.raise_unless_proven()


# Each step fails once, with its number and its code.

OTHER = make_world()
STRANGER = PrivateKey.generate()


def boot(**changes):
    return WORLD.certified(WORLD.session, boot=changes).bundle()


def certificate(**changes):
    return WORLD.certified(WORLD.session, certificate=changes).bundle()


FAILURES = {
    "token of no form": (replace(BUNDLE, token="x"), 0, "format"),
    "token too large": (replace(BUNDLE, token=BUNDLE.token * 9), 0, "format"),
    "disclosure of another token": (
        replace(BUNDLE, token=BUNDLE.token + WORLD.token().split("~")[1] + "~"),
        0,
        "format",
    ),
    "claim missing": (WORLD.bundle(claims={"seq": ABSENT}), 0, "format"),
    "claim of another type": (WORLD.bundle(claims={"seq": "0"}), 0, "format"),
    "concealed claim of another type": (
        WORLD.bundle(private={"request.digest": 1}),
        0,
        "format",
    ),
    "manifest of another authority": (
        replace(BUNDLE, manifest=OTHER.envelope),
        1,
        "signature",
    ),
    "manifest of no form": (replace(BUNDLE, manifest=b"{}"), 1, "format"),
    "manifest ran out": (
        WORLD.bundle(claims={"iat": WORLD.manifest.not_after + 1}),
        1,
        "expired",
    ),
    "beyond every calendar": (WORLD.bundle(claims={"iat": 2**53 - 1}), 1, "expired"),
    "key that nobody certified": (WORLD.bundle(key=STRANGER), 2, "signature"),
    "no certificate": (replace(BUNDLE, key_certificates=()), 2, "signature"),
    "certificate of no form": (replace(BUNDLE, key_certificates=("x",)), 2, "format"),
    "certificate for too long": (
        certificate(exp=WORLD.now + 8 * DAY),
        2,
        "expired",
    ),
    "certificate ran out": (certificate(exp=WORLD.now - 1), 2, "expired"),
    "certificate of another world": (
        replace(BUNDLE, key_certificates=(OTHER.certificate,)),
        2,
        "signature",
    ),
    "boot record of another key": (
        replace(BUNDLE, boot_record=OTHER.boot),
        3,
        "signature",
    ),
    "boot record of no form": (replace(BUNDLE, boot_record=""), 3, "format"),
    "boot record without engine": (boot(engine=ABSENT), 3, "format"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_each_step_can_fail(name):
    bundle, number, code = FAILURES[name]
    assert problem(bundle) == (number, code)


def test_the_signature_itself():
    """Only the last part of the token is changed; all before passes."""
    compact, rest = BUNDLE.token.split("~", 1)
    head, _, signature = compact.rpartition(".")
    flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
    token = f"{head}.{flipped}~{rest}"
    assert problem(replace(BUNDLE, token=token)) == (4, "signature")


DISAGREEMENTS = {
    "token names another boot record": WORLD.bundle(claims={"boot": digest(b"")}),
    "token names another manifest": WORLD.bundle(
        claims={"manifest": {"digest": digest(b"")}}
    ),
    "boot record names another manifest": boot(manifest={"digest": digest(b"")}),
    "certificate for no manifest": certificate(manifests=[]),
    "certificate for other manifests": certificate(
        manifests=[digest(b""), digest(b"x")]
    ),
    "token of another gateway": WORLD.bundle(claims={"iss": "other"}),
    "boot record of another gateway": boot(iss="other"),
    "certificate of another gateway": certificate(sub="other"),
    "token with other weights": WORLD.bundle(claims={"weights": {"root": digest(b"")}}),
    "boot record with other weights": boot(weights={"root": digest(b"")}),
    "stronger measurement than at boot": boot(weights={"measured": "files"}),
    "another constitution": WORLD.bundle(claims={"constitution": {"id": "other"}}),
    "engine that is not allowed": boot(engine={"name": "other"}),
    "dtype that is not allowed": boot(engine={"dtype": "float16"}),
    "boot record of later": boot(iat=WORLD.now + 61),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_disagreement(name):
    verdict = judge(DISAGREEMENTS[name])
    assert (verdict.problem.number, verdict.problem.code) == (5, "false")


def test_a_weaker_measurement_than_at_boot_is_no_contradiction():
    """Live checks may have ended; the policy then has its say."""
    verdict = judge(WORLD.bundle(claims={"weights": {"measured": "files"}}))
    assert verdict.step(5).status is Status.OK
    assert verdict.problem.number == 10


def test_a_manifest_that_allows_nothing():
    world = make_world(predicate={"runtime": {"engines": []}})
    assert problem(world.bundle(), world) == (5, "false")


def test_clocks_may_differ_a_little():
    assert judge(boot(iat=WORLD.now + 60)).proven
    assert judge(BUNDLE, at=WORLD.now - 60).proven
    assert problem(BUNDLE, at=WORLD.now - 61) == (7, "expired")


# Content.


def test_other_content():
    """Every damage there is stands in the vectors (test_damage_vectors)."""
    other = REQUEST.replace(b"France", b"Spain")
    assert problem(replace(BUNDLE, request=other)) == (6, "transcript_mismatch")
    other = ANSWER.replace(b"Paris", b"Milan")
    assert problem(replace(BUNDLE, response=other)) == (6, "transcript_mismatch")


@pytest.mark.parametrize("changed", ["request", "response"])
def test_content_without_its_bytes(changed):
    """Neither a yes nor a no; all that comes after step 6 is judged all the same."""
    copy = replace(BUNDLE, **{changed: getattr(BUNDLE, changed) + b" "})
    verdict = judge(copy)
    assert (verdict.proven, verdict.false, verdict.content_only) == (False, False, True)
    assert verdict.tier is Tier.T1
    assert verdict.step(10).status is Status.OK
    assert verdict.to_json()["verdict"] == "content_only"
    with pytest.raises(ContentOnlyError, match="not the attested one") as caught:
        verdict.raise_unless_proven()
    assert caught.value.findings == verdict.step(6).findings
    too_old = judge(copy, at=WORLD.now - 61)
    assert (too_old.false, too_old.problem.number) == (True, 7)


def test_a_hidden_request_does_not_hide_a_changed_response():
    bare = replace(BUNDLE, token=BUNDLE.token.partition("~")[0])
    assert judge(bare).problem.status is Status.UNKNOWN
    lie = replace(bare, response=ANSWER.replace(b"Paris", b"Milan"))
    assert judge(lie).false


def test_either_part_alone():
    details = {
        name: judge(replace(BUNDLE, **{name: None})).step(6).detail
        for name in ("request", "response")
    }
    assert details == {
        "request": "response match byte for byte",
        "response": "request match byte for byte",
    }


def test_without_content_the_record_alone_is_proven():
    verdict = judge(replace(BUNDLE, request=None, response=None))
    assert verdict.proven
    assert verdict.step(6).status is Status.NOT_CHECKED
    assert "neither" in verdict.step(6).detail


def test_a_response_by_its_digest():
    by_digest = replace(BUNDLE, response=None, response_digest=digest(ANSWER))
    assert "request and response" in judge(by_digest).step(6).detail
    other = replace(by_digest, response_digest=digest(b"x"))
    assert problem(other) == (6, "transcript_mismatch")
    # The bytes themselves count for more.
    assert judge(replace(other, response=ANSWER)).proven


def test_a_stream_with_or_without_its_comment():
    bundle = WORLD.bundle(STREAM_REQUEST, STREAM)
    assert judge(bundle).proven
    assert judge(replace(bundle, response=with_comment(STREAM, bundle.token))).proven
    assert judge(replace(bundle, response=with_comment(STREAM, "any.other.one"))).proven


def test_a_comment_in_a_body_is_part_of_it():
    body = b": attestation a.b.c\n\n" + ANSWER
    assert problem(replace(BUNDLE, response=body)) == (6, "transcript_mismatch")


def test_a_request_that_was_not_disclosed_leaves_it_open():
    token = BUNDLE.token.split("~")[0]
    verdict = judge(replace(BUNDLE, token=token))
    assert (verdict.proven, verdict.false) == (False, False)
    assert verdict.problem.status is Status.UNKNOWN
    assert (verdict.problem.number, verdict.problem.code) == (
        6,
        "evidence_unavailable",
    )
    with pytest.raises(EvidenceUnavailableError, match="step 6 content"):
        verdict.raise_unless_proven()
    assert judge(replace(BUNDLE, token=token, request=None)).proven


def test_a_newer_token_leaves_it_open():
    verdict = judge(WORLD.bundle(claims={"eat_profile": "tag:attest-gateway,2030:2"}))
    assert verdict.problem.status is Status.UNKNOWN
    assert (verdict.problem.number, verdict.problem.code) == (0, "unsupported_version")
    assert verdict.tier is Tier.T0


# Freshness.


def test_the_nonce():
    bundle = WORLD.bundle(nonce="nonce-nonce")
    assert "nonce matches" in judge(bundle, nonce="nonce-nonce").step(7).detail
    assert problem(bundle, nonce="another") == (7, "transcript_mismatch")
    assert problem(BUNDLE, nonce="nonce-nonce") == (7, "transcript_mismatch")
    assert "replay" in judge(bundle).step(7).detail


def test_the_audience():
    bundle = WORLD.bundle(claims={"aud": "me"})
    assert "audience matches" in judge(bundle, audience="me").step(7).detail
    assert problem(bundle, audience="you") == (7, "transcript_mismatch")
    assert problem(BUNDLE, audience="me") == (7, "transcript_mismatch")
    assert judge(bundle).proven


def test_old_tokens_stay_proven():
    """They are evidence, judged as of when they were signed."""
    verdict = judge(BUNDLE, at=WORLD.now + 3650 * DAY)
    assert verdict.proven
    assert f"signed {3650 * DAY} s ago" in verdict.step(7).detail


# The log has tests of its own; here: that it is asked.


def test_a_log_proof_without_a_known_log():
    bundle = replace(BUNDLE, log=LogProof(0, "", ()))
    assert judge(bundle).step(8).status is Status.NOT_CHECKED


@pytest.mark.parametrize(
    ("cosigned", "tier"), [(0, Tier.T1), (1, Tier.T1), (2, Tier.T2)]
)
def test_witnesses_raise_the_tier(cosigned, tier):
    log = SignedLog()
    world = make_world(predicate={"trustAnchors": log.anchors})
    bundle = log.prove(world.bundle(), by=log.witnesses[:cosigned])
    verdict = judge(bundle, world)
    assert verdict.proven
    assert verdict.step(8).status is Status.OK
    assert verdict.tier is tier


# Policy.


def policy(**demands):
    return Policy(authorities=WORLD.policy.authorities, **demands)


@pytest.mark.parametrize(
    ("demands", "claims"),
    [
        ({"min_tier": Tier.T2}, {}),
        ({}, {"weights": {"measured": "files"}}),
        ({"min_measured": Measured.FILES}, {"weights": {"measured": "asserted"}}),
        ({}, {"res": {"outcome": "incomplete"}}),
        ({"outcomes": frozenset()}, {}),
        ({"outcomes": frozenset({Outcome.TRUNCATED})}, {}),
        ({"system_prompts": frozenset({SystemPrompt.ABSENT})}, {}),
        (
            {"system_prompts": frozenset({SystemPrompt.GOVERNED})},
            {"system_prompt": "unlisted"},
        ),
        ({}, {"overrides": ["chat_template"]}),
        (
            {"overrides": frozenset({"documents"})},
            {"overrides": ["chat_template", "documents"]},
        ),
        ({"max_age_seconds": 9}, {}),
    ],
)
def test_demands_that_are_not_met(demands, claims):
    verdict = verify(WORLD.bundle(claims=claims), policy(**demands), at=WORLD.now + 10)
    assert (verdict.problem.number, verdict.problem.code) == (10, "policy")
    with pytest.raises(PolicyError):
        verdict.raise_unless_proven()


@pytest.mark.parametrize(
    ("demands", "claims"),
    [
        ({"min_tier": Tier.T0}, {}),
        ({"min_measured": Measured.ASSERTED}, {"weights": {"measured": "asserted"}}),
        ({"outcomes": frozenset(Outcome)}, {"res": {"outcome": "truncated"}}),
        ({"system_prompts": frozenset({SystemPrompt.GOVERNED})}, {}),
        (
            {"overrides": frozenset({"chat_template", "documents"})},
            {"overrides": ["documents"]},
        ),
        ({"overrides": None}, {"overrides": ["chat_template"]}),
        ({"max_age_seconds": 10}, {}),
    ],
)
def test_demands_that_are_met(demands, claims):
    bundle = WORLD.bundle(claims=claims)
    assert verify(bundle, policy(**demands), at=WORLD.now + 10).proven


def test_several_authorities():
    second = PrivateKey.generate()
    two = Policy(
        authorities=(WORLD.authority.public, second.public),
        threshold=2,
    )
    verdict = verify(BUNDLE, two, at=WORLD.now)
    assert (verdict.problem.number, verdict.problem.code) == (1, "signature")
    assert verify(BUNDLE, replace(two, threshold=1), at=WORLD.now).proven


def test_an_authority_may_certify_by_itself():
    own = replace(WORLD, issuer=WORLD.authority).certified(WORLD.session)
    assert "by authority" in judge(own.bundle()).step(2).detail
    assert "by delegate" in judge(BUNDLE).step(2).detail


# Whatever comes in: a verdict comes out.

STEPS = st.sampled_from(
    ["token", "boot_record", "manifest", "key_certificates", "request", "response"]
)


@given(STEPS, st.data())
def test_arbitrary_evidence(name, data):
    kind = {
        "manifest": st.binary(),
        "request": st.binary(),
        "response": st.binary(),
        "key_certificates": st.lists(st.text(), max_size=2).map(tuple),
    }.get(name, st.text())
    verdict = judge(replace(BUNDLE, **{name: data.draw(kind)}))
    assert verdict.false


@given(st.data())
def test_arbitrary_claims_in_signed_tokens(data):
    """Even a gateway with a certified key cannot crash a verifier."""
    public, _ = WORLD.claims()
    name = data.draw(st.sampled_from(sorted(public)))
    value = data.draw(
        st.none()
        | st.booleans()
        | st.integers(-(2**60), 2**60)
        | st.text(max_size=5)
        | st.lists(st.text(max_size=5), max_size=2)
        | st.dictionaries(st.sampled_from(["digest", "root", "outcome"]), st.text())
    )
    verdict = judge(WORLD.bundle(claims={name: value}))
    assert verdict.steps
    json.dumps(verdict.to_json())


@given(st.dictionaries(st.text(max_size=8), st.integers(), max_size=20))
def test_unknown_claims_are_told_and_mean_nothing(extra):
    unknown = {f"x_{name}": value for name, value in extra.items()}
    verdict = judge(WORLD.bundle(claims=unknown))
    assert verdict.proven
    detail = verdict.step(0).detail
    assert ("unknown claims ignored" in detail) is bool(unknown)
    assert detail.isprintable()
    assert len(detail) < 500


# The verdict.


def test_errors_tell_the_kind_of_no():
    bundles = {
        SignatureError: WORLD.bundle(key=STRANGER),
        ExpiredError: WORLD.bundle(claims={"iat": 0}),
        TranscriptMismatchError: replace(BUNDLE, response=b"x"),
        VerificationError: replace(BUNDLE, token="x"),
        PolicyError: WORLD.bundle(claims={"res": {"outcome": "refused"}}),
    }
    for kind, bundle in bundles.items():
        with pytest.raises(VerificationError) as caught:
            judge(bundle).raise_unless_proven()
        assert type(caught.value) is kind
        assert caught.value.hint
    step = Step(4, "signature", Status.FAILED, "alg", AlgorithmError.code)
    with pytest.raises(AlgorithmError, match="step 4 signature: alg"):
        Verdict(Tier.T0, (step,)).raise_unless_proven()


def test_the_verdict_as_json():
    value = json.loads(json.dumps(judge(BUNDLE).to_json()))
    assert (value["verdict"], value["tier"], value["measured"]) == (
        "proven",
        "T1",
        "engine",
    )
    assert [step["name"] for step in value["steps"]] == list(NAMES)
    false = judge(replace(BUNDLE, token="x")).to_json()
    assert (false["verdict"], false["measured"], false["claims"]) == (
        "false",
        None,
        {},
    )
    bare = Bundle.of(BUNDLE.token.split("~")[0], BUNDLE.endorsements)
    unknown = judge(replace(bare, request=REQUEST)).to_json()
    assert unknown["verdict"] == "unknown"


def test_steps_that_were_not_reached():
    verdict = judge(replace(BUNDLE, token="x"))
    assert verdict.step(0).status is Status.FAILED
    assert verdict.step(1) is None
    assert verdict.manifest is None
    assert judge(WORLD.bundle(key=STRANGER)).manifest.model_name == "tiny"
