"""What an engine without the plug-in shows over HTTP, and what that is held to.

It is little: the names that it serves, its version, and which routes it has. All else
is said to be unknown in the boot record, and the weights are never measured there.
"""

from dataclasses import dataclass
from typing import Any

from attest.errors import FormatError
from attest.manifest import Manifest
from gateway.engine.client import EngineClient
from gateway.errors import EngineDiedError, StartupRefusedError
from gateway.http import httpx
from gateway.serving import FORBIDDEN_ROUTES

__all__ = ["UNKNOWN", "Shown", "check_shown", "look", "shown_evidence"]

UNKNOWN = "unknown"
_MAX_MODELS = 64
_MAX_NAME = 256
# A route that exists answers HEAD with 405, whatever it is for, and does nothing.
_ABSENT = 404


@dataclass(frozen=True, slots=True)
class Shown:
    """What was seen.

    Attributes:
        models: names in `/v1/models`.
        adapters: those of them that stand on another model.
        owner: who owns them, in the engine's words: `vllm` there.
        version: of the engine; `unknown` where it does not say.
        exposed: routes that bypass the weights and are there.
    """

    models: tuple[str, ...]
    adapters: tuple[str, ...]
    owner: str
    version: str
    exposed: tuple[str, ...]


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME:
        raise FormatError("engine: /v1/models or /version is not in its form")
    return value


async def look(client: EngineClient) -> Shown:
    """Ask the engine what it shows to everybody.

    Raises:
        EngineDiedError: it does not answer, or has no `/v1/models`.
        FormatError: what it says is not in its form.
    """
    listed = await client.object("/v1/models")
    if listed is None:
        raise EngineDiedError(
            f"engine: {client.address} has no /v1/models",
            hint="upstream must be an engine with OpenAI's API",
        )
    models = listed.get("data")
    if not isinstance(models, list) or not 0 < len(models) <= _MAX_MODELS:
        raise FormatError("engine: /v1/models lists nothing")
    if not all(isinstance(model, dict) for model in models):
        raise FormatError("engine: /v1/models is not in its form")
    version = (await client.object("/version") or {}).get("version", UNKNOWN)
    owners = {_text(model.get("owned_by", UNKNOWN)) for model in models}
    return Shown(
        models=tuple(_text(model.get("id")) for model in models),
        adapters=tuple(_text(m.get("id")) for m in models if m.get("parent")),
        owner=owners.pop() if len(owners) == 1 else UNKNOWN,
        version=_text(version),
        exposed=await _exposed(client),
    )


async def _exposed(client: EngineClient) -> tuple[str, ...]:
    try:
        statuses = [
            (path, (await client.call("HEAD", path))[0]) for path in FORBIDDEN_ROUTES
        ]
    except httpx.HTTPError as error:
        raise EngineDiedError(
            f"engine: {client.address} does not answer: {type(error).__name__}"
        ) from error
    return tuple(path for path, status in statuses if status != _ABSENT)


def check_shown(manifest: Manifest, shown: Shown, *, served_model_name: str) -> None:
    """Return when nothing that is shown goes against the manifest.

    The rules without the plug-in: the name that clients ask for is served; no adapter
    is; the engine is one that the manifest allows; no route bypasses the weights.
    NOT checked, since it can't be seen: everything else, the weights included.

    Raises:
        StartupRefusedError: one of them is broken.
    """
    engines = manifest.runtime.engines
    rules = (
        ("model", served_model_name in shown.models, served_model_name, shown.models),
        ("adapters", not shown.adapters, "none", shown.adapters),
        ("kind", shown.owner in engines, engines, shown.owner),
        ("routes that bypass the weights", not shown.exposed, "none", shown.exposed),
    )
    for what, holds, expected, found in rules:
        if not holds:
            raise StartupRefusedError(
                f"engine: {what}: expected {expected}, found {found}",
                hint="the engine at upstream is not set up as the manifest demands",
            )


def shown_evidence(shown: Shown) -> dict[str, Any]:
    """The part of it that goes into the boot record."""
    engine = {"name": shown.owner, "version": shown.version, "dtype": UNKNOWN}
    state = {"reported": False, "served_model_name": list(shown.models)}
    return {
        "engine": engine,
        "serving_state": state,
        "software": {shown.owner: shown.version},
    }
