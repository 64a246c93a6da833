"""A whole signed world: every document between an authority's key and one answer.

All of it is real: keys, signatures, manifest, certificate, boot record, tokens. Each
document can be made with changed claims, and is then signed all the same, so that a
test reaches the check it is about.

    world = make_world()
    bundle = world.bundle()                      # proven
    bundle = world.bundle(claims={"seq": -1})    # signed, and wrong in one claim
    other = make_world(boot={"engine": {"dtype": "float16"}})
    verify(bundle, world.policy, at=world.now)
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from attest import disclosures, tokens
from attest.bundle import Bundle
from attest.canonical import canonical
from attest.claims import EAT_PROFILE, Outcome
from attest.delivery import comment
from attest.digests import digest
from attest.keys import Algorithm, PrivateKey
from attest.manifest import Manifest, open_manifest, sign_statement
from attest.policy import Policy
from attest.request import request_facts, semantic_digest
from attest.sse import EventSplitter
from attest.statement import Terms, build_predicate
from attest.transcript import Dialect, Transcript, output_digest
from attest.verify import issuer_uri
from attest.weights import TensorDigest

__all__ = [
    "ABSENT",
    "ANSWER",
    "DAY",
    "GATEWAY",
    "NOW",
    "REQUEST",
    "STREAM",
    "STREAM_REQUEST",
    "SYSTEM_PROMPT",
    "TEXT",
    "Changes",
    "World",
    "make_world",
    "merged",
    "with_comment",
]

NOW = 1_800_000_000
DAY = 24 * 3600
GATEWAY = "gateway.test"
ABSENT = object()
"""As a value of changes: leave this member out."""

Changes = Mapping[str, Any]

SYSTEM_PROMPT = "Be brief and kind."
TEXT = "The capital of France is Paris."


def _request(**members: Any) -> bytes:
    messages = [
        {"role": "system", "content": SYSTEM_PROMPT},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    return json.dumps({"model": "tiny", "messages": messages, **members}).encode()


def _chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": NOW,
        "model": "tiny",
        "choices": [choice],
    }
    return b"data: " + json.dumps(value).encode() + b"\n\n"


REQUEST = _request(max_tokens=16)
STREAM_REQUEST = _request(max_tokens=16, stream=True)
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": NOW,
        "model": "tiny",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": TEXT},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 21, "completion_tokens": 7, "total_tokens": 28},
    }
).encode()
STREAM = (
    _chunk({"role": "assistant", "content": ""})
    + b"".join(_chunk({"content": word}) for word in re.findall(r"\S+ ?", TEXT))
    + _chunk({}, "stop")
    + b"data: [DONE]\n\n"
)


def merged(base: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """`base` with `changes` put in, objects member by member; ABSENT removes."""
    result = dict(base)
    for name, value in changes.items():
        old = result.get(name)
        if value is ABSENT:
            del result[name]
        elif isinstance(old, dict) and isinstance(value, dict):
            result[name] = merged(old, value)
        else:
            result[name] = value
    return result


def with_comment(stream: bytes, token: str) -> bytes:
    """The stream as a gateway sends it: the comment stands before the last event."""
    splitter = EventSplitter()
    *events, last = splitter.feed(stream)
    return b"".join(e.raw for e in events) + comment(token) + last.raw


def _is_stream(response: bytes) -> bool:
    return response.startswith((b"data:", b"event:", b":"))


def _transcript(response: bytes, dialect: Dialect) -> Transcript:
    transcript = Transcript(dialect)
    if not _is_stream(response):
        transcript.feed_body(response)
        return transcript
    splitter = EventSplitter()
    for event in splitter.feed(response):
        transcript.feed_event(event)
    transcript.end(splitter.flush())
    return transcript


@dataclass(frozen=True, kw_only=True)
class World:
    """Signed documents, and the private keys behind them.

    `issuer` is a delegate that the manifest names; it certified `session`, which signs
    boot record and tokens.
    """

    now: int
    authority: PrivateKey
    issuer: PrivateKey
    session: PrivateKey
    envelope: bytes
    certificate: str
    boot: str

    @property
    def manifest(self) -> Manifest:
        """The opened manifest."""
        return open_manifest(self.envelope, [self.authority.public])

    @property
    def policy(self) -> Policy:
        """The default policy of somebody who trusts this authority."""
        return Policy(authorities=(self.authority.public,))

    @property
    def endorsements(self) -> dict[str, Any]:
        """What a gateway serves at /.well-known/attestation."""
        return {
            "profile": EAT_PROFILE,
            "issuer": GATEWAY,
            "bootRecord": self.boot,
            "keyCertificates": [self.certificate],
            "manifest": json.loads(self.envelope),
        }

    def claims(
        self,
        request: bytes = REQUEST,
        response: bytes = ANSWER,
        *,
        nonce: str | None = None,
        status: int = 200,
        dialect: Dialect = Dialect.CHAT,
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Claims in the clear, and those to conceal, for this exchange.

        `response` is without the attestation comment.
        """
        manifest = self.manifest
        facts = request_facts(json.loads(request), dialect)
        transcript = _transcript(response, dialect)
        outcome = transcript.outcome() if status < 400 else Outcome.REFUSED
        public: dict[str, Any] = {
            "iss": GATEWAY,
            "jti": f"att_{next(_serial)}",
            "iat": self.now,
            "toe": self.now,
            "sub": transcript.response_id,
            "eat_profile": EAT_PROFILE,
            "eat_nonce": nonce,
            "boot": tokens.signing_digest(self.boot),
            "manifest": {"digest": manifest.digest},
            "constitution": manifest.constitution,
            "weights": {
                "root": manifest.tensor_root,
                "measured": "engine",
                "verified_at": self.now,
            },
            "gen_ai.request.model": facts.model,
            "gen_ai.response.model": transcript.response_model,
            "gen_ai.response.finish_reasons": list(transcript.finish_reasons),
            "gen_ai.usage.input_tokens": transcript.usage.input_tokens,
            "gen_ai.usage.output_tokens": transcript.usage.output_tokens,
            "system_prompt": "absent" if facts.system_prompt is None else "governed",
            "res": {
                "status": status,
                "content_digest": digest(response),
                "content_bytes": len(response),
                "stream": _is_stream(response),
                "outcome": str(outcome),
                "choices": transcript.choice_count,
            },
            "seq": 0,
            "prev": None,
        }
        keep_null = {"constitution", "prev"}
        public = {k: v for k, v in public.items() if v is not None or k in keep_null}
        private: dict[str, Any] = {
            "request.digest": digest(request),
            "request.semantic_digest": semantic_digest(facts),
            "request.sampling": dict(facts.sampling),
        }
        if facts.system_prompt is not None:
            private["system_prompt.digest"] = digest(facts.system_prompt.encode())
        for output in transcript.outputs():
            private[f"out.{output['index']}"] = output_digest(output)
        return public, private

    def token(
        self,
        request: bytes = REQUEST,
        response: bytes = ANSWER,
        *,
        claims: Changes | None = None,
        private: Changes | None = None,
        key: PrivateKey | None = None,
        **exchange: Any,
    ) -> str:
        """A token with its disclosures.

        Args:
            request: as received.
            response: as sent, without the attestation comment.
            claims: changes to the claims in the clear.
            private: changes to the concealed ones.
            key: signs instead of the session key.
            **exchange: nonce, status and dialect, as for `claims`.
        """
        public, concealed = self.claims(request, response, **exchange)
        hidden, opened = disclosures.conceal(merged(concealed, private or {}))
        compact = tokens.mint(
            "inference-attestation+jwt",
            merged({**public, **hidden}, claims or {}),
            key or self.session,
        )
        return disclosures.join(compact, opened)

    def bundle(
        self, request: bytes = REQUEST, response: bytes = ANSWER, **changes: Any
    ) -> Bundle:
        """The evidence about one answer; `changes` are those of `token`."""
        return Bundle(
            token=self.token(request, response, **changes),
            key_certificates=(self.certificate,),
            boot_record=self.boot,
            manifest=self.envelope,
            request=request,
            response=response,
        )

    def certified(self, session: PrivateKey, **changes: Any) -> "World":
        """The same manifest served by another boot, with a session key of its own.

        Args:
            session: the new session key.
            **changes: `certificate` and `boot`, as for `make_world`.
        """
        return _booted(replace(self, session=session), **changes)


