"""OpenAI clients that prove every answer."""

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from attest.client._exchange import OnEvidence
from attest.client._sdk import Libraries, async_http_client, http_client
from attest.errors import AttestError, ConfigurationError
from attest.policy import Policy

if TYPE_CHECKING:
    import openai

__all__ = [
    "async_openai_client",
    "async_openai_http_client",
    "openai_client",
    "openai_http_client",
]


def openai_client(
    base_url: str,
    policy: Policy,
    *,
    api_key: str = "none",
    on_evidence: OnEvidence | None = None,
    buffered: bool = False,
    **options: Any,
) -> "openai.OpenAI":
    """An ordinary `openai.OpenAI` whose answers are proven, or raise.

    Calls raise `attest.errors.AttestError` itself, without asking again; a stream does
    so before its loop ends. Read streams to their end: what is not read is not proven.

    Args:
        base_url: the gateway's, with `/v1` at the end.
        policy: what is demanded of every answer.
        api_key: for the gateway, if it wants one.
        on_evidence: called with the verdict and the bundle of each attested answer;
            answers are then kept in memory until they are proven, up to 64 MiB each.
        buffered: hand on nothing of a stream before the whole is proven.
        **options: for `openai.OpenAI`, such as `max_retries`.

    Raises:
        ConfigurationError: the openai package is not installed.
    """
    client = openai_http_client(policy, on_evidence=on_evidence, buffered=buffered)
    return _libraries().sdk.OpenAI(
        base_url=base_url, api_key=api_key, http_client=client, **options
    )


def async_openai_client(
    base_url: str,
    policy: Policy,
    *,
    api_key: str = "none",
    on_evidence: OnEvidence | None = None,
    buffered: bool = False,
    **options: Any,
) -> "openai.AsyncOpenAI":
    """As `openai_client`, an `openai.AsyncOpenAI`."""
    client = async_openai_http_client(
        policy, on_evidence=on_evidence, buffered=buffered
    )
    return _libraries().sdk.AsyncOpenAI(
        base_url=base_url, api_key=api_key, http_client=client, **options
    )


def openai_http_client(
    policy: Policy,
    *,
    on_evidence: OnEvidence | None = None,
    buffered: bool = False,
) -> Any:
    """The HTTP client under `openai_client`, for libraries that make their own.

    It is of the HTTP library that the installed openai package uses.

    Args:
        policy: what is demanded of every answer.
        on_evidence: as for `openai_client`.
        buffered: hand on nothing of a stream before the whole is proven.

    Raises:
        ConfigurationError: the openai package is not installed.
    """
    return http_client(
        _libraries(),
        policy,
        on_evidence=on_evidence,
        buffered=buffered,
        deliver=_deliver,
    )


def async_openai_http_client(
    policy: Policy,
    *,
    on_evidence: OnEvidence | None = None,
    buffered: bool = False,
) -> Any:
    """As `openai_http_client`, asynchronous."""
    return async_http_client(
        _libraries(),
        policy,
        on_evidence=on_evidence,
        buffered=buffered,
        deliver=_deliver,
    )


def _libraries() -> Libraries:
    try:
        sdk = import_module("openai")
    except ImportError as error:
        raise ConfigurationError(
            "the openai package is not installed", hint="type: pip install openai"
        ) from error
    name = "httpx2" if int(sdk.__version__.partition(".")[0]) >= 3 else "httpx"
    return Libraries(sdk, import_module(name), import_module(f"attest.client.{name}"))


# openai 1 and 2 take every exception of an HTTP client for a broken connection: they
# ask twice more, and then raise APIConnectionError. What `raise_for_status` raises they
# let through, as openai 3 does with both; so there our errors wait.


def _raise(error: AttestError) -> NoReturn:
    raise error


def _deliver(http: Any, request: Any, error: AttestError) -> Any:
    # Should an SDK not ask for the status first, it finds a failure without content.
    response = http.Response(502, request=request)
    response.raise_for_status = partial(_raise, error)
    return response
