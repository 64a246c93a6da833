"""The application: FastAPI around raw ASGI endpoints.

The hot routes are ASGI applications of their own. A Request, a Response, a dependency
or one `@app.middleware("http")` would each cost more than the signature.
"""

import json
from typing import cast

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp

from gateway.dialects import error_body
from gateway.endpoints import ENDPOINTS, Endpoint, Treatment
from gateway.errors import HttpError, RequestError
from gateway.evidence import evidence_router
from gateway.health import health_router
from gateway.openapi import document
from gateway.page import page_router
from gateway.proxy import AttestedEndpoint, NotServed, PassedEndpoint
from gateway.state import AppState
from gateway.tlog.routes import log_router

__all__ = ["build_app"]

_KINDS = {
    Treatment.ATTESTED: AttestedEndpoint,
    Treatment.PASSED: PassedEndpoint,
}


def build_app(state: AppState) -> FastAPI:
    """The application over one state. It has no lifespan and opens nothing itself."""
    app = FastAPI(
        title="attest-gateway",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.router.routes.extend(_route(endpoint, state) for endpoint in ENDPOINTS)
    app.include_router(health_router(state))
    app.include_router(
        evidence_router(
            lambda: state.attester,
            status_lists=state.status_lists,
            retained=lambda: state.retained_keys,
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
    app.add_exception_handler(Exception, _internal_error)
    return app


def _route(endpoint: Endpoint, state: AppState) -> Route:
    application = _KINDS[endpoint.treatment](endpoint, state)
    # Without a list of methods: a wrong one gets an OpenAI error body too.
    return Route(endpoint.path, cast("ASGIApp", application))


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


async def _internal_error(request: Request, _: Exception) -> Response:
    # The server's log has the trace; a client learns nothing of it.
    return await _http_error(request, HttpError("internal error"))
