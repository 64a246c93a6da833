"""The weights as they lie in the engine's memory: hashed at the start, and again later.

It is the only look at the memory itself. It costs the engine a second for each 1.5 GB
or so, during which it answers nobody, and is sound only where the parameters are what
serves; so it is off unless asked for.
"""

import re
import secrets
from typing import Any

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import FormatError
from gateway.engine.client import EngineClient
from gateway.logs import log

__all__ = ["live_digest"]

# A terabyte takes eleven minutes.
_SECONDS = 900
_HEX = re.compile(r"[0-9a-f]{64}\Z")


async def live_digest(client: EngineClient) -> str | None:
    """Text digest over every worker's, None where one says that it would mean nothing.

    Raises:
        EngineDiedError: no answer; also where the plug-in is older than this gateway.
        FormatError: the answer is not in its form.
    """
    nonce = secrets.token_urlsafe(24)
    report = await client.evidence(nonce, "/attest/resident", seconds=_SECONDS)
    workers = report.get("workers")
    if not isinstance(workers, list) or not workers:
        raise FormatError("engine: no worker reports its weights")
    found = [_worker(worker) for worker in workers]
    if None in found:
        log.warning("live_weights_unsound")
        return None
    return digest(canonical(found))


def _worker(worker: Any) -> str | None:
    if not isinstance(worker, dict) or not isinstance(worker.get("sound"), bool):
        raise FormatError("engine: a worker's report on its weights is not in its form")
    if not worker["sound"]:
        return None
    sha256 = worker.get("sha256")
    if not isinstance(sha256, str) or not _HEX.match(sha256):
        raise FormatError("engine: a worker's report on its weights is not in its form")
    return sha256
