"""A gateway whose workers answer: processes for real, in front of a fake engine."""

import asyncio
import os
import signal

import pytest
from fakes.operated import run_command
from fakes.postgres import PostgresServer, needs_postgres
from fakes.processes import alive
from fakes.served import Gateway, Site, served, until

from attest import disclosures, tokens
from attest.keys import PublicKey

REQUESTS = 60
JWKS = "/.well-known/jwks.json"


@pytest.fixture
async def gateway(tmp_path):
    async with served(tmp_path, workers=2) as (gateway,):
        yield gateway


def boots(claims):
    return {claim["boot"] for claim in claims}


async def many(gateway, count=REQUESTS):
    return [await gateway.ask() for _ in range(count)]


async def test_two_workers_answer_and_one_that_is_killed_comes_back(gateway):
    answers = await many(gateway)
    claims = [await gateway.verified(answer) for answer in answers]
    assert len(boots(claims)) == 2
    # Each boot is a chain of its own, without a gap.
    for boot in boots(claims):
        numbers = [claim["seq"] for claim in claims if claim["boot"] == boot]
        assert sorted(numbers) == list(range(len(numbers)))
    found = await gateway.numbers()
    label = '{endpoint="/v1/chat/completions",outcome="complete"}'
    assert found[f"responses_attested_total{label}"] == REQUESTS
    assert (found["ready"], found["workers_reporting"]) == (1, 2)

    victim, other = gateway.workers()
    os.kill(victim, signal.SIGKILL)
    await until(lambda: not alive(victim))
    # The other goes on meanwhile, and no connection goes to where nobody listens.
    between = await many(gateway, 10)
    assert {answer.status_code for answer in between} == {200}
    await until(lambda: len(gateway.events("ready")) == 3)
    assert other in gateway.workers()
    after = await many(gateway)
    claims = [await gateway.verified(a) for a in (*answers, *between, *after)]
    assert len(boots(claims)) == 3
    keys = [key["kid"] for key in (await gateway.get(JWKS)).json()["keys"]]
    assert len(keys) == 3
    found = await gateway.numbers()
    assert found[f"responses_attested_total{label}"] == len(claims)
    assert (found["workers"], found["workers_reporting"]) == (2, 2)

    await until_logged(gateway, 3 + len(claims))
    code, audit = await asyncio.to_thread(
        run_command,
        *("log", "verify", gateway.url, "--authority", gateway.site.authority),
    )
    assert (code, audit["verdict"]) == (0, "proven")

    processes = [gateway.process.pid, *gateway.workers()]
    assert await gateway.stop() == 0
    assert not [pid for pid in processes if alive(pid)]


async def until_logged(gateway, size):
    """Wait for a checkpoint over so many leaves."""
    async with asyncio.timeout(30):
        while True:
            note = await gateway.get("/log/checkpoint")
            if note.status_code == 200 and int(note.text.splitlines()[1]) >= size:
                return
            await asyncio.sleep(0.1)


async def test_change_shows_in_all_workers_and_in_one_that_comes_later(tmp_path):
    async with served(tmp_path, workers=2, on_change="mark") as (gateway,):
        gateway.site.model.root.joinpath("config.json").write_text("{}")
        await until(lambda: gateway.events("changed"))
        victim, _ = gateway.workers()
        os.kill(victim, signal.SIGKILL)
        await until(lambda: len(gateway.events("ready")) == 3)
        claims = [gateway.claims(answer) for answer in await many(gateway, 30)]
    assert len(boots(claims)) == 2
    assert {claim["weights"]["measured"] for claim in claims} == {"asserted"}
    assert all("changed" in claim["stale"]["reason"] for claim in claims)


async def test_nothing_is_left_when_the_gateway_is_killed(gateway):
    answer = await gateway.ask()
    assert answer.status_code == 200
    workers = gateway.workers()
    assert await gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    await until(lambda: not any(map(alive, workers)), seconds=20)


async def test_gateway_that_is_refused_leaves_no_worker(tmp_path):
    site = Site(tmp_path)
    site.engine.evidence["workers"][0]["loads"][0]["count"] = 9
    await site.engine.start(site.socket)
    gateway = Gateway(site, "state", workers=2)
    gateway.spawn()
    workers = await until(lambda: len(gateway.workers()) == 2 and gateway.workers())
    assert await asyncio.to_thread(gateway.process.wait, 60) == 1
    assert not any(map(alive, workers))
    assert gateway.events("refused")
    await gateway.close()
    await site.engine.stop()


@pytest.fixture
def database(tmp_path):
    """The file with the connection string of a new PostgreSQL database."""
    server = PostgresServer()
    (tmp_path / "dsn").write_text(server.dsn())
    yield str(tmp_path / "dsn")
    server.stop()


@needs_postgres
async def test_four_workers_two_replicas_one_restart(tmp_path, database):
    """200 tokens of eight processes verify against the key set of any after it."""
    shared = {"workers": 4, "postgres_dsn_file": database}
    async with served(tmp_path, replicas=2, **shared) as gateways:
        answers = [await gateways[n % 2].ask() for n in range(200)]
        assert {answer.status_code for answer in answers} == {200}
        assert len(boots(map(gateways[0].claims, answers))) == 8
        for gateway in gateways:
            assert await gateway.stop() == 0
        await asyncio.gather(*(gateway.start() for gateway in gateways))
        for gateway in gateways:
            found = (await gateway.get(JWKS)).json()["keys"]
            assert len(found) == 16
            keys = {key["kid"]: PublicKey.from_jwk(key) for key in found}
            for answer in answers:
                token, _ = disclosures.split(answer.headers["attestation"])
                parsed = tokens.parse(token, typ="inference-attestation+jwt")
                tokens.verify(parsed, keys[parsed.kid])
        # Each key is certified: offline, from the evidence that either of them has.
        for number, answer in enumerate(answers):
            await gateways[0].verified(answer, gateways[(number // 2) % 2])
