"""What is done to each peer, and what is noted of it."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field

from load import Kept, Load, percentile
from meter import Noise, cpu_seconds, resident_bytes
from peers import DIRECT, OURS, Started

__all__ = ["PHASES", "Row", "Site", "cores", "measure"]


@dataclass
class Row:
    """One peer in one phase of one round. Times in seconds, CPU per unit of work."""

    phase: str
    peer: str
    round: int
    units: int = 0
    rate: float = 0.0
    cpu: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    first50: float = 0.0
    lag50: float = 0.0
    lag99: float = 0.0
    bytes_each: float = 0.0
    busy: float = 0.0
    noise: dict[str, float] = field(default_factory=dict)

    def dump(self) -> dict[str, object]:
        return {key: value for key, value in asdict(self).items() if value}


@dataclass(frozen=True)
class Phase:
    """A kind of load.

    Attributes:
        streams: whether the unit of work is a token of a stream, or else a request.
        once: measured in the first round only.
    """

    name: str
    run: Callable[[Load, int, float], Awaitable[None]]
    streams: bool = False
    once: bool = False


def _json(clients: int) -> Phase:
    async def run(load: Load, port: int, scale: float) -> None:
        await load.requests(port, clients=clients, seconds=4 * scale)

    return Phase(f"json {clients}", run)


def _paced(count: int) -> Phase:
    async def run(load: Load, port: int, scale: float) -> None:
        rounds = max(1, round(3 * scale))
        await load.streams(port, count=count, tokens=100, delay_ms=10, rounds=rounds)

    return Phase(f"paced {count}", run, streams=True)


async def _embeddings(load: Load, port: int, scale: float) -> None:
    await load.embeddings(port, clients=4, seconds=4 * scale)


async def _burst(load: Load, port: int, scale: float) -> None:
    rounds = max(1, round(20 * scale))
    await load.streams(port, count=64, tokens=100, delay_ms=0, rounds=rounds)


async def _nothing(load: Load, port: int, scale: float) -> None:
    del load, port, scale


IDLE = 1000
PHASES = (
    _json(1),
    _json(32),
    _json(256),
    _paced(50),
    _paced(200),
    Phase("burst 64", _burst, streams=True),
    Phase("embed 1 MB", _embeddings),
    Phase("idle", _nothing, streams=True, once=True),
)


@dataclass
class Site:
    """What all rows of a run have in common.

    Attributes:
        engine: pid of the engine.
        scale: how long a phase lasts, against a full run.
    """

    engine: int
    scale: float


async def measure(
    phase: Phase, peer: Started, number: int, site: Site, *, keep_each: int = 0
) -> tuple[Row | None, list[Kept]]:
    """One row, and what was kept of it to be verified; none where a peer failed.

    Raises:
        SystemExit: an answer of ours, or without a peer, was not what it had to be.
    """
    if phase.name == "idle":
        return await _idle(peer, number), []
    load, root = Load(keep_each=keep_each), peer.process
    noise = Noise()
    mine = time.process_time() + cpu_seconds(site.engine)
    before = cpu_seconds(root.pid) if root else 0.0
    await phase.run(load, peer.port, site.scale)
    used = cpu_seconds(root.pid) - before if root else 0.0
    if load.failures:
        _failed(f"{peer.name}, {phase.name}: {load.failures[:3]}", peer)
        return None, []
    units = len(load.lags) if phase.streams else load.done
    row = Row(
        phase.name,
        peer.name,
        number,
        units=units,
        rate=units / load.seconds,
        cpu=used / units,
        p50=percentile(load.latencies, 0.5),
        p99=percentile(load.latencies, 0.99),
        first50=percentile(load.firsts, 0.5),
        lag50=percentile(load.lags, 0.5),
        lag99=percentile(load.lags, 0.99),
        busy=used / load.seconds,
        noise=noise.shares(
            used + time.process_time() + cpu_seconds(site.engine) - mine
        ),
    )
    return row, load.kept


def _failed(text: str, peer: Started) -> None:
    if peer.name in (DIRECT, OURS):
        raise SystemExit(text)
    print(text, file=sys.stderr, flush=True)


async def _idle(peer: Started, number: int) -> Row | None:
    """Memory for each of 1,000 streams of which one token has come."""
    load = Load()
    if peer.process is None:
        return Row("idle", peer.name, number)
    base = resident_bytes(peer.process.pid)
    streams = load.streams(peer.port, count=IDLE, tokens=2, delay_ms=4000)
    waiting = asyncio.create_task(streams)
    for _ in range(200):
        await asyncio.sleep(0.1)
        if len(load.firsts) >= IDLE or load.failures:
            break
    grown = resident_bytes(peer.process.pid) - base
    await waiting
    if load.failures:
        _failed(f"{peer.name}, idle: {load.failures[:3]}", peer)
        return None
    return Row("idle", peer.name, number, units=base, bytes_each=grown / IDLE)


def cores() -> tuple[int | None, int | None]:
    """The core of the peers, and that of engine and load; none where there is one."""
    mine = sorted(os.sched_getaffinity(0))
    return (mine[0], mine[1]) if len(mine) > 1 else (None, None)
