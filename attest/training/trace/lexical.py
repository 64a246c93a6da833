"""The baseline that a trace has to beat: which row reads like the answer. No torch."""

import math
from collections import Counter
from collections.abc import Sequence

__all__ = ["Lexical"]

_SIZES = (3, 4, 5)


class Lexical:
    """Cosine of TF-IDF vectors over character n-grams and words.

    Args:
        texts: what is compared with a query.
        fold: upper and lower case count as one.
    """

    def __init__(self, texts: Sequence[str], *, fold: bool = True) -> None:
        self._fold = fold
        counts = [self._grams(text) for text in texts]
        seen: Counter[str] = Counter()
        for count in counts:
            seen.update(count.keys())
        self._weights = {
            gram: math.log((1 + len(texts)) / (1 + number)) + 1
            for gram, number in seen.items()
        }
        # By n-gram, since a query touches few of them.
        self._texts = len(texts)
        self._index: dict[str, list[tuple[int, float]]] = {}
        for number, count in enumerate(counts):
            for gram, value in self._vector(count).items():
                self._index.setdefault(gram, []).append((number, value))

    def scores(self, query: str) -> list[float]:
        """The similarity of every text with the query, 0 to 1."""
        found = [0.0] * self._texts
        for gram, value in self._vector(self._grams(query)).items():
            for number, other in self._index.get(gram, ()):
                found[number] += value * other
        return found

    def _vector(self, count: Counter[str]) -> dict[str, float]:
        values = {
            gram: (1 + math.log(number)) * self._weights[gram]
            for gram, number in count.items()
            if gram in self._weights
        }
        norm = math.sqrt(sum(value * value for value in values.values())) or 1.0
        return {gram: value / norm for gram, value in values.items()}

    def _grams(self, text: str) -> Counter[str]:
        text = f" {text.casefold() if self._fold else text} "
        grams = [
            text[at : at + size]
            for size in _SIZES
            for at in range(len(text) - size + 1)
        ]
        # A word starts with no n-gram's first character twice: two spaces set it apart.
        return Counter(grams + [f"  {word}" for word in text.split()])
