"""One attested call, from the parsed request to the last byte of its answer."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from attest.claims import Outcome
from attest.delivery import ATTESTATION_HEADER, MAX_HEADER
from attest.digests import digest
from attest.errors import AttestError
from attest.transcript import MAX_BODY, Transcript
from gateway.asgi import (
    Answer,
    ClientGoneError,
    Lost,
    Patience,
    Receive,
    Send,
    Write,
    send_body,
    send_chunk,
    send_error,
    start_stream,
)
from gateway.coding import identity, read_whole
from gateway.dialects import error_body
from gateway.errors import HttpError, SealError, StoreError, UpstreamError
from gateway.exchange import Exchange, Sealed
from gateway.headers import Fields, response_fields, upstream_headers
from gateway.logs import log
from gateway.pump import Pump
from gateway.state import AppState, Serving
from gateway.stream import StreamRelay
from gateway.upstream import Pour, UpstreamResponse

__all__ = ["LARGE", "Call"]

# What nginx writes where the client left before there was an answer.
_CLIENT_CLOSED = 499
# An engine closes its answer right after the terminal event; one that does not loses
# its connection.
_DRAIN_SECONDS = 1.0
# Parsing a megabyte takes some 20 ms; more than this leaves the event loop.
LARGE = 256 * 1024
_TOKEN_NAME = ATTESTATION_HEADER.encode("ascii")
_STREAM_FIELDS = (
    # Proxies may neither compress nor gather what is hashed and streamed.
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)


@dataclass(slots=True, kw_only=True)
class Call:
    """One call. `run` serves it to its end, `refuse` ends it without the engine."""

    state: AppState
    exchange: Exchange
    send: Send
    fields: Fields = ()
    path: str = ""
    content_type: str = "application/json"
    comment: bool = True
    abort: Callable[[], None] | None = None
    lost: Lost | None = None
    answer: Answer | None = None
    write: Write | None = None
    _response: UpstreamResponse | None = None
    _pour: Pour | None = None
    _relay: StreamRelay | None = None
    _body: bytes = b""
    _failure: HttpError | None = None
    _serving: Serving | None = None
    _stopped: bool = False

    async def run(self, receive: Receive) -> None:
        """Ask the engine, pass its answer on, have it sealed."""
        try:
            if not await self._fetched(receive):
                await self._record_disconnect()
            elif self._relay is not None:
                await self._end_stream(self._relay)
            elif self._failure is not None:
                await self.refuse(self._failure)
            else:
                await self._answer()
        finally:
            await self._release()

    async def refuse(self, error: HttpError) -> None:
        """Answer with an error, attested."""
        exchange = self.exchange
        body = self._error_body(error)
        exchange.status = error.status
        exchange.outcome = (
            Outcome.UPSTREAM_ERROR
            if isinstance(error, UpstreamError)
            else Outcome.REFUSED
        )
        try:
            sealed = await self._seal_body(body)
        except SealError as seal_error:
            await self._send_unattested(seal_error)
            return
        await send_error(self.send, error, body, self._attested_fields(sealed))

    # Asking the engine. This part ends when the client leaves.

    async def _fetched(self, receive: Receive) -> bool:
        """Ask, and pass a stream on; false when the client left meanwhile."""
        self._bound()
        began, limit = self.exchange.age(), self.state.limits.answer_seconds
        try:
            with Patience(limit, receive, self.lost) as patience:
                await self._ask(patience)
        except ClientGoneError:
            return False
        except TimeoutError:
            self._stopped = self._relay is not None
            self._failure = UpstreamError(
                f"the answer was not there within {limit:g} s", status=504
            )
        except HttpError as error:
            log.warning(
                "upstream_failed",
                code=error.code,
                status=error.status,
                request_id=self.exchange.request_id,
            )
            self._failure = error
        except OSError:
            return False  # how a few servers tell that the client left
        except asyncio.CancelledError:
            # The server goes down, and its patience is at an end.
            if self._relay is not None:
                self._stopped = not self._relay.ended
                await self._end_stream(self._relay)
            raise
        finally:
            self.exchange.engine_seconds = self.exchange.age() - began
        return True

    async def _ask(self, patience: Patience) -> None:
        self._response = await self.state.require_engine().open(
            "POST",
            self.path,
            headers=upstream_headers(
                self.fields,
                self.exchange.request_id,
                content_type=self.content_type,
            ),
            body=self.exchange.forwarded,
        )
        kind = self._response.headers.get("content-type", "")
        if kind.lower().startswith("text/event-stream"):
            self._pour = identity(self._response)
            await self._stream(self._response, self._pour, patience)
        else:
            self._body = await read_whole(self._response, MAX_BODY)

    async def _stream(
        self, response: UpstreamResponse, pour: Pour, patience: Patience
    ) -> None:
        exchange = self.exchange
        exchange.stream, exchange.status = True, response.status
        exchange.transcript = self._transcript()
        relay = StreamRelay(exchange.transcript, exchange.dialect)
        self._relay = relay
        self._bound().sealer.opened(exchange.id)
        head = response_fields(
            response.headers,
            request_id=exchange.request_id,
            attestation_id=exchange.id,
        )
        await start_stream(self.send, response.status, [*head, *_STREAM_FIELDS])
        pump = Pump(
            relay,
            self.send,
            self.write,
            seconds=self.state.limits.idle_seconds,
            give_up=partial(self._give_up, patience),
        )
        await pump.run(pour)

    def _give_up(self, patience: Patience) -> None:
        """A piece has waited too long for its reader, who is taken for gone."""
        patience.leave()
        if self.abort is not None:
            self.abort()

    # Ending. Nothing here is cancelled: what was said to a client goes on record.

    async def _answer(self) -> None:
        response, exchange, body = self._response, self.exchange, self._body
        assert response is not None  # noqa: S101  # _fetch ended without a failure
        exchange.status = response.status
        if response.status < 400:
            exchange.transcript = transcript = self._transcript()
            if len(body) > LARGE:
                await asyncio.to_thread(transcript.feed_body, body)
            else:
                transcript.feed_body(body)
        exchange.outcome = self._outcome()
        try:
            sealed = await self._seal_body(body)
        except SealError as error:
            await self._send_unattested(error)
            return
        fields = self._attested_fields(sealed, response)
        answer = self.answer or partial(send_body, self.send)
        await answer(response.status, fields, body)

    async def _end_stream(self, relay: StreamRelay) -> None:
        broken = self._stopped or self._failure is not None
        relay.account()
        rest = relay.finish(broken=broken)
        if rest:
            with suppress(OSError):
                await send_chunk(self.send, rest)
        self.exchange.outcome = self._outcome()
        try:
            sealed = await self._seal_stream(relay)
        except SealError:
            # Without its terminal event and without an end no client takes the answer
            # for whole; the server closes the connection.
            return
        closing = relay.closing(sealed.token if self.comment else None)
        # Where the engine broke off, so do we: an end in good order would be a lie.
        await send_chunk(self.send, closing, more=broken)

    async def _record_disconnect(self) -> None:
        self.exchange.outcome = Outcome.CLIENT_DISCONNECTED
        with suppress(SealError):
            if self._relay is not None:
                self._relay.account()
                await self._seal_stream(self._relay)
            else:
                self.exchange.status = _CLIENT_CLOSED
                await self._seal_body(b"")

    async def _release(self) -> None:
        if self._pour is not None and self._relay is not None and self._relay.ended:
            with suppress(TimeoutError, UpstreamError):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    await self._pour(lambda _: True)
        if self._response is not None:
            await self._response.aclose()

    def _bound(self) -> Serving:
        """What the call began with: its attestation is of that boot, come what may."""
        if self._serving is None:
            self._serving = self.state.require_serving()
        return self._serving

    def _transcript(self) -> Transcript:
        return Transcript(
            self.exchange.dialect,
            expected_choices=self.exchange.facts.expected_choices,
        )

    def _outcome(self) -> Outcome:
        transcript, status = self.exchange.transcript, self.exchange.status
        if self._stopped:
            return Outcome.TRUNCATED
        if self._failure is not None:
            malformed = transcript is not None and transcript.malformed
            return Outcome.UPSTREAM_MALFORMED if malformed else Outcome.UPSTREAM_ERROR
        if transcript is not None and status < 400:
            return transcript.outcome()
        # 503 is how an engine says that it is full or asleep.
        refused = status < 500 or status == 503
        return Outcome.REFUSED if refused else Outcome.UPSTREAM_ERROR

    async def _seal_body(self, body: bytes) -> Sealed:
        self.exchange.content_digest = digest(body)
        self.exchange.content_bytes = len(body)
        return await self._seal()

    async def _seal_stream(self, relay: StreamRelay) -> Sealed:
        self.exchange.content_digest = relay.content_digest
        self.exchange.content_bytes = relay.content_bytes
        return await self._seal()

    async def _seal(self) -> Sealed:
        self.exchange.ended_at = self.state.clock()
        try:
            sealed = await self._bound().sealer.seal(self.exchange)
        except AttestError as error:
            self.state.metrics.failures[error.code,].inc()
            self.state.unkept |= isinstance(error, StoreError)
            log.error("seal_failed", code=error.code, attestation_id=self.exchange.id)
            raise SealError(
                "the answer could not be attested, so it is withheld"
            ) from error
        self.state.unkept = False
        self.state.metrics.attested(self.path, self.exchange, sealed)
        return sealed

    async def _send_unattested(self, error: SealError) -> None:
        fields = response_fields(
            {}, request_id=self.exchange.request_id, attestation_id=None
        )
        await send_error(self.send, error, self._error_body(error), fields)

    def _error_body(self, error: HttpError) -> bytes:
        exchange = self.exchange
        return error_body(error, exchange.dialect, request_id=exchange.request_id)

    def _attested_fields(
        self, sealed: Sealed, response: UpstreamResponse | None = None
    ) -> list[tuple[bytes, bytes]]:
        fields = response_fields(
            {} if response is None else response.headers,
            request_id=self.exchange.request_id,
            attestation_id=sealed.id,
        )
        # One that is too long for a header is fetched by its id, never cut.
        if len(sealed.token) <= MAX_HEADER:
            fields.append((_TOKEN_NAME, sealed.token.encode("ascii")))
        return fields
