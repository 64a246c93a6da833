from contextlib import suppress
from dataclasses import replace

import httpx2
import pytest
from fakes.attested_gateway import (
    CHAT,
    COMPLETION,
    COMPLETION_REQUEST,
    COMPLETION_STREAM,
    COMPLETIONS,
    AttestedGateway,
    Reply,
    chunked,
    inner,
)
from fakes.clients import ask
from fakes.log import SignedLog
from fakes.world import ANSWER, REQUEST, STREAM, STREAM_REQUEST, make_world

import attest.client.httpx
import attest.client.httpx2
import attest.sse
from attest.bundle import Bundle
from attest.client import _exchange, transport
from attest.delivery import ATTESTATION_HEADER, WELL_KNOWN, comment
from attest.errors import EvidenceUnavailableError, VerificationError
from attest.policy import Policy, Tier
from attest.verify import verify

STREAMED_COMPLETION = COMPLETION_REQUEST[:-1] + b', "stream": true}'


@pytest.mark.parametrize(
    ("path", "request_body", "expected"),
    [
        (CHAT, REQUEST, ANSWER),
        (CHAT, STREAM_REQUEST, STREAM),
        (COMPLETIONS, COMPLETION_REQUEST, COMPLETION),
        (COMPLETIONS, STREAMED_COMPLETION, COMPLETION_STREAM),
    ],
)
def test_proven(flavour, attested, path, request_body, expected):
    answer = ask(flavour, attested, request_body, path=path)
    assert (answer.status, answer.body, answer.error) == (200, expected, None)
    post = attested.received[0]
    assert post.body == request_body
    assert post.headers["accept-encoding"] == "identity"
    assert attested.closed == 2  # the answer and the endorsements


def test_a_stream_comes_event_by_event(flavour, attested):
    attested.chunk = len(STREAM)
    whole = ask(flavour, attested, STREAM_REQUEST)
    attested.chunk = 1
    pieces = ask(flavour, attested, STREAM_REQUEST).pieces
    assert len(pieces) == STREAM.count(b"\n\n")
    assert all(piece.endswith(b"\n\n") for piece in pieces)
    assert b"".join(pieces) == whole.body == STREAM
    # All but the terminal event was there before anything was judged.
    assert pieces[-1] == b"data: [DONE]\n\n"


def test_the_terminal_event_is_kept_back_until_proven(attested):
    """The generator has to be asked again, and only then fetches and judges."""
    ours = attest.client.httpx2.AttestTransport(
        attested.world.policy,
        inner=inner(attested, httpx2),
        clock=lambda: 1_800_000_000,
    )
    with (
        httpx2.Client(transport=ours) as client,
        client.stream(
            "POST", "https://gateway.test" + CHAT, content=STREAM_REQUEST
        ) as response,
    ):
        pieces = response.iter_raw()
        seen = b""
        while seen != STREAM.removesuffix(b"data: [DONE]\n\n"):
            seen += next(pieces)
        assert attested.paths() == [CHAT]
        assert next(pieces) == b"data: [DONE]\n\n"
        assert attested.paths() == [CHAT, WELL_KNOWN]


def test_the_reader_may_stop_early(flavour, attested):
    """What was read is then not proven; the connection is given back."""
    Transport = attest.client.httpx2.AttestTransport  # noqa: N806
    ours = Transport(attested.world.policy, inner=inner(attested, httpx2))
    with (
        httpx2.Client(transport=ours) as client,
        client.stream(
            "POST", "https://gateway.test" + CHAT, content=STREAM_REQUEST
        ) as response,
    ):
        next(response.iter_raw())
    assert attested.closed == 1


def test_a_buffered_stream_comes_whole_and_proven(flavour, attested):
    answer = ask(flavour, attested, STREAM_REQUEST, buffered=True)
    assert (answer.pieces, answer.error) == ([STREAM], None)


