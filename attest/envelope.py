"""DSSE envelopes (secure-systems-lab/dsse v1.0.2): signatures over bytes with a type.

Verify first, parse after: the payload is handed out only when enough of the trusted
keys signed it. `keyid` is a hint that nothing depends on.
"""

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from attest.canonical import read_object
from attest.errors import FormatError, SignatureError
from attest.keys import Algorithm, PublicKey, Signer, der_to_jose, jose_to_der

__all__ = ["MAX_ENVELOPE", "Envelope", "open_envelope", "seal"]

# 8 MiB hold the digests of 40,000 tensors and files.
MAX_ENVELOPE = 8 * 1024 * 1024
_MAX_SIGNATURES = 16


def _pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE pre-authentication encoding."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and the trusted keys that signed it (thumbprints, sorted)."""

    payload: bytes
    signed_by: tuple[str, ...]


def seal(payload: bytes, payload_type: str, signers: Sequence[Signer]) -> bytes:
    """The JSON envelope over `payload`, one signature per signer.

    ECDSA signatures are DER, as every DSSE tool writes and reads them.
    """
    message = _pae(payload_type, payload)
    signatures = []
    for signer in signers:
        signature = signer.sign(message)
        if signer.public.alg is Algorithm.ES256:
            signature = jose_to_der(signature)
        signatures.append(
            {
                "keyid": signer.public.thumbprint,
                "sig": base64.b64encode(signature).decode(),
            }
        )
    envelope = {
        "payloadType": payload_type,
        "payload": base64.b64encode(payload).decode(),
        "signatures": signatures,
    }
    return json.dumps(envelope, indent=1).encode() + b"\n"


def _base64(value: object, name: str) -> bytes:
    if not isinstance(value, str):
        raise FormatError(f"envelope: {name} must be a base64 string")
    # DSSE lets producers choose either alphabet and asks readers to take both.
    text = value.replace("-", "+").replace("_", "/")
    try:
        if len(text) % 4 == 0:  # b64decode takes `AAAA=` too
            return base64.b64decode(text, validate=True)
    except ValueError:  # also binascii.Error; text beyond ASCII gives the bare one
        pass
    raise FormatError(f"envelope: {name} is not base64")


def _signed_by(key: PublicKey, signatures: Iterable[bytes], message: bytes) -> bool:
    for signature in signatures:
        try:
            key.verify(
                der_to_jose(signature) if key.alg is Algorithm.ES256 else signature,
                message,
            )
        except SignatureError:
            continue
        return True
    return False


def open_envelope(
    data: bytes,
    payload_type: str,
    keys: Sequence[PublicKey],
    *,
    threshold: int = 1,
) -> Envelope:
    """The payload, when at least `threshold` distinct keys of `keys` signed it.

    The content of the payload is not looked at.

    Raises:
        FormatError: not an envelope, too large, or more than 16 signatures.
        SignatureError: another payload type, or too few trusted signatures.
        ValueError: a threshold below 1 or above the number of distinct keys.
    """
    distinct = {key.thumbprint: key for key in keys}
    if not 1 <= threshold <= len(distinct):
        raise ValueError(f"threshold {threshold} with {len(distinct)} distinct keys")
    envelope = read_object(data, max_bytes=MAX_ENVELOPE, max_depth=8)
    found = envelope.get("signatures")
    if not isinstance(found, list) or not 1 <= len(found) <= _MAX_SIGNATURES:
        raise FormatError(f"envelope: expected 1 to {_MAX_SIGNATURES} signatures")
    if envelope.get("payloadType") != payload_type:
        raise SignatureError(f"envelope: payloadType is not {payload_type}")
    payload = _base64(envelope.get("payload"), "payload")
    signatures = [
        _base64(item.get("sig") if isinstance(item, dict) else None, "sig")
        for item in found
    ]
    message = _pae(payload_type, payload)
    signed_by = sorted(
        name for name, key in distinct.items() if _signed_by(key, signatures, message)
    )
    if len(signed_by) < threshold:
        raise SignatureError(
            f"envelope: {len(signed_by)} of the trusted keys signed, {threshold} must",
            hint="check that this is the authority's public key: "
            + ", ".join(sorted(distinct)),
        )
    return Envelope(payload, tuple(signed_by))
