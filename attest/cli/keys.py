"""`attest keys`: make and show signing keys."""

from pathlib import Path
from typing import Annotated

import typer

from attest.cli._read import read_input
from attest.cli._run import Answer, command, new_app
from attest.cli._text import clean
from attest.errors import ConfigurationError, FormatError
from attest.keys import Algorithm, PrivateKey, PublicKey
from attest.signers import SCHEMES, load_signer
from attest.signers.file import write_private_key

__all__ = ["app", "public_path"]

app = new_app("Make and show signing keys.")


def public_path(private: Path) -> Path:
    """Where the public half goes: `.key.pem` or `.pem` becomes `.pub.pem`.

    Any other name gets `.pub.pem` appended.
    """
    stem = private.name.removesuffix(".pem").removesuffix(".key")
    return private.with_name(stem + ".pub.pem")


@command(app)
def new(
    path: Annotated[
        Path,
        typer.Argument(metavar="PATH", help="New private key.", show_default=False),
    ],
    *,
    alg: Annotated[
        Algorithm, typer.Option(help="ES256 where a key store has no Ed25519.")
    ] = Algorithm.EDDSA,
) -> Answer:
    """Make a key pair.

    The private key is written to PATH, readable by you alone and not encrypted. The
    public key is written beside it: `.key.pem` or `.pem` becomes `.pub.pem`. Neither
    file may exist.
    """
    beside = public_path(path)
    for file in (path, beside):
        if file.exists():
            raise ConfigurationError(
                f"keys: {file} exists and is not overwritten",
                hint="choose another name, or move the old key away first",
            )
    key = PrivateKey.generate(alg)
    write_private_key(path, key)
    try:
        beside.write_bytes(key.public.pem)
    except OSError as error:
        raise ConfigurationError(f"keys: {beside}: {error.strerror}") from error
    thumbprint = key.public.thumbprint
    return Answer(
        {
            "thumbprint": thumbprint,
            "alg": str(alg),
            "private": str(path),
            "public": str(beside),
        },
        lambda: (
            f"thumbprint   {thumbprint}\n"
            f"private key  {clean(str(path))}   keep it secret\n"
            f"public key   {clean(str(beside))}   give it to whoever verifies"
        ),
    )


@command(app)
def show(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH", help="A PEM or JWK file, -, or a signer such as awskms:…."
        ),
    ],
) -> Answer:
    """Show the public half of a key; never the private one.

    Of a key in a key store it is what to give out, and to name as a delegate.
    """
    key, private = _public_half(path)
    kind = "private key; its public half" if private else "public key"
    return Answer(
        {
            "thumbprint": key.thumbprint,
            "alg": str(key.alg),
            "private": private,
            "jwk": key.jwk,
            "pem": key.pem.decode(),
        },
        lambda: (
            f"{kind}:\n"
            f"thumbprint  {key.thumbprint}\n"
            f"alg         {key.alg}\n"
            + "".join(f"{name:<12}{value}\n" for name, value in key.jwk.items())
            + key.pem.decode().rstrip()
        ),
    )


def _public_half(path: str) -> tuple[PublicKey, bool]:
    """A key's public half, and whether the private one was at hand."""
    if path.partition(":")[0] in SCHEMES and ":" in path:
        return load_signer(path).public, True
    data = read_input(path)
    private = b"PRIVATE KEY-----" in data
    try:
        if private:
            return PrivateKey.from_pem(data).public, True
        return PublicKey.from_bytes(data), False
    except FormatError as error:
        raise ConfigurationError(f"{path}: {error}") from error