def test_of_a_buffered_stream_nothing_unproven_is_handed_on(flavour, attested):
    attested.mangle = lambda reply: reply.swapped(b"Paris", b"Milan")
    answer = ask(flavour, attested, STREAM_REQUEST, buffered=True)
    assert isinstance(answer.error, VerificationError)
    assert answer.pieces == []
    # At the end alone it is known otherwise.
    assert b"Milan" in ask(flavour, attested, STREAM_REQUEST).body


def test_a_buffered_stream_has_a_bound(flavour, attested, monkeypatch):
    monkeypatch.setattr(_exchange, "MAX_ANSWER", 200)
    answer = ask(flavour, attested, STREAM_REQUEST, buffered=True)
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert "64 MiB" in str(answer.error)
    assert answer.pieces == []


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "api-key"])
def test_evidence_is_fetched_with_the_same_key(flavour, attested, header):
    attested.header = False
    ask(flavour, attested, headers={header: "Bearer k", "cookie": "c=1"})
    post, get = attested.received
    assert get.method == "GET"
    assert get.path == "/v1/attestations/att_0"
    assert get.headers[header] == post.headers[header] == "Bearer k"
    assert "cookie" not in get.headers
    assert "attestation-nonce" not in get.headers


def test_a_gateway_below_a_path(flavour, attested):
    answer = ask(flavour, attested, path="/team/llm" + CHAT)
    assert answer.body == ANSWER
    assert attested.paths()[1] == "/team/llm" + WELL_KNOWN


@pytest.mark.parametrize("request_body", [REQUEST, STREAM_REQUEST])
def test_the_attestation_can_be_waited_for(flavour, attested, request_body):
    attested.header, attested.comment, attested.pending = False, False, 2
    answer = ask(flavour, attested, request_body)
    assert answer.error is None
    assert attested.paths().count("/v1/attestations/att_0") == 3


def test_another_process_of_the_gateway_may_have_it_still(flavour, attested):
    attested.header, path = False, "/v1/attestations/att_0"
    absent = [Reply(404, {"retry-after": "0"}, b"{}")] * 3

    class Evidence(dict):
        """Says 404 first."""

        def __contains__(self, asked):
            return asked == path and bool(absent)

        def __getitem__(self, asked):
            return absent.pop()

    attested.evidence = Evidence()
    answer = ask(flavour, attested)
    assert answer.error is None
    assert attested.paths().count(path) == 4


@pytest.mark.parametrize(
    ("fields", "times"), [({}, 1), ({"retry-after": "0"}, 4)], ids=["no", "later"]
)
def test_an_unknown_attestation_is_asked_for_a_few_times(
    flavour, attested, fields, times
):
    attested.header, path = False, "/v1/attestations/att_0"
    attested.evidence[path] = Reply(404, fields, b"{}")
    answer = ask(flavour, attested)
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert attested.paths().count(path) == times


def test_but_not_for_ever(flavour, attested, monkeypatch):
    monkeypatch.setattr(_exchange, "_MAX_WAIT_SECONDS", 0.15)
    attested.header, attested.pending = False, 100
    answer = ask(flavour, attested)
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert "not ready" in str(answer.error)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("POST", "/tokenize"), ("POST", "/detokenize")],
)
def test_other_requests_pass(flavour, attested, method, path):
    answer = ask(flavour, attested, method=method, path=path)
    assert answer.error is None
    assert "attestation-nonce" not in attested.received[0].headers
    assert len(attested.received) == 1


def test_other_posts_must_be_attested(flavour, attested):
    answer = ask(flavour, attested, path="/v1/embeddings")
    assert isinstance(answer.error, EvidenceUnavailableError)


@pytest.mark.parametrize("request_body", [REQUEST, STREAM_REQUEST])
def test_an_error_is_for_the_sdk(flavour, attested, request_body):
    attested.status = 503
    answer = ask(flavour, attested, request_body)
    assert (answer.status, answer.error) == (503, None)
    assert b"error" in answer.body
    assert attested.paths() == [CHAT]


