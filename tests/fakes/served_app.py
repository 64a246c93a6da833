"""One ASGI application on a port, with whatever class of connections."""

import asyncio
import re

import uvicorn
from fakes.gateway import eventually

__all__ = ["Served", "post"]

_DATE = re.compile(rb"date: [^\r]*\r\n")


def post(path, body=b"", *fields, version=b"1.1"):
    head = [b"POST %s HTTP/%s" % (path.encode(), version), b"host: x", *fields]
    head.append(b"content-length: %d" % len(body))
    return b"\r\n".join([*head, b"", body])


class Served:
    """One application on a port, with our connections or with uvicorn's."""

    def __init__(self, app, http):
        self.config = uvicorn.Config(
            app, port=0, http=http, log_level="critical", lifespan="off"
        )
        self.server = uvicorn.Server(self.config)

    async def __aenter__(self):
        self.task = asyncio.create_task(self.server._serve())
        await eventually(lambda: self.server.started)
        self.port = self.server.servers[0].sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.should_exit = True
        self.server.force_exit = True
        await self.task

    async def say(self, *writes):
        """All that comes back until the server closes, or has nothing more to say."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for data in writes:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.005)
        writer.write_eof()
        try:
            async with asyncio.timeout(2):
                return _DATE.sub(b"", await reader.read())
        finally:
            writer.close()
