"""Replicas that write to one log, and to one each: a simulation. See `scale.py`.

What a commit takes is measured, in the real stores and with their own code. What the
writers of many replicas do with it is simulated: there is one machine here.
"""

import asyncio
import heapq
import random
import secrets
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.store.records import (
    _BATCH as BATCH,
)
from gateway.store.records import (
    _LINGER_SECONDS as GATHER,
)
from gateway.store.records import (
    _SIBLINGS,
    Record,
    RecordStore,
)

SIZES = (1, 4, 16, 64, 256)


@dataclass(frozen=True)
class CommitTime:
    """What transactions took, in seconds: size to all samples, sorted."""

    samples: dict[int, list[float]]

    def draw(self, rows: int, rng: random.Random) -> float:
        """A time for a transaction of `rows`, 1 to 256.

        Taken at one random rank of the two nearest sizes, and linear between them, so
        that the spread of a real disk is kept.
        """
        rank = rng.random()
        large = next(size for size in SIZES if size >= rows)
        if large == rows:
            return self._ranked(large, rank)
        small = SIZES[SIZES.index(large) - 1]
        share = (rows - small) / (large - small)
        low, high = self._ranked(small, rank), self._ranked(large, rank)
        return low + share * (high - low)

    def _ranked(self, size: int, rank: float) -> float:
        found = self.samples[size]
        return found[int(rank * len(found))]

    @property
    def capacity(self) -> float:
        """Rows a second of one writer after another, all batches full."""
        return BATCH / statistics.fmean(self.samples[BATCH])

    def table(self) -> dict[int, dict[str, float]]:
        """Median and mean in milliseconds by the size of the batch."""
        return {
            size: {
                "median_ms": statistics.median(found) * 1e3,
                "mean_ms": statistics.fmean(found) * 1e3,
            }
            for size, found in self.samples.items()
        }


def token() -> str:
    """As long as a token with its disclosures, and as hard to compress."""
    compact = f"{secrets.token_urlsafe(60)}.{secrets.token_urlsafe(900)}"
    return f"{compact}.{secrets.token_urlsafe(64)}~{secrets.token_urlsafe(850)}"


def records(boot: str, first: int, count: int) -> list[Record]:
    return [
        Record.of(secrets.token_hex(20), boot, seq, token())
        for seq in range(first, first + count)
    ]


def measure_commits(store: RecordStore, *, repeats: int, seed: int) -> CommitTime:
    """What the store's writer takes for a transaction, with a token and a leaf a row.

    Sizes come in random order: SQLite and PostgreSQL put work off, and whoever comes
    next pays.
    """
    boot, seq = "sha256:" + secrets.token_hex(32), 0
    store.add_boot(boot, b"{}")
    samples: dict[int, list[float]] = {size: [] for size in SIZES}
    order = [size for size in SIZES for _ in range(repeats)]
    random.Random(seed).shuffle(order)
    for size in order:
        # The very work that the writer's thread does; it sleeps meanwhile.
        work = records(boot, seq, size)
        started = time.perf_counter()
        error = store._commit(work)  # noqa: SLF001
        samples[size].append(time.perf_counter() - started)
        assert error is None, error
        seq += size
    return CommitTime({size: sorted(found) for size, found in samples.items()})


@dataclass
class _Replica:
    """Arrivals that the writer has not taken yet; made when they are asked for."""

    rng: random.Random
    rate: float
    arrivals: deque[float] = field(default_factory=deque)
    last: float = 0.0

    def take(self, now: float) -> tuple[float, list[float]]:
        """What the writer takes when it is free: the moment, and the rows' arrivals.

        As `RecordStore._write` where many requests are in flight: it waits for the
        first row and a moment more, then takes what is there.
        """
        self._until(now)
        now = max(now, self.arrivals[0]) + GATHER
        self._until(now)
        batch = []
        while self.arrivals and self.arrivals[0] <= now and len(batch) < BATCH:
            batch.append(self.arrivals.popleft())
        return now, batch

    def _until(self, now: float) -> None:
        while self.last <= now and len(self.arrivals) < 4 * BATCH:
            self.last += self.rng.expovariate(self.rate)
            self.arrivals.append(self.last)


