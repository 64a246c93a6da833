"""What clients see while the ground under a serving gateway gives way, and afterwards.

The gateway is whole and real but for its engine. The disk is full for the kernel, too,
and the database is a real server's. Never is an answer handed on without its record,
never is the log shorter than what was shown, and it all goes on once the fault is gone.
"""

import asyncio
import contextlib
import json
import os
import resource
import subprocess
import time

import httpx2
import pytest
from fakes.answers import SPOKEN
from fakes.gateway import chat_body, eventually, running_gateway
from fakes.log import SignedLog, leaf_of
from fakes.postgres import PostgresServer, needs_postgres
from fakes.upstream import Answer, chunk, head, json_answer, sse

from attest.delivery import split_stream
from gateway.errors import StartupRefusedError, StoreError
from gateway.store.log import log_size
from gateway.store.postgres import PostgresStore
from gateway.store.sqlite import SqliteStore
from gateway.tlog.publisher import Publisher

SAID = "an unmistakable answer"
BODY = SPOKEN["chat"].body(SAID)
EVENTS = SPOKEN["chat"].events(SAID)
DONE = EVENTS[-1]


async def good_answer(gateway):
    """One that is proven; the id of its attestation."""
    gateway.engine.answer(json_answer(BODY))
    response = await gateway.chat()
    await gateway.verify(response)
    return response.headers["attestation-id"]


async def gather(response, pieces):
    async for piece in response.aiter_raw():
        pieces.append(piece)


async def broken_stream(gateway):
    """All bytes of a stream that must break off."""
    request = gateway.client.build_request(
        "POST", "/v1/chat/completions", json=chat_body(stream=True)
    )
    response = await gateway.client.send(request, stream=True)
    pieces = []
    with pytest.raises(httpx2.RemoteProtocolError, match="peer closed connection"):
        await gather(response, pieces)
    await response.aclose()
    return b"".join(pieces)


async def check_withheld(gateway):
    """No answer without a record: bodies are kept back, streams do not end well."""
    gateway.engine.answer(json_answer(BODY))
    response = await gateway.chat()
    assert response.status_code == 503
    assert set(json.loads(response.content)["error"]) >= {"message", "type", "code"}
    assert SAID not in response.text
    assert not {"attestation", "attestation-id"} & set(response.headers)
    response = await gateway.chat(b"{")
    assert response.status_code == 503
    gateway.engine.answer(sse(*EVENTS))
    received = await broken_stream(gateway)
    assert DONE not in received
    assert split_stream(received)[1] is None
    assert gateway.state.in_flight == 0
    assert gateway.attester.open_count == 0
    told = await gateway.client.get("/readyz")
    assert told.status_code == 503
    assert told.json()["progress"] == "attestations cannot be kept"


async def check_ready_again(gateway):
    """Without a request: a load balancer sends none to who is not ready."""
    async with asyncio.timeout(20):
        while (await gateway.client.get("/readyz")).status_code != 200:
            await asyncio.to_thread(time.sleep, 0.05)


async def check_log(gateway, kept):
    """Each record that was handed out is in the log, under the head of now."""
    await gateway.state.log.publish()
    for name in kept:
        bundle = await gateway.attester.bundle(name)
        found = bundle.log.verify(
            leaf_of(bundle.token), logs=[gateway.state.log.key], witnesses=[]
        )
        assert found.checkpoint.size <= gateway.state.log.head.size


