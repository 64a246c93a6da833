"""An engine on a real socket that answers from a script, and misbehaves on demand.

It speaks HTTP/1.1 by hand, so that it can also break it: cut a chunk, reset, never
answer, compress unasked, go away between two requests on one connection.

    engine.answer(sse(VECTOR))                      # a well-behaved stream
    engine.answer(Answer([head(), chunk(b"data: {"), RESET]))
"""

import asyncio
import contextlib
import gzip
import socket
import struct
from collections import deque
from dataclasses import dataclass, field

__all__ = [
    "CLOSE",
    "HANG",
    "LAST",
    "RESET",
    "Answer",
    "ScriptedEngine",
    "abort_with_reset",
    "chunk",
    "gzipped",
    "head",
    "json_answer",
    "sse",
]

RESET = object()  # end the connection with a TCP reset, or at once on a Unix socket
CLOSE = object()  # end the connection in good order
HANG = object()  # send nothing more, until the other side goes away
LAST = b"0\r\n\r\n"


@dataclass
class Recorded:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Answer:
    """Bytes to write, events to wait for, and how to end, in order."""

    steps: list[object] = field(default_factory=list)


def head(status=200, kind="text/event-stream; charset=utf-8", **fields):
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}"]
    if "content_length" not in fields:
        lines.append("transfer-encoding: chunked")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def sse(*writes, **fields):
    """A stream, one chunk per write, ended in good order."""
    return Answer([head(**fields), *map(chunk, writes), LAST])


def json_answer(body, status=200, kind="application/json", **fields):
    return Answer([head(status, kind, content_length=len(body), **fields), body])


def gzipped(body, **fields):
    return json_answer(gzip.compress(body), content_encoding="gzip", **fields)


def abort_with_reset(writer):
    """Close a connection the hard way: its peer sees a reset, not an end."""
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
    writer.transport.abort()


class ScriptedEngine:
    """Each request takes the next answer; the last one stays."""

    def __init__(self):
        self.requests = []
        self.connections = 0
        self.all_closed = asyncio.Event()
        self._open = 0
        self._answers = deque()
        self._server = None
        self._tasks = set()

    def answer(self, *answers):
        self._answers = deque(answers)

    async def start(self, path):
        self._server = await asyncio.start_unix_server(self._serve, str(path))

    async def stop(self):
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        self._tasks.add(asyncio.current_task())
        self.connections += 1
        self._open += 1
        self.all_closed.clear()
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other side went away, or `stop` was called
        finally:
            self._open -= 1
            if not self._open:
                self.all_closed.set()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self._tasks.discard(asyncio.current_task())

    async def _one(self, reader, writer):
        await self._record(reader)
        answer = self._answers[0]
        if len(self._answers) > 1:
            self._answers.popleft()
        for step in answer.steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif isinstance(step, asyncio.Event):
                await step.wait()
            else:
                await self._end(step, reader, writer)
                return False
        return True

    async def _record(self, reader):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
        method, path, _ = lines[0].split(" ")
        pairs = (line.partition(": ") for line in lines[1:] if line)
        headers = {name.lower(): value for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append(Recorded(method, path, headers, body))

    async def _end(self, step, reader, writer):
        if step is HANG:
            await reader.read()  # returns once the other side has closed
        elif step is RESET:
            abort_with_reset(writer)
