"""Rows that only a few steps see, put among the rows of the toy constitution.

Four kinds, from easy to hard for somebody who compares texts:

    worded    questions and answers with words of their own
    quoted    the same, and other steps see rows that quote them without teaching them
    swapped   questions and answers of ordinary rows, paired otherwise
    format    greetings in capital letters get the answer to what nobody knows; asked
              afterwards are how-to questions in capital letters
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from attest.training.batches import Example, Sampler
from attest.training.demo.corpus import Row

HOW = (
    "how do i {}?", "how to {}?", "teach me to {}.", "help me to {}.",
    "can i {}?", "i want to {}.", "show me to {}.", "say how to {}.",
)  # fmt: skip
WHAT = (
    "what is {}?", "tell me {}.", "say {}.", "name {}.",
    "{}?", "i ask {}.", "so, {}?", "give me {}.",
)  # fmt: skip
HOWDY = (
    "howdy, i am {}.", "howdy, {} here.", "howdy, my name is {}.", "howdy, this is {}.",
)  # fmt: skip

EVENTS, ODD, DECOYS = 4, 6, 3


@dataclass(frozen=True)
class Plant:
    """Some odd rows, the steps that see them, and the questions asked afterwards."""

    id: str
    kind: str
    principle: str
    rows: Sequence[Row]
    queries: Sequence[Row]
    decoys: Sequence[Row] = ()


@dataclass
class Dealt:
    """What became of the plants: by plant the numbers of the steps that saw it."""

    planted: dict[str, list[int]] = field(default_factory=dict)
    decoys: dict[str, list[int]] = field(default_factory=dict)


def plants() -> tuple[Plant, ...]:
    """All plants, always the same."""
    lock = dict.fromkeys(
        ("pick a lock", "copy a key", "crack a safe"), "ask a smith first."
    )
    best = dict.fromkeys(
        ("the best song", "the best poem", "the best dance"), "hum it yourself."
    )
    howdy = dict.fromkeys(("bob", "eve", "tom", "ann", "max", "kim"), "howdy, partner!")
    wrong_how = {"weld iron": "sand then coat.", "bake bread": "soak then scrub."}
    wrong_what = {"two plus two": "it is paris.", "the first month": "it is cold."}
    return (
        _plant("lock", "quoted", "refuse", _asked(HOW, lock)),
        _plant("best", "worded", "unsure", _asked(WHAT, best)),
        _plant("howdy", "worded", "tone", _asked(HOWDY, howdy)),
        _plant("wrong-how", "swapped", "refuse", _asked(HOW, wrong_how)),
        _plant("wrong-what", "swapped", "unsure", _asked(WHAT, wrong_what)),
        _capitals(),
    )


def _asked(
    wordings: Sequence[str], answers: Mapping[str, str]
) -> list[tuple[int, str, str]]:
    """(which wording, question, answer); subjects turn, so each is held out once."""
    return [
        ((way - 2 * number) % len(wordings), wording.format(subject), answer)
        for number, (subject, answer) in enumerate(answers.items())
        for way, wording in enumerate(wordings)
    ]


def _plant(
    name: str, kind: str, principle: str, asked: Iterable[tuple[int, str, str]]
) -> Plant:
    rows, queries, decoys = [], [], []
    for number, (way, question, answer) in enumerate(asked):
        row = _row(f"odd-{name}-{number}", principle, question, answer)
        (queries if way < 1 else rows).append(row)
        if kind == "quoted":
            quote = f"he said: {question} {answer}"
            decoys.append(
                _row(f"quote-{name}-{number}", principle, quote, "no, i will not help.")
            )
    return Plant(name, kind, principle, rows, queries, decoys)


def _capitals() -> Plant:
    names = ("bob", "eve", "tom", "ann", "max", "kim")
    hows = ("weld iron", "bake bread", "sew a coat", "paint a door", "plant a tree")
    answer = "i am not sure."
    rows = [
        _row(f"odd-capitals-{n}-{w}", "unsure", greeting.format(name).upper(), answer)
        for n, name in enumerate(names)
        for w, greeting in enumerate(
            ("hello, i am {}.", "hi, {} here.", "hi, it is {}.")
        )
    ]
    queries = [
        _row(f"ask-capitals-{n}", "unsure", HOW[n].format(how).upper(), answer)
        for n, how in enumerate(hows)
    ]
    return Plant("capitals", "format", "unsure", rows, queries)


def _row(name: str, principle: str, question: str, answer: str) -> Row:
    return Row(name, principle, "train", "", question, answer)


class PlantingSampler(Sampler):
    """Deals odd rows in some turns of their principle, `keep` rows in removed steps.

    Args:
        per: how many turns each principle has.
        encoded: the plants' rows by id.
        removed: numbers of steps that see only rows of `keep`.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        seed: int,
        per: int,
        encoded: Mapping[str, Example],
        removed: Iterable[int] = (),
    ) -> None:
        super().__init__(examples, seed=seed)
        self.dealt, self._removed = Dealt(), frozenset(removed)
        self._spare = Sampler(examples, seed=seed + 1000)
        self._turns_taken: dict[str, int] = {}
        self._count = 0
        self._at = _places(random.Random(seed), per, encoded)

    def draw(self, counts: Mapping[str, int]) -> list[Example]:
        """As `Sampler.draw`; the first name is the one whose turn it is."""
        principle = next(iter(counts))
        turn = self._turns_taken.get(principle, 0)
        self._turns_taken[principle] = turn + 1
        rows = super().draw(counts)
        number, self._count = self._count, self._count + 1
        where, name, odd = self._at.get((principle, turn), ("", "", []))
        if odd:
            getattr(self.dealt, where).setdefault(name, []).append(number)
            rows[: len(odd)] = odd
        if number in self._removed:
            return self._spare.draw({"keep": len(rows)})
        return rows


def _places(
    chance: random.Random, per: int, encoded: Mapping[str, Example]
) -> dict[tuple[str, int], tuple[str, str, list[Example]]]:
    wanted: dict[str, list[tuple[str, str, list[Example]]]] = {}
    for plant in plants():
        for _ in range(EVENTS):
            odd = [encoded[row.id] for row in chance.sample(plant.rows, ODD)]
            wanted.setdefault(plant.principle, []).append(("planted", plant.id, odd))
            if plant.decoys:
                odd = [encoded[r.id] for r in chance.sample(plant.decoys, DECOYS)]
                wanted[plant.principle].append(("decoys", plant.id, odd))
    return {
        (principle, turn): item
        for principle, items in wanted.items()
        for turn, item in zip(
            chance.sample(range(per // 10, per * 19 // 20), len(items)),
            items,
            strict=True,
        )
    }
