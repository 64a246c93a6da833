"""Every error that the gateway adds to the library's tree.

    GatewayError (an AttestError)
    ├── StartupRefusedError       engine or model is not what the manifest says
    ├── EngineError               the engine does not do its work; nothing is proven
    │   ├── EngineNotInstalledError   the interpreter has no vLLM, or not our plug-in
    │   ├── EngineStartError      it ended or took too long before it served
    │   └── EngineDiedError       it ended, or no longer answers, after it served
    ├── WorkerError               a worker process can't answer
    ├── StoreError                an attestation can't be kept
    └── HttpError                 ends a request; carries the status for the client
        ├── RequestError          the client's request is unusable (400 and others)
        ├── AuthenticationError   no valid API key (401)
        ├── DeniedEndpointError   would change or bypass the verified weights (403)
        ├── UnknownEndpointError  not served here (404)
        ├── UnknownModelError     another model than the one that is served (404)
        ├── PolicyRefusedError    the policy wants a governed system prompt (403)
        ├── OverloadedError       too many requests in flight (429), or not ready (503)
        ├── UpstreamDownError     the engine takes no connection (503)
        ├── UpstreamError         the engine broke off or broke HTTP (502, 504)
        └── SealError             the answer is here, its attestation is not (503)

As in the library, messages never carry a prompt, an answer, a key or a token.
"""

from typing import ClassVar

from attest.errors import AttestError

__all__ = [
    "AuthenticationError",
    "DeniedEndpointError",
    "EngineDiedError",
    "EngineError",
    "EngineNotInstalledError",
    "EngineStartError",
    "GatewayError",
    "HttpError",
    "OverloadedError",
    "PolicyRefusedError",
    "RequestError",
    "SealError",
    "StartupRefusedError",
    "StoreError",
    "UnknownEndpointError",
    "UnknownModelError",
    "UpstreamDownError",
    "UpstreamError",
    "WorkerError",
]


class GatewayError(AttestError):
    """Root of the gateway's errors."""

    code = "gateway"


class StartupRefusedError(GatewayError):
    """A definite no at start-up: what runs is not what the manifest says.

    Attributes:
        tensor: the tensor at fault; empty where it is not about one.
        expected: what the manifest says; may be empty.
        found: what was found instead; may be empty.
    """

    code = "startup_refused"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        tensor: str = "",
        expected: str = "",
        found: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.tensor, self.expected, self.found = tensor, expected, found


class EngineError(GatewayError):
    """The engine does not do its work; nothing was decided about any evidence."""

    code = "engine"


class EngineNotInstalledError(EngineError):
    """There is no engine to start: no interpreter, no vLLM in it, or no plug-in."""

    code = "engine_not_installed"


class EngineStartError(EngineError):
    """The engine ended, or took too long, before it served."""

    code = "engine_start"


class EngineDiedError(EngineError):
    """The engine ended, or no longer gives evidence, after it had served."""

    code = "engine_died"


class WorkerError(GatewayError):
    """A worker process ended, or could have no boot; its lines in the log say more."""

    code = "worker"


class StoreError(GatewayError):
    """The store cannot keep or read an attestation."""

    code = "store"


class HttpError(GatewayError):
    """Ends a request with an error body.

    Attributes:
        status: HTTP status for the client.
        kind: `type` of the OpenAI error object.
        param: the member of the request that is at fault, None where there is none.
        headers: further response headers, names in lower case.
    """

    code = "http"
    default_status: ClassVar[int] = 500
    kind: ClassVar[str] = "server_error"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        status: int | None = None,
        param: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = self.default_status if status is None else status
        self.param = param
        self.headers = headers

    @property
    def text(self) -> str:
        """What a client is told."""
        return f"{self}; {self.hint}" if self.hint else str(self)


class RequestError(HttpError):
    """The request is unusable as it is."""

    code = "request"
    default_status = 400
    kind = "invalid_request_error"


class AuthenticationError(HttpError):
    """The request carries no API key that is known here."""

    code = "authentication"
    default_status = 401
    kind = "authentication_error"


class DeniedEndpointError(HttpError):
    """The path would change or bypass the verified weights."""

    code = "denied_endpoint"
    default_status = 403
    kind = "permission_error"


class UnknownEndpointError(HttpError):
    """The path is not served here."""

    code = "unknown_endpoint"
    default_status = 404
    kind = "not_found_error"


class UnknownModelError(HttpError):
    """The request asks for another model than the one that is served."""

    code = "unknown_model"
    default_status = 404
    kind = "not_found_error"


class PolicyRefusedError(HttpError):
    """The request is in order, and the gateway's policy does not let it pass."""

    code = "policy_refused"
    default_status = 403
    kind = "permission_error"


class OverloadedError(HttpError):
    """Not now: too many requests in flight, or the gateway is not ready."""

    code = "overloaded"
    default_status = 429
    kind = "rate_limit_error"


class UpstreamDownError(HttpError):
    """The engine takes no connection; nothing of the request was processed."""

    code = "upstream_down"
    default_status = 503
    kind = "service_unavailable_error"


class UpstreamError(HttpError):
    """The engine broke off, took too long or broke the rules of HTTP."""

    code = "upstream"
    default_status = 502


class SealError(HttpError):
    """The answer could not be signed or its attestation not be kept."""

    code = "seal"
    default_status = 503