def test_an_attested_error_is_recorded(flavour, attested):
    attested.status = 400
    found = []
    answer = ask(
        flavour, attested, on_evidence=lambda *evidence: found.append(evidence)
    )
    assert (answer.status, answer.error) == (400, None)
    [(verdict, bundle)] = found
    assert verdict.problem.name == "policy"
    assert bundle.response == answer.body


def test_an_error_without_attestation_is_not(flavour, attested):
    attested.status = 400
    attested.mangle = lambda reply: reply.without(ATTESTATION_HEADER)
    found = []
    answer = ask(
        flavour, attested, on_evidence=lambda *evidence: found.append(evidence)
    )
    assert (answer.status, answer.error, found) == (400, None, [])


@pytest.mark.parametrize("request_body", [REQUEST, STREAM_REQUEST])
def test_the_evidence_can_be_kept(flavour, attested, request_body):
    found = []
    ask(
        flavour,
        attested,
        request_body,
        on_evidence=lambda *evidence: found.append(evidence),
    )
    [(verdict, bundle)] = found
    assert verdict.proven
    assert bundle.request == request_body
    kept = Bundle.loads(bundle.dumps())
    world = attested.world
    nonce = attested.received[0].headers["attestation-nonce"]
    again = verify(kept, world.policy, at=world.now, nonce=nonce)
    assert again.proven
    assert "request and response match" in again.step(6).detail
    if request_body == STREAM_REQUEST:
        assert comment(bundle.token) in kept.response


def test_the_evidence_comes_before_the_error(flavour, attested):
    attested.mangle = lambda reply: reply.swapped(b"Paris", b"Milan")
    found = []
    answer = ask(
        flavour, attested, on_evidence=lambda *evidence: found.append(evidence)
    )
    assert isinstance(answer.error, VerificationError)
    assert found[0][0].false


def test_nothing_is_kept_unless_asked():
    check = _exchange.StreamCheck(keep=False)
    for chunk in chunked(STREAM, 100):
        check.feed(chunk)
    _, content = check.finish()
    assert (content.body, content.token) == (None, None)


def test_a_long_stream_is_no_longer_kept(flavour, attested, monkeypatch):
    """It is proven all the same, by its digest."""
    # More than the comment that is held back, less than the whole.
    monkeypatch.setattr(_exchange, "MAX_ANSWER", len(STREAM) + 2000)
    found = []
    answer = ask(
        flavour,
        attested,
        STREAM_REQUEST,
        on_evidence=lambda *evidence: found.append(evidence),
    )
    assert answer.error is None
    [(verdict, bundle)] = found
    assert verdict.proven
    assert bundle.response is None


def test_a_body_that_is_too_long(flavour, attested, monkeypatch):
    monkeypatch.setattr(transport, "MAX_ANSWER", len(ANSWER) - 1)
    answer = ask(flavour, attested)
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert attested.closed >= 1


def test_an_end_that_is_too_long(flavour, attested, monkeypatch):
    monkeypatch.setattr(_exchange, "MAX_ANSWER", 100)
    attested.mangle = lambda reply: replace(reply, body=b"data: [DONE]\n\n" * 10)
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert "over 64 MiB long" in str(answer.error)
    assert answer.body == b""


def test_an_event_that_is_too_long(flavour, attested, monkeypatch):
    monkeypatch.setattr(attest.sse, "MAX_EVENT", 5000)
    attested.mangle = lambda reply: replace(reply, body=b"data: " + b"x" * 5000)
    answer = ask(flavour, attested, STREAM_REQUEST)
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert "cannot be checked" in str(answer.error)


def test_a_policy_that_is_not_met(flavour, attested):
    policy = Policy(authorities=attested.world.policy.authorities, min_tier=Tier.T2)
    answer = ask(flavour, attested, policy=policy)
    assert isinstance(answer.error, VerificationError)
    assert "step 10 policy: tier T1" in str(answer.error)


