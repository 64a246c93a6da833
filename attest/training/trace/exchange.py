"""What a bundle says was asked and answered, as far as a trace can use it. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attest.bundle import Bundle
from attest.canonical import read_object
from attest.digests import digests_equal
from attest.errors import EvidenceUnavailableError, FormatError
from attest.sse import EventSplitter
from attest.transcript import MAX_BODY, Dialect, Transcript, output_digest

__all__ = ["Exchange", "read_exchange"]

_TEXT_ONLY = ("refusal", "reasoning", "tool_calls")


@dataclass(frozen=True, slots=True)
class Exchange:
    """One prompt and one answer.

    Attributes:
        messages: the chat, for the tokenizer's template; or else
        prompt: the text that was completed.
        ended: the model ended the answer by itself, and was not cut off.
        choices: how many answers there were; this is the first.
    """

    answer: str
    messages: list[dict[str, Any]] | None = None
    prompt: str | None = None
    ended: bool = True
    choices: int = 1


def read_exchange(bundle: Bundle, disclosed: Mapping[str, Any]) -> Exchange:
    """The exchange in a bundle that was proven; `disclosed` is the verdict's.

    The first choice of a chat completion or of a completion of one text prompt. The
    answer's digest is that in the token, so the text is read as the gateway read it.

    Raises:
        EvidenceUnavailableError: the bundle holds no bodies, or is about something
            that has no plain text to trace: tool calls, reasoning, images, another API.
    """
    if bundle.request is None or bundle.response is None:
        raise EvidenceUnavailableError(
            "trace: the bundle holds no request and response",
            hint="keep bundles with their bodies, or give --prompt and --answer",
        )
    stated = disclosed.get("out.0")
    for dialect in (Dialect.CHAT, Dialect.COMPLETIONS):
        transcript = _transcript(bundle.response, dialect)
        outputs = transcript.outputs()
        if (
            outputs
            and isinstance(stated, str)
            and outputs[0]["index"] == 0
            and digests_equal(output_digest(outputs[0]), stated)
        ):
            body = read_object(bundle.request, max_bytes=MAX_BODY)
            return _exchange(body, outputs[0], transcript.choice_count)
    raise _unusable("is no chat completion and no completion whose text was disclosed")


def _transcript(response: bytes, dialect: Dialect) -> Transcript:
    transcript = Transcript(dialect)
    if response.lstrip()[:1] == b"{":
        transcript.feed_body(response)
        return transcript
    splitter = EventSplitter()
    try:
        for event in splitter.feed(response):
            transcript.feed_event(event)
        transcript.end(splitter.flush())
    except FormatError:
        transcript.malformed = True
    return transcript


def _exchange(
    body: Mapping[str, Any], output: Mapping[str, Any], choices: int
) -> Exchange:
    ended = output["finish_reason"] == "stop"
    if "text" in output:
        prompt = body.get("prompt")
        if not isinstance(prompt, str):
            raise _unusable("has no prompt that is one text")
        return Exchange(output["text"], None, prompt, ended, choices)
    if body.get("tools") or any(output.get(name) for name in _TEXT_ONLY):
        raise _unusable("uses tools, reasoning or a refusal member")
    if not isinstance(output["content"], str):
        raise _unusable("has no text")
    asked = body.get("messages")
    if not isinstance(asked, list):
        raise _unusable("has no messages")
    messages = [_message(item) for item in asked]
    return Exchange(output["content"], messages, None, ended, choices)


def _message(item: Any) -> dict[str, Any]:
    match item:
        case {"role": str(role), "content": str(content)}:
            return {"role": role, "content": content}
    raise _unusable("has a message that is not plain text")


def _unusable(what: str) -> EvidenceUnavailableError:
    return EvidenceUnavailableError(
        f"trace: the answer {what}",
        hint="give the text itself: attest trace --run RUN --prompt TEXT --answer TEXT",
    )
