"""`GET /attest/evidence`: what the engine measured and how it is set up."""

import json
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

    Where the loader was given a `report`, the same evidence is also written there, once
    and before the first request. Whoever may write in that folder can forge the file.
    It names the reference file that the loader read, and through it the nonce that the
    gateway put in there, so it is no older than that; and this process, by pid and
    start time, so that the gateway can tell whether it is the one that it talks to.
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
        for path, answer in (
            ("/attest/evidence", self._evidence),
            ("/attest/resident", self._resident),
        ):
            app.add_api_route(path, answer, methods=["GET"], include_in_schema=False)

    async def init_state(
        self,
        engine_client: Any,
        state: Any,
        args: Namespace,
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
        load_config = state.vllm_config.load_config
        load_format, extra = (
            load_config.load_format,
            load_config.model_loader_extra_config,
        )
        paths = extra if isinstance(extra, dict) else {}
        if load_format != LOAD_FORMAT or not once or len(roots) != 1:
            error = WeightsRefusedError(
                "the workers did not all load the attested weights once",
                expected=f"load format {LOAD_FORMAT} and one root",
                found=f"load format {load_format}, {len(workers)} workers, "
                f"roots {sorted(roots)}",
            )
            if folder := _refusal_folder(paths):
                record_refusal(error, folder / "refusal.json")
            raise error
        if args.uds and "reference_sha256" not in paths:
            _share_socket(Path(args.uds))
        if "report" in paths:
            report = await self._report("")
            _write_whole(Path(str(paths["report"])), json.dumps(report).encode())

    async def _workers(self) -> list[dict[str, Any]]:
        reports: list[dict[str, Any]] = await self._client.collective_rpc(
            "attest_report", timeout=_WORKER_SECONDS
        )
        return reports

    async def _resident(self, nonce: str) -> JSONResponse:
        if not _NONCE.match(nonce):
            raise HTTPException(400, "nonce: 8 to 128 of A-Z a-z 0-9 _ -")
        if self._client is None:
            raise HTTPException(503, "the engine is not ready")
        workers = await self._client.collective_rpc("attest_resident")
        return JSONResponse({"nonce": nonce, "workers": workers})

    async def _evidence(self, nonce: str) -> JSONResponse:
        if not _NONCE.match(nonce):
            raise HTTPException(400, "nonce: 8 to 128 of A-Z a-z 0-9 _ -")
        if self._app is None or self._client is None or self._inventory is None:
            raise HTTPException(503, "the engine is not ready")
        return JSONResponse(await self._report(nonce))

    async def _report(self, nonce: str) -> dict[str, Any]:
        assert self._app is not None  # noqa: S101 - both callers come after
        assert self._inventory is not None  # noqa: S101 - attach_router and init_state
        return {
            "nonce": nonce,
            "pid": os.getpid(),
            "started": _started(),
            "workers": await self._workers(),
            "serving_state": serving_state(self._app),
            "entry_points": self._inventory.entry_points,
            "routes": _routes(self._app),
            "versions": self._inventory.versions,
            "records": self._inventory.records,
        }


def _refusal_folder(paths: dict[str, Any]) -> Path | None:
    """Beside the reference; where another load format has none, in the run folder."""
    if "reference" in paths:
        return Path(str(paths["reference"])).parent
    run_dir = os.environ.get("VLLM_RPC_BASE_PATH")
    return Path(run_dir) if run_dir else None


def _started() -> int:
    """When this process began, in clock ticks since the machine did, proc(5)."""
    data = Path("/proc/self/stat").read_bytes()
    return int(data.rpartition(b")")[2].split()[19])


def _share_socket(path: Path) -> None:
    """Let the socket's group connect: the gateway is another user than this process.

    Connecting takes the right to write. A gateway that starts the engine is the same
    user, and gives the digest of its reference; there the group stays out.
    """
    path.chmod(path.stat().st_mode | 0o060)


def _write_whole(path: Path, data: bytes) -> None:
    """Readers see the old file or the new one, never a part; all may read it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    draft.write_bytes(data)
    draft.chmod(0o644)
    draft.replace(path)


def _routes(app: FastAPI) -> list[str]:
    """`METHOD path` of all that this server answers."""
    found: set[str] = set()
    for route in app.routes:
        methods = getattr(route, "methods", None) or {"*"}
        found.update(f"{method} {getattr(route, 'path', '?')}" for method in methods)
    return sorted(found)
