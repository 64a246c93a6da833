"""Each code of the table is met by the situation that it names, and by no other."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import jwt
import pytest
from fakes.log import SignedLog
from fakes.verdicts import codes, sound
from fakes.world import ABSENT, DAY, GATEWAY, NOW, make_world, merged

from attest import tokens
from attest.bundle import Bundle
from attest.claims import EAT_PROFILE, Measured, Outcome, SystemPrompt
from attest.digests import digest
from attest.envelope import seal
from attest.keys import PrivateKey, b64url_encode
from attest.manifest import MANIFEST_TYPE, open_manifest
from attest.policy import Tier
from attest.reasons import REASONS
from attest.recall import Reference, StatusList
from attest.refusal import verify_refusal
from attest.rules import ConstitutionRule, PrincipleRule
from attest.verify import verify

URI = "https://authority.test/status"
LOG = SignedLog()
WORLD = make_world()
LISTED = make_world(
    predicate={
        "trustAnchors": LOG.anchors,
        "status": Reference(URI, 7).to_json(),
    },
    certificate={"status": Reference(URI, 9).to_json()},
)
OTHER = make_world()
STRANGER = PrivateKey.generate()
BUNDLE = WORLD.bundle()
SIBLING = WORLD.certified(PrivateKey.generate(), boot={"jti": "boot_2"})


def respelt(compact, key, **header):
    """The same claims under another header, signed by `key` as far as that goes."""
    claims = jwt.decode(compact.split("~")[0], options={"verify_signature": False})
    base = {"alg": "EdDSA", "kid": key.public.thumbprint}
    parts = (json.dumps(part).encode() for part in ({**base, **header}, claims))
    signing_input = ".".join(map(b64url_encode, parts))
    return f"{signing_input}.{b64url_encode(key.sign(signing_input.encode()))}"


def boot(**changes):
    return WORLD.certified(WORLD.session, boot=changes).bundle()


def certificate(**changes):
    return WORLD.certified(WORLD.session, certificate=changes).bundle()


def with_signature(bundle, **changes):
    """A token whose last part is of another token."""
    head, _, rest = bundle.token.partition("~")
    other = WORLD.token(claims={"jti": "other"}).partition("~")[0]
    forged = f"{head.rpartition('.')[0]}.{other.rpartition('.')[2]}"
    return replace(bundle, token=f"{forged}~{rest}", **changes)


def listed(index=None, since=None, at=NOW):
    items = StatusList.new(URI, 16)
    items = items if index is None else items.revoked(index, since)
    return items.sign(LISTED.authority, now=at)


def recalled(*arguments, bundle=None, **options):
    return replace(
        bundle or LISTED.bundle(), status_lists=(listed(*arguments, **options),)
    )


def newer_manifest():
    """A statement of a kind that only a later version knows."""
    payload = json.dumps(
        {"_type": "https://in-toto.io/Statement/v2", "predicateType": "x"}
    ).encode()
    return seal(payload, MANIFEST_TYPE, [WORLD.authority])


def principled(**members):
    return make_world(predicate={"principles": [{"id": "honesty", **members}]})


def demands(world=WORLD, bundle=None, **policy):
    return bundle or world.bundle(), world, policy


SHARE = PrincipleRule("honesty", min_in_band=Decimal("0.5"))
STEPS = PrincipleRule("honesty", min_steps_below_half=100)

# A bundle; or a bundle, its world, and changes to policy and options of `verify`.
SITUATIONS = {
    "form.format": replace(BUNDLE, token="x"),
    "form.algorithm": replace(
        BUNDLE,
        token=respelt(
            BUNDLE.token, WORLD.session, alg="none", typ="inference-attestation+jwt"
        ),
    ),
    "form.disclosure": replace(
        BUNDLE, token=BUNDLE.token + WORLD.token().split("~")[1] + "~"
    ),
    "form.unsupported_version": WORLD.bundle(claims={"crit": ["x"]}),
    "manifest.format": replace(BUNDLE, manifest=b"{}"),
    "manifest.signature": replace(BUNDLE, manifest=OTHER.envelope),
    "manifest.expired": WORLD.bundle(claims={"iat": WORLD.manifest.not_after + 1}),
    "manifest.unsupported_version": replace(BUNDLE, manifest=newer_manifest()),
    "key.format": replace(BUNDLE, key_certificates=("x",)),
    "key.algorithm": replace(
        BUNDLE,
        key_certificates=(
            respelt(
                WORLD.certificate, WORLD.issuer, alg="ES256", typ="gateway-key+jwt"
            ),
        ),
    ),
    "key.uncertified": replace(BUNDLE, key_certificates=(SIBLING.certificate,)),
    "key.issuer": replace(
        BUNDLE,
        key_certificates=(respelt(WORLD.certificate, STRANGER, typ="gateway-key+jwt"),),
    ),
    "key.signature": replace(
        BUNDLE,
        key_certificates=(
            respelt(
                WORLD.certificate,
                STRANGER,
                kid=WORLD.issuer.public.thumbprint,
                typ="gateway-key+jwt",
            ),
        ),
    ),
    "key.expired": certificate(exp=WORLD.now - 1),
    "key.unsupported_version": certificate(crit=["x"]),
    "boot.format": replace(BUNDLE, boot_record=""),
    "boot.algorithm": replace(
        BUNDLE,
        boot_record=respelt(WORLD.boot, WORLD.session, alg="ES256", typ="eat+jwt"),
    ),
    "boot.signature": replace(BUNDLE, boot_record=OTHER.boot),
    "boot.other_replica": replace(
        BUNDLE,
        key_certificates=(SIBLING.certificate, WORLD.certificate),
        boot_record=SIBLING.boot,
    ),
    "boot.unsupported_version": boot(eat_profile=EAT_PROFILE[:-1] + "2"),
    "signature.algorithm": replace(
        BUNDLE,
        token=respelt(
            BUNDLE.token, WORLD.session, alg="ES256", typ="inference-attestation+jwt"
        ),
    ),
    "signature.signature": with_signature(BUNDLE),
    "agreement.boot": WORLD.bundle(claims={"boot": digest(b"")}),
    "agreement.manifest": WORLD.bundle(claims={"manifest": {"digest": digest(b"")}}),
    "agreement.key_manifest": certificate(manifests=[]),
    "agreement.gateway": WORLD.bundle(claims={"iss": "other"}),
    "agreement.weights": WORLD.bundle(claims={"weights": {"root": digest(b"")}}),
    "agreement.measurement": boot(weights={"measured": "files"}),
    "agreement.constitution": WORLD.bundle(claims={"constitution": {"id": "other"}}),
    "agreement.engine": boot(engine={"name": "other"}),
    "agreement.dtype": boot(engine={"dtype": "float16"}),
    "agreement.time": boot(iat=WORLD.now + 61),
    "agreement.model": WORLD.bundle(claims={"gen_ai.response.model": "other"}),
    "content.not_given": replace(BUNDLE, request=None, response=None),
    "freshness.no_nonce": BUNDLE,
    "freshness.future": (BUNDLE, WORLD, {"at": NOW - 61}),
    "freshness.nonce": (BUNDLE, WORLD, {"nonce": "nonce-of-mine"}),
    "freshness.audience": (BUNDLE, WORLD, {"audience": "me"}),
    "log.not_given": BUNDLE,
    "log.unnamed": LOG.prove(BUNDLE),
    "log.format": demands(
        LISTED,
        replace(b := LOG.prove(LISTED.bundle()), log=replace(b.log, checkpoint="")),
    ),
    "log.signature": demands(LISTED, SignedLog().prove(LISTED.bundle())),
    "log.false": demands(
        LISTED, replace(LISTED.bundle(), log=LOG.prove(LISTED.bundle()).log)
    ),
    "log.back_dated": demands(LISTED, LOG.prove(LISTED.bundle(), at=NOW - 61)),
    "log.future": demands(LISTED, LOG.prove(LISTED.bundle(), at=NOW + 99)),
    "log.unwitnessed": demands(LISTED, LOG.prove(LISTED.bundle(), by=[])),
    "log.late": demands(
        LISTED, LOG.prove(LISTED.bundle(), at=NOW + 3601), at=NOW + 3602
    ),
    "status.unnamed": BUNDLE,
    "status.not_given": demands(LISTED),
    "status.partly_given": demands(
        LISTED,
        replace(
            LISTED.bundle(),
            status_lists=(StatusList.new(URI, 16).sign(LISTED.issuer, now=NOW),),
        ),
    ),
    "status.format": demands(
        w := make_world(predicate={"status": Reference(URI, 99).to_json()}),
        replace(
            w.bundle(),
            status_lists=(StatusList.new(URI, 8).sign(w.authority, now=NOW),),
        ),
    ),
    "status.manifest_revoked": demands(LISTED, recalled(7, NOW)),
    "status.key_revoked": demands(LISTED, recalled(9, NOW)),
    "status.key_revoked_since": demands(LISTED, recalled(9, NOW + 1)),
    "status.revoked_later": demands(LISTED, recalled(7, NOW + 1)),
    "status.missing": demands(LISTED, max_status_age_seconds=60),
    "status.old": demands(
        LISTED, recalled(at=NOW - DAY), max_status_age_seconds=DAY - 1
    ),
    "policy.tier": demands(min_tier=Tier.T2),
    "policy.measurement": demands(
        bundle=WORLD.bundle(claims={"weights": {"measured": "files"}})
    ),
    "policy.outcome": demands(outcomes=frozenset({Outcome.TRUNCATED})),
    "policy.system_prompt": demands(system_prompts=frozenset({SystemPrompt.ABSENT})),
    "policy.overrides": demands(bundle=WORLD.bundle(claims={"overrides": ["seed"]})),
    "policy.age": demands(at=NOW + 601, max_age_seconds=600),
    "policy.constitution": demands(constitutions=(ConstitutionRule("other"),)),
    "policy.principle": demands(principles=(PrincipleRule("honesty"),)),
    "policy.absorption": demands(principled(), principles=(SHARE,)),
    "policy.resistance": demands(principled(), principles=(STEPS,)),
}


def judge(situation):
    if isinstance(situation, Bundle):
        situation = situation, WORLD, {}
    bundle, world, changes = situation
    given = {k: v for k, v in changes.items() if k in ("at", "nonce", "audience")}
    policy = {k: v for k, v in changes.items() if k not in given}
    options = {"at": NOW, **given}
    return sound(verify(bundle, replace(world.policy, **policy), **options))


@pytest.mark.parametrize("code", SITUATIONS)
def test_situation(code):
    verdict = judge(SITUATIONS[code])
    assert code in codes(verdict)
    if REASONS[code].status in ("failed", "unknown"):
        assert [f.code for f in verdict.problem.findings] == [code]
        assert verdict.false == (REASONS[code].status == "failed")
    else:
        assert verdict.proven


def test_every_code_is_met():
    """Those of the content are in the vectors, two are of refusals alone."""
    elsewhere = {code for code in REASONS if code.startswith("content.")}
    refusals = {"manifest.not_given", "key.evidence_unavailable"}
    assert SITUATIONS.keys() | elsewhere | refusals == REASONS.keys()


def refusal(**members):
    claims = {
        "iss": GATEWAY,
        "iat": NOW,
        "jti": "ref_1",
        "eat_profile": EAT_PROFILE,
        "manifest": {"digest": WORLD.manifest.digest},
        "code": "x",
        "reason": "y",
    }
    base = {
        "refusal": tokens.mint("startup-refusal+jwt", claims, WORLD.session),
        "keyCertificate": WORLD.certificate,
        "manifest": json.loads(WORLD.envelope),
    }
    data = json.dumps(merged(base, members)).encode()
    return sound(verify_refusal(data, WORLD.policy, at=NOW))


def test_refusals_have_the_same_codes():
    assert codes(refusal()) == set()
    assert "manifest.not_given" in codes(refusal(manifest=ABSENT))
    assert "key.evidence_unavailable" in codes(refusal(keyCertificate=ABSENT))
    assert codes(refusal(refusal="x")) == {"form.format"}


def test_the_verdict_for_machines_has_them():
    steps = judge(demands(min_tier=Tier.T2)).to_json()["steps"]
    assert steps[-1]["code"] == "policy"
    assert steps[-1]["reasons"] == [
        {
            "code": "policy.tier",
            "detail": "tier T1, at least T2 is demanded",
            "expected": "at least T2 is demanded",
            "found": "T1",
        }
    ]
    assert steps[0]["reasons"] == []


def test_the_page_lists_every_code():
    page = Path(__file__).parents[3] / "docs" / "verify.md"
    text = page.read_text("utf-8")
    for reason in REASONS.values():
        row = f"| `{reason.code}` | {reason.status} | {reason.meaning} |"
        assert row in text, row


def test_all_that_a_policy_misses_is_said_at_once():
    world = principled()
    policy = {
        "min_tier": Tier.T2,
        "min_measured": Measured.ENGINE,
        "principles": (SHARE, STEPS),
    }
    verdict = judge(demands(world, **policy))
    assert [f.code for f in verdict.problem.findings] == [
        "policy.tier",
        "policy.absorption",
        "policy.resistance",
    ]
    assert verdict.problem.findings[1].about == "honesty"


def test_worlds_of_this_file_are_sound():
    assert open_manifest(LISTED.envelope, [LISTED.authority.public]).status
    assert codes(judge(demands(LISTED, LOG.prove(recalled())))) == {
        "freshness.no_nonce"
    }
