"""Routes for whoever runs the process: alive, and ready."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from gateway.state import AppState

__all__ = ["health_router"]


def health_router(state: AppState) -> APIRouter:
    """`/healthz` and `/readyz`; neither asks for an API key."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> JSONResponse:
        """The process serves requests. Says nothing about the engine."""
        return JSONResponse({"status": "ok"})

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        """200 once answers can be had and attested, else 503 and what is going on."""
        status = 200 if state.ready else 503
        content = {"ready": state.ready, "progress": state.progress}
        return JSONResponse(content, status_code=status)

    return router
