"""Routes for whoever runs the process: alive, and ready."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from gateway.state import AppState

__all__ = ["health_router"]


def health_router(state: AppState) -> APIRouter:
    """`/healthz`, `/startupz` and `/readyz`; none asks for an API key."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> JSONResponse:
        """The process serves requests. Says nothing about the engine."""
        return JSONResponse({"status": "ok"})

    @router.get("/startupz")
    async def startupz() -> JSONResponse:
        """200 once manifest and files are checked: an engine beside it may load them.

        A start-up probe for it lets Kubernetes start a sidecar's engine afterwards.
        """
        status = 200 if state.may_load else 503
        content = {"checked": state.may_load, "progress": state.progress}
        return JSONResponse(content, status_code=status)

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        """200 once answers can be had and attested, else 503 and what is going on."""
        await state.look_at_store()
        status = 200 if state.ready else 503
        progress = "attestations cannot be kept" if state.unkept else state.progress
        content = {"ready": state.ready, "progress": progress}
        return JSONResponse(content, status_code=status)

    return router
