"""The channel between a gateway and a worker: a Unix socket pair.

Each message is its length in four bytes, big endian, and that many bytes of JSON, read
strictly. Whoever gets anything else ends the channel; its end is a worker's end.
"""

import asyncio
import json
import socket
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from attest.canonical import MAX_DEPTH, read_object
from attest.errors import FormatError

__all__ = ["MAX_MESSAGE", "Channel", "FrameReader", "frame"]

T = TypeVar("T")

MAX_MESSAGE = 32 * 1024 * 1024
"""A manifest of 8 MiB and evidence of 4 MiB, with room for escapes."""

_LENGTH = 4
_PIECE = 256 * 1024


def frame(message: BaseModel) -> bytes:
    """A message as it is sent.

    Raises:
        FormatError: it is too large.
        ValueError: it holds a number that JSON can't.
    """
    data = json.dumps(message.model_dump(), allow_nan=False).encode()
    if len(data) > MAX_MESSAGE:
        raise FormatError(f"channel: a message of {len(data)} bytes is not sent")
    return len(data).to_bytes(_LENGTH) + data


class FrameReader:
    """Takes bytes as they come and gives messages that are whole."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The JSON of each message that ends in `data`.

        Raises:
            FormatError: a message announces more than 32 MiB; feed no more then.
        """
        self._data += data
        found = []
        while len(self._data) >= _LENGTH:
            size = int.from_bytes(self._data[:_LENGTH])
            if size > MAX_MESSAGE:
                raise FormatError(f"channel: a message announces {size} bytes")
            end = _LENGTH + size
            if len(self._data) < end:
                break
            found.append(bytes(self._data[_LENGTH:end]))
            del self._data[:end]
        return found


class Channel(Generic[T]):
    """One end of a channel, on which messages of the kinds in `T` arrive."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        kinds: TypeAdapter[T],
    ) -> None:
        self._reader, self._writer, self._kinds = reader, writer, kinds
        self._frames = FrameReader()
        self._ready: list[bytes] = []

    @classmethod
    async def over(cls, end: socket.socket, kinds: Any) -> "Channel[T]":
        """The channel whose end this socket is; it is the channel's from here on."""
        reader, writer = await asyncio.open_unix_connection(sock=end)
        return cls(reader, writer, TypeAdapter(kinds))

    def send(self, message: BaseModel) -> None:
        """Send a message; where nobody listens any more it is dropped."""
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    async def receive(self) -> T | None:
        """The next message, None at the channel's end. Not for two tasks at once.

        Raises:
            FormatError: what came is no message of these kinds; the channel is over.
        """
        while not self._ready:
            try:
                data = await self._reader.read(_PIECE)
            except OSError:
                data = b""
            if not data:
                return None
            # Pops from its end.
            self._ready = self._frames.feed(data)[::-1]
        value = read_object(
            self._ready.pop(), max_bytes=MAX_MESSAGE, max_depth=2 * MAX_DEPTH
        )
        try:
            return self._kinds.validate_python(value)
        except ValidationError as error:
            # The values themselves stay out of the message.
            where = {".".join(map(str, item["loc"])) for item in error.errors()}
            raise FormatError(
                f"channel: not a message: {', '.join(sorted(where))}"
            ) from None

    def close(self) -> None:
        """End it; what was sent still arrives."""
        self._writer.close()

    async def closed(self) -> None:
        """Return once it has, after `close`.

        Raises:
            OSError: it did not, since nobody listens any more.
        """
        await self._writer.wait_closed()
