"""The evidence page: one file that checks a bundle in the reader's own browser.

It is written by clients/js/scripts/build-page.mjs, loads nothing, and works from a disk
too. Its policy (CSP3) stands in the file, where it also holds without a server; here it
goes with the answer, with what only a header can forbid.
"""

import re
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

__all__ = ["PAGE", "PATH", "content_policy", "page_router"]

PATH = "/evidence"
PAGE = Path(__file__).parent / "static" / "evidence.html"
_POLICY = re.compile(
    rb'<meta http-equiv="Content-Security-Policy" content="([^"<>]+)">'
)


def content_policy(page: bytes) -> str:
    """The Content-Security-Policy that the page states of itself, or none framed."""
    match = _POLICY.search(page)
    if match is None:
        raise ValueError("the evidence page states no policy; type: make js-page")
    return f"{match[1].decode('ascii')}; frame-ancestors 'none'"


def page_router() -> APIRouter:
    """The route. The file is read once, here."""
    router = APIRouter()
    page = PAGE.read_bytes()
    fields = {
        "content-security-policy": content_policy(page),
        "cache-control": "no-cache",
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }

    @router.get(PATH)
    async def evidence() -> Response:
        """The page; it asks for no API key and holds nothing of this gateway."""
        return Response(page, media_type="text/html", headers=fields)

    return router
