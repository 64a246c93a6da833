"""How people ask with the OpenAI and Anthropic SDKs, and read the text that comes.

`CALLS` has a row for each way: the dialect, and whether the answer is a stream.
"""

import asyncio

from fakes.answers import SPOKEN
from fakes.upstream import json_answer, sse

__all__ = [
    "CALLS",
    "USER",
    "answer_of",
    "async_message",
    "async_message_stream",
    "message",
    "message_stream",
    "run",
]

USER = [{"role": "user", "content": "hello"}]


def chat(client):
    answer = client.chat.completions.create(model="tiny", messages=USER)
    return answer.choices[0].message.content


def chat_stream(client):
    chunks = client.chat.completions.create(model="tiny", messages=USER, stream=True)
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def chat_helper(client):
    with client.chat.completions.stream(model="tiny", messages=USER) as stream:
        return stream.get_final_completion().choices[0].message.content


def completion(client):
    return client.completions.create(model="tiny", prompt="hello").choices[0].text


def completion_stream(client):
    chunks = client.completions.create(model="tiny", prompt="hello", stream=True)
    return "".join(chunk.choices[0].text for chunk in chunks)


def response(client):
    return client.responses.create(model="tiny", input="hello").output_text


def response_stream(client):
    events = client.responses.create(model="tiny", input="hello", stream=True)
    return "".join(e.delta for e in events if e.type == "response.output_text.delta")


def response_helper(client):
    with client.responses.stream(model="tiny", input="hello") as stream:
        return stream.get_final_response().output_text


def message(client):
    answer = client.messages.create(model="tiny", max_tokens=8, messages=USER)
    return answer.content[0].text


def message_stream(client):
    events = client.messages.create(
        model="tiny", max_tokens=8, messages=USER, stream=True
    )
    return "".join(e.delta.text for e in events if e.type == "content_block_delta")


def message_helper(client):
    with client.messages.stream(model="tiny", max_tokens=8, messages=USER) as stream:
        return stream.get_final_text()


async def async_chat(client):
    answer = await client.chat.completions.create(model="tiny", messages=USER)
    return answer.choices[0].message.content


async def async_chat_stream(client):
    chunks = await client.chat.completions.create(
        model="tiny", messages=USER, stream=True
    )
    return "".join([c.choices[0].delta.content or "" async for c in chunks])


async def async_completion_stream(client):
    chunks = await client.completions.create(model="tiny", prompt="hello", stream=True)
    return "".join([chunk.choices[0].text async for chunk in chunks])


async def async_response(client):
    return (await client.responses.create(model="tiny", input="hello")).output_text


async def async_response_stream(client):
    events = await client.responses.create(model="tiny", input="hello", stream=True)
    texts = [e.delta async for e in events if e.type == "response.output_text.delta"]
    return "".join(texts)


async def async_message(client):
    answer = await client.messages.create(model="tiny", max_tokens=8, messages=USER)
    return answer.content[0].text


async def async_message_stream(client):
    events = await client.messages.create(
        model="tiny", max_tokens=8, messages=USER, stream=True
    )
    texts = [e.delta.text async for e in events if e.type == "content_block_delta"]
    return "".join(texts)


async def async_message_helper(client):
    async with client.messages.stream(
        model="tiny", max_tokens=8, messages=USER
    ) as stream:
        return await stream.get_final_text()


CALLS = {
    chat: ("chat", False),
    chat_stream: ("chat", True),
    chat_helper: ("chat", True),
    completion: ("completions", False),
    completion_stream: ("completions", True),
    response: ("responses", False),
    response_stream: ("responses", True),
    response_helper: ("responses", True),
    message: ("messages", False),
    message_stream: ("messages", True),
    message_helper: ("messages", True),
    async_chat: ("chat", False),
    async_chat_stream: ("chat", True),
    async_completion_stream: ("completions", True),
    async_response: ("responses", False),
    async_response_stream: ("responses", True),
    async_message: ("messages", False),
    async_message_stream: ("messages", True),
    async_message_helper: ("messages", True),
}


async def run(clients, call):
    """The text. `clients` makes them: openai, async_openai and so on."""
    is_async, dialect = asyncio.iscoroutinefunction(call), CALLS[call][0]
    name = "anthropic" if dialect == "messages" else "openai"
    if is_async:
        async with getattr(clients, f"async_{name}")() as client:
            return await call(client)

    def sync():
        with getattr(clients, name)() as client:
            return call(client)

    return await asyncio.to_thread(sync)


def answer_of(call, text="Hello."):
    """What the engine answers to a row."""
    dialect, streamed = CALLS[call]
    spoken = SPOKEN[dialect]
    return sse(*spoken.events(text)) if streamed else json_answer(spoken.body(text))
