"""The two ways a request is served: attested, or passed on.

In order: path and method, API key, a free slot; for an attested request then the body,
strict JSON and its facts, and the engine. From the moment its body is there, whatever
it is answered is attested, refusals too.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

from attest.canonical import read_object
from attest.claims import Outcome
from attest.dialects import Dialect
from attest.errors import FormatError
from attest.request import request_facts
from gateway import headers
from gateway.asgi import (
    WHOLE,
    WRITE,
    ClientGoneError,
    Receive,
    Scope,
    Send,
    read_body,
    send_body,
    send_error,
)
from gateway.call import LARGE, Call
from gateway.coding import read_whole
from gateway.connection import ABORT, LOST
from gateway.dialects import error_body
from gateway.endpoints import Endpoint, refusal
from gateway.errors import HttpError, RequestError
from gateway.exchange import Exchange
from gateway.form import read_form
from gateway.logs import RequestLog
from gateway.policy import Rules
from gateway.state import AppState

__all__ = ["AttestedEndpoint", "NotServed", "PassedEndpoint"]

_Parse = Callable[[bytes], dict[str, Any]]

_MAX_PASSED = 4 * 1024 * 1024
_MANIFEST_HEADER = b"attestation-manifest"


def _target(scope: Scope) -> str:
    """The path as the client wrote it, so that an encoded one is not its plain twin."""
    raw = scope.get("raw_path")
    return raw.decode("latin-1") if raw else str(scope["path"])


class _Endpoint(ABC):
    """What both kinds do first."""

    def __init__(self, endpoint: Endpoint, state: AppState) -> None:
        self._endpoint = endpoint
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = headers.request_id(scope["headers"])
        entry = RequestLog(self._endpoint.path, request_id)
        span = self._state.traces.begin(
            self._endpoint.path, self._endpoint.dialect, scope["headers"]
        )
        scope["headers"] = span.forwarded(scope["headers"])
        try:
            entry.caller = self._admit(scope)
            self._state.enter(entry.caller)
            began = time.perf_counter()
            try:
                await self._serve(scope, receive, send, entry)
            finally:
                seconds = time.perf_counter() - began
                self._state.metrics.requests.observe(seconds, self._endpoint.path)
                self._state.leave(entry.caller)
        except (ClientGoneError, OSError):
            # Servers that tell at all that the client left tell it as an OSError.
            entry.outcome = Outcome.CLIENT_DISCONNECTED
        except HttpError as error:
            entry.refused(error)
            self._state.metrics.refused[self._endpoint.path, error.code].inc()
            await _send_plain_error(send, error, self._endpoint.dialect, request_id)
        finally:
            span.end(entry)
            if self._state.log_requests:
                entry.write()

    def _admit(self, scope: Scope) -> str:
        """The name of the caller's API key."""
        endpoint = self._endpoint
        target = _target(scope)
        if target != endpoint.path:
            raise refusal(target)
        if scope["method"] != endpoint.method:
            raise RequestError(
                f"this path is served for {endpoint.method} only",
                status=405,
                headers=(("allow", endpoint.method),),
            )
        caller = self._state.api_keys.check(headers.authorization(scope["headers"]))
        self._state.require_serving()
        return caller

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        limits = self._state.limits
        return await read_body(
            scope,
            receive,
            max_bytes=limits.max_body_bytes,
            seconds=limits.body_seconds,
        )

    @abstractmethod
    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, entry: RequestLog
    ) -> None: ...


class AttestedEndpoint(_Endpoint):
    """An ASGI application for one attested row of the table."""

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, entry: RequestLog
    ) -> None:
        fields, dialect = scope["headers"], self._endpoint.dialect
        assert dialect is not None  # noqa: S101  # every attested row has one
        content_type, parse = _body_kind(fields, dialect)
        body = await self._body(scope, receive)
        exchange = entry.exchange = Exchange(
            request_id=entry.request_id,
            dialect=dialect,
            received=body,
            forwarded=body,
        )
        extensions = scope.get("extensions", {})
        call = Call(
            state=self._state,
            exchange=exchange,
            send=send,
            fields=fields,
            path=self._endpoint.path,
            content_type=content_type,
            abort=extensions.get(ABORT, {}).get("now"),
            lost=extensions.get(LOST, {}).get("tell"),
            answer=extensions.get(WHOLE, {}).get("answer"),
            write=extensions.get(WRITE, {}).get("now"),
        )
        try:
            exchange.nonce = headers.nonce(fields)
            wanted = headers.wants_comment(fields)
            call.comment = wanted and self._state.comments
            await self._read(exchange, parse)
        except HttpError as error:
            await call.refuse(error)
            return
        await call.run(receive)

    async def _read(self, exchange: Exchange, parse: _Parse) -> None:
        rules = self._state.rules
        if len(exchange.received) > LARGE:
            await asyncio.to_thread(_read_request, exchange, parse, rules)
        else:
            _read_request(exchange, parse, rules)


class PassedEndpoint(_Endpoint):
    """An ASGI application for a row that is passed on without an attestation.

    The answer names the manifest that this gateway serves, unsigned.
    """

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, entry: RequestLog
    ) -> None:
        serving, body = self._state.require_serving(), b""
        if self._endpoint.method == "POST":
            headers.check_body_headers(scope["headers"])
            body = await self._body(scope, receive)
        response = await self._state.require_engine().open(
            self._endpoint.method,
            self._endpoint.path,
            headers=headers.upstream_headers(scope["headers"], entry.request_id),
            body=body,
        )
        try:
            body = await read_whole(response, _MAX_PASSED)
        finally:
            await response.aclose()
        fields = headers.response_fields(
            response.headers, request_id=entry.request_id, attestation_id=None
        )
        entry.status = response.status
        fields.append((_MANIFEST_HEADER, serving.manifest_digest.encode("ascii")))
        await send_body(send, response.status, fields, body)


class NotServed:
    """The ASGI application for every path that no route has."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 or 404; no WebSocket is accepted."""
        del receive
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
            return
        request_id = headers.request_id(scope["headers"])
        await _send_plain_error(send, refusal(_target(scope)), None, request_id)


async def _send_plain_error(
    send: Send, error: HttpError, dialect: Dialect | None, request_id: str
) -> None:
    fields = headers.response_fields({}, request_id=request_id, attestation_id=None)
    body = error_body(error, dialect, request_id=request_id)
    await send_error(send, error, body, fields)


def _body_kind(fields: headers.Fields, dialect: Dialect) -> tuple[str, _Parse]:
    """The Content-Type for the engine, and what reads such a body."""
    if dialect is Dialect.AUDIO:
        boundary = headers.form_boundary(fields)
        kind = f'multipart/form-data; boundary="{boundary.decode("ascii")}"'
        return kind, partial(read_form, boundary=boundary)
    headers.check_body_headers(fields)
    return "application/json", _read_json


def _read_json(body: bytes) -> dict[str, Any]:
    try:
        return read_object(body, max_bytes=len(body))
    except FormatError as error:
        raise RequestError(str(error)) from error


def _read_request(exchange: Exchange, parse: _Parse, rules: Rules) -> None:
    value = parse(exchange.received)
    try:
        exchange.facts = request_facts(value, exchange.dialect)
    except FormatError as error:
        raise RequestError(str(error), param=str(error).partition(":")[0]) from error
    rules.apply(value, exchange)
