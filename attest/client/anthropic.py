"""Anthropic clients that prove every answer: `/v1/messages`, plain and streamed."""

from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from attest.client._exchange import OnEvidence
from attest.client._sdk import Libraries, async_http_client, http_client
from attest.errors import AttestError, ConfigurationError
from attest.policy import Policy

if TYPE_CHECKING:
    import anthropic

__all__ = ["anthropic_client", "async_anthropic_client"]


def anthropic_client(
    base_url: str,
    policy: Policy,
    *,
    api_key: str = "none",
    on_evidence: OnEvidence | None = None,
    buffered: bool = False,
    **options: Any,
) -> "anthropic.Anthropic":
    """An ordinary `anthropic.Anthropic` whose answers are proven, or raise.

    Calls raise `attest.errors.AttestError`, without asking again; a stream does so
    before its loop ends. Read streams to their end: what is not read is not proven.

    Args:
        base_url: the gateway's, without `/v1`, as this SDK wants it.
        policy: what is demanded of every answer.
        api_key: for the gateway, if it wants one.
        on_evidence: called with the verdict and the bundle of each attested answer;
            answers are then kept in memory until they are proven, up to 64 MiB each.
        buffered: hand on nothing of a stream before the whole is proven.
        **options: for `anthropic.Anthropic`, such as `max_retries`.

    Raises:
        ConfigurationError: the anthropic package is not installed, or is older than 2.
    """
    libraries = _libraries()
    client = http_client(
        libraries,
        policy,
        on_evidence=on_evidence,
        buffered=buffered,
        deliver=_deliver,
    )
    return libraries.sdk.Anthropic(
        base_url=base_url, api_key=api_key, http_client=client, **options
    )


def async_anthropic_client(
    base_url: str,
    policy: Policy,
    *,
    api_key: str = "none",
    on_evidence: OnEvidence | None = None,
    buffered: bool = False,
    **options: Any,
) -> "anthropic.AsyncAnthropic":
    """As `anthropic_client`, an `anthropic.AsyncAnthropic`."""
    libraries = _libraries()
    client = async_http_client(
        libraries,
        policy,
        on_evidence=on_evidence,
        buffered=buffered,
        deliver=_deliver,
    )
    return libraries.sdk.AsyncAnthropic(
        base_url=base_url, api_key=api_key, http_client=client, **options
    )


def _libraries() -> Libraries:
    try:
        sdk = import_module("anthropic")
    except ImportError as error:
        raise ConfigurationError(
            "the anthropic package is not installed", hint="type: pip install anthropic"
        ) from error
    if int(sdk.__version__.partition(".")[0]) < 2:
        raise ConfigurationError(
            f"anthropic {sdk.__version__} is too old",
            hint="type: pip install --upgrade anthropic",
        )
    http, ours = import_module("httpx2"), import_module("attest.client.httpx2")
    return Libraries(sdk, http, ours)


# The SDK takes every exception of an HTTP client for a broken connection: it asks twice
# more, and then raises APIConnectionError. Only its own it hands on.


def _deliver(_http: Any, _request: Any, error: AttestError) -> NoReturn:
    kind, own = type(error), import_module("anthropic").AnthropicError
    error.__class__ = type(kind.__name__, (kind, own), {"__doc__": kind.__doc__})
    raise error
