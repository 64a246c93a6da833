"""A world that is always the same, and the form of one case."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fakes.world import NOW, World, make_world, merged

from attest import disclosures, tokens
from attest.bundle import Bundle
from attest.keys import PrivateKey
from attest.transcript import Dialect

__all__ = [
    "PROVEN",
    "SIBLING",
    "STRANGER",
    "WORLD",
    "Expected",
    "case",
    "document",
    "failed_at",
    "false",
    "harmless",
    "key",
    "token",
]


def key(name: str) -> PrivateKey:
    """The same key for the same name, always."""
    seed = hashlib.sha256(f"attest-gateway test vector {name}".encode()).digest()
    return PrivateKey(Ed25519PrivateKey.from_private_bytes(seed))


def salts(name: str) -> Callable[[int], bytes]:
    """Salts that are the same for the same name, always."""
    counter = iter(range(1_000_000))

    def one() -> bytes:
        return hashlib.sha256(f"{name} {next(counter)}".encode()).digest()[:16]

    return lambda size: b"".join(one() for _ in range(size // 16))


WORLD = make_world(
    keys=[key(name) for name in ("authority", "issuer", "session")],
    certificate={"jti": "key_1"},
    boot={"jti": "boot_1"},
)
SIBLING = WORLD.certified(
    key("session of another replica"),
    certificate={"jti": "key_2"},
    boot={"jti": "boot_2"},
)
STRANGER = make_world(
    keys=[key(name) for name in ("stranger", "stranger's issuer", "session")],
    certificate={"jti": "key_3"},
    boot={"jti": "boot_3"},
)


def token(
    name: str,
    request: bytes,
    response: bytes,
    dialect: Dialect,
    *,
    claims: Mapping[str, Any] | None = None,
    hidden: str = r"(?!)",
    world: World = WORLD,
) -> str:
    """A token about an exchange; without the disclosures that match `hidden`."""
    public, private = world.claims(request, response, dialect=dialect)
    concealed, opened = disclosures.conceal(private, random=salts(name))
    stated = merged({**public, **concealed, "jti": f"att_{name}"}, claims or {})
    compact = tokens.mint("inference-attestation+jwt", stated, world.session)
    shown = [
        text
        for text, named in zip(opened, private, strict=True)
        if not re.match(hidden, named)
    ]
    return disclosures.join(compact, shown)


@dataclass(frozen=True)
class Expected:
    """What a verifier must find.

    Attributes:
        reasons: codes of the step that is the problem, in any order.
        step: that step; "" where all is proven.
    """

    verdict: str
    reasons: tuple[str, ...] = ()
    step: str = "content"

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "tier": "T0" if self.verdict == "false" or self.step == "form" else "T1",
            "problem": self.step or None,
            "reasons": list(self.reasons),
        }


PROVEN = Expected("proven", step="")


def harmless(*words: str) -> Expected:
    """The content is proven, the bytes are not."""
    return Expected("content_only", tuple(f"content.{word}" for word in words))


def false(*words: str) -> Expected:
    """A definite no."""
    return Expected("false", tuple(f"content.{word}" for word in words))


def failed_at(step: str, word: str) -> Expected:
    """A definite no of another step than the content's."""
    return Expected("false", (f"{step}.{word}",), step)


def case(name: str, changes: Mapping[str, Any], expected: Expected) -> dict[str, Any]:
    """One case: members of the bundle that are replaced, and what must be found."""
    given = {
        member: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for member, value in changes.items()
    }
    return {"name": name, "changes": given, "expected": expected.to_json()}


def document(
    bundle: Bundle, cases: list[dict[str, Any]], **about: Any
) -> dict[str, Any]:
    """One file; `about` says more of it, for people."""
    return {
        **about,
        "at": NOW,
        "authority": WORLD.authority.public.jwk,
        "policy": WORLD.policy.to_json(),
        "bundle": bundle.to_json(),
        "cases": cases,
    }
