import base64
import json

import httpx2
import pytest
from fakes.attested_gateway import AttestedGateway, Reply, serve
from fakes.world import ANSWER, REQUEST, TEXT

from attest import disclosures
from attest.bundle import Bundle
from attest.cli import bundle as commands
from attest.keys import b64url_decode


@pytest.fixture
def gateway(today):
    return AttestedGateway(today)


@pytest.fixture
def served(gateway):
    with serve(gateway) as url:
        answer = httpx2.post(f"{url}/v1/chat/completions", content=REQUEST)
        assert answer.content == ANSWER
        yield url, answer.headers["attestation-id"]


@pytest.fixture
def get(attest, served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GATEWAY_KEY", "sk-secret")

    def get(*arguments, **options):
        return attest("bundle", "get", *served, *arguments, **options)

    return get


def authority(evidence):
    return "--authority", evidence / "authority.pub.pem"


def test_what_was_fetched_is_proven(attest, get, served, evidence, tmp_path):
    bodies = ["--request", evidence / "request", "--response", evidence / "response"]
    result = get(*bodies)
    assert result.exit_code == 0, result.output
    path = tmp_path / f"{served[1]}.bundle.json"
    assert str(path.name) in result.stdout
    assert "not verified" in result.stdout
    checked = attest("bundle", "verify", path, *authority(evidence))
    assert checked.exit_code == 0
    assert "request and response match byte for byte" in checked.stdout


def test_the_gateway_keeps_no_bodies(get, served, tmp_path):
    assert get("--output", tmp_path / "b.json").exit_code == 0
    found = Bundle.loads((tmp_path / "b.json").read_bytes())
    assert (found.request, found.response) == (None, None)


def test_the_key_goes_to_the_gateway_alone(get, gateway, monkeypatch):
    result = get("--api-key-env", "GATEWAY_KEY", "--format", "json")
    assert result.exit_code == 0
    assert gateway.received[-1].headers["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in result.output
    gateway.evidence[gateway.received[-1].path] = Reply(
        307, {"location": "http://127.0.0.1:9/elsewhere"}, b""
    )
    assert get("--output", "other.json").exit_code == 3


def test_without_a_key_none_is_sent(get, gateway):
    get()
    assert "authorization" not in gateway.received[-1].headers


def test_a_key_that_is_not_set(get, monkeypatch):
    monkeypatch.delenv("GATEWAY_KEY")
    result = get("--api-key-env", "GATEWAY_KEY")
    assert result.exit_code == 4
    assert "GATEWAY_KEY is not set" in result.stderr


def test_it_waits_while_the_answer_goes_out(get, gateway, monkeypatch):
    pauses = []
    monkeypatch.setattr(commands.time, "sleep", pauses.append)
    gateway.pending, gateway.retry_after = 3, "2"
    assert get().exit_code == 0
    assert pauses == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("retry_after", [None, "soon", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_it_does_not_wait_for_ever(get, gateway, monkeypatch, retry_after):
    pauses = []
    monkeypatch.setattr(commands.time, "sleep", pauses.append)
    gateway.pending, gateway.retry_after = 99, retry_after
    result = get()
    assert result.exit_code == 3
    assert "not ready after 30 s" in result.stderr
    assert pauses == [1.0] * 30


@pytest.mark.parametrize(
    "reply",
    [
        Reply(404, {}, b""),
        Reply(401, {}, b""),
        Reply(500, {}, b""),
        Reply(200, {}, b"<html>"),
        Reply(200, {}, b"{}"),
        Reply(200, {}, b""),
    ],
    ids=lambda reply: f"{reply.status} {reply.body.decode()}",
)
def test_what_is_no_bundle_is_not_kept(get, gateway, served, reply, tmp_path):
    gateway.evidence[f"/v1/attestations/{served[1]}"] = reply
    result = get()
    assert result.exit_code == 3
    assert not list(tmp_path.glob("*.bundle.json"))


def test_nobody_there(attest, tmp_path):
    result = attest("bundle", "get", "http://127.0.0.1:9", "att_1", "--output", "x")
    assert result.exit_code == 3


@pytest.mark.parametrize("url", ["ftp://x", "file:///etc/passwd", "gateway", ""])
def test_other_addresses_are_refused(attest, url):
    assert attest("bundle", "get", url, "att_1").exit_code == 4


@pytest.mark.parametrize("name", ["../keys", "a/b", "a?b", "a%2fb", "", "a" * 129])
def test_an_id_stays_within_its_path(attest, served, name):
    assert attest("bundle", "get", served[0], name).exit_code == 2


def test_nothing_is_overwritten(get, served, tmp_path):
    (tmp_path / f"{served[1]}.bundle.json").write_text("mine")
    assert get().exit_code == 4
    assert (tmp_path / f"{served[1]}.bundle.json").read_text() == "mine"


# Redaction.


@pytest.fixture
def redact(attest, evidence):
    def redact(*arguments, **options):
        path = evidence / "bundle.json"
        return attest("bundle", "redact", path, *arguments, **options)

    return redact


def redacted(evidence, name="bundle.json.redacted.bundle.json"):
    return evidence / name


def verified(attest, evidence, path, *arguments):
    options = (*authority(evidence), "--format", "json")
    result = attest("bundle", "verify", path, *arguments, *options)
    return result.exit_code, json.loads(result.stdout)


def test_a_regulator_sees_one_field(attest, redact, evidence):
    result = redact("--keep", "out.0")
    assert result.exit_code == 0
    assert "discloses out.0" in result.stdout
    code, verdict = verified(attest, evidence, redacted(evidence))
    assert (code, verdict["verdict"], verdict["tier"]) == (0, "proven", "T1")
    assert list(verdict["disclosed"]) == ["out.0"]
    # The text of the answer, handed over beside it, is proven to be that field.
    (evidence / "text").write_text(TEXT)
    text = ["--response", evidence / "text"]
    code, verdict = verified(attest, evidence, redacted(evidence), *text)
    assert (code, verdict["verdict"]) == (6, "content_only")
    (evidence / "text").write_text(TEXT.replace("Paris", "Milan"))
    assert verified(attest, evidence, redacted(evidence), *text)[0] == 1


@pytest.mark.parametrize("keep", [[], ["out.0"], ["request.digest", "out.0"]])
def test_nothing_else_leaks(redact, evidence, keep, tmp_path):
    whole = Bundle.loads((evidence / "bundle.json").read_bytes())
    path = tmp_path / "redacted.json"
    options = [item for name in keep for item in ("--keep", name)]
    assert redact(*options, "--output", path).exit_code == 0
    text = path.read_text()
    left = Bundle.loads(path.read_bytes())
    named = disclosures.named(disclosures.split(whole.token)[1])
    assert len(named) == 5
    for name, disclosure in named.items():
        assert (disclosure in text) == (name in keep)
        salt, _, value = json.loads(b64url_decode(disclosure))
        assert salt not in text
        assert json.dumps(value) not in text
    assert left.disclosed_names == tuple(name for name in named if name in keep)
    for body in (REQUEST, ANSWER):
        assert base64.b64encode(body).decode()[:40] not in text
    assert TEXT not in text
    # What is signed in the clear is signed as it is.
    assert left.token.partition("~")[0] == whole.token.partition("~")[0]


def test_a_field_that_is_not_there(redact, evidence):
    result = redact("--keep", "out.7")
    assert result.exit_code == 4
    assert "discloses no out.7" in result.stderr
    assert "out.0" in result.stderr
    assert not redacted(evidence).exists()


def test_a_redacted_bundle_stays_redacted(attest, redact, evidence):
    redact("--keep", "out.0")
    again = attest("bundle", "redact", redacted(evidence), "--keep", "request.digest")
    assert again.exit_code == 4
    other = evidence / "none.bundle.json"
    assert (
        attest("bundle", "redact", redacted(evidence), "--output", other).exit_code == 0
    )
    assert verified(attest, evidence, other)[1]["disclosed"] == {}


def test_the_name_follows_the_file(attest, evidence):
    path = evidence / "answer.bundle.json"
    path.write_bytes((evidence / "bundle.json").read_bytes())
    assert attest("bundle", "redact", path).exit_code == 0
    assert redacted(evidence, "answer.redacted.bundle.json").exists()


def test_from_stdin_it_needs_a_name(attest, evidence):
    data = (evidence / "bundle.json").read_bytes()
    assert attest("bundle", "redact", "-", input=data).exit_code == 2
    output = ["--output", evidence / "x.json"]
    assert attest("bundle", "redact", "-", *output, input=data).exit_code == 0


@pytest.mark.parametrize("disclosure", ["x", "W10", "WyJhIiwiYiJd"])
def test_broken_disclosures_are_refused(attest, evidence, today, disclosure):
    value = today.bundle().to_json()
    value["token"] += disclosure + "~"
    path = evidence / "broken.json"
    path.write_text(json.dumps(value))
    assert attest("bundle", "redact", path).exit_code == 1


def test_verify_is_the_same_command(attest, evidence):
    """One implementation under two names."""
    arguments = (evidence / "bundle.json", *authority(evidence))
    one, other = (
        attest(noun, verb, *arguments)
        for noun, verb in (("bundle", "verify"), ("verify", "bundle"))
    )
    assert (one.exit_code, one.stdout) == (other.exit_code, other.stdout)
