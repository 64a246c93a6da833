"""Key stores that sign for an authority or a gateway, chosen by the scheme of a URI.

`file:issuer.key.pem` reads an unencrypted PKCS#8 PEM; the others never see the private
key. A missing key is an error, never a reason to make one up: tokens by a throw-away
key prove nothing.
"""

import importlib
from collections.abc import Callable, Mapping

from attest.errors import ConfigurationError
from attest.keys import Signer

__all__ = ["SCHEMES", "load_signer"]

SCHEMES: Mapping[str, tuple[str, str]] = {
    "awskms": ("attest.signers.awskms", "load_awskms"),
    "file": ("attest.signers.file", "load_file"),
    "hashivault": ("attest.signers.hashivault", "load_hashivault"),
    "pkcs11": ("attest.signers.pkcs11", "load_pkcs11"),
}
"""Scheme to module and function; the scheme is also the name of the extra."""


def load_signer(uri: str) -> Signer:
    """The signer that `uri` names.

    Raises:
        ConfigurationError: an unknown scheme, a library that is not installed, or a key
            that can't be used.
    """
    scheme, separator, rest = uri.partition(":")
    if not separator or scheme not in SCHEMES:
        raise ConfigurationError(
            f"signer: expected one of {', '.join(f'{name}:' for name in SCHEMES)}",
            hint="for example: --signer file:issuer.key.pem",
        )
    module, function = SCHEMES[scheme]
    try:
        load: Callable[[str], Signer] = getattr(
            importlib.import_module(module), function
        )
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"signer: {scheme}: needs the library {error.name}",
            hint=f"type: pip install 'attest-gateway[{scheme}]'",
        ) from error
    return load(rest)
