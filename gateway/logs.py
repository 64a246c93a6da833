"""Structured logs: one JSON object a line on stdout. Never a body, a key or a token."""

import logging
import sys
import time
from dataclasses import dataclass, field

import structlog

from gateway.errors import HttpError
from gateway.exchange import Exchange

__all__ = ["RequestLog", "configure_logs", "log"]

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def configure_logs() -> None:
    """Send our events and the warnings of libraries to stdout as JSON lines."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        # Looked up at each use, since whoever embeds us may have replaced stdout.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stdout),
    )
    # httpx2 and uvicorn name request paths at INFO; warnings are all that is wanted.
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)


@dataclass(slots=True)
class RequestLog:
    """What one request leaves in the log, filled in on its way; `write` logs it.

    Attributes:
        path: row of the route table; no text of the client's.
        caller: name of the API key.
        exchange: where an attested answer was at least begun.
        status: of an answer that was passed on.
        outcome: where there is no exchange to say it.
    """

    path: str
    request_id: str
    caller: str = ""
    exchange: Exchange | None = None
    status: int = 0
    outcome: str = "passed"
    code: str = ""
    _began: float = field(default_factory=time.perf_counter)

    def refused(self, error: HttpError) -> None:
        """Note an error that was answered without an attestation."""
        self.status, self.outcome, self.code = error.status, "refused", error.code

    def write(self) -> None:
        """Log it."""
        exchange, seconds = self.exchange, time.perf_counter() - self._began
        entry = {
            "path": self.path,
            "request_id": self.request_id,
            "caller": self.caller,
            "status": self.status,
            "outcome": str(self.outcome),
            "code": self.code,
            "milliseconds": round(seconds * 1000, 1),
        }
        if exchange is not None:
            entry |= {
                "status": exchange.status,
                "outcome": str(exchange.outcome),
                "attestation_id": exchange.id,
                "stream": exchange.stream,
                "request_bytes": len(exchange.received),
                "answer_bytes": exchange.content_bytes,
                "engine_milliseconds": round(exchange.engine_seconds * 1000, 1),
            }
        log.info("request", **{k: v for k, v in entry.items() if v != ""})
