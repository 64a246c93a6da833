import json
from dataclasses import replace

import pytest
from fakes.attested_gateway import CHAT, AttestedGateway, Received, Reply
from fakes.log import SignedLog
from fakes.world import ANSWER, NOW, REQUEST, make_world

from attest.client import _exchange
from attest.client._exchange import (
    Content,
    Examiner,
    Exchange,
    Fetched,
    Kind,
    is_attested,
    read_head,
)
from attest.delivery import ATTESTATION_HEADER, ID_HEADER, WELL_KNOWN
from attest.errors import EvidenceUnavailableError, VerificationError
from attest.keys import PrivateKey
from attest.policy import Policy, Tier

BY_ID = "/v1/attestations/att_0"


@pytest.fixture
def examiner(world):
    return Examiner(world.policy, on_evidence=None, clock=lambda: NOW)


def exchange(nonce="nonce-nonce"):
    return Exchange(
        gateway="https://gateway.test",
        request=REQUEST,
        nonce=nonce,
        credentials={},
        extensions={},
        status=200,
    )


def answered(gateway, *, drop=()):
    """An exchange that the gateway has answered, and the content to judge."""
    made = exchange()
    headers = {"attestation-nonce": made.nonce}
    reply = gateway.handle(Received("POST", CHAT, headers, REQUEST)).without(*drop)
    read_head(made, reply.status, reply.headers)
    return made, Content(token=made.token, body=reply.body)


def perform(plan, gateway, offline=()):
    """Fetch what the plan wants; returns the paths. Paths in `offline` fail."""
    paths = []
    fetch = next(plan)
    while True:
        paths.append(fetch.path)
        try:
            if fetch.path in offline:
                fetch = plan.throw(EvidenceUnavailableError("offline"))
                continue
            reply = gateway.handle(Received("GET", fetch.path, {}, b""))
            wait = reply.headers.get("retry-after")
            fetch = plan.send(Fetched(reply.status, reply.body, wait))
        except StopIteration:
            return paths


def judge(examiner, gateway, **options):
    """One answered exchange; returns what was fetched for it."""
    drop = options.pop("drop", ())
    plan = examiner.judge(*answered(gateway, drop=drop))
    try:
        return perform(plan, gateway, **options)
    except StopIteration:
        return []


def test_endorsements_are_fetched_once(examiner, attested):
    assert judge(examiner, attested) == [WELL_KNOWN]
    assert judge(examiner, attested) == []


def test_and_again_after_a_restart(examiner, attested):
    judge(examiner, attested)
    attested.world = attested.world.certified(PrivateKey.generate())
    assert judge(examiner, attested) == [WELL_KNOWN]
    assert judge(examiner, attested) == []


def test_what_came_with_one_attestation_serves_the_next(examiner, attested):
    assert judge(examiner, attested, drop=[ATTESTATION_HEADER]) == [BY_ID]
    assert judge(examiner, attested, drop=[ATTESTATION_HEADER]) != []


@pytest.mark.parametrize(
    "demand", [{"min_tier": Tier.T2}, {"max_status_age_seconds": 3600}]
)
def test_the_gateway_s_bundle_may_be_needed(attested, demand):
    """Log proofs and status lists come with it alone."""
    strict = Policy(authorities=attested.world.policy.authorities, **demand)
    examiner = Examiner(strict, on_evidence=None, clock=lambda: NOW)
    plan = examiner.judge(*answered(attested))
    assert next(plan).path == BY_ID


@pytest.fixture
def logging():
    """A gateway with a log that its manifest names, and who demands it."""
    log = SignedLog()
    world = make_world(predicate={"trustAnchors": log.anchors})
    gateway = AttestedGateway(world, log=log)
    policy = Policy(authorities=world.policy.authorities, min_tier=Tier.T2)
    return gateway, Examiner(policy, on_evidence=None, clock=lambda: NOW)


@pytest.mark.parametrize("late", range(4))
def test_the_checkpoint_is_waited_for(logging, late):
    gateway, examiner = logging
    gateway.uncovered = late
    assert judge(examiner, gateway) == [BY_ID] * (late + 1)


def test_the_witnesses_are_waited_for(logging):
    gateway, examiner = logging
    made, content = answered(gateway)
    plan = examiner.judge(made, content)
    fetch, bundle = next(plan), gateway.world.bundle()
    alone = gateway.log.prove(replace(bundle, token=content.token), by=[])
    fetch = plan.send(Fetched(200, alone.dumps()))
    assert fetch.path == BY_ID
    assert fetch.after_seconds > 0
    with pytest.raises(StopIteration):
        plan.send(Fetched(200, gateway.log.prove(alone).dumps()))


def test_but_not_for_ever(logging):
    gateway, examiner = logging
    gateway.uncovered = 99
    with pytest.raises(EvidenceUnavailableError, match="no witnessed checkpoint"):
        judge(examiner, gateway)
    assert gateway.uncovered == 95


def test_nobody_waits_for_what_a_checkpoint_would_not_mend(logging):
    """The answer is another one: that is false at once."""
    gateway, examiner = logging
    gateway.uncovered = 99
    made, content = answered(gateway)
    with pytest.raises(VerificationError, match="step 6 content"):
        perform(examiner.judge(made, replace(content, body=b"{}")), gateway)
    assert gateway.uncovered == 98


def test_a_replica_may_answer_for_another(examiner, attested):
    """The well-known path led to another replica; the store knows both boots."""
    replica = attested.world.certified(PrivateKey.generate())
    made, content = answered(attested)
    attested.evidence[WELL_KNOWN] = Reply(
        200, {}, json.dumps(replica.endorsements).encode()
    )
    plan = examiner.judge(made, content)
    assert perform(plan, attested) == [WELL_KNOWN, BY_ID]
    assert judge(examiner, attested) == []
    attested.world = replica
    assert judge(examiner, attested) == []


