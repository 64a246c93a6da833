"""`GET /attest/evidence`: what the engine measured and how it is set up."""

import os
import re
from argparse import Namespace
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse

from . import LOAD_FORMAT
from .check import WeightsRefusedError, record_refusal
from .inventory import Inventory
from .state import serving_state

__all__ = ["EvidencePlugin"]

_NONCE = re.compile(r"[A-Za-z0-9_-]{8,128}\Z")
# A worker answers in milliseconds unless it is in the middle of a long prefill.
_WORKER_SECONDS = 30


class EvidencePlugin:
    """vLLM's endpoint plug-in; stops the start where no worker has checked weights.

    The answer is not signed and no secret lives here: the gateway, at the other end of
    a socket that only it can reach, judges it and signs.
    """

    name = "attested_evidence"
    required_tasks = None

    def __init__(self) -> None:
        self._app: FastAPI | None = None
        self._client: Any = None
        self._inventory: Inventory | None = None

    def attach_router(self, app: FastAPI) -> None:
        """Add the route; called once by vLLM, before `init_state`."""
        self._app = app
        app.add_api_route(
            "/attest/evidence", self._evidence, methods=["GET"], include_in_schema=False
        )

    async def init_state(
        self,
        engine_client: Any,
        state: Any,
        args: Namespace,  # noqa: ARG002 - vLLM's
    ) -> None:
        """Remember the engine; called once by vLLM, before it listens.

        Raises:
            WeightsRefusedError: a worker has not loaded exactly once through the
                `attested` load format.
        """
        self._client, self._inventory = engine_client, Inventory()
        workers = [] if engine_client is None else await self._workers()
        roots = {load["root"] for worker in workers for load in worker["loads"]}
        once = all(worker["started"] == len(worker["loads"]) == 1 for worker in workers)
        load_format = state.vllm_config.load_config.load_format
        if load_format != LOAD_FORMAT or not once or len(roots) != 1:
            error = WeightsRefusedError(
                "the workers did not all load the attested weights once",
                expected=f"load format {LOAD_FORMAT} and one root",
                found=f"load format {load_format}, {len(workers)} workers, "
                f"roots {sorted(roots)}",
            )
            run_dir = os.environ.get("VLLM_RPC_BASE_PATH")
            if run_dir:
                record_refusal(error, Path(run_dir) / "refusal.json")
            raise error

    async def _workers(self) -> list[dict[str, Any]]:
        reports: list[dict[str, Any]] = await self._client.collective_rpc(
            "attest_report", timeout=_WORKER_SECONDS
        )
        return reports

    async def _evidence(self, nonce: str) -> JSONResponse:
        if not _NONCE.match(nonce):
            raise HTTPException(400, "nonce: 8 to 128 of A-Z a-z 0-9 _ -")
        if self._app is None or self._client is None or self._inventory is None:
            raise HTTPException(503, "the engine is not ready")
        return JSONResponse(
            {
                "nonce": nonce,
                "pid": os.getpid(),
                "workers": await self._workers(),
                "serving_state": serving_state(self._app),
                "entry_points": self._inventory.entry_points,
                "routes": _routes(self._app),
                "versions": self._inventory.versions,
                "records": self._inventory.records,
            }
        )


def _routes(app: FastAPI) -> list[str]:
    """`METHOD path` of all that this server answers."""
    found: set[str] = set()
    for route in app.routes:
        methods = getattr(route, "methods", None) or {"*"}
        found.update(f"{method} {getattr(route, 'path', '?')}" for method in methods)
    return sorted(found)