_serial = itertools.count()


def _tensor(name: str) -> TensorDigest:
    return TensorDigest(name, "F32", (2, 2), digest(name.encode()))


def _predicate(issuer: PrivateKey, now: int) -> dict[str, Any]:
    return build_predicate(
        {
            "model": {"name": "tiny", "version": "1"},
            "constitution": {
                "id": "toy",
                "version": "1",
                "digest": digest(b"constitution"),
            },
        },
        subjects={name: digest(name.encode()) for name in _FILES},
        tensors=[_tensor("embed"), _tensor("head")],
        terms=Terms(
            not_before=now - 30 * DAY,
            dtypes=["float32"],
            system_prompts={"house": SYSTEM_PROMPT},
            delegates=[issuer.public],
        ),
    )


_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def _booted(
    world: World, *, certificate: Changes | None = None, boot: Changes | None = None
) -> World:
    manifest, now = world.manifest, world.now
    certificate_claims = {
        "iss": issuer_uri(world.issuer.public),
        "sub": GATEWAY,
        "jti": f"key_{next(_serial)}",
        "iat": now - 3600,
        "nbf": now - 3600,
        "exp": now + DAY,
        "cnf": {"jwk": world.session.public.jwk},
        "manifests": [manifest.digest],
    }
    state = {"settings": {"max_model_len": 1024}}
    boot_claims = {
        "iss": GATEWAY,
        "iat": now - 3600,
        "jti": f"boot_{next(_serial)}",
        "eat_profile": EAT_PROFILE,
        "manifest": {"digest": manifest.digest},
        "weights": {
            "root": manifest.tensor_root,
            "count": manifest.tensor_count,
            "measured": "engine",
            "verified_at": now - 3600,
        },
        "engine": {"name": "vllm", "version": "0.32.0", "dtype": "float32"},
        "serving_state": {"digest": digest(canonical(state)), **state},
        "software": {"attest-gateway": "0.1.0"},
    }
    return replace(
        world,
        certificate=tokens.mint(
            "gateway-key+jwt",
            merged(certificate_claims, certificate or {}),
            world.issuer,
        ),
        boot=tokens.mint("eat+jwt", merged(boot_claims, boot or {}), world.session),
    )


def make_world(
    *,
    now: int = NOW,
    alg: Algorithm = Algorithm.EDDSA,
    predicate: Changes | None = None,
    certificate: Changes | None = None,
    boot: Changes | None = None,
    keys: Sequence[PrivateKey] | None = None,
) -> World:
    """A fresh world, with keys of its own.

    Args:
        now: the time at which everything is fresh and valid, in seconds.
        alg: algorithm of every key.
        predicate: changes to the manifest's predicate.
        certificate: changes to the claims of the key certificate.
        boot: changes to the claims of the boot record.
        keys: of authority, issuer and session, instead of fresh ones.
    """
    authority, issuer, session = keys or [PrivateKey.generate(alg) for _ in range(3)]
    envelope = sign_statement(
        {name: digest(name.encode()) for name in _FILES},
        merged(_predicate(issuer, now), predicate or {}),
        [authority],
    )
    world = World(
        now=now,
        authority=authority,
        issuer=issuer,
        session=session,
        envelope=envelope,
        certificate="",
        boot="",
    )
    return _booted(world, certificate=certificate, boot=boot)
