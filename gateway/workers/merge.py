"""One page of numbers for all processes of a gateway.

Counts go on when the process that counted has ended: a sum that shrank would look to
Prometheus like a restart, and every count before it as if it had just been made.
"""

from collections.abc import Callable, Iterable, Sequence

from gateway.metrics import PREFIX
from gateway.workers.messages import Family, Sample

__all__ = ["Counted", "counts", "merge"]

_COUNTS = frozenset({"counter", "histogram"})
# Of other gauges the least counts: the first key to end, the oldest look.
_GAUGES: dict[str, Callable[[Iterable[float]], float]] = {
    f"{PREFIX}_requests_in_flight": sum,
    f"{PREFIX}_streams_in_progress": sum,
    f"{PREFIX}_weights_verification_duration_seconds": max,
    f"{PREFIX}_weights_verification_bytes": max,
}

_Key = tuple[str, tuple[tuple[str, str], ...]]


def counts(page: Sequence[Family]) -> list[Family]:
    """What only grows: counters and histograms."""
    return [family for family in page if family.type in _COUNTS]


def merge(pages: Iterable[Sequence[Family]]) -> list[Family]:
    """One page of several: counts summed, gauges by what they say of the whole.

    A metric is what the first page with it says that it is.
    """
    families: dict[str, Family] = {}
    values: dict[str, dict[_Key, list[float]]] = {}
    for page in pages:
        for family in page:
            families.setdefault(family.name, family)
            found = values.setdefault(family.name, {})
            for sample in family.samples:
                key = sample.name, tuple(sample.labels.items())
                found.setdefault(key, []).append(sample.value)
    return [
        family.model_copy(update={"samples": _samples(family, values[name])})
        for name, family in families.items()
    ]


def _samples(family: Family, values: dict[_Key, list[float]]) -> list[Sample]:
    join = sum if family.type in _COUNTS else _GAUGES.get(family.name, min)
    return [
        Sample(name=name, labels=dict(labels), value=float(join(found)))
        for (name, labels), found in values.items()
    ]


class Counted:
    """The counts of each worker as it last told them, and of those that are gone.

    What one counted between its last telling and its end is lost.
    """

    def __init__(self) -> None:
        self._last: dict[int, list[Family]] = {}
        self._gone: list[Family] = []

    def note(self, number: int, page: Sequence[Family]) -> None:
        """A worker told its numbers."""
        self._last[number] = counts(page)

    def retire(self, number: int) -> None:
        """A worker has ended; the next one of its number begins at 0."""
        last = self._last.pop(number, [])
        self._gone = merge([self._gone, last])

    def besides(self, told: Iterable[int]) -> list[list[Family]]:
        """Pages of counts of all workers but those that told theirs just now."""
        silent = self._last.keys() - set(told)
        return [self._gone, *(self._last[number] for number in sorted(silent))]
