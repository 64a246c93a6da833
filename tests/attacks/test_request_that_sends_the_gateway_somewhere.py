"""Addresses in a request: the gateway fetches nothing, whoever asks it to."""

import asyncio
import json

import pytest
from fakes.gateway import chat_body, running_gateway
from fakes.upstream import json_answer
from fakes.world import ANSWER


@pytest.fixture
async def gateway(tmp_path):
    async with running_gateway(tmp_path) as running:
        running.engine.answer(json_answer(ANSWER))
        yield running


@pytest.fixture
async def elsewhere():
    """The address of a server beside the gateway, and who came to it."""
    visits = []

    async def visit(reader, writer):
        visits.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(visit, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x", visits


def pictured(url):
    part = {"type": "image_url", "image_url": {"url": url}}
    return chat_body(messages=[{"role": "user", "content": [part]}])


def told(url):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"$ref": url}}}
    return chat_body(tools=[tool])


def shaped(url):
    form = {
        "type": "json_schema",
        "json_schema": {"name": "s", "schema": {"$ref": url}},
    }
    return chat_body(response_format=form)


@pytest.mark.parametrize("ask", [pictured, told, shaped])
async def test_nobody_comes_to_an_address_in_a_request(gateway, elsewhere, ask):
    url, visits = elsewhere
    body = ask(url)
    response = await gateway.chat(body)
    await gateway.verify(response)
    assert visits == []
    # What the engine makes of it is the engine's: it gets the very bytes.
    (request,) = gateway.engine.requests
    assert json.loads(request.body) == body


async def test_nor_to_one_in_an_answer_or_in_a_header(gateway, elsewhere):
    url, visits = elsewhere
    gateway.engine.answer(json_answer(b"", 307, location=url, link=f"<{url}>"))
    response = await gateway.chat(headers={"referer": url, "origin": url})
    assert visits == []
    assert "location" not in response.headers
