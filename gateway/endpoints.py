"""The one table of what is served. Deny by default: a path that is not in it is 404.

A request is sent to the path that stands in the table, never to the one that the client
wrote, so nothing that a client puts into a path reaches the engine.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote

from attest.dialects import Dialect
from gateway.errors import DeniedEndpointError, HttpError, UnknownEndpointError

__all__ = ["ENDPOINTS", "Endpoint", "Treatment", "refusal"]


class Treatment(StrEnum):
    """What happens to a request."""

    ATTESTED = "attested"
    PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One row: a method and a path, here and at the engine alike.

    Attributes:
        dialect: of request and answer; where it is passed on, of errors alone.
    """

    method: str
    path: str
    treatment: Treatment
    dialect: Dialect | None = None


ENDPOINTS = (
    Endpoint("POST", "/v1/chat/completions", Treatment.ATTESTED, Dialect.CHAT),
    Endpoint("POST", "/v1/completions", Treatment.ATTESTED, Dialect.COMPLETIONS),
    Endpoint("POST", "/v1/responses", Treatment.ATTESTED, Dialect.RESPONSES),
    Endpoint("POST", "/v1/messages", Treatment.ATTESTED, Dialect.MESSAGES),
    Endpoint("POST", "/v1/embeddings", Treatment.ATTESTED, Dialect.POOLING),
    Endpoint("POST", "/v1/score", Treatment.ATTESTED, Dialect.POOLING),
    Endpoint("POST", "/classify", Treatment.ATTESTED, Dialect.POOLING),
    Endpoint("POST", "/pooling", Treatment.ATTESTED, Dialect.POOLING),
    Endpoint("POST", "/v1/rerank", Treatment.ATTESTED, Dialect.RERANK),
    Endpoint("POST", "/rerank", Treatment.ATTESTED, Dialect.RERANK),
    Endpoint("POST", "/v1/audio/transcriptions", Treatment.ATTESTED, Dialect.AUDIO),
    Endpoint("POST", "/v1/audio/translations", Treatment.ATTESTED, Dialect.AUDIO),
    Endpoint("GET", "/v1/models", Treatment.PASSED),
    Endpoint("POST", "/tokenize", Treatment.PASSED),
    Endpoint("POST", "/detokenize", Treatment.PASSED),
    Endpoint("POST", "/v1/messages/count_tokens", Treatment.PASSED, Dialect.MESSAGES),
)

# They change the weights, load others beside them, or answer without this gateway's
# checks. 404 would do; naming them tells an operator that it is on purpose.
_DENIED = (
    "abort_requests",
    "adapters",
    "collective_rpc",
    "finish_weight_update",
    "inference/v1/generate",
    "init_weight_transfer_engine",
    "invocations",
    "is_scaling_elastic_ep",
    "is_sleeping",
    "pause",
    "reload_weights",
    "reset_encoder_cache",
    "reset_mm_cache",
    "reset_prefix_cache",
    "resume",
    "scale_elastic_ep",
    "server_info",
    "shutdown_weight_transfer_engine",
    "sleep",
    "start_draft_weight_update",
    "start_profile",
    "start_weight_update",
    "stop_profile",
    "tokenizer_info",
    "update_weight_version",
    "update_weights",
    "v1/load_lora_adapter",
    "v1/unload_lora_adapter",
    "wake_up",
    "weight_checker",
)
_LAST_SEGMENTS = frozenset(path.rpartition("/")[2] for path in _DENIED)
_MAX_PATH = 2048
_SEPARATORS = re.compile(r"[/\\]+")


def refusal(path: str) -> HttpError:
    """The error for a path that no row serves.

    The path is judged as generously as any server might read it: decoded as often as
    it was encoded, without case, `;parameters`, repeated slashes and dot segments.
    """
    if any(segment in _LAST_SEGMENTS for segment in _segments(path)):
        return DeniedEndpointError(
            "this endpoint could change or bypass the verified weights and is never "
            "served",
            hint="restart the gateway to serve other weights",
        )
    return UnknownEndpointError("the gateway does not serve this path")


def _segments(path: str) -> list[str]:
    text = path[:_MAX_PATH]
    for _ in range(4):
        text = unquote(text)
    segments = _SEPARATORS.split(text.lower())
    return [segment.partition(";")[0].strip(" .\x00\t\r\n") for segment in segments]
