"""What one writes in an afternoon: FastAPI, StreamingResponse and an httpx client.

python bench/gateway/recipe.py PORT ENGINE_PORT
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.background import BackgroundTask

PORT, ENGINE = sys.argv[1:]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # With the client's own limit of 100 connections, 256 clients would be refused.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    url = f"http://127.0.0.1:{ENGINE}"
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=600) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/v1/{path:path}")
async def ask(path: str, request: Request) -> Response:
    body = await request.body()
    client: httpx.AsyncClient = app.state.client
    asked = client.build_request(
        "POST",
        f"/v1/{path}",
        content=body,
        headers={"content-type": "application/json"},
    )
    answer = await client.send(asked, stream=True)
    return StreamingResponse(
        answer.aiter_raw(),
        status_code=answer.status_code,
        media_type=answer.headers.get("content-type"),
        background=BackgroundTask(answer.aclose),
    )


if __name__ == "__main__":
    uvicorn.run(app, port=int(PORT), access_log=False, backlog=8192)
