"""Fixed questions whose greedy answers must stay the same while an engine serves.

The same weights, settings and code give the same digest at every start on the same
hardware, so that two boot records can be compared. It is no proof by itself: an engine
that knows the questions can answer them rightly and all others otherwise, and batches
of other requests can change the rounding on a GPU.
"""

import json
from dataclasses import dataclass

from attest.canonical import canonical, read_object
from attest.digests import digest
from attest.errors import FormatError
from gateway.engine.client import MAX_EVIDENCE_BYTES, EngineClient
from gateway.errors import EngineDiedError
from gateway.http import httpx

__all__ = ["Canary", "ask_canary"]

_PROMPTS = (
    "The capital of France is",
    "def add(a, b):\n    return",
    "1, 2, 3, 4,",
)
_TOKENS = 8
# The engine serves no completions: it embeds, for example.
_NOT_SERVED = frozenset({400, 404, 405, 501})


@dataclass(frozen=True, slots=True)
class Canary:
    """Digests of the questions and of the answers.

    Attributes:
        prompts: over the RFC 8785 form of the questions and how they are asked.
        outputs: over that of the list of answers.
    """

    prompts: str
    outputs: str


async def ask_canary(client: EngineClient, model: str) -> Canary | None:
    """Ask all of them, one after the other; None where the engine completes no text.

    Raises:
        EngineDiedError: no answer, or a failure.
        FormatError: the answer is not in its form.
    """
    answers = []
    for prompt in _PROMPTS:
        body = {
            "model": model,
            "prompt": prompt,
            "max_tokens": _TOKENS,
            "temperature": 0,
            "seed": 0,
        }
        try:
            status, data = await client.call("POST", "/v1/completions", body=body)
        except httpx.HTTPError as error:
            raise EngineDiedError(
                f"engine: the canary got no answer: {type(error).__name__}",
                hint="look at the engine's log",
            ) from error
        if status in _NOT_SERVED:
            return None
        if status != 200:
            raise EngineDiedError(
                f"engine: the canary got HTTP status {status}",
                hint="look at the engine's log",
            )
        answers.append(_answer(data))
    asked = {"prompts": list(_PROMPTS), "max_tokens": _TOKENS, "temperature": "0"}
    return Canary(digest(canonical(asked)), digest(canonical(answers)))


def _answer(data: bytes) -> str:
    choices = read_object(data, max_bytes=MAX_EVIDENCE_BYTES).get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    text = choice.get("text") if isinstance(choice, dict) else None
    if not isinstance(text, str):
        raise FormatError("engine: the canary's answer is no completion")
    # As JSON text, since an answer may hold half a surrogate pair.
    return json.dumps(text)
