"""Routes by which anybody fetches evidence: about one answer, and about this boot."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from attest.bundle import MEDIA_TYPE
from attest.delivery import WELL_KNOWN
from attest.keys import PublicKey
from gateway.attestations import Attester
from gateway.errors import OverloadedError, UnknownEndpointError
from gateway.recall import read_status_lists

__all__ = ["evidence_router"]

_ID = re.compile(r"att_[A-Za-z0-9_-]{22}\Z")
_AGAIN = (("retry-after", "1"),)


def _jwk(key: PublicKey) -> dict[str, str]:
    return {**key.jwk, "kid": key.thumbprint, "alg": str(key.alg), "use": "sig"}


def evidence_router(
    current: Callable[[], Attester | None],
    *,
    status_lists: Sequence[Path] = (),
    known: Callable[[], Awaitable[Sequence[PublicKey]]] | None = None,
    shared: Callable[[], bool] = lambda: False,
) -> APIRouter:
    """The routes; `current` gives the attester once there is one.

    `known` gives all session keys that are certified, of other processes too; without
    it there is the present one. `shared` says whether others answer beside this one and
    keep their attestations in the same store.
    """
    router = APIRouter()

    def attester() -> Attester:
        found = current()
        if found is None:
            raise OverloadedError(
                "the gateway is still starting",
                hint="GET /readyz says how far it is",
                status=503,
                headers=(("retry-after", "5"),),
            )
        return found

    @router.get(WELL_KNOWN)
    async def endorsements() -> Response:
        """Manifest, boot record and key certificates: what a verifier needs."""
        return Response(attester().boot.endorsements(), media_type="application/json")

    @router.get("/.well-known/jwks.json")
    async def keys() -> JSONResponse:
        """The session keys as a JWK set (RFC 7517 §5), the present one first.

        It proves nothing by itself: a verifier goes by the certificates in a bundle.
        """
        present = attester().boot.session.key.public
        others = () if known is None else await known()
        found = [present, *(key for key in others if key != present)]
        return JSONResponse({"keys": [_jwk(key) for key in found]})

    @router.get("/v1/attestations/{attestation_id}")
    async def bundle(attestation_id: str) -> Response:
        """The evidence about one answer; 202 while the answer is still going out.

        Whether it is still going out elsewhere is not known here: where others answer
        too, an unknown id gets 404 with Retry-After.
        """
        source = attester()
        found = None
        if _ID.match(attestation_id):
            if source.is_open(attestation_id):
                return Response(status_code=202, headers=dict(_AGAIN))
            found = await source.bundle(attestation_id)
        if found is None and shared():
            raise UnknownEndpointError(
                "no attestation with this id is kept yet; its answer may still be "
                "going out from another process of this gateway",
                hint="ask again in a second; the id is in the Attestation-Id header",
                headers=_AGAIN,
            )
        if found is None:
            raise UnknownEndpointError(
                "no attestation with this id is kept here",
                hint="the id is in the Attestation-Id header of the answer",
            )
        # Read anew: to recall something is to replace the file.
        lists = await asyncio.to_thread(read_status_lists, status_lists)
        whole = replace(found, status_lists=lists)
        return Response(whole.dumps(), media_type=MEDIA_TYPE)

    return router
