"""What a token says about the request: its facts, read from the parsed body."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from attest.canonical import canonical
from attest.dialects import MAX_CHOICES, Dialect
from attest.digests import digest
from attest.errors import FormatError

__all__ = ["RequestFacts", "request_facts", "semantic_digest"]

_MAX_NAME = 256
# A token with its disclosures must fit a header; one logit_bias can hold 300 entries.
_MAX_PARAMETER = 256
# Stands between the texts of several system messages or parts. It keeps a prompt that
# was cut in two, which the model reads differently, from passing as the whole one.
_SEPARATOR = "\x1e"

_SAMPLING = (
    "bad_words",
    "best_of",
    "echo",
    "frequency_penalty",
    "ignore_eos",
    "length_penalty",
    "logit_bias",
    "max_completion_tokens",
    "max_tokens",
    "min_p",
    "min_tokens",
    "n",
    "presence_penalty",
    "reasoning_effort",
    "repetition_penalty",
    "response_format",
    "seed",
    "skip_special_tokens",
    "stop",
    "stop_token_ids",
    "structured_outputs",
    "temperature",
    "tool_choice",
    "top_k",
    "top_p",
    "use_beam_search",
)


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """Facts of one request.

    Attributes:
        model: the model that was asked for, None where the engine is to choose.
        expected_choices: how many choices a whole answer has.
        sampling: each parameter of a fixed list that the request sets, as JSON text; a
            text of over 256 characters is given as its digest instead.
        system_prompt: text of the system and developer messages, messages and parts
            joined by U+001E; None where there is none. What is not text, or holds a
            lone surrogate, stands as its JSON.
        semantic: messages and tools, or the prompt, whatever their spelling; None
            where RFC 8785 cannot write them.
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
    choices, system_prompt, semantic = _READERS[dialect](body)
    count = choices * _integer(body, "n", default=1)
    if not 1 <= count <= MAX_CHOICES:
        raise FormatError(f"n: {count} choices, between 1 and {MAX_CHOICES} are served")
    return RequestFacts(
        model=_model(body),
        stream=_boolean(body, "stream"),
        expected_choices=count,
        sampling=_sampling(body),
        system_prompt=system_prompt,
        semantic=semantic if _is_canonical(semantic) else None,
    )


def semantic_digest(facts: RequestFacts) -> str | None:
    """Digest of the RFC 8785 form of the semantic request, None where it has none."""
    return None if facts.semantic is None else digest(canonical(facts.semantic))


def _model(body: Mapping[str, Any]) -> str | None:
    model = body.get("model")
    if model is None:
        return None
    if not isinstance(model, str) or not 0 < len(model) <= _MAX_NAME:
        raise FormatError(f"model: must be a string of 1 to {_MAX_NAME} characters")
    if not _is_canonical(model):
        raise FormatError("model: holds a lone surrogate")
    return model


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise FormatError(f"{name}: must be true or false")
    return bool(value)


def _integer(body: Mapping[str, Any], name: str, *, default: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if type(value) is not int:
        raise FormatError(f"{name}: must be an integer")
    return value


def _sampling(body: Mapping[str, Any]) -> dict[str, str]:
    texts = {}
    for name in _SAMPLING:
        if body.get(name) is not None:
            text = json.dumps(body[name], separators=(",", ":"), sort_keys=True)
            if len(text) > _MAX_PARAMETER:
                text = digest(text.encode("ascii"))
            texts[name] = text
    return texts


_Read = tuple[int, str | None, dict[str, Any]]


def _chat(body: Mapping[str, Any]) -> _Read:
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise FormatError("messages: must be a list of objects")
    texts = [
        _message_text(message.get("content"))
        for message in messages
        if message.get("role") in ("system", "developer")
    ]
    # No tools, null and an empty list are the same request.
    semantic = {"messages": messages, "tools": body.get("tools") or None}
    return 1, _system_prompt(texts), semantic


def _system_prompt(texts: list[str]) -> str | None:
    if not texts:
        return None
    text = _SEPARATOR.join(texts)
    return text if _encodes(text) else json.dumps(text)


def _message_text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return _SEPARATOR.join(map(_part_text, parts))


def _part_text(part: Any) -> str:
    if isinstance(part, dict) and part == {"type": "text", "text": part.get("text")}:
        text = part["text"]
        if isinstance(text, str):
            return text
    return json.dumps(part, sort_keys=True)


def _completions(body: Mapping[str, Any]) -> _Read:
    prompt = body.get("prompt")
    if prompt is not None and not isinstance(prompt, str | list):
        raise FormatError("prompt: must be a string or a list")
    return _prompt_count(prompt), None, {"prompt": prompt}


def _prompt_count(prompt: str | list[Any] | None) -> int:
    """A list is a batch of prompts, except a list of token ids, which is one prompt."""
    if not isinstance(prompt, list) or (prompt and type(prompt[0]) is int):
        return 1
    return len(prompt)


_READERS: Mapping[Dialect, Callable[[Mapping[str, Any]], _Read]] = {
    Dialect.CHAT: _chat,
    Dialect.COMPLETIONS: _completions,
}


def _is_canonical(value: Any) -> bool:
    """Whether RFC 8785 can write it; a walk, since writing is ten times the work."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if not item.isascii() and not _encodes(item):
                return False
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
        elif type(item) is int and not -(2**53) < item < 2**53:
            return False
    return True


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
