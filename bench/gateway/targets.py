"""What was aimed at: ratios within one round, as medians over the rounds."""

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from peers import DIRECT, OURS
from phases import Row

__all__ = ["TARGETS", "Table", "Target"]


class Table:
    """The rows of a run, and ratios between them."""

    def __init__(self, rows: Iterable[Row], killed: Mapping[str, float] = {}) -> None:
        self.killed = killed
        self.rows = {(row.phase, row.peer, row.round): row for row in rows}
        self.rounds = sorted({row.round for row in self.rows.values()})

    def values(self, phase: str, peer: str, get: Callable[[Row], float]) -> list[float]:
        """One value for each round in which there is one."""
        found = (self.rows.get((phase, peer, number)) for number in self.rounds)
        return [get(row) for row in found if row is not None]

    def median(
        self, phase: str, peer: str, get: Callable[[Row], float]
    ) -> float | None:
        """The median over the rounds, None without any."""
        values = self.values(phase, peer, get)
        return statistics.median(values) if values else None

    def paired(
        self,
        phase: str,
        one: str,
        other: str,
        get: Callable[[Row, Row], float],
    ) -> float | None:
        """The median of what `get` makes of two rows of the same round."""
        found = []
        for number in self.rounds:
            rows = [self.rows.get((phase, peer, number)) for peer in (one, other)]
            if rows[0] is not None and rows[1] is not None:
                found.append(get(rows[0], rows[1]))
        return statistics.median(found) if found else None

    def added(self, phase: str, peer: str, get: Callable[[Row], float]) -> float | None:
        """What a peer adds to the way without it, in the same round."""
        return self.paired(phase, peer, DIRECT, lambda a, b: get(a) - get(b))


@dataclass(frozen=True)
class Target:
    """One line: what it is about, its value, and the two marks.

    Attributes:
        most: whether the marks are the most that is allowed, or else the least.
        unit: of value and marks; `x` for a ratio.
    """

    text: str
    value: Callable[[Table], float | None]
    bar: float
    stretch: float
    most: bool = True
    unit: str = "x"

    def verdict(self, table: Table) -> tuple[float | None, str]:
        """The value, and `stretch`, `met`, `missed` or `not measured`."""
        value = self.value(table)
        if value is None:
            return None, "not measured"
        for mark, word in ((self.stretch, "stretch"), (self.bar, "met")):
            if value <= mark if self.most else value >= mark:
                return value, word
        return value, "missed"


def _cpu(phase: str, other: str) -> Callable[[Table], float | None]:
    return lambda table: table.paired(phase, OURS, other, lambda a, b: a.cpu / b.cpu)


def _rate(phase: str, other: str) -> Callable[[Table], float | None]:
    return lambda table: table.paired(phase, OURS, other, lambda a, b: a.rate / b.rate)


def _latency(other: str) -> Callable[[Table], float | None]:
    def value(table: Table) -> float | None:
        ours = table.added("json 1", OURS, lambda row: row.p50)
        theirs = table.added("json 1", other, lambda row: row.p50)
        return None if ours is None or theirs is None else ours / theirs

    return value


def _added_ms(get: Callable[[Row], float]) -> Callable[[Table], float | None]:
    def value(table: Table) -> float | None:
        found = table.added("paced 50", OURS, get)
        return None if found is None else found * 1e3

    return value


def _attestation(table: Table) -> float | None:
    found = table.paired("json 32", OURS, "not attested", lambda a, b: a.cpu - b.cpu)
    return None if found is None else found * 1e6


def _kilobytes(table: Table) -> float | None:
    found = table.median("idle", OURS, lambda row: row.bytes_each)
    return None if found is None else found / 1000


def _killed(name: str) -> Callable[[Table], float | None]:
    return lambda table: table.killed.get(name)


def _workers(table: Table) -> float | None:
    get = "2 workers", "1 worker", lambda a, b: a.rate / b.rate
    return table.paired(CHAT, *get)


CHAT, STREAM = "json 32", "paced 50"
TARGETS = (
    Target("CPU per request, recipe", _cpu(CHAT, "recipe"), 1 / 10, 1 / 18),
    Target("requests/s, LiteLLM", _rate(CHAT, "litellm"), 60, 110, most=False),
    Target("CPU per request, nginx", _cpu(CHAT, "nginx"), 15, 8.5),
    Target(
        "requests/s, vllm-router", _rate(CHAT, "vllm-router"), 0.3, 0.55, most=False
    ),
    Target("attestation, CPU per request", _attestation, 120, 75, unit="µs"),
    Target("log and store, CPU per request", _cpu(CHAT, "not kept"), 1.25, 1.25),
    Target("attestation, CPU per chunk", _cpu(STREAM, "not attested"), 1.25, 1.12),
    Target("CPU per chunk, nginx", _cpu(STREAM, "nginx"), 2.4, 1.8),
    Target("CPU per chunk, recipe", _cpu(STREAM, "recipe"), 1 / 3, 1 / 4),
    Target(
        "200 streams, share delivered",
        _rate("paced 200", DIRECT),
        0.97,
        0.99,
        most=False,
    ),
    Target("burst, chunks/s, nginx", _rate("burst 64", "nginx"), 0.9, 1.1, most=False),
    Target("burst, chunks/s, recipe", _rate("burst 64", "recipe"), 3, 4, most=False),
    Target("added p50 of one client, recipe", _latency("recipe"), 0.36, 0.25),
    Target("added p50 of one client, nginx", _latency("nginx"), 7, 5),
    Target(
        "added time to first token",
        _added_ms(lambda row: row.first50),
        1,
        0.5,
        unit="ms",
    ),
    Target(
        "added between tokens", _added_ms(lambda row: row.lag50), 0.15, 0.06, unit="ms"
    ),
    Target("memory per idle stream", _kilobytes, 20, 12, unit="kB"),
    Target("2 workers, requests/s, 1 worker", _workers, 1.4, 1.5, most=False),
    Target("clients reset: connections left", _killed("left"), 0, 0, unit=""),
    Target("clients reset: the next request", _killed("next_ms"), 50, 50, unit="ms"),
    Target("clients reset: records lost", _killed("lost"), 0, 0, unit=""),
)
