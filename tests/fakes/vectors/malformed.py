"""Tokens that no gateway makes: forged, and in forms that lenient readers take."""

import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

from fakes.vectors.signed import PROVEN, WORLD, Expected, case, failed_at, key

from attest.bundle import Bundle
from attest.keys import PrivateKey, b64url_decode, b64url_encode

__all__ = ["malformed"]

_TYP = "inference-attestation+jwt"


def malformed(bundle: Bundle) -> Iterator[dict[str, Any]]:
    """The cases: each another token in the place of the bundle's."""
    compact, _, disclosed = bundle.token.partition("~")
    head, payload, signature = compact.split(".")
    header, claims = (json.loads(b64url_decode(part)) for part in (head, payload))
    session = key("session")

    def signed(
        header_text: bytes, payload_text: bytes, by: PrivateKey = session
    ) -> str:
        signing_input = f"{b64url_encode(header_text)}.{b64url_encode(payload_text)}"
        made = by.sign(signing_input.encode())
        return f"{signing_input}.{b64url_encode(made)}~{disclosed}"

    def headed(**members: Any) -> str:
        return signed(json.dumps({**header, **members}).encode(), _raw(payload))

    def claiming(text: bytes) -> str:
        return signed(_raw(head), text)

    form, alg = failed_at("form", "format"), failed_at("form", "algorithm")
    body = _raw(payload)
    attacker = key("attacker")
    own = {"kid": attacker.public.thumbprint}
    yield case("as it is", {}, PROVEN)
    yield case(
        "alg none, no signature",
        {"token": f"{b64url_encode(_json({**header, 'alg': 'none'}))}.{payload}.~"},
        form,
    )
    yield case("alg none", {"token": headed(alg="none")}, alg)
    yield case("alg HS256, the public key as secret", {"token": _hs256(payload)}, alg)
    yield case(
        "alg of another key",
        {"token": headed(alg="ES256")},
        failed_at("signature", "algorithm"),
    )
    yield case("alg in other case", {"token": headed(alg="eddsa")}, alg)
    yield case(
        "key of the attacker",
        {"token": signed(_json({**header, **own}), body, attacker)},
        failed_at("key", "uncertified"),
    )
    yield case(
        "signed by the attacker in the session key's name",
        {"token": signed(_raw(head), body, attacker)},
        failed_at("signature", "signature"),
    )
    for name, value in (
        ("jwk", attacker.public.jwk),
        ("jku", "https://attacker.test/keys"),
        ("x5u", "https://attacker.test/chain"),
        ("x5c", ["MIIB"]),
        ("crit", ["exp"]),
        ("b64", False),
        ("cty", "JWT"),
    ):
        yield case(f"{name} in the header", {"token": headed(**{name: value})}, form)
    for name, kid in (
        ("a path", "../../../../dev/null"),
        ("a query", "x' OR '1'='1"),
        ("an address", "https://attacker.test/key"),
        ("a number", 1),
    ):
        yield case(f"kid that is {name}", {"token": headed(kid=kid)}, form)
    for typ in ("JWT", "gateway-key+jwt", "eat+jwt", _TYP.upper()):
        yield case(f"typ {typ}", {"token": headed(typ=typ)}, form)
    yield case("a key certificate as token", {"token": WORLD.certificate}, form)
    yield case("the boot record as token", {"token": WORLD.boot}, form)
    for name, text in (
        ("claim twice", b'{"seq":1,' + body[1:]),
        ("NaN", b'{"x":NaN,' + body[1:]),
        ("a number without end", b'{"x":1e999,' + body[1:]),
        ("a byte order mark", b"\xef\xbb\xbf" + body),
        ("UTF-16", body.decode().encode("utf-16")),
        ("not UTF-8", body.replace(b"tiny", b"tin\xff")),
        ("deep nesting", b'{"x":' + b"[" * 40 + b"]" * 40 + b"," + body[1:]),
        ("a huge integer", b'{"x":' + b"9" * 65 + b"," + body[1:]),
        ("a list", b"[]"),
        ("more after the end", body + b"{}"),
        ("seq as text", _json({**claims, "seq": "0"})),
        ("seq as a boolean", _json({**claims, "seq": False})),
        ("seq as a float", _json({**claims, "seq": 0.0})),
        ("iat beyond 2^53", _json({**claims, "iat": 2**53})),
        ("no seq", _json({n: v for n, v in claims.items() if n != "seq"})),
    ):
        yield case(f"claims: {name}", {"token": claiming(text)}, form)
    for name, text in (
        ("padding", f"{head}.{payload}.{signature}=~{disclosed}"),
        ("white space", f" {compact}~{disclosed}"),
        ("a line end", f"{compact}\n~{disclosed}"),
        ("the other alphabet", f"{head}.{payload}.+{signature[1:]}~{disclosed}"),
        ("two parts", f"{head}.{payload}~{disclosed}"),
        ("four parts", f"{compact}.x~{disclosed}"),
        ("no end of the disclosures", f"{compact}~{disclosed}"[:-1]),
        ("stray bits", f"{head}.{payload}.{_stray(signature)}~{disclosed}"),
    ):
        yield case(f"spelt with {name}", {"token": text}, form)
    yield from _disclosures(compact, disclosed)
    yield case(
        "an unknown claim is ignored",
        {"token": claiming(_json({**claims, "future": {"x": 1}}))},
        PROVEN,
    )
    newer = Expected("unknown", ("form.unsupported_version",), "form")
    yield case(
        "a claim that must be understood",
        {"token": claiming(_json({**claims, "crit": ["future"]}))},
        newer,
    )
    yield case(
        "a newer profile",
        {"token": claiming(_json({**claims, "eat_profile": "tag:x,2030:y:2"}))},
        newer,
    )


def _disclosures(compact: str, disclosed: str) -> Iterator[dict[str, Any]]:
    foreign = failed_at("form", "disclosure")
    first = disclosed.partition("~")[0]
    salt, name, _ = json.loads(b64url_decode(first))
    lie = b64url_encode(_json([salt, name, "sha256:" + "0" * 64]))
    new = b64url_encode(_json(["c2FsdA", "out.7", "sha256:" + "0" * 64]))
    yield case("disclosure changed", {"token": f"{compact}~{lie}~"}, foreign)
    yield case("disclosure twice", {"token": f"{compact}~{first}~{disclosed}"}, foreign)
    yield case("disclosure added", {"token": f"{compact}~{new}~{disclosed}"}, foreign)
    yield case(
        "disclosure that is no base64url",
        {"token": f"{compact}~{first}=~"},
        foreign,
    )


def _hs256(payload: str) -> str:
    """The classic: the verifier's public key taken for a shared secret."""
    public = key("session").public
    header = {"alg": "HS256", "kid": public.thumbprint, "typ": _TYP}
    signing_input = f"{b64url_encode(_json(header))}.{payload}"
    mac = hmac.new(public.pem, signing_input.encode(), hashlib.sha256).digest()
    return f"{signing_input}.{b64url_encode(mac)}"


def _stray(signature: str) -> str:
    """The same bytes in another spelling: bits after the last byte are set."""
    data = b64url_decode(signature)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = signature[:-1] + letters[letters.index(signature[-1]) ^ 1]
    padded = other + "=" * (-len(other) % 4)
    assert base64.urlsafe_b64decode(padded) == data
    return other


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _raw(part: str) -> bytes:
    return b64url_decode(part)
