"""The application: FastAPI around raw ASGI endpoints.

The hot routes are ASGI applications of their own. A Request, a Response, a dependency
or one `@app.middleware("http")` would each cost more than the signature.
"""

import json
from contextlib import suppress
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.asgi import send_error
from gateway.dialects import error_body
from gateway.endpoints import ENDPOINTS, Treatment
from gateway.errors import HttpError, RequestError, StoreError
from gateway.evidence import evidence_router
from gateway.health import health_router
from gateway.logs import log
from gateway.openapi import document
from gateway.page import page_router
from gateway.proxy import AttestedEndpoint, NotServed, PassedEndpoint
from gateway.state import AppState
from gateway.tlog.routes import log_router

__all__ = ["build_app"]

_INTERNAL = HttpError("internal error")
_NO_STORE = HttpError(
    "what attestations are kept in does not answer",
    hint="ask again later",
    status=503,
    headers=(("retry-after", "5"),),
)
_KINDS = {
    Treatment.ATTESTED: AttestedEndpoint,
    Treatment.PASSED: PassedEndpoint,
}


class _Application(FastAPI):
    """FastAPI, with the rows of the table taken before its middleware and router."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rows: dict[str, ASGIApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification; what a row raises, the server's log gets."""
        row = self.rows.get(scope["path"]) if scope["type"] == "http" else None
        if row is None:
            await super().__call__(scope, receive, send)
            return
        try:
            await row(scope, receive, send)
        except Exception:
            # Refused by the server where an answer has begun.
            with suppress(RuntimeError):
                await send_error(send, _INTERNAL, error_body(_INTERNAL))
            raise


def build_app(state: AppState) -> FastAPI:
    """The application over one state. It has no lifespan and opens nothing itself."""
    app = _Application(
        title="attest-gateway",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    for endpoint in ENDPOINTS:
        application = cast("ASGIApp", _KINDS[endpoint.treatment](endpoint, state))
        app.rows[endpoint.path] = application
        # Without a list of methods: a wrong one gets an OpenAI error body too.
        app.router.routes.append(Route(endpoint.path, application))
    app.include_router(health_router(state))
    app.include_router(
        evidence_router(
            lambda: state.attester,
            status_lists=state.status_lists,
            known=state.known_keys,
            shared=lambda: state.shared,
        )
    )
    app.include_router(log_router(state))
    app.include_router(page_router())
    described = json.dumps(document()).encode()
    app.add_route(
        "/openapi.json", lambda _: Response(described, media_type="application/json")
    )
    app.router.default = cast("ASGIApp", NotServed())
    app.add_exception_handler(HttpError, _http_error)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(StoreError, _store_error)
    app.add_exception_handler(Exception, _internal_error)
    return app


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HttpError)  # noqa: S101  # registered for it alone
    return Response(
        error_body(error),
        status_code=error.status,
        headers=dict(error.headers),
        media_type="application/json",
    )


async def _framework_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for it alone
    headers = tuple((error.headers or {}).items())
    own = RequestError(str(error.detail), status=error.status_code, headers=headers)
    return await _http_error(request, own)


async def _store_error(request: Request, error: Exception) -> Response:
    log.error("store_not_read", reason=str(error))
    return await _http_error(request, _NO_STORE)


async def _internal_error(request: Request, _: Exception) -> Response:
    # The server's log has the trace; a client learns nothing of it.
    return await _http_error(request, _INTERNAL)
