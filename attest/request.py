"""What a token says about the request: its facts, read from the parsed body."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attest.canonical import canonical
from attest.dialects import SEPARATOR, SHAPES, Dialect
from attest.digests import digest
from attest.errors import FormatError

__all__ = ["RequestFacts", "prompt_digest", "request_facts", "semantic_digest"]

_MAX_NAME = 256
# A token with its disclosures must fit a header; one logit_bias can hold 300 entries.
_MAX_PARAMETER = 256

_encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode
_SAMPLING = frozenset(
    (
        "allowed_token_ids",
        "bad_words",
        "best_of",
        "echo",
        "frequency_penalty",
        "ignore_eos",
        "length_penalty",
        "logit_bias",
        "max_completion_tokens",
        "max_output_tokens",
        "max_tokens",
        "min_p",
        "min_tokens",
        "n",
        "output_config",
        "presence_penalty",
        "reasoning",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "seed",
        "skip_special_tokens",
        "stop",
        "stop_sequences",
        "stop_token_ids",
        "structured_outputs",
        "temperature",
        "text",
        "thinking",
        "thinking_token_budget",
        "tool_choice",
        "top_k",
        "top_p",
        "use_beam_search",
    )
)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Facts of one request.

    Attributes:
        model: the model that was asked for, None where the engine is to choose.
        expected_choices: how many choices a whole answer has; 0 where its dialect has
            none.
        sampling: each parameter of a fixed list that the request sets, as JSON text; a
            text of over 256 characters is given as its digest instead.
        system_prompt: text of the system and developer messages, of `instructions` or
            `system`; messages and parts joined by U+001E; None where there is none.
            What is not text, or holds a lone surrogate, stands as its JSON.
        semantic: messages and tools, or whatever else the model is given to read, in
            any spelling.
    """

    model: str | None
    stream: bool
    expected_choices: int
    sampling: Mapping[str, str]
    system_prompt: str | None
    semantic: dict[str, Any] | None


def request_facts(body: Mapping[str, Any], dialect: Dialect) -> RequestFacts:
    """Read the facts from a parsed request body.

    Whether the engine takes the request is not checked. What is read must have the type
    that the API gives it: engines turn "true" or 1 into a boolean, and then gateway and
    engine would see two requests.

    Raises:
        FormatError: a member has the wrong type, or the request asks for no choice or
            for more than 128; the message begins with the member's name.
    """
    semantic, system, choices = SHAPES[dialect].prompt(body)
    return RequestFacts(
        model=_model(body),
        stream=_boolean(body, "stream"),
        expected_choices=choices,
        sampling=_sampling(body),
        system_prompt=_system_prompt(system),
        semantic=semantic,
    )


def semantic_digest(
    facts: RequestFacts, *, write: Callable[[Any], bytes] = canonical
) -> str | None:
    """Digest of the RFC 8785 form of the semantic request, None where it has none.

    `write` makes that form as `canonical` does, for a caller that has a faster way.
    """
    if facts.semantic is None:
        return None
    try:
        return digest(write(facts.semantic))
    except FormatError:
        return None


def prompt_digest(facts: RequestFacts) -> str | None:
    """Digest of the system prompt's text, None where there is none."""
    prompt = facts.system_prompt
    return None if prompt is None else digest(prompt.encode())


def _model(body: Mapping[str, Any]) -> str | None:
    model = body.get("model")
    if model is None:
        return None
    if not isinstance(model, str) or not 0 < len(model) <= _MAX_NAME:
        raise FormatError(f"model: must be a string of 1 to {_MAX_NAME} characters")
    if not _encodes(model):
        raise FormatError("model: holds a lone surrogate")
    return model


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise FormatError(f"{name}: must be true or false")
    return bool(value)


def _sampling(body: Mapping[str, Any]) -> dict[str, str]:
    texts = {}
    for name in sorted([name for name in body if name in _SAMPLING]):
        value = body[name]
        if value is not None:
            text = _json(value)
            if len(text) > _MAX_PARAMETER:
                text = digest(text.encode("ascii"))
            texts[name] = text
    return texts


def _json(value: Any) -> str:
    # What the encoder does with a number, without making an encoder for it.
    kind = type(value)
    if kind is int or (kind is float and math.isfinite(value)):
        return repr(value)
    return _encode(value)


def _system_prompt(texts: list[str]) -> str | None:
    if not texts:
        return None
    text = SEPARATOR.join(texts)
    return text if _encodes(text) else json.dumps(text)


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
