"""Content codings of what the engine sends.

The engine is asked for `identity`, and digests are over identity bytes. One that
compresses all the same, or a proxy before it that does, is decoded here, so that the
client gets what the digest is about.
"""

import zlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.errors import UpstreamError
from gateway.link import Sink
from gateway.upstream import Pour, UpstreamResponse, too_large

__all__ = ["identity", "read_whole"]

# One read of 64 KiB can inflate a thousandfold; it is handed on in pieces, so that the
# reader's own bound stops a bomb before it is in memory.
_PIECE = 256 * 1024
_GZIP_OR_ZLIB = 47
_DAMAGED = "the engine's compressed answer is damaged"


def identity(response: UpstreamResponse) -> Pour:
    """What gives the body to a sink without its content coding.

    Raises:
        UpstreamError: at once for a coding other than gzip and deflate; while reading
            where the data is not in that coding, or ends within it.
    """
    if not _is_coded(response):
        return response.pour
    pieces = _inflate(response.aiter_raw())

    async def pour(sink: Sink) -> bool:
        """See `UpstreamResponse.pour`."""
        async for piece in pieces:
            if not sink(piece):
                return False
        return True

    return pour


async def read_whole(response: UpstreamResponse, max_bytes: int) -> bytes:
    """The whole body without its content coding.

    Raises:
        UpstreamError: as `identity`; it is larger than `max_bytes`, or broke off.
    """
    if not _is_coded(response):
        return await response.read(max_bytes)
    parts: list[bytes] = []
    size = 0
    async with aclosing(_inflate(response.aiter_raw())) as pieces:
        async for piece in pieces:
            size += len(piece)
            if size > max_bytes:
                raise too_large(max_bytes)
            parts.append(piece)
    return b"".join(parts)


def _is_coded(response: UpstreamResponse) -> bool:
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("gzip", "x-gzip", "deflate"):
        return True
    if coding in ("identity", ""):
        return False
    raise UpstreamError("the engine sent a content coding that it was not asked for")


async def _inflate(chunks: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
    async for chunk in chunks:
        rest, full = chunk, True
        while rest or full:
            try:
                piece = decoder.decompress(rest, _PIECE)
            except zlib.error:
                raise UpstreamError(_DAMAGED) from None
            rest, full = decoder.unconsumed_tail, len(piece) == _PIECE
            if piece:
                yield piece
        if decoder.unused_data:
            raise UpstreamError(_DAMAGED)
    if not decoder.eof:
        raise UpstreamError("the engine's compressed answer is cut off")
