import base64
import json

import pytest
from fakes.world import GATEWAY, TEXT

from attest import tokens
from attest.bundle import Bundle
from attest.claims import EAT_PROFILE


def unsigned(claims=None, **header):
    """A token that nobody signed."""
    header = {"typ": "inference-attestation+jwt", "kid": "k", **header}
    parts = [json.dumps(part).encode() for part in (header, claims or {})]
    encoded = [base64.urlsafe_b64encode(p).rstrip(b"=").decode() for p in parts]
    return ".".join([*encoded, "AA"])


@pytest.fixture
def verify(attest, evidence):
    """`attest verify VERB …` for somebody who trusts this world's authority."""

    def verify(verb, *arguments, authority="authority.pub.pem", **options):
        path = evidence / authority
        return attest("verify", verb, *arguments, "--authority", path, **options)

    return verify


@pytest.fixture
def response(verify, evidence):
    def response(*arguments, prefix="", **changes):
        files = {
            "endorsements": "endorsements.json",
            "request": f"{prefix}request",
            "response": prefix.removesuffix("-") or "response",
            **changes,
        }
        options = [
            item
            for name, file in files.items()
            if file
            for item in (f"--{name}", file if file == "-" else evidence / file)
        ]
        return verify("response", *options, *arguments)

    return response


def test_response_is_proven(response):
    result = response(token="token")
    assert result.exit_code == 0, result.output
    assert "PROVEN at tier T1" in result.stdout
    assert "T1 means: signed by a key that the training authority" in result.stdout
    assert "not proven: log" in result.stdout
    assert "not proven: that the answer is true" in result.stdout


def test_stream_brings_its_own_token(response):
    assert response(prefix="stream-").exit_code == 0


def test_response_without_a_token_is_usage(response):
    result = response()
    assert result.exit_code == 2
    assert "--token" in result.stderr


def test_nonce_is_compared(response, evidence, today):
    (evidence / "token").write_text(today.token(nonce="nonce-of-mine"))
    assert response("--nonce", "nonce-of-mine", token="token").exit_code == 0
    result = response("--nonce", "another-nonce", token="token")
    assert result.exit_code == 1
    assert "nonce is not the one that was sent" in result.stdout


def test_changed_word_is_false(response, evidence):
    body = (evidence / "response").read_bytes()
    (evidence / "changed").write_bytes(body.replace(b"Paris", b"Lyons"))
    result = response(token="token", response="changed")
    assert result.exit_code == 1
    assert "FAILED        6 content" in result.stdout
    assert "FALSE, because of step content" in result.stdout


@pytest.mark.parametrize("alg", ["none", "HS256", "RS256"])
def test_unsigned_token_is_false(response, evidence, alg):
    (evidence / "forged").write_text(unsigned(alg=alg))
    result = response("--format", "json", token="forged")
    assert result.exit_code == 1
    verdict = json.loads(result.stdout)
    assert verdict["verdict"] == "false"
    assert verdict["tier"] == "T0"
    assert verdict["steps"][0]["code"] == "algorithm"
    assert "alg must be one of EdDSA, ES256" in verdict["steps"][0]["detail"]


def test_token_that_is_not_ascii_is_false(response, evidence):
    (evidence / "odd").write_bytes("tökén".encode())
    assert response(token="odd").exit_code == 1


@pytest.mark.parametrize("content", [b"{}", b"[]", b"", b'{"bootRecord": 1}'])
def test_broken_endorsements_are_false(response, evidence, content):
    (evidence / "endorsements.json").write_bytes(content)
    assert response(token="token").exit_code == 1


def test_bodies_in_endorsements_are_not_looked_at(response, evidence):
    value = json.loads((evidence / "endorsements.json").read_bytes())
    value["response"] = base64.b64encode(b"lies").decode()
    (evidence / "endorsements.json").write_text(json.dumps(value))
    assert response(token="token").exit_code == 0


def test_bundle_is_proven(verify, evidence):
    result = verify("bundle", evidence / "bundle.json", "--format", "json")
    assert result.exit_code == 0
    verdict = json.loads(result.stdout)
    assert (verdict["verdict"], verdict["tier"]) == ("proven", "T1")
    assert [step["step"] for step in verdict["steps"]] == list(range(11))
    assert result.stderr == ""


