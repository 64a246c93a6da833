import os
import socket
import subprocess
import sys

import pytest
from fakes.upstream import ScriptedEngine, json_answer

from gateway.engine.address import Address
from gateway.engine.client import EngineClient
from gateway.engine.peer import inner_pid, is_descendant, peer_of, start_time
from gateway.errors import EngineDiedError, UpstreamDownError
from gateway.settings import load_settings
from gateway.upstream import HttpUpstream


def test_peer_is_this_process():
    left, right = socket.socketpair()
    with left, right:
        peer = peer_of(left)
    assert (peer.pid, peer.uid) == (os.getpid(), os.getuid())
    assert peer.started == start_time(os.getpid()) > 0
    assert inner_pid(peer.pid) == peer.pid


def test_process_that_is_gone_has_no_start():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert start_time(child.pid) == 0
    assert not is_descendant(child.pid, os.getpid())
    assert inner_pid(child.pid) == child.pid


def test_descendants():
    assert is_descendant(os.getpid(), os.getppid())
    assert is_descendant(os.getpid(), os.getpid())
    assert not is_descendant(os.getppid(), os.getpid())
    assert not is_descendant(0, 0)


@pytest.mark.parametrize(
    ("text", "base_url", "path"),
    [
        ("http://host:8000/", "http://host:8000", None),
        ("https://host/vllm", "https://host/vllm", None),
        ("unix:/run/engine.sock", "http://engine", "/run/engine.sock"),
    ],
)
def test_address(text, base_url, path):
    address = Address.parse(text)
    assert address.base_url == base_url
    assert (address.socket and str(address.socket)) == path
    assert str(address) == text.rstrip("/")
    assert address.tls == text.startswith("https")


@pytest.mark.parametrize(
    "text", ["host:8000", "unix:engine.sock", "http://user@host", "http://h/?q", "ftp:"]
)
def test_unusable_address(text):
    with pytest.raises(Exception, match="upstream"):
        load_settings({"authority": ["a"], "signer": "file:k", "upstream": text})


async def test_client_asks_whoever_listens_now(tmp_path):
    path = tmp_path / "e.sock"
    client = EngineClient(Address.of_socket(path))
    with pytest.raises(EngineDiedError):
        await client.peer()
    engine = ScriptedEngine()
    await engine.start(path)
    engine.answer(json_answer(b'{"version":"1"}'), json_answer(b"{}", 404))
    assert (await client.peer()).pid == os.getpid()
    assert await client.object("/version") == {"version": "1"}
    assert await client.object("/version") is None
    await engine.stop()
    with pytest.raises(EngineDiedError, match="no evidence"):
        await client.object("/version")


async def test_no_peer_over_tcp():
    assert await EngineClient(Address.parse("http://127.0.0.1:1")).peer() is None


async def test_connection_to_another_process_is_not_used(tmp_path):
    """It looks as if the engine had been restarted: same user, another start."""
    engine = ScriptedEngine()
    await engine.start(tmp_path / "e.sock")
    mine = await EngineClient(Address.of_socket(tmp_path / "e.sock")).peer()
    other = type(mine)(mine.pid, mine.uid, mine.started - 1)
    engine.answer(json_answer(b"{}"))
    for peer, status in ((mine, 200), (other, None)):
        upstream = HttpUpstream(uds=str(tmp_path / "e.sock"), peer=peer)
        call = upstream.open("POST", "/x", headers={}, body=b"secret")
        if status is None:
            with pytest.raises(UpstreamDownError, match="another process"):
                await call
        else:
            response = await call
            assert response.status == status
            await response.aclose()
        await upstream.aclose()
    assert len(engine.requests) == 1
    await engine.stop()
