import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.coding import identity, read_whole
from gateway.errors import UpstreamError

ENCODE = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}


class Response:
    def __init__(self, coding, *chunks):
        self.status = 200
        self.headers = {} if coding is None else {"content-encoding": coding}
        self._chunks = list(chunks)

    async def aiter_raw(self):
        while self._chunks:
            yield self._chunks.pop(0)

    async def pour(self, sink):
        while self._chunks:
            if not sink(self._chunks.pop(0)):
                return False
        return True

    async def read(self, max_bytes):
        return b"".join(self._chunks)

    async def aclose(self):
        pass


async def poured(coding, *chunks, at_once=True):
    """The pieces, for a sink that takes all of them or one at a time."""
    pour, pieces = identity(Response(coding, *chunks)), []

    def sink(piece):
        pieces.append(piece)
        return at_once

    while not await pour(sink):
        assert not at_once
    return pieces


async def decoded(coding, *chunks):
    """What all ways of reading say that this is."""
    whole = await read_whole(Response(coding, *chunks), 10_000)
    for at_once in (True, False):
        assert b"".join(await poured(coding, *chunks, at_once=at_once)) == whole
    return whole


@pytest.mark.parametrize("coding", [None, "identity", "", " Identity "])
async def test_identity(coding):
    assert await decoded(coding, b"\x1f\x8b", b"x") == b"\x1f\x8bx"


@pytest.mark.parametrize("coding", ENCODE)
@given(data=st.binary(max_size=2000), size=st.integers(1, 40))
async def test_any_chunks(coding, data, size):
    raw = ENCODE[coding](data)
    chunks = [raw[i : i + size] for i in range(0, len(raw), size)]
    assert await decoded(coding, *chunks) == data


async def test_bomb_comes_in_bounded_pieces():
    raw = gzip.compress(b"\0" * 10_000_000)
    pieces = list(map(len, await poured("gzip", raw)))
    assert max(pieces) <= 256 * 1024
    assert sum(pieces) == 10_000_000


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "x"])
def test_other_coding_is_refused(coding):
    with pytest.raises(UpstreamError, match="content coding"):
        identity(Response(coding))


async def test_bomb_is_not_read_beyond_its_bound():
    raw = gzip.compress(b"\0" * 10_000)
    assert len(await read_whole(Response("gzip", raw), 10_000)) == 10_000
    with pytest.raises(UpstreamError, match="larger than 9999 bytes"):
        await read_whole(Response("gzip", raw), 9_999)


@pytest.mark.parametrize("raw", [b"plain", b"", gzip.compress(b"x")[:-4]])
async def test_damaged_or_cut_off(raw):
    with pytest.raises(UpstreamError, match=r"damaged|cut off"):
        await decoded("gzip", raw)


@pytest.mark.parametrize("tail", [b"tail", gzip.compress(b"b")])
async def test_data_after_the_end_is_refused(tail):
    with pytest.raises(UpstreamError, match="damaged"):
        await decoded("gzip", gzip.compress(b"a") + tail)
    with pytest.raises(UpstreamError, match="damaged"):
        await decoded("gzip", gzip.compress(b"a"), tail)