# A full disk.


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte. Gives its folder and how to fill and free it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if os.geteuid() or subprocess.run(command, check=False).returncode:
        pytest.skip("needs the right to mount")
    filler = folder / "filler"

    def fill():
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1024))

    yield folder, fill, filler.unlink
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def small_files(tmp_path):
    """A limit on how large files may grow, for those who may not mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        sizes = [path.stat().st_size for path in folder.glob("*.sqlite*")]
        resource.setrlimit(resource.RLIMIT_FSIZE, (max(sizes), before[1]))

    def free():
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    yield folder, fill, free
    free()


@pytest.mark.parametrize("kind", ["small_disk", "small_files"])
async def test_full_disk(request, kind):
    folder, fill, free = request.getfixturevalue(kind)
    log = SignedLog()
    async with running_gateway(folder, log=log.key) as gateway:
        kept = [await good_answer(gateway)]
        await gateway.state.log.publish()
        shown = gateway.state.log.head
        fill()
        # What the database had allotted before is used up first.
        for _ in range(500):
            gateway.engine.answer(json_answer(BODY))
            response = await gateway.chat()
            if response.status_code != 200:
                break
            await gateway.verify(response)
            kept.append(response.headers["attestation-id"])
        await check_withheld(gateway)
        assert (await gateway.attester.bundle(kept[0])).token
        with contextlib.suppress(StoreError, OSError):
            await gateway.state.log.publish()
        assert gateway.state.log.head.size >= shown.size
        free()
        await check_ready_again(gateway)
        kept.append(await good_answer(gateway))
        await check_log(gateway, kept)
    # And a later start finds the log as it was signed.
    store = SqliteStore.open(folder / "attestations.sqlite", log=True)
    await Publisher(store, log.key, folder).restore()
    assert store.log.size == len(kept) + 1
    store.close()


# A database that goes away.


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    yield server
    server.stop()


@needs_postgres
async def test_database_server_that_is_killed_in_a_stream(server, tmp_path):
    store = PostgresStore.open(server.new_database("killed"), log=True)
    log = SignedLog()
    async with running_gateway(tmp_path, log=log.key, store=store) as gateway:
        kept = [await good_answer(gateway)]
        more = asyncio.Event()
        steps = [head(), chunk(EVENTS[0]), more, *map(chunk, EVENTS[1:])]
        gateway.engine.answer(Answer(steps))
        stream = asyncio.create_task(broken_stream(gateway))
        await eventually(lambda: gateway.attester.open_count)
        await asyncio.to_thread(server.crash)
        try:
            more.set()
            received = await stream
            assert EVENTS[0] in received
            assert DONE not in received
            assert split_stream(received)[1] is None
            await check_withheld(gateway)
            path = f"/v1/attestations/{kept[0]}"
            assert (await gateway.client.get(path)).status_code == 503
        finally:
            await asyncio.to_thread(server.start)
        await check_ready_again(gateway)
        kept.append(await good_answer(gateway))
        await check_log(gateway, kept)


@needs_postgres
async def test_database_server_that_is_frozen(server, tmp_path, monkeypatch):
    """It takes everything and answers nothing: whoever waits is told in the end."""
    store = PostgresStore.open(server.new_database("frozen"), log=True)
    monkeypatch.setattr(store.deadlines, "seconds", 0.5)
    log = SignedLog()
    async with running_gateway(tmp_path, log=log.key, store=store) as gateway:
        kept = [await good_answer(gateway)]
        with server.frozen():
            await check_withheld(gateway)
            path = f"/v1/attestations/{kept[0]}"
            assert (await gateway.client.get(path)).status_code == 503
        monkeypatch.undo()
        await check_ready_again(gateway)
        kept.append(await good_answer(gateway))
        # What was withheld may have been written after all; the log knows of it.
        await check_log(gateway, kept)
        assert await store.read(log_size) == store.log.size


@needs_postgres
async def test_database_that_is_dropped(server, tmp_path):
    """An empty one in its place is never taken for the log that it replaces."""
    dsn, log = server.new_database("dropped"), SignedLog()
    store = PostgresStore.open(dsn, log=True)
    async with running_gateway(tmp_path, log=log.key, store=store) as gateway:
        await good_answer(gateway)
        await gateway.state.log.publish()
        server.new_database("dropped")
        await check_withheld(gateway)
        await check_withheld(gateway)
    store = PostgresStore.open(dsn, log=True)
    try:
        with pytest.raises(StartupRefusedError, match="were signed"):
            await Publisher(store, log.key, tmp_path).restore()
    finally:
        store.close()