def test_a_boot_that_nobody_knows_is_false(examiner, attested):
    """Its key is certified by nothing that can be had."""
    made, content = answered(attested)
    attested.world = attested.world.certified(PrivateKey.generate())
    attested.evidence[BY_ID] = Reply(404, {}, b"")
    with pytest.raises(VerificationError, match="step 2 key"):
        perform(examiner.judge(made, content), attested)


def test_only_so_many_boots_are_kept(examiner, attested, monkeypatch):
    monkeypatch.setattr(_exchange, "_MAX_BOOTS", 2)
    first = attested.world
    worlds = [first, *(first.certified(PrivateKey.generate()) for _ in range(2))]
    for attested.world in worlds:
        assert judge(examiner, attested) == [WELL_KNOWN]
    attested.world = worlds[2]
    assert judge(examiner, attested) == []
    attested.world = first
    assert judge(examiner, attested) == [WELL_KNOWN]


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "a.b.c~", "~", "é.b.c"])
def test_a_token_that_cannot_be_read(examiner, attested, token):
    """Nothing is fetched for it."""
    plan = examiner.judge(exchange(), Content(token=token, body=ANSWER))
    with pytest.raises(VerificationError, match="step 0 form"):
        perform(plan, attested)
    assert attested.received == []


def test_a_token_that_names_no_boot(examiner, attested):
    token = attested.world.token(claims={"boot": 1})
    plan = examiner.judge(exchange(), Content(token=token, body=ANSWER))
    with pytest.raises(VerificationError, match="step 0 form"):
        perform(plan, attested)


UNUSABLE = {
    "missing": Reply(404, {}, b""),
    "page": Reply(200, {}, b"<html>"),
    "list": Reply(200, {}, b"[]"),
    "empty": Reply(200, {}, b"{}"),
    "pending": Reply(202, {}, b""),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_endorsements(examiner, attested, name):
    attested.evidence[WELL_KNOWN] = UNUSABLE[name]
    made, content = answered(attested, drop=[ID_HEADER])
    with pytest.raises(EvidenceUnavailableError, match=WELL_KNOWN):
        perform(examiner.judge(made, content), attested)


@pytest.mark.parametrize("name", ["missing", "page", "list", "empty"])
def test_an_unusable_bundle(examiner, attested, name):
    attested.evidence[BY_ID] = UNUSABLE[name]
    made, content = answered(attested, drop=[ATTESTATION_HEADER])
    with pytest.raises(EvidenceUnavailableError, match=BY_ID):
        perform(examiner.judge(made, content), attested)


def test_a_boot_record_that_is_none(examiner, attested):
    broken = {**attested.world.endorsements, "bootRecord": "é"}
    attested.evidence[WELL_KNOWN] = Reply(200, {}, json.dumps(broken).encode())
    made, content = answered(attested, drop=[ID_HEADER])
    with pytest.raises(VerificationError, match="step 3 boot"):
        perform(examiner.judge(made, content), attested)


def test_a_plain_server_is_named(examiner, attested):
    made, content = answered(attested, drop=[ATTESTATION_HEADER, ID_HEADER])
    with pytest.raises(EvidenceUnavailableError) as caught:
        perform(examiner.judge(made, content), attested)
    assert "https://gateway.test" + WELL_KNOWN in caught.value.hint


def test_the_first_problem_is_told(examiner, attested):
    made, content = answered(attested)
    with pytest.raises(EvidenceUnavailableError, match="offline"):
        perform(examiner.judge(made, content), attested, offline=[WELL_KNOWN, BY_ID])


def test_an_unknown_authority_is_false(attested):
    stranger = Examiner(make_world().policy, on_evidence=None, clock=lambda: NOW)
    with pytest.raises(VerificationError, match="step 1 manifest"):
        judge(stranger, attested)


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        (None, 1),
        ("5", 5),
        ("0", 0.1),
        ("-1", 1),
        ("1.5", 1),
        ("9999", 1),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 1),
        ("٣", 1),
    ],
)
def test_how_long_to_wait(examiner, attested, retry_after, seconds):
    made, content = answered(attested, drop=[ATTESTATION_HEADER])
    plan = examiner.judge(made, content)
    assert next(plan).after_seconds == 0
    assert plan.send(Fetched(202, b"", retry_after)).after_seconds == seconds


def test_what_must_be_attested():
    assert is_attested("POST", "/v1/chat/completions")
    assert is_attested("POST", "/v1/tokenize")
    assert not is_attested("GET", "/v1/chat/completions")
    assert not is_attested("POST", "/tokenize")


@pytest.mark.parametrize(
    ("status", "content_type", "kind"),
    [
        (200, "application/json", Kind.BODY),
        (200, "", Kind.BODY),
        (200, "text/event-stream", Kind.STREAM),
        (200, "Text/Event-Stream; charset=utf-8", Kind.STREAM),
        (400, "text/event-stream", Kind.ERROR),
        (599, "application/json", Kind.ERROR),
    ],
)
def test_kinds_of_answers(status, content_type, kind):
    assert read_head(exchange(), status, {"content-type": content_type}) is kind


@pytest.mark.parametrize("status", [300, 302, 307, 399])
def test_redirects_are_not_followed(status):
    with pytest.raises(EvidenceUnavailableError, match="redirect"):
        read_head(exchange(), status, {})


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip"])
def test_compressed_answers_are_not_judged(coding):
    with pytest.raises(EvidenceUnavailableError, match="compressed"):
        read_head(exchange(), 200, {"content-encoding": coding})
