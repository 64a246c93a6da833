"""Structured logs: one JSON object a line on stdout. Never a body, a key or a token."""

import logging
import sys

import structlog

__all__ = ["configure_logs", "log"]

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