@pytest.mark.parametrize("request_body", [REQUEST, STREAM_REQUEST])
def test_a_witnessed_log_can_be_demanded(flavour, request_body, monkeypatch):
    """The head that covers an answer comes a second after it, or never."""
    monkeypatch.setattr(_exchange, "_LOG_PAUSES", (0.0, 0.001))
    log = SignedLog()
    attested = AttestedGateway(make_world(predicate={"trustAnchors": log.anchors}))
    policy = Policy(authorities=attested.world.policy.authorities, min_tier=Tier.T2)
    attested.log, attested.uncovered = log, 2
    found = []
    answer = ask(
        flavour,
        attested,
        request_body,
        policy=policy,
        on_evidence=lambda *evidence: found.append(evidence),
    )
    assert answer.error is None
    (evidence,) = found
    assert evidence[0].tier is Tier.T2
    attested.log = None
    answer = ask(flavour, attested, request_body, policy=policy)
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert "no witnessed checkpoint covers" in str(answer.error)


def failing(flavour, attested, path):
    """An inner transport that loses the connection for one path."""
    honest = inner(attested, flavour.http)

    def handle(request):
        if request.url.path == path:
            raise flavour.http.ConnectError("refused", request=request)
        return honest.handler(request)

    return flavour.http.MockTransport(handle)


def test_evidence_out_of_reach(flavour, attested):
    answer = ask(flavour, attested, inner=failing(flavour, attested, WELL_KNOWN))
    # The id leads to the same evidence.
    assert (answer.body, answer.error) == (ANSWER, None)
    attested.evidence["/v1/attestations/att_1"] = Reply(500, {}, b"")
    answer = ask(flavour, attested, inner=failing(flavour, attested, WELL_KNOWN))
    assert isinstance(answer.error, EvidenceUnavailableError)
    assert "ConnectError" in str(answer.error)
    assert isinstance(answer.error.__cause__, flavour.http.ConnectError)


def test_errors_of_the_network_stay_what_they_are(flavour, attested):
    with pytest.raises(flavour.http.ConnectError):
        ask(flavour, attested, inner=failing(flavour, attested, CHAT))


def test_timeouts_hold_for_evidence_too(attested):
    seen = []
    honest = inner(attested, httpx2)

    def handle(request):
        seen.append(request.extensions.get("timeout"))
        return honest.handler(request)

    ours = attest.client.httpx2.AttestTransport(
        attested.world.policy,
        inner=httpx2.MockTransport(handle),
        clock=lambda: attested.world.now,
    )
    with httpx2.Client(transport=ours, timeout=7) as client:
        client.post("https://gateway.test" + CHAT, content=REQUEST)
    assert [timeout["read"] for timeout in seen] == [7, 7]
    bare = httpx2.Request("POST", "https://gateway.test" + CHAT, content=REQUEST)
    ours.handle_request(bare)
    assert seen[2] is None


@pytest.mark.parametrize("module", [attest.client.httpx, attest.client.httpx2])
async def test_by_default_the_library_sends(module, world):
    http = module._Stream.__mro__[2].__module__.partition(".")[0]
    sync = module.AttestTransport(world.policy)
    unsync = module.AsyncAttestTransport(world.policy)
    assert type(sync._inner).__name__ == "HTTPTransport"
    assert type(unsync._inner).__name__ == "AsyncHTTPTransport"
    assert type(sync._inner).__module__.partition(".")[0] == http
    sync.close()
    await unsync.aclose()


def test_a_failure_of_the_callback_is_not_hidden(flavour, attested):
    def full(verdict, bundle):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        ask(flavour, attested, on_evidence=full)


def test_the_connection_is_given_back_before_evidence_is_fetched(flavour, attested):
    """Else a pool of one connection would wait for itself."""
    order = []
    honest = inner(attested, flavour.http)

    def handle(request):
        order.append((request.url.path, attested.closed))
        return honest.handler(request)

    with suppress(EvidenceUnavailableError):
        ask(flavour, attested, STREAM_REQUEST, inner=flavour.http.MockTransport(handle))
    assert order == [(CHAT, 0), (WELL_KNOWN, 1)]
