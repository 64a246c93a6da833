"""TLS of the gateway's own port: handshakes with real sockets."""

import asyncio
import contextlib
import shutil
import ssl
import time

import httpx2
import pytest
import trustme
from fakes.gateway import eventually
from fakes.model import sign_directory

from attest.errors import ConfigurationError
from gateway.server import _Process
from gateway.settings import TlsSettings, load_settings
from gateway.tls import follow_renewals, server_context


class Authority:
    """A certificate authority, and what it issued, as files."""

    def __init__(self, folder):
        self.folder, self.ca = folder, trustme.CA()
        folder.mkdir(exist_ok=True)
        self.ca.cert_pem.write_to_path(str(folder / "ca.pem"))

    def issue(self, name):
        leaf = self.ca.issue_cert("127.0.0.1", "localhost")
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        leaf.private_key_pem.write_to_path(str(key))
        certificate.write_bytes(b"".join(p.bytes() for p in leaf.cert_chain_pems))
        return certificate, key

    def client(self, pair=None, **options):
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        if pair:
            context.load_cert_chain(*pair)
        for name, value in options.items():
            setattr(context, name, value)
        return context


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "ca")


@pytest.fixture
def settings(authority):
    certificate, key = authority.issue("server")
    return TlsSettings(certificate=certificate, key=key)


async def shake(server_side, client_side):
    """Serial number of the server's certificate, after one handshake and a byte."""

    async def serve(reader, writer):
        with contextlib.suppress(OSError):
            writer.write(await reader.read(1))
        await shut(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    async with server:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_side
        )
        try:
            writer.write(b"x")
            if await reader.read(1) != b"x":
                raise ConnectionResetError
            return writer.get_extra_info("peercert")["serialNumber"]
        finally:
            await shut(writer)


async def shut(writer):
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def test_handshake(authority, settings):
    assert await shake(server_context(settings), authority.client())


async def test_older_than_tls_1_2_is_refused(authority, settings):
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old = authority.client(maximum_version=ssl.TLSVersion.TLSv1_1)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shake(server_context(settings), old)


async def test_client_without_a_certificate_is_refused_under_mtls(authority, settings):
    mutual = settings.model_copy(update={"client_ca": authority.folder / "ca.pem"})
    context = server_context(mutual)
    assert await shake(context, authority.client(authority.issue("client")))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shake(context, authority.client())


async def test_client_of_another_authority_is_refused_under_mtls(
    authority, settings, tmp_path
):
    mutual = settings.model_copy(update={"client_ca": authority.folder / "ca.pem"})
    stranger = Authority(tmp_path / "other").issue("client")
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await shake(server_context(mutual), authority.client(stranger))


async def test_renewed_certificate_is_served_and_a_broken_one_is_not(
    authority, settings
):
    context = server_context(settings)
    following = asyncio.create_task(follow_renewals(context, settings, 0.01))
    before = await shake(context, authority.client())
    settings.certificate.write_text("broken")
    await asyncio.sleep(0.1)
    assert await shake(context, authority.client()) == before
    for old, new in zip(
        (settings.certificate, settings.key), authority.issue("next"), strict=True
    ):
        shutil.move(new, old)
    async with asyncio.timeout(5):
        while await shake(context, authority.client()) == before:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    following.cancel()


def test_no_certificate_is_no_tls():
    assert server_context(TlsSettings()) is None


def test_files_that_are_no_pair(authority, settings):
    other = authority.issue("other")[1]
    with pytest.raises(ConfigurationError, match="tls"):
        server_context(settings.model_copy(update={"key": other}))


def test_missing_file_is_named(settings, tmp_path):
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigurationError, match=r"missing\.pem"):
        server_context(settings.model_copy(update={"certificate": missing}))


@pytest.mark.parametrize(
    "tls", [{"certificate": "c.pem"}, {"key": "k.pem"}, {"client_ca": "ca.pem"}]
)
def test_half_of_a_setting_is_refused(tls, tmp_path):
    with pytest.raises(ConfigurationError, match="tls"):
        load_settings(
            {
                "model": tmp_path,
                "authority": [tmp_path],
                "signer": "file:x",
                "tls": tls,
            }
        )


async def test_gateway_listens_with_tls_alone(tmp_path, authority, settings):
    model = sign_directory(tmp_path / "model", now=int(time.time()))
    model.write_keys(tmp_path)
    process = _Process(
        load_settings(
            {
                "model": model.root,
                "authority": [tmp_path / "authority.pem"],
                "signer": f"file:{tmp_path / 'issuer.pem'}",
                "upstream": f"unix:{tmp_path / 'absent.sock'}",
                "state_dir": tmp_path / "state",
                "port": 0,
                "tls": settings.model_dump(),
            }
        )
    )
    running = asyncio.create_task(process.run())
    await eventually(lambda: process._servers[0][0].started)
    port = process._servers[0][1].getsockname()[1]
    async with httpx2.AsyncClient(trust_env=False, verify=authority.client()) as client:
        answer = await client.get(f"https://127.0.0.1:{port}/healthz")
        assert answer.status_code == 200
        with pytest.raises(httpx2.TransportError):
            await client.get(f"http://127.0.0.1:{port}/healthz")
    process._stop()
    assert await running == 0
