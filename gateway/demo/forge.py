"""What an impostor would do: sign the same claims with a key of his own."""

from attest import disclosures, tokens
from attest.bundle import Bundle
from attest.keys import PrivateKey

__all__ = ["forged_token"]


def forged_token(bundle: Bundle, key: PrivateKey) -> str:
    """The bundle's token, signed anew by `key`; everything else is as it was."""
    compact, opened = disclosures.split(bundle.token)
    typ = "inference-attestation+jwt"
    claims = tokens.parse(compact, typ=typ).claims
    return disclosures.join(tokens.mint(typ, claims, key), opened)
