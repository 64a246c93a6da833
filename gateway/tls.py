"""The server's TLS context, which follows its certificate when that is renewed."""

import asyncio
import ssl
from pathlib import Path

from attest.errors import ConfigurationError
from gateway.logs import log
from gateway.settings import TlsSettings

__all__ = ["follow_renewals", "server_context"]

_LOOK_SECONDS = 60.0


def server_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """The context that the settings describe, None where they want no TLS.

    TLS 1.2 at least, Python's own choice of ciphers. With `client_ca` a handshake
    without a certificate by one of these authorities fails. Revocation of client
    certificates is NOT checked.

    Raises:
        ConfigurationError: a file can't be read, or key and certificate are no pair.
    """
    if settings.certificate is None or settings.key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.certificate, settings.key, password=_none)
        if settings.client_ca is not None:
            context.load_verify_locations(settings.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"tls: {settings.certificate}, {settings.key}: "
            f"{getattr(error, 'reason', None) or error.strerror}",
            hint="give a PEM certificate chain and its unencrypted private key",
        ) from error
    return context


def _none() -> str:
    """Stands in for OpenSSL's question on the terminal, which nobody would answer."""
    return ""


async def follow_renewals(
    context: ssl.SSLContext, settings: TlsSettings, seconds: float = _LOOK_SECONDS
) -> None:
    """Load certificate and key anew whenever one of them changes; never returns.

    Connections that stand keep theirs. A pair that can't be loaded is logged, and the
    one before it stays.
    """
    known = _stamps(settings)
    while True:
        await asyncio.sleep(seconds)
        found = _stamps(settings)
        if found == known or settings.certificate is None:
            continue
        known = found
        try:
            context.load_cert_chain(settings.certificate, settings.key, password=_none)
        except (OSError, ssl.SSLError) as error:
            log.error("certificate_not_renewed", reason=type(error).__name__)
        else:
            log.info("certificate_renewed")


def _stamps(settings: TlsSettings) -> list[tuple[int, int] | None]:
    return [
        _stamp(path)
        for path in (settings.certificate, settings.key)
        if path is not None
    ]


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino
