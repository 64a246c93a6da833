"""Content codings of what the engine sends.

The engine is asked for `identity`, and digests are over identity bytes. One that
compresses all the same, or a proxy before it that does, is decoded here, so that the
client gets what the digest is about.
"""

import zlib
from collections.abc import AsyncGenerator

from gateway.errors import UpstreamError
from gateway.upstream import UpstreamResponse

__all__ = ["identity"]

# One read of 64 KiB can inflate a thousandfold; it is handed on in pieces, so that the
# reader's own bound stops a bomb before it is in memory.
_PIECE = 256 * 1024
_GZIP_OR_ZLIB = 47
_DAMAGED = "the engine's compressed answer is damaged"


def identity(response: UpstreamResponse) -> AsyncGenerator[bytes]:
    """The body without its content coding, piece by piece.

    Raises:
        UpstreamError: at once for a coding other than gzip and deflate; while reading
            where the data is not in that coding, or ends within it.
    """
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("identity", ""):
        return response.aiter_raw()
    if coding in ("gzip", "x-gzip", "deflate"):
        return _inflate(response.aiter_raw())
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
