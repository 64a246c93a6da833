"""The line that each request leaves: enough to find it again, nothing that was said."""

import hashlib
import json

import pytest
from fakes.gateway import chat_body, eventually, running_gateway
from fakes.upstream import HANG, Answer, head, json_answer
from fakes.world import ANSWER, TEXT

from gateway.auth import ApiKeys
from gateway.logs import configure_logs

SECRET = "the-secret-question"


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path) as running:
        running.state.log_requests = True
        yield running


@pytest.fixture
def lines(capsys):
    """The request lines that were logged since."""
    configure_logs()

    def read():
        found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [line for line in found if line["event"] == "request"]

    return read


async def test_attested_answer(gateway, lines):
    gateway.engine.answer(json_answer(ANSWER))
    body = chat_body(messages=[{"role": "user", "content": SECRET}])
    response = await gateway.chat(body, headers={"x-request-id": "r-1"})
    [line] = lines()
    assert line["path"] == "/v1/chat/completions"
    assert line["request_id"] == "r-1"
    assert line["status"] == 200
    assert line["outcome"] == "complete"
    assert line["attestation_id"] == response.headers["attestation-id"]
    assert line["answer_bytes"] == len(ANSWER)
    assert line["milliseconds"] >= line["engine_milliseconds"] > 0


async def test_neither_question_nor_answer_nor_key_is_logged(gateway, lines, capsys):
    gateway.engine.answer(json_answer(ANSWER))
    gateway.state.api_keys = ApiKeys({})
    body = chat_body(messages=[{"role": "user", "content": SECRET}], user=SECRET)
    token = (
        await gateway.chat(body, headers={"authorization": f"Bearer {SECRET}"})
    ).headers["attestation"]
    written = capsys.readouterr().out
    for text in (SECRET, TEXT, token):
        assert text not in written


async def test_caller_goes_by_the_name_of_its_key(gateway, lines):
    digest = hashlib.sha256(b"k").digest()
    gateway.state.api_keys = ApiKeys({digest: "team-a"})
    gateway.engine.answer(json_answer(ANSWER))
    await gateway.chat(headers={"authorization": "Bearer k"})
    await gateway.chat(headers={"authorization": "Bearer wrong"})
    known, unknown = lines()
    assert known["caller"] == "team-a"
    assert "caller" not in unknown
    assert (unknown["status"], unknown["outcome"]) == (401, "refused")
    assert unknown["code"] == "authentication"


async def test_passed_answer(gateway, lines):
    gateway.engine.answer(json_answer(b'{"data": []}'))
    await gateway.client.get("/v1/models")
    [line] = lines()
    assert (line["path"], line["status"]) == ("/v1/models", 200)
    assert line["outcome"] == "passed"


async def test_client_that_left(gateway, lines):
    gateway.engine.answer(Answer([head(), HANG]))
    async with gateway.client.stream(
        "POST", "/v1/chat/completions", json=chat_body(stream=True)
    ):
        pass
    await gateway.wait_sealed()
    await eventually(lambda: gateway.state.in_flight == 0)
    [line] = lines()
    assert line["outcome"] == "client_disconnected"


async def test_nothing_is_logged_where_it_is_not_wanted(gateway, lines):
    gateway.state.log_requests = False
    gateway.engine.answer(json_answer(ANSWER))
    await gateway.chat()
    assert lines() == []
