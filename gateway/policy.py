"""What a request may ask for: the model's name, a system prompt, and overrides.

    observe  the token says whether the system prompt is governed, unlisted or absent
    require  a request without a governed system prompt is refused
    inject   the gateway puts the governed system prompt first

A refusal is attested like any answer. Only `inject` changes the body that goes to the
engine; the token then holds the digests of both.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from attest.dialects import Dialect
from attest.digests import digest
from attest.errors import ConfigurationError
from attest.manifest import Manifest
from attest.request import prompt_digest, request_facts
from gateway.dialects.members import overrides, refuse_stored_state
from gateway.errors import PolicyRefusedError, RequestError, UnknownModelError
from gateway.exchange import Exchange
from gateway.settings import Settings

__all__ = ["Rules"]

_MAX_PROMPT = 1024 * 1024


def _into_chat(body: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    first = {"role": "system", "content": prompt}
    return {**body, "messages": [first, *body["messages"]]}


def _into_responses(body: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    # One string holds the instructions, and must be the governed text and no other.
    own, given = body.get("instructions"), body["input"]
    if own is not None:
        if isinstance(given, str):
            given = [{"role": "user", "content": given}]
        given = [{"role": "system", "content": own}, *given]
    return {**body, "instructions": prompt, "input": given}


def _into_messages(body: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    own = body.get("system") or []
    blocks = [{"type": "text", "text": own}] if isinstance(own, str) else own
    return {**body, "system": [{"type": "text", "text": prompt}, *blocks]}


# Dialects in which a model is told how to behave. A bare prompt has no place for it.
_INTO: Mapping[Dialect, Callable[[Mapping[str, Any], str], dict[str, Any]] | None] = {
    Dialect.CHAT: _into_chat,
    Dialect.COMPLETIONS: None,
    Dialect.RESPONSES: _into_responses,
    Dialect.MESSAGES: _into_messages,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The policy of one gateway.

    Attributes:
        system_prompt: what is done about system prompts.
        overrides: what is done about members that change how the prompt is built, go
            round the weights, or are unknown here.
        prompt: the governed text that `inject` puts first.
        model: the one name that is served; empty until `bound`, and then not checked.
        governed: digests of the system prompts in the manifest.
    """

    system_prompt: Literal["observe", "require", "inject"] = "observe"
    overrides: Literal["refuse", "mark"] = "refuse"
    prompt: str = ""
    model: str = ""
    governed: frozenset[str] = frozenset()

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """The rules that the settings say.

        Raises:
            ConfigurationError: the prompt to inject is missing or unreadable.
        """
        policy = settings.policy
        prompt = ""
        if policy.system_prompt == "inject":
            if policy.inject_prompt is None:
                raise ConfigurationError(
                    "policy.inject_prompt: needed with policy.system_prompt inject",
                    hint="name the file that holds the governed prompt",
                )
            try:
                with policy.inject_prompt.open("rb") as file:
                    prompt = file.read(_MAX_PROMPT).decode()
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(
                    f"policy.inject_prompt: {policy.inject_prompt}: "
                    f"{getattr(error, 'strerror', None) or 'not UTF-8'}",
                    hint="name a text file that this user may read",
                ) from error
        return cls(
            system_prompt=policy.system_prompt,
            overrides=policy.request_overrides,
            prompt=prompt,
            model=settings.served_model_name,
        )

    def bound(self, manifest: Manifest) -> Self:
        """The same for the manifest that is served.

        Raises:
            ConfigurationError: the prompt to inject is not in it, or there is none to
                require.
        """
        governed = frozenset(manifest.runtime.system_prompts)
        if self.system_prompt == "require" and not governed:
            raise ConfigurationError(
                "policy.system_prompt: require, but the manifest lists no prompt",
                hint="sign one into it: attest manifest sign --help",
            )
        found = digest(self.prompt.encode())
        if self.system_prompt == "inject" and found not in governed:
            raise ConfigurationError(
                f"policy.inject_prompt: {found} is not in the manifest's systemPrompts",
                hint="every byte counts, also a newline at the end of the file",
            )
        model = self.model or manifest.model_name
        return replace(self, governed=governed, model=model)

    def apply(self, body: Mapping[str, Any], exchange: Exchange) -> None:
        """Return when the request may go on; note in the exchange what was found.

        Raises:
            RequestError: it brings in stored text, or overrides (400).
            UnknownModelError: it asks for another model (404).
            PolicyRefusedError: its system prompt is not governed (403).
        """
        if exchange.dialect is Dialect.RESPONSES:
            refuse_stored_state(body)
        self._check_model(exchange.facts.model)
        exchange.overrides = overrides(body, exchange.dialect)
        if exchange.overrides and self.overrides == "refuse":
            name = exchange.overrides[0]
            raise RequestError(
                f"{name}: could change how the prompt is built, go round the weights, "
                "or is unknown here",
                hint="leave it out, or have the operator set policy.request_overrides: "
                "mark",
                param=name,
            )
        if exchange.dialect in _INTO:
            self._apply_prompt(body, exchange)

    def _check_model(self, name: str | None) -> None:
        if name is not None and self.model and name != self.model:
            raise UnknownModelError(
                f"model: not served here; the one that is: {self.model}",
                param="model",
            )

    def _apply_prompt(self, body: Mapping[str, Any], exchange: Exchange) -> None:
        found = prompt_digest(exchange.facts)
        if self.system_prompt == "inject":
            if found != digest(self.prompt.encode()):
                self._inject(body, exchange)
        elif self.system_prompt == "require" and found not in self.governed:
            what = "there is none" if found is None else "it is another"
            raise _refused(f"a governed system prompt is required, and {what}")

    def _inject(self, body: Mapping[str, Any], exchange: Exchange) -> None:
        into = _INTO[exchange.dialect]
        if into is None:
            raise _refused("a system prompt must come first, and here it has no place")
        altered = into(body, self.prompt)
        facts = request_facts(altered, exchange.dialect)
        # What the model reads as its system prompt; the rest is the client's request.
        exchange.facts = replace(exchange.facts, system_prompt=facts.system_prompt)
        exchange.forwarded = json.dumps(altered, separators=(",", ":")).encode("ascii")


def _refused(message: str) -> PolicyRefusedError:
    return PolicyRefusedError(
        message,
        hint="the manifest lists the governed prompts; GET /.well-known/attestation "
        "shows it",
    )
