import json
from dataclasses import replace

import pytest

from attest import tokens
from attest.claims import ATTESTATION, BOOT, EAT_PROFILE, KEY_CERTIFICATE
from attest.recall import StatusList


def names(result):
    documents = json.loads(result.stdout)["documents"]
    return {claim["name"] for item in documents for claim in item["claims"]}


@pytest.fixture
def explain(attest, evidence):
    def explain(name, *arguments):
        return attest("explain", evidence / name, *arguments)

    return explain


@pytest.mark.parametrize(
    ("file", "claims"),
    [
        ("token", {"res", "request.digest", "out.0"}),
        ("boot", {claim.name for claim in BOOT if claim.required}),
        ("certificate", {claim.name for claim in KEY_CERTIFICATE if claim.required}),
        ("manifest.json", {"subject", "weights", "runtime", "delegations"}),
        ("bundle.json", {"res", "engine", "cnf", "subject", "out.0"}),
        ("endorsements.json", {"engine", "cnf", "subject"}),
    ],
)
def test_every_kind_of_evidence(explain, file, claims):
    result = explain(file, "--format", "json")
    assert result.exit_code == 0, result.stderr
    assert claims <= names(result)
    assert json.loads(result.stdout)["verified"] is False


def test_status_lists(attest, evidence, today):
    """By themselves, in a bundle, and named by a certificate."""
    items = StatusList.new("https://authority.test/status", 8).revoked(3, 5)
    compact = items.sign(today.authority, now=today.now)
    (evidence / "list").write_text(compact)
    result = attest("explain", evidence / "list")
    assert result.exit_code == 0, result.stderr
    assert "status list: which manifests or keys were recalled" in result.stdout
    assert "revoked_at" in result.stdout
    bundle = replace(today.bundle(), status_lists=(compact,))
    (evidence / "listed.json").write_bytes(bundle.dumps())
    result = attest("explain", evidence / "listed.json", "--format", "json")
    assert {"status_list", "revoked_at", "res"} <= names(result)
    status = {"status_list": {"idx": 3, "uri": items.uri}}
    named = today.certified(today.session, certificate={"status": status})
    (evidence / "certificate").write_text(named.certificate)
    result = attest("explain", evidence / "certificate", "--format", "json")
    (document,) = json.loads(result.stdout)["documents"]
    (row,) = (row for row in document["claims"] if row["name"] == "status")
    assert row["known"]
    assert "entry in a status list" in row["meaning"]


def test_refusal(attest, evidence, today):
    claims = {
        "iss": "g",
        "iat": 1,
        "jti": "r",
        "eat_profile": EAT_PROFILE,
        "manifest": None,
        "code": "c",
        "reason": "no manifest",
    }
    token = tokens.mint("startup-refusal+jwt", claims, today.session)
    record = {"refusal": token, "keyCertificate": today.certificate, "manifest": None}
    (evidence / "refusal.json").write_text(json.dumps(record))
    result = attest("explain", evidence / "refusal.json")
    assert "no manifest" in result.stdout
    whole = {**record, "manifest": json.loads(today.envelope)}
    (evidence / "refusal.json").write_text(json.dumps(whole))
    assert "training manifest" in attest("explain", evidence / "refusal.json").stdout
    bare = {**record, "keyCertificate": None}
    (evidence / "refusal.json").write_text(json.dumps(bare))
    assert "cnf" not in attest("explain", evidence / "refusal.json").stdout


def test_text_says_meaning_and_limits(explain):
    text = " ".join(explain("token").stdout.split())
    assert text.startswith("NOT VERIFIED")
    for claim in ATTESTATION:
        if claim.required:
            assert claim.name in text
    assert "UTC)" in text
    assert "does not prove" in text


def test_without_disclosures_nothing_private_is_shown(explain, evidence):
    token = (evidence / "token").read_text().partition("~")[0]
    (evidence / "token").write_text(token)
    assert "out.0" not in explain("token").stdout


def test_stdin(attest, evidence):
    result = attest("explain", "-", input=(evidence / "token").read_bytes())
    assert result.exit_code == 0


def test_unknown_and_broken_claims_are_flagged(explain, evidence, today):
    changed = today.token(claims={"invented": True, "seq": "one"})
    (evidence / "token").write_text(changed)
    shown = json.loads(explain("token", "--format", "json").stdout)
    rows = {row["name"]: row for row in shown["documents"][0]["claims"]}
    assert not rows["invented"]["known"]
    assert "unknown to this version" in rows["invented"]["meaning"]
    assert "WRONG TYPE" in rows["seq"]["meaning"]


def test_claims_cannot_drive_the_terminal(explain, evidence, today):
    changed = today.token(claims={"\x1b[2J": "[bold]x[/]\u202e", "iat": 10**15})
    (evidence / "token").write_text(changed)
    text = explain("token").stdout
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold]x[/]" in text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"-----BEGIN PUBLIC KEY-----",
        b"\xff\xfe",
        b"a.b.c",
        b"eyJ9.e30.AA",
        b"e30.e30.AA",
        b"eyJ0eXAiOiJKV1QifQ.e30.AA",
        b"." * 20_000,
    ],
)
def test_something_else_is_refused(attest, tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    result = attest("explain", tmp_path / "file")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stdout == ""
