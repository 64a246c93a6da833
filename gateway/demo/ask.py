"""The demo's questions, through the stock SDK in each of its ways."""

from dataclasses import dataclass
from typing import Any

__all__ = ["Asker"]

_COMMON: dict[str, Any] = {"model": "toy-assistant", "max_tokens": 40, "temperature": 0}


@dataclass(frozen=True, slots=True)
class Asker:
    """Asks one question in each way that the SDK offers.

    `client` is an ordinary `openai.OpenAI`; nothing in here knows of attestations.
    """

    client: Any

    def chat(self, question: str, *, before: dict[str, str] | None = None) -> str:
        """One chat answer, after the message `before` if there is one."""
        messages = [before] if before else []
        answer = self.client.chat.completions.create(
            messages=[*messages, {"role": "user", "content": question}], **_COMMON
        )
        return str(answer.choices[0].message.content)

    def chat_streamed(self, question: str) -> str:
        """The same, token by token."""
        chunks = self.client.chat.completions.create(
            messages=[{"role": "user", "content": question}], stream=True, **_COMMON
        )
        return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)

    def completion(self, question: str) -> str:
        """A completion of the chat template's own text."""
        answer = self.client.completions.create(prompt=_rendered(question), **_COMMON)
        return str(answer.choices[0].text)

    def completion_streamed(self, question: str) -> str:
        """The same, token by token."""
        chunks = self.client.completions.create(
            prompt=_rendered(question), stream=True, **_COMMON
        )
        return "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)


def _rendered(question: str) -> str:
    return f"<|user|>{question}<|end|><|assistant|>"