def test_verdict_as_an_attestation_result(verify, evidence):
    result = verify("bundle", evidence / "bundle.json", "--format", "ear")
    assert result.exit_code == 0
    value = json.loads(result.stdout)
    appraisal = value["submods"]["inference-attestation"]
    assert appraisal["ear_status"] == "affirming"


def test_other_commands_have_no_attestation_result(attest, evidence):
    path = evidence / "authority.pub.pem"
    assert attest("keys", "show", path, "--format", "ear").exit_code == 2


def test_error_beside_an_attestation_result_is_json(verify, evidence):
    (evidence / "broken").write_bytes(b"{")
    result = verify("bundle", evidence / "broken", "--format", "ear")
    assert json.loads(result.stdout)["error"]["code"] == "format"


@pytest.mark.parametrize(
    ("spoil", "said", "code"),
    [
        (lambda body: body + b"\n", "byte for byte", "content.newline"),
        (
            lambda body: json.dumps(json.loads(body), sort_keys=True).encode(),
            "spelt otherwise",
            "content.reencoded",
        ),
        (lambda _: TEXT.encode(), "spelt otherwise", "content.text_only"),
    ],
)
def test_content_without_its_bytes_has_a_code_of_its_own(
    verify, evidence, spoil, said, code
):
    copy = evidence / "copy"
    copy.write_bytes(spoil((evidence / "response").read_bytes()))
    result = verify("bundle", evidence / "bundle.json", "--response", copy)
    assert result.exit_code == 6
    assert "CONTENT PROVEN, BYTES NOT" in result.stdout
    assert said in result.stdout
    assert code in result.stdout
    assert "T1 means" in result.stdout


def test_a_copy_that_was_cut_is_not_called_forged(verify, evidence):
    copy = evidence / "copy"
    copy.write_bytes((evidence / "response").read_bytes()[:-30])
    result = verify("bundle", evidence / "bundle.json", "--response", copy)
    assert result.exit_code == 1
    assert "content.truncated" in result.stdout
    assert "forged" not in result.stdout


def test_bundle_from_stdin(verify, evidence):
    data = (evidence / "bundle.json").read_bytes()
    assert verify("bundle", "-", input=data).exit_code == 0


def test_bundle_takes_bodies_from_files(verify, evidence, today):
    bundle = today.bundle()
    bare = Bundle(
        token=bundle.token,
        key_certificates=bundle.key_certificates,
        boot_record=bundle.boot_record,
        manifest=bundle.manifest,
    )
    path = evidence / "bare.json"
    path.write_bytes(bare.dumps())
    unproven = "not proven: content: neither request nor response was given"
    assert unproven in verify("bundle", path).stdout
    bodies = ["--request", evidence / "request", "--response", evidence / "response"]
    result = verify("bundle", path, *bodies)
    assert "request and response match byte for byte" in result.stdout
    swapped = ["--request", evidence / "response"]
    assert verify("bundle", path, *swapped).exit_code == 1


def test_audience_is_compared(verify, evidence, today):
    path = evidence / "bundle.json"
    path.write_bytes(today.bundle(claims={"aud": "alice"}).dumps())
    assert verify("bundle", path, "--audience", "alice").exit_code == 0
    assert verify("bundle", path, "--audience", "bob").exit_code == 1


def test_wrong_authority_is_false(verify, evidence):
    result = verify("bundle", evidence / "bundle.json", authority="other.pub.pem")
    assert result.exit_code == 1
    assert "FAILED        1 manifest" in result.stdout


def test_policy_that_is_not_met_is_false(attest, evidence, today):
    policy = evidence / "policy.json"
    policy.write_text(json.dumps(today.policy.to_json() | {"min_tier": "T2"}))
    bundle = evidence / "bundle.json"
    result = attest("verify", "bundle", bundle, "--policy", policy)
    assert result.exit_code == 1
    assert "at least T2 is demanded" in result.stdout
    assert "The signatures hold" in result.stdout


