"""Chat completions and completions, as vLLM and OpenAI have them.

The two share the envelope `{id, model, choices[], usage}` and differ in what one choice
holds.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from attest.dialects._answer import MAX_CHOICES, Answer, Choice, Message, ToolCall
from attest.dialects._request import Prompt, integer, message_text, objects
from attest.dialects._values import (
    MAX_PARTS,
    Budget,
    finish_reason,
    joined,
    object_of,
    once,
    text_of,
)
from attest.errors import FormatError

__all__ = ["ChatAnswer", "CompletionAnswer", "chat_prompt", "completion_prompt"]


class _Choice(Choice, Protocol):
    def merge(self, item: Mapping[str, Any], *, streamed: bool) -> None:
        """Take in one member of `choices`: a part of a stream, or the whole of a body.

        Raises:
            FormatError: a member has the wrong type or contradicts an earlier one.
        """


class _Answer(Answer):
    # vLLM's others are abort, error and repetition; one that is unknown here proves
    # nothing either.
    finished = frozenset(
        ["stop", "length", "tool_calls", "function_call", "content_filter"]
    )
    counts = ("prompt_tokens", "completion_tokens")
    # Where the text of an event stands within its choice.
    text: ClassVar[tuple[str, ...]]

    @abstractmethod
    def _new(self) -> _Choice: ...

    def event(self, value: Mapping[str, Any]) -> None:
        self._read(value, streamed=True)

    def body(self, value: Mapping[str, Any]) -> None:
        self._read(value, streamed=False)

    def joins(self, value: Mapping[str, Any], path: tuple[str | int, ...]) -> bool:
        """See `Answer.joins`: one choice, and of it nothing but text."""
        choices = value.get("choices")
        if not isinstance(choices, list) or len(choices) != 1:
            return False
        if path != ("choices", 0, *self.text) or not isinstance(choices[0], dict):
            return False
        choice = choices[0]
        said = choice["delta"] if len(self.text) > 1 else {}
        others = [name for name, item in said.items() if name != "content" and item]
        return not others

    def _read(self, value: Mapping[str, Any], *, streamed: bool) -> None:
        self._open(value)
        members = value.get("choices")
        if not isinstance(members, list):
            raise FormatError("answer: choices must be a list")
        for item in members:
            index = item.get("index") if isinstance(item, dict) else None
            if type(index) is not int or not 0 <= index < MAX_CHOICES:
                raise FormatError("answer: a choice without a usable index")
            self._merge(index, item, streamed=streamed)

    def _merge(self, index: int, item: dict[str, Any], *, streamed: bool) -> None:
        choice = self.choices.get(index)
        if choice is None:
            choice = self.choices[index] = self._new()
        elif not streamed:
            self.broken.add(index)
            raise FormatError("answer: two choices with the same index")
        try:
            choice.merge(item, streamed=streamed)  # type: ignore[attr-defined]
        except FormatError:
            self.broken.add(index)
            raise


class _ChatChoice(Message):
    def merge(self, item: Mapping[str, Any], *, streamed: bool) -> None:
        part = object_of(item, "delta" if streamed else "message")
        self.role = once(self.role, part, "role")
        self.add("content", text_of(part, "content"))
        self.add("refusal", text_of(part, "refusal"))
        # Older engines say reasoning_content; some say both, with the same text.
        reasoning = text_of(part, "reasoning") or text_of(part, "reasoning_content")
        self.add("reasoning", reasoning)
        if part.get("tool_calls"):
            self._merge_tool_calls(part["tool_calls"], streamed=streamed)
        self.finish_reason = finish_reason(self.finish_reason, item)

    def _merge_tool_calls(self, calls: Any, *, streamed: bool) -> None:
        if not isinstance(calls, list):
            raise FormatError("answer: tool_calls must be a list")
        for number, call in enumerate(calls):
            if not isinstance(call, dict):
                raise FormatError("answer: a tool call must be an object")
            # A body lists whole calls in order; in a stream only the index tells which
            # call a part belongs to, and a guess would mix the arguments of two calls.
            index = call.get("index") if streamed else number
            if type(index) is not int or not 0 <= index < MAX_PARTS:
                raise FormatError("answer: a tool call without a usable index")
            self._merge_tool_call(index, call)

    def _merge_tool_call(self, index: int, call: dict[str, Any]) -> None:
        if text_of(call, "type") not in ("", "function"):
            raise FormatError("answer: a tool call that is not a function call")
        if index not in self.tool_calls:
            self.tool_calls[index] = ToolCall(self.budget)
        function = object_of(call, "function")
        self.tool_calls[index].name(call, function)
        self.tool_calls[index].add(text_of(function, "arguments"))


class ChatAnswer(_Answer):
    """An answer of `/v1/chat/completions`."""

    text = ("delta", "content")

    def _new(self) -> _Choice:
        return _ChatChoice(self._budget)


class _CompletionChoice:
    def __init__(self, budget: Budget) -> None:
        self.finish_reason: str | None = None
        self._budget = budget
        self._text: list[str] = []

    def merge(self, item: Mapping[str, Any], *, streamed: bool) -> None:  # noqa: ARG002
        part = text_of(item, "text")
        self._budget.take(len(part))
        self._text.append(part)
        self.finish_reason = finish_reason(self.finish_reason, item)

    def output(self, index: int) -> dict[str, Any]:
        return {
            "index": index,
            "text": joined(self._text),
            "finish_reason": self.finish_reason,
        }


class CompletionAnswer(_Answer):
    """An answer of `/v1/completions`."""

    text = ("text",)

    def _new(self) -> _Choice:
        return _CompletionChoice(self._budget)


def chat_prompt(body: Mapping[str, Any]) -> Prompt:
    """The prompt of a chat; raises FormatError where `messages` or `n` are unusable."""
    messages = objects(body, "messages")
    texts = [
        message_text(message.get("content"))
        for message in messages
        if message.get("role") in ("system", "developer")
    ]
    # No tools, null and an empty list are the same request.
    semantic = {"messages": messages, "tools": body.get("tools") or None}
    return Prompt(semantic, texts, _choices(body, 1))


def completion_prompt(body: Mapping[str, Any]) -> Prompt:
    """The prompt of a completion; raises as `chat_prompt`."""
    prompt = body.get("prompt")
    if prompt is not None and not isinstance(prompt, str | list):
        raise FormatError("prompt: must be a string or a list")
    return Prompt({"prompt": prompt}, [], _choices(body, _prompt_count(prompt)))


def _prompt_count(prompt: str | list[Any] | None) -> int:
    """A list is a batch of prompts, except a list of token ids, which is one prompt."""
    if not isinstance(prompt, list) or (prompt and type(prompt[0]) is int):
        return 1
    return len(prompt)


def _choices(body: Mapping[str, Any], prompts: int) -> int:
    count = prompts * integer(body, "n", default=1)
    if not 1 <= count <= MAX_CHOICES:
        raise FormatError(f"n: {count} choices, between 1 and {MAX_CHOICES} are served")
    return count
