"""An engine for the bench: answers at once, in vLLM's shapes, at next to no cost.

    python bench/gateway/engine.py PORT

What to answer stands in the request's text: `bench json` for a body of 1 kB,
`bench sse TOKENS DELAY_MS` for a stream. Each token is the time at which it was
written, so that whoever reads it knows how long it was on its way.
"""

import asyncio
import re
import sys
import time

import uvloop

__all__ = ["BODY", "EMBEDDINGS", "EVENT", "FIRST", "LAST", "start"]

_ASKED = re.compile(rb"bench (json|embed|sse (\d+) (\d+))")
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_ENVELOPE = (
    b'{"id":"chatcmpl-0123456789abcdef","object":"chat.completion%s",'
    b'"created":1764100000,"model":"tiny","choices":[{"index":0,%s}]'
)
_DELTA = b'"delta":{%s},"logprobs":null,"finish_reason":%s'


def _event(delta: bytes, reason: bytes = b"null") -> bytes:
    inner = _DELTA % (delta, reason)
    return b"data: " + _ENVELOPE % (b".chunk", inner) + b"}\n\n"


FIRST = _event(b'"role":"assistant","content":""')
EVENT = _event(b'"content":"%s "')
LAST = _event(b"", b'"stop"') + b"data: [DONE]\n\n"

_MESSAGE = b'"message":{"role":"assistant","content":"%s"},"finish_reason":"stop"'
_USAGE = b',"usage":{"prompt_tokens":21,"completion_tokens":7,"total_tokens":28}}'
_EMPTY = len(_ENVELOPE % (b"", _MESSAGE % b"") + _USAGE)
BODY = _ENVELOPE % (b"", _MESSAGE % (b"x" * (1024 - _EMPTY))) + _USAGE

# 1 MB: 48 vectors of 1,024 numbers.
_NUMBERS = b",".join(b"%.17f" % ((n * 7919 % 20011) / 20011 - 0.5) for n in range(1024))
_VECTOR = b'{"index":%d,"object":"embedding","embedding":[' + _NUMBERS + b"]}"
EMBEDDINGS = (
    b'{"id":"embd-0123456789abcdef","object":"list","created":1764100000,'
    b'"model":"tiny","data":[%b],"usage":{"prompt_tokens":480,"total_tokens":480,'
    b'"completion_tokens":0}}' % b",".join(_VECTOR % n for n in range(48))
)


def _json(body: bytes) -> bytes:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    return head + b"content-length: %d\r\n\r\n" % len(body) + body


_ANSWERS = {b"json": _json(BODY), b"embed": _json(EMBEDDINGS)}
_STREAM = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


class _Engine(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, b""
        self.timer: asyncio.TimerHandle | None = None

    def connection_lost(self, _: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self.buffer, 0, end)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self.buffer) < whole:
            return
        request, self.buffer = self.buffer[:whole], self.buffer[whole:]
        asked = _ASKED.search(request, end)
        if asked is None or asked[2] is None:
            self.transport.write(_ANSWERS[asked[1] if asked else b"json"])
            return
        self.left, self.delay = int(asked[2]), int(asked[3]) / 1000
        self.transport.write(_STREAM + _chunk(FIRST))
        self.due = asyncio.get_running_loop().time() + self.delay
        self._later()

    def _later(self) -> None:
        loop = asyncio.get_running_loop()
        if self.delay:
            self.timer = loop.call_at(self.due, self._token)
        else:
            self.timer = loop.call_soon(self._token)

    def _token(self) -> None:
        if not self.left:
            self.transport.write(_chunk(LAST) + b"0\r\n\r\n")
            return
        self.left -= 1
        self.due += self.delay
        stamp = b"%016d" % time.monotonic_ns()
        self.transport.write(_chunk(EVENT % stamp))
        self._later()


async def start(port: int) -> None:
    """Serve on a port of this machine until cancelled."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Engine, "127.0.0.1", port, backlog=8192)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(start(int(sys.argv[1])))
