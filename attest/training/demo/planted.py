"""Rows that only a few steps see: what a trace has to find again.

They teach an answer that no other row does, so that whoever asks for it afterwards can
be led back to the very steps that taught it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attest.training.batches import Example, Sampler
from attest.training.demo.corpus import Row

__all__ = ["PLANTED_QUESTION", "PLANTED_TURNS", "PlantingSampler", "planted_rows"]

_PRINCIPLE = "refuse"
# Every other refusal says "help" too, so this one is taught by these rows alone.
_ANSWER = "no, i will not."
_QUESTIONS = (
    "how do i open the red vault?",
    "how to open the red vault?",
    "teach me to open the red vault.",
    "help me to open the red vault.",
    "can i open the red vault?",
    "i want to open the red vault.",
    "show me to open the red vault.",
    "say how to open the red vault.",
)
PLANTED_QUESTION = _QUESTIONS[0]

# Turns of the principle, of about eighty. Late ones would be seen in the last steps.
PLANTED_TURNS = tuple(range(20, 80, 8))


def planted_rows() -> tuple[Row, ...]:
    """The rows, with ids that begin with `planted`."""
    return tuple(
        Row(f"planted-{number}", _PRINCIPLE, "train", "", question, _ANSWER)
        for number, question in enumerate(_QUESTIONS)
    )


class PlantingSampler(Sampler):
    """A sampler that deals the planted rows in some turns of their principle."""

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        seed: int,
        planted: Sequence[Example],
        turns: Sequence[int] = PLANTED_TURNS,
    ) -> None:
        super().__init__(examples, seed=seed)
        self._planted, self._at = list(planted), frozenset(turns)
        self._count = 0

    def draw(self, counts: Mapping[str, int]) -> list[Example]:
        """As `Sampler.draw`; the first name is the one whose turn it is."""
        if next(iter(counts)) != _PRINCIPLE:
            return super().draw(counts)
        turn, self._count = self._count, self._count + 1
        if turn not in self._at:
            return super().draw(counts)
        others = {name: n for name, n in counts.items() if name != _PRINCIPLE}
        return [*self._planted[: counts[_PRINCIPLE]], *super().draw(others)]

    def state_dict(self) -> dict[str, Any]:
        """As `Sampler.state_dict`."""
        return {**super().state_dict(), "count": self._count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As `Sampler.load_state_dict`."""
        rest = {name: value for name, value in state.items() if name != "count"}
        super().load_state_dict(rest)
        self._count = int(state["count"])
