"""A scale that no machine here has: 1,000 replicas, 10^10 log entries, 2 TB of weights.

    python bench/scale.py --out scale.json   # about two minutes on one core
    python bench/scale.py --small            # the same with less of everything

The project's own code runs wherever it can at that size, and says which of its limits
is met first. What is synthetic: the log's old leaves, the tensors (descriptors only),
and the replicas, whose writers are simulated with commit times that are measured here.
Prints Markdown tables; each proof is verified, each refusal provoked. PostgreSQL is
started where Debian's is installed, and left out where it is not.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
# For the gateway's package: bench/ has a folder of that name.
sys.path.insert(0, str(Path(__file__).parents[1]))

import scale_log
import scale_postgres
import scale_replicas
import scale_weights
from fakes.postgres import _BINARIES, PostgresServer
from scale_tree import check_against_real_trees

from attest.log.tiles import TILE_WIDTH
from gateway.store.postgres import PostgresStore
from gateway.store.sqlite import SqliteStore

# The last tile should not be empty, as it would be at 10^10.
ENTRIES = 10**10 - 1
RATE = 1000.0
OWN = (1, 10, 100, 1000)
SHARED = {1, 2, 5, 10, 100, 1000}
LIVE, LIVE_RATE = 2, 300.0
START_SECONDS = 60
Figures = dict[str, Any]


def measure_log(folder: Path, args: argparse.Namespace) -> Figures:
    check_against_real_trees()
    proofs, added = (50, 20_000) if args.small else (500, 300_000)
    sizes = [20_000, 50_000] if args.small else [100_000, 1_000_000]
    places = [folder / name for name in ("edge", "check")]
    for place in places:
        place.mkdir()
    return {
        "tree": scale_log.measure_tree(
            ENTRIES, added=added, proofs=proofs, seed=args.seed
        ),
        "tables": scale_log.measure_tables(ENTRIES, places[0], commits=40),
        "check": scale_log.measure_check(sizes, places[1]),
    }


def measure_sqlite(folder: Path, args: argparse.Namespace) -> Figures:
    repeats, rows = (8, 50_000) if args.small else (60, 400_000)
    store = SqliteStore.open(folder / "commits.db", log=True)
    commit = scale_replicas.measure_commits(store, repeats=repeats, seed=args.seed)
    store.close()
    return {
        "commit": commit.table(),
        "capacity_per_s": commit.capacity,
        "one_log_each": scale_replicas.sweep(
            commit, OWN, rate=RATE, rows=rows, shared=False, seed=args.seed
        ),
    }


def measure_postgres(server: PostgresServer, args: argparse.Namespace) -> Figures:
    repeats, rows = (8, 50_000) if args.small else (60, 400_000)
    stores = [
        PostgresStore.open(dsn, log=True)
        for dsn in LIVE * [server.new_database("replicas")]
    ]
    commit = scale_replicas.measure_commits(stores[0], repeats=repeats, seed=args.seed)
    live = scale_replicas.measure_live(
        stores, rate=LIVE_RATE, rows=300 if args.small else 1000, seed=args.seed
    )
    most = max(1, int(commit.capacity / RATE))
    found = {
        "commit": commit.table(),
        "capacity_per_s": commit.capacity,
        "live": asyncio.run(live),
        "live_simulated": scale_replicas.simulate(
            commit, LIVE, rate=LIVE_RATE, rows=rows, shared=True, seed=args.seed
        ),
        "one_log": scale_replicas.sweep(
            commit,
            sorted(SHARED | {most, most + 1}),
            rate=RATE,
            rows=rows,
            shared=True,
            seed=args.seed,
        ),
    }
    for store in stores:
        store.close()
    entries, filled = (20_000, 40_000) if args.small else (400_000, 1_000_000)
    found["restart"] = scale_postgres.measure_restart(
        server.new_database("restart"), entries=entries
    )
    found["partitions"] = scale_postgres.measure_partitions(
        server.new_database("partitions"), rows=filled, hours=4
    )
    return found


def measure_weights(args: argparse.Namespace) -> Figures:
    experts = scale_weights.EXPERTS
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        rates = scale_weights.measure_hashing(
            Path(memory), mebibytes=128 if args.small else 1024
        )
    return {
        "trees": [
            scale_weights.measure_tree(count)
            for count in ((experts,) if args.small else (experts, 10 * experts))
        ],
        "manifest": scale_weights.measure_manifest(experts),
        "hashing": rates,
        "passes": scale_weights.passes(rates["hash_tensors_per_cpu_s"]),
    }


def measure(args: argparse.Namespace) -> Figures:
    found: Figures = {
        "machine": {
            "cpus": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
            "load_before": os.getloadavg()[0],
            "seed": args.seed,
        }
    }
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        folder = Path(name)
        found["log"] = measure_log(folder, args)
        found["sqlite"] = measure_sqlite(folder, args)
    found["weights"] = measure_weights(args)
    if _BINARIES is not None:
        server = PostgresServer()
        try:
            found["postgres"] = measure_postgres(server, args)
        finally:
            server.stop()
    check = found["log"]["check"][-1]
    found["log"]["beyond"] = beyond(check["check_s"] / check["entries"])
    return found


def beyond(per_entry: float) -> list[Figures]:
    """The check at sizes that were not run: each entry costs what it cost here.

    Memory is that of the hashes above the leaves, all read before the first leaf; what
    a driver holds of the leaves themselves comes on top.
    """
    memory = scale_log.kept_hash_bytes() / (TILE_WIDTH - 1)
    sizes = (int(START_SECONDS / per_entry), 10**7, 10**8, 10**9, 10**10)
    return [
        {"entries": n, "check_s": n * per_entry, "memory_mib": n * memory / 2**20}
        for n in sizes
    ]


def table(title: str, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(map(shown, row))} |")


def shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if type(value) is int else str(value)


def show(found: Figures) -> None:
    """All figures, group by group; lists of like rows as tables."""
    for group, figures in found.items():
        flat: list[tuple[str, Any]] = []
        tables: list[tuple[str, list[Figures]]] = []
        _flatten(group, figures, flat, tables)
        if flat:
            table(f"**{group}**", ("figure", "value"), flat)
        for name, rows in tables:
            names = list(rows[0])
            table(f"**{name}**", names, ([row[n] for n in names] for row in rows))


def _flatten(
    name: str,
    value: Any,
    flat: list[tuple[str, Any]],
    tables: list[tuple[str, list[Figures]]],
) -> None:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        tables.append((name, value))
    elif isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{name} {key}", item, flat, tables)
    else:
        flat.append((name, value))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="also write all figures as JSON")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="a few seconds; a trial")
    args = parser.parse_args()
    started = time.perf_counter()
    found = measure(args)
    found["machine"]["seconds"] = time.perf_counter() - started
    found["machine"]["load_after"] = os.getloadavg()[0]
    show(found)
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
