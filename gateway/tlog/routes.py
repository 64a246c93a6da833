"""Routes by which anybody follows the log (C2SP tlog-tiles), and an auditor reads it.

Checkpoint, tiles and entries are public: they are hashes. What the hashes stand for,
tokens without their disclosures, is served to holders of an API key alone: it says when
answers were given, with how many tokens and under which system prompt.
"""

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from attest.digests import from_hex
from attest.errors import FormatError
from attest.log.note import Note
from attest.log.tiles import Tile, encode_entries, parse_path
from gateway import headers
from gateway.errors import UnknownEndpointError
from gateway.state import AppState
from gateway.store.log import read_entries, read_records, read_tile
from gateway.store.records import RecordStore
from gateway.tlog.follower import Follower

__all__ = ["log_router"]

_FOREVER = {"cache-control": "public, max-age=31536000, immutable"}
_PRIVATE = {"cache-control": "private, no-store"}
# A tree of 2^63 leaves has no hash above level 7.
_LEVELS = frozenset("01234567")


def log_router(state: AppState) -> APIRouter:
    """The routes; without a log each of them is 404."""
    router = APIRouter(prefix="/log")
    _add_public_routes(router, state)
    _add_record_routes(router, state)
    return router


async def _current(state: AppState) -> tuple[Follower, Note]:
    publisher = state.log
    if publisher is not None:
        await publisher.refresh()
    if publisher is None or publisher.note is None:
        raise UnknownEndpointError(
            "this gateway keeps no log, or has not signed one yet",
            hint="the setting log_key turns it on",
        )
    return publisher, publisher.note


async def _located(state: AppState, level: int, path: str) -> tuple[RecordStore, Tile]:
    publisher, _ = await _current(state)
    try:
        tile = parse_path(path)
    except FormatError:
        raise UnknownEndpointError("this is not the path of a tile") from None
    if not publisher.covers(level, tile):
        raise UnknownEndpointError("the log is not that large")
    return publisher.store, tile


def _add_public_routes(router: APIRouter, state: AppState) -> None:
    @router.get("/checkpoint")
    async def checkpoint() -> Response:
        """The last signed head, with the cosignatures that came."""
        fields = {"cache-control": "no-store"}
        _, note = await _current(state)
        return PlainTextResponse(str(note), headers=fields)

    @router.get("/tile/entries/{path:path}")
    async def entries(path: str) -> Response:
        """What 256 leaves hold: digests of tokens."""
        store, part = await _located(state, 0, path)
        found = await store.read(lambda reader: read_entries(reader, part))
        return _octets(encode_entries(found))

    @router.get("/tile/{level}/{path:path}")
    async def tile(level: str, path: str) -> Response:
        """256 hashes of a level."""
        if level not in _LEVELS:
            raise UnknownEndpointError("this is not the path of a tile")
        store, part = await _located(state, int(level), path)
        return _octets(
            await store.read(lambda reader: read_tile(reader, int(level), part))
        )


def _add_record_routes(router: APIRouter, state: AppState) -> None:
    @router.get("/records/{path:path}")
    async def records(request: Request, path: str) -> Response:
        """The tokens behind 256 leaves, a line each; an empty one is not kept."""
        state.api_keys.check(headers.authorization(request.headers.raw))
        store, part = await _located(state, 0, path)
        found = await store.read(lambda reader: read_records(reader, part))
        return PlainTextResponse("".join(f"{x}\n" for x in found), headers=_PRIVATE)

    @router.get("/endorsements/{digest}")
    async def endorsements(request: Request, digest: str) -> Response:
        """What a boot record or a refusal rests on, by the digest of its leaf."""
        state.api_keys.check(headers.authorization(request.headers.raw))
        try:
            name = from_hex(digest)
        except FormatError:
            raise UnknownEndpointError("this is not a digest") from None
        publisher, _ = await _current(state)
        found = await publisher.store.endorsements(name)
        if found is None:
            raise UnknownEndpointError("no boot or refusal has this digest")
        return Response(found, media_type="application/json", headers=_PRIVATE)


def _octets(data: bytes) -> Response:
    return Response(data, media_type="application/octet-stream", headers=_FOREVER)
