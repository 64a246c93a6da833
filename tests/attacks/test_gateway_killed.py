"""kill -9 while it answers: what a client holds is in the store and in the log.

The whole gateway runs in a process of its own, with clients that keep every token from
the moment it arrives, and is killed at a moment that chance chooses. For both stores;
and for the server of one of them, which is killed while the gateway lives on.
"""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from fakes.answers import SPOKEN
from fakes.gateway import eventually, running_gateway
from fakes.log import SignedLog, leaf_of
from fakes.postgres import PostgresServer, needs_postgres
from fakes.upstream import json_answer

from attest.signers.file import write_private_key
from gateway.store.postgres import PostgresStore
from gateway.store.sqlite import SqliteStore
from gateway.tlog.publisher import Publisher

TESTS = Path(__file__).parents[1]
COMMENT = re.compile(rb"^: attestation (\S+)\n", re.MULTILINE)
CLIENTS, ROUNDS = 6, 4


@pytest.fixture(scope="module")
def server():
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture(params=["", pytest.param("postgres", marks=needs_postgres)])
def dsn(request):
    if not request.param:
        return ""
    return request.getfixturevalue("server").new_database("killed")


@pytest.fixture
def chance(request):
    seed = random.randrange(2**32)
    # Shown where it fails.
    request.node.add_report_section("setup", "chance", f"seed {seed}")
    return random.Random(seed)


@pytest.fixture
def log(tmp_path):
    log = SignedLog()
    write_private_key(tmp_path / "log.key.pem", log.key.signer)
    return log


def opened(folder, dsn):
    if dsn:
        return PostgresStore.open(dsn, log=True)
    return SqliteStore.open(folder / "attestations.sqlite", log=True)


async def keep_asking(port, kind, held):
    """Ask until the connection breaks; `held` gets each token as soon as it is here."""
    body = {"model": "tiny", "messages": [], "stream": kind == "stream"}
    address = f"http://127.0.0.1:{port}/v1/chat/completions"
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        with suppress(httpx2.TransportError):
            while True:
                async with client.stream("POST", address, json=body) as response:
                    name = response.headers.get("attestation-id")
                    if "attestation" in response.headers:
                        held[name] = response.headers["attestation"]
                    received = b""
                    async for piece in response.aiter_raw():
                        received += piece
                        if found := COMMENT.search(received):
                            held[name] = found[1].decode()


async def run_and_kill(folder, kind, dsn, seconds):
    """Run a gateway under load and kill it; all tokens that a client then had."""
    process = await asyncio.to_thread(
        subprocess.Popen,
        [sys.executable, "-m", "fakes.killed_gateway", folder, kind, dsn],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
    )
    try:
        port = int(await asyncio.to_thread(process.stdout.readline))
        held = {}
        async with asyncio.TaskGroup() as clients:
            for _ in range(CLIENTS):
                clients.create_task(keep_asking(port, kind, held))
            await eventually(lambda: held)
            await asyncio.sleep(seconds)
            process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.stdout.close()
        assert process.wait() == -signal.SIGKILL
    return held


async def check_held(store, publisher, held):
    """Each token is kept as the client has it, and in the log."""
    await publisher.publish()
    for name, token in held.items():
        found = await store.get(name)
        assert found is not None, f"{name} left and is not kept"
        assert found[0] == token
        proof = await store.log_proof(name)
        proof.verify(leaf_of(token), logs=[publisher.key], witnesses=[])


async def test_gateway_killed_at_any_moment(tmp_path, log, dsn, chance):
    held = {}
    for number in range(ROUNDS):
        kind = ("stream", "body")[number % 2]
        before = len(held)
        held |= await run_and_kill(tmp_path, kind, dsn, chance.uniform(0, 0.5))
        assert len(held) > before
        store = opened(tmp_path, dsn)
        try:
            publisher = Publisher(store, log.key, tmp_path)
            await publisher.restore()
            await check_held(store, publisher, held)
        finally:
            store.close()


@needs_postgres
async def test_database_server_killed_at_any_moment(tmp_path, log, server, chance):
    held = {}
    store = PostgresStore.open(server.new_database("crashed"), log=True)
    async with running_gateway(tmp_path, log=log.key, store=store) as gateway:
        gateway.engine.answer(json_answer(SPOKEN["chat"].body("Hello.")))
        clients = [
            asyncio.create_task(keep_asking(gateway.port, "body", held))
            for _ in range(CLIENTS)
        ]
        for _ in range(2):
            before = len(held)
            await eventually(lambda before=before: len(held) > before)
            await asyncio.sleep(chance.uniform(0, 0.3))
            await asyncio.to_thread(server.crash)
            await asyncio.to_thread(server.start)
        before = len(held)
        await eventually(lambda: len(held) > before)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
        await check_held(store, gateway.state.log, held)
