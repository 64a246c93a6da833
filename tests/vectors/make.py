"""Write the vectors that every implementation of the verifier is held to.

    PYTHONPATH=tests python tests/vectors/make.py

Run it again and nothing changes. The bodies are those that a real vLLM sent
(`vllm-0.32/`), and a few that are derived from them. What is expected of a case is
written by hand, in `fakes.vectors`; the verifier has no say in it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fakes.vectors.demanded import TRAINED, demanded
from fakes.vectors.exchanges import exchanges
from fakes.vectors.malformed import malformed
from fakes.vectors.mixed_up import mixed_up
from fakes.vectors.signed import case, document

HERE = Path(__file__).parent


def documents() -> dict[str, dict[str, Any]]:
    """Every file, by its path below this folder."""
    answers = {exchange.name: exchange for exchange in exchanges()}
    files = {
        f"damage/{name}.json": document(
            exchange.bundle(),
            [
                case(what, {"response": body}, found)
                for what, body, found in exchange.damages()
            ],
            dialect=str(exchange.dialect),
            streamed=exchange.streamed,
        )
        for name, exchange in answers.items()
    }
    plain = answers["chat-plain"]
    files["damage/mixed-up.json"] = document(
        plain.bundle(), list(mixed_up(plain)), dialect="chat", streamed=False
    )
    files["verdicts/tokens.json"] = document(
        plain.bundle(), list(malformed(plain.bundle()))
    )
    files["verdicts/policies.json"] = document(plain.bundle(TRAINED), list(demanded()))
    return files


def text(value: Mapping[str, Any]) -> str:
    """A file as it is written."""
    return json.dumps(value, indent=1, ensure_ascii=True) + "\n"


def main() -> None:
    """Write every file."""
    for path, value in documents().items():
        (HERE / path).parent.mkdir(exist_ok=True)
        (HERE / path).write_text(text(value), "utf-8")


if __name__ == "__main__":
    main()