def test_evidence_of_a_newer_profile_cannot_be_told(verify, evidence, today):
    path = evidence / "bundle.json"
    newer = today.bundle(claims={"eat_profile": EAT_PROFILE[:-1] + "2"})
    path.write_bytes(newer.dumps())
    result = verify("bundle", path)
    assert result.exit_code == 3
    assert "CANNOT TELL, because of step form" in result.stdout
    verdict = json.loads(verify("bundle", path, "--format", "json").stdout)
    assert verdict["verdict"] == "unknown"


def test_hidden_request_digest_cannot_be_told(verify, evidence, today):
    path = evidence / "bundle.json"
    bundle = today.bundle()
    bare = bundle.token.partition("~")[0]
    value = bundle.to_json() | {"token": bare}
    path.write_text(json.dumps(value))
    assert verify("bundle", path).exit_code == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 200_000])
def test_bundle_that_is_none_is_false(verify, evidence, content):
    (evidence / "broken").write_bytes(content)
    result = verify("bundle", evidence / "broken")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")


@pytest.mark.parametrize("options", [[], ["--authority", "a", "--policy", "p"]])
def test_one_source_of_trust_is_needed(attest, evidence, options):
    assert attest("verify", "bundle", evidence / "bundle.json", *options).exit_code == 2


@pytest.mark.parametrize(
    ("option", "content"),
    [
        ("--authority", b"not a key"),
        ("--policy", b"{"),
        ("--policy", b'{"authorities": [], "threshold": 0}'),
        ("--policy", b'{"min_teir": "T1"}'),
    ],
)
def test_unusable_trust_is_configuration(attest, evidence, option, content):
    (evidence / "trust").write_bytes(content)
    bundle = evidence / "bundle.json"
    result = attest("verify", "bundle", bundle, option, evidence / "trust")
    assert result.exit_code == 4
    assert result.stderr.startswith("error: ")


def test_private_key_as_authority_is_refused(attest, evidence, today):
    (evidence / "key.pem").write_bytes(today.authority.pem)
    bundle = evidence / "bundle.json"
    result = attest("verify", "bundle", bundle, "--authority", evidence / "key.pem")
    assert result.exit_code == 4
    assert "public half" in result.stderr


def test_claims_cannot_drive_the_terminal(verify, evidence, today):
    path = evidence / "bundle.json"
    path.write_bytes(today.bundle(claims={"\x1b[2Jx": 1}).dumps())
    result = verify("bundle", path)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert r"\x1b[2Jx" in result.stdout


def test_no_body_or_token_is_printed(verify, evidence, today):
    result = verify("bundle", evidence / "bundle.json", "--format", "json")
    assert TEXT not in result.output
    assert today.certificate not in result.output


@pytest.fixture
def refusal(evidence, today):
    def refusal(*, certificate=True, manifest=True, **claims):
        value = {
            "iss": GATEWAY,
            "iat": today.now,
            "jti": "ref_1",
            "eat_profile": EAT_PROFILE,
            "manifest": {"digest": today.manifest.digest} if manifest else None,
            "code": "manifest_mismatch",
            "reason": "weights: changed: model.safetensors",
            **claims,
        }
        record = {
            "refusal": tokens.mint("startup-refusal+jwt", value, today.session),
            "keyCertificate": today.certificate if certificate else None,
            "manifest": json.loads(today.envelope) if manifest else None,
        }
        path = evidence / "refusal.json"
        path.write_text(json.dumps(record))
        return path

    return refusal


def test_refusal_is_proven_with_its_reason(verify, refusal):
    result = verify("refusal", refusal())
    assert result.exit_code == 0
    assert "manifest_mismatch: weights: changed: model.safetensors" in result.stdout
    assert "not proven: that the reason is right" in result.stdout


def test_refusal_without_its_manifest_cannot_be_told(verify, refusal):
    assert verify("refusal", refusal(manifest=False)).exit_code == 3


def test_refusal_of_another_gateway_is_false(verify, refusal):
    assert verify("refusal", refusal(iss="gateway.other")).exit_code == 1


def test_refusal_under_another_authority_is_false(verify, refusal):
    assert verify("refusal", refusal(), authority="other.pub.pem").exit_code == 1


def test_refusal_record_that_is_none_is_false(verify, evidence):
    assert verify("refusal", evidence / "bundle.json").exit_code == 1
