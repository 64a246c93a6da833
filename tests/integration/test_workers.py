"""A gateway whose workers answer: processes for real, in front of a fake engine."""

import asyncio
import os
import signal

import pytest
from fakes.operated import run_command
from fakes.processes import alive
from fakes.served import served, until

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