async def measure_live(
    stores: Sequence[RecordStore], *, rate: float, rows: int, seed: int
) -> dict[str, float]:
    """The same arrivals for real: stores of this process, each with its writer.

    Says how far the simulation can be believed. Waits count from the call of `put`.
    """
    waits: list[float] = []
    made: dict[RecordStore, list[Record]] = {}
    for store in stores:
        store.in_flight = lambda: _SIBLINGS
        boot = "sha256:" + secrets.token_hex(32)
        await store.put_boot(boot, b"{}", "")
        made[store] = records(boot, 0, rows)

    async def put(store: RecordStore, record: Record) -> None:
        started = time.perf_counter()
        await store.put(record)
        waits.append(time.perf_counter() - started)

    async def clients(store: RecordStore, rng: random.Random) -> None:
        due = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for record in made[store]:
                due += rng.expovariate(rate)
                if (pause := due - time.perf_counter()) > 0:
                    await asyncio.sleep(pause)
                group.create_task(put(store, record))

    started = time.perf_counter()
    await asyncio.gather(
        *(clients(store, random.Random(seed + i)) for i, store in enumerate(stores))
    )
    waits.sort()
    return {
        "replicas": len(stores),
        "offered_per_s": len(stores) * rate,
        "durable_per_s": len(waits) / (time.perf_counter() - started),
        "wait_ms_median": waits[len(waits) // 2] * 1e3,
        "wait_ms_p99": waits[len(waits) * 99 // 100] * 1e3,
    }


def simulate(  # noqa: PLR0913
    commit: CommitTime,
    replicas: int,
    *,
    rate: float,
    rows: int,
    shared: bool,
    seed: int,
) -> dict[str, Any]:
    """Open arrivals (Poisson) of `rate` a second and replica; waits until durable.

    Args:
        commit: what a transaction takes once it has the lock.
        rows: about how many become durable; gives the length of the simulation, of
            whose first fifth nothing is counted.
        shared: one log, so that a transaction waits for those before it, in the order
            of asking; else one log each, on a machine of its own.

    Returns:
        Rows that became durable a second of simulated time, and how long these waited.
        Beyond saturation waits grow with the length of the simulation, and those of
        the rows still queued at its end are in no percentile.
    """
    rng = random.Random(seed)
    offered = replicas * rate
    seconds = rows / (min(offered, commit.capacity) if shared else offered)
    warm = seconds / 5
    all_replicas = [
        _Replica(random.Random(rng.random()), rate) for _ in range(replicas)
    ]
    # (time, number, replica, batch): a writer is free (no batch), or asks for the lock.
    events: list[tuple[float, int, int, list[float]]] = [
        (0.0, number, number, []) for number in range(replicas)
    ]
    heapq.heapify(events)
    waits: list[float] = []
    lock_free, commits, busy, number = 0.0, 0, 0.0, replicas
    while events:
        now, _, who, batch = heapq.heappop(events)
        number += 1
        if not batch:
            now, batch = all_replicas[who].take(now)
            if now < seconds:
                heapq.heappush(events, (now, number, who, batch))
            continue
        start = max(now, lock_free) if shared else now
        taken = commit.draw(len(batch), rng)
        end = start + taken
        if shared:
            lock_free = end
        if end <= seconds:
            if end > warm:
                commits, busy = commits + 1, busy + taken
                waits += [end - arrived for arrived in batch]
            heapq.heappush(events, (end, number, who, []))
    waits.sort()
    done, counted = len(waits), seconds - warm
    return {
        "logs": 1 if shared else replicas,
        "replicas": replicas,
        "offered_per_s": offered,
        "durable_per_s": done / counted,
        "saturated": done / counted < 0.97 * offered,
        "wait_ms_median": waits[done // 2] * 1e3,
        "wait_ms_p99": waits[done * 99 // 100] * 1e3,
        "rows_per_commit": done / commits,
        "writer_busy": busy / counted / (1 if shared else replicas),
        "simulated_s": seconds,
    }


def sweep(
    commit: CommitTime, counts: Sequence[int], **how: Any
) -> list[dict[str, Any]]:
    """`simulate` for each number of replicas, with the same seed."""
    return [simulate(commit, count, **how) for count in counts]
