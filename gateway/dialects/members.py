"""Members of a request: which pass, and which change more than the answer's form.

Deny by default: what is not known here to be harmless counts as an override, since the
next version of the engine may give it a meaning. The lists are those of vLLM 0.32 and
of the two APIs.

Left out on purpose, so that they count as overrides: what changes how the prompt is
built (`chat_template`, `chat_template_kwargs`, `documents`, `add_special_tokens`,
`continue_final_message`), cuts it (`truncate_prompt_tokens` keeps the end, and so drops
the system prompt), replaces what the weights would compute (`prompt_embeds`,
`kv_transfer_params`), or reaches extensions of the engine (`vllm_xargs`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attest.dialects import Dialect
from gateway.errors import RequestError

__all__ = ["overrides", "refuse_stored_state"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SAMPLING = _words(
    """
    allowed_token_ids bad_words best_of cache_salt frequency_penalty ignore_eos
    include_stop_str_in_output length_penalty logit_bias logprob_token_ids min_p
    min_tokens mm_payload presence_penalty priority prompt_logprobs
    repetition_detection repetition_penalty request_id return_mm_kwargs
    return_prompt_text return_token_ids return_token_offsets return_tokens_as_token_ids
    routed_experts_prompt_start seed session_id skip_special_tokens
    spaces_between_special_tokens stop stop_token_ids stream_interval
    structured_outputs temperature thinking_token_budget top_k top_p use_beam_search
    watermarking
    """
)
_OPENAI = _words(
    """
    metadata model prompt_cache_key prompt_cache_retention safety_identifier
    service_tier store stream stream_options top_logprobs user
    """
)
_POOLING = _words(
    """
    cache_salt data data_1 data_2 dimensions documents embed_dtype encoding_format
    endianness input instruction items max_tokens_per_doc max_tokens_per_query messages
    model padding priority queries query request_id return_documents task text_1 text_2
    top_n truncate_prompt_tokens truncation_side use_activation user
    """
)

# Text that came in by another call, or never through this gateway at all.
_STORED = (
    "background",
    "conversation",
    "previous_input_messages",
    "previous_response_id",
    "prompt",
)

_HARMLESS: Mapping[Dialect, frozenset[str]] = {
    Dialect.CHAT: _SAMPLING
    | _OPENAI
    | _words(
        """
        function_call functions include_reasoning logprobs max_completion_tokens
        max_tokens messages modalities n parallel_tool_calls prediction
        reasoning_effort response_format tool_choice tools verbosity
        """
    ),
    Dialect.COMPLETIONS: _SAMPLING
    | _OPENAI
    | _words("echo logprobs max_tokens n prompt response_format suffix"),
    Dialect.RESPONSES: _SAMPLING
    | _OPENAI
    | frozenset(_STORED)  # refused whatever the policy says
    | _words(
        """
        enable_response_messages include include_reasoning input instructions
        max_output_tokens max_tool_calls parallel_tool_calls reasoning text tool_choice
        tools
        """
    ),
    Dialect.MESSAGES: _words(
        """
        cache_salt max_tokens messages metadata mm_payload model output_config
        return_mm_kwargs service_tier stop_sequences stream system temperature thinking
        tool_choice tools top_k top_p watermarking
        """
    ),
    Dialect.POOLING: _POOLING,
    Dialect.RERANK: _POOLING,
    Dialect.AUDIO: _words(
        """
        file frequency_penalty hotwords include_stop_str_in_output language
        length_penalty max_completion_tokens min_p model n presence_penalty prompt
        repetition_penalty response_format seed stream stream_continuous_usage_stats
        stream_include_usage temperature timestamp_granularities
        timestamp_granularities[] to_language top_k top_p use_beam_search watermarking
        """
    ),
}

# What the engine does anyway; clients that write it down change nothing.
_DEFAULTS: Mapping[tuple[Dialect, str], Any] = {
    (Dialect.CHAT, "add_generation_prompt"): True,
    (Dialect.CHAT, "add_special_tokens"): False,
    (Dialect.CHAT, "continue_final_message"): False,
    (Dialect.CHAT, "echo"): False,
    (Dialect.COMPLETIONS, "add_special_tokens"): True,
    (Dialect.RESPONSES, "truncation"): "disabled",
    (Dialect.POOLING, "add_generation_prompt"): False,
    (Dialect.POOLING, "add_special_tokens"): True,
    (Dialect.POOLING, "continue_final_message"): False,
    (Dialect.POOLING, "stream"): False,
}
_ROLES = frozenset(["assistant", "developer", "function", "system", "tool", "user"])

_OWN_TOOLS = frozenset(["custom", "function", "namespace"])
# The client chose the name; it goes into tokens and errors.
_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")
_MAX_NAMES = 16


def overrides(body: Mapping[str, Any], dialect: Dialect) -> tuple[str, ...]:
    """Names of the members that are not known to be harmless, sorted, at most 16.

    Null, empty and the engine's own default count as absent. A name that is no plain
    word is given as `?`.
    """
    names = sorted(set(_overrides(body, dialect)))
    return tuple(names[:_MAX_NAMES])


def _overrides(body: Mapping[str, Any], dialect: Dialect) -> Iterator[str]:
    for name in body.keys() - _HARMLESS[dialect]:
        value = body[name]
        neutral = value is None or value in ("", [], {})
        default = _DEFAULTS.get((dialect, name))
        if not (neutral or (value == default and type(value) is type(default))):
            yield name if _NAME.fullmatch(name) else "?"
    # Templates write the role as it is, so any other one writes a header of its own.
    for message in body.get("messages", ()) if dialect is Dialect.CHAT else ():
        if message.get("role") not in _ROLES:
            yield "messages.role"


def refuse_stored_state(body: Mapping[str, Any]) -> None:
    """Return when a request for a response brings all its text along.

    `store` is no matter: what an engine keeps, no other request can reach from here.

    Raises:
        RequestError: it refers to text that the gateway does not see.
    """
    for name in _STORED:
        if body.get(name) not in (None, False):
            raise _stored(name)
    given = body.get("input")
    if isinstance(given, list) and any(
        item.get("type") == "item_reference" for item in given
    ):
        raise _stored("input")
    tools = body.get("tools") or ()
    if isinstance(tools, list) and not all(
        isinstance(tool, dict) and tool.get("type") in _OWN_TOOLS for tool in tools
    ):
        raise _stored("tools")


def _stored(name: str) -> RequestError:
    return RequestError(
        f"{name}: refers to text that does not pass through this gateway, so that "
        "nothing could be said about it",
        hint="send the whole conversation in input, and run tools yourself",
        param=name,
    )
