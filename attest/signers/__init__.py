"""Key stores that sign for the gateway, chosen by the scheme of a URI.

`file:issuer.key.pem` reads an unencrypted PKCS#8 PEM. A missing key is an error, never
a reason to make one up: tokens by a throw-away key prove nothing.
"""

from collections.abc import Callable, Mapping

from attest.errors import ConfigurationError
from attest.keys import Signer
from attest.signers.file import load_file

__all__ = ["load_signer"]

_SCHEMES: Mapping[str, Callable[[str], Signer]] = {"file": load_file}


def load_signer(uri: str) -> Signer:
    """The signer that `uri` names.

    Raises:
        ConfigurationError: an unknown scheme, or a key that can't be used.
    """
    scheme, separator, rest = uri.partition(":")
    if not separator or scheme not in _SCHEMES:
        raise ConfigurationError(
            f"signer: expected one of {', '.join(f'{name}:' for name in _SCHEMES)}",
            hint="for example: --signer file:issuer.key.pem",
        )
    return _SCHEMES[scheme](rest)
