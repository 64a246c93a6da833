"""How fast the log takes attestations, and gives proofs and heads.

    python bench/library/log.py [--quick] [--folder DIRECTORY]

The gateway's own store in SQLite with a log: each commit is synced in full, and 256
clients wait for their record to be on disk before they bring the next one. Root, head
and proofs are then checked with the library.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from argparse import ArgumentParser
from functools import partial
from pathlib import Path
from typing import Any

from common import Result, arguments, finish, medians, started
from fakes.world import NOW, make_world

from attest.digests import parse_digest
from attest.keys import PrivateKey
from attest.log.checkpoint import Checkpoint, sign_checkpoint
from attest.log.merkle import leaf_hash, verify_inclusion
from attest.log.note import KeyKind, NoteSigner
from attest.tokens import signing_digest
from gateway.store.log import keep_checkpoint, log_proof, log_root
from gateway.store.records import Record
from gateway.store.sqlite import SqliteStore

_CLIENTS = 256


def _token(base: str, number: int) -> str:
    """A text of a token's size, with a leaf of its own; its signature is nothing."""
    head, _, rest = base.partition(".")
    return f"{head}{number:08}.{rest}"


async def _fill(
    store: SqliteStore, boot: str, base: str, first: int, count: int
) -> tuple[float, float]:
    numbers = iter(range(first, first + count))

    async def client() -> None:
        for number in numbers:
            await store.put(
                Record.of(f"att_{number}", boot, number, _token(base, number))
            )

    wall, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as group:
        for _ in range(_CLIENTS):
            group.create_task(client())
    return time.perf_counter() - wall, time.process_time() - cpu


def _head(store: SqliteStore, signer: NoteSigner, size: int) -> bytes:
    with store.reading() as reader:
        root = log_root(reader, size)
    note = str(sign_checkpoint(Checkpoint(signer.key.name, size, root), signer))
    work = partial(keep_checkpoint, size=size, note=note, witnessed=False)
    store._submit(work).result()  # noqa: SLF001  # as the publisher does
    return root


async def _measure(folder: Path, rounds: int, each: int) -> tuple[list[Result], Any]:
    world = make_world()
    base = world.token().rpartition("~")[0]
    store = SqliteStore.open(folder / "log.sqlite", log=True)
    boot = signing_digest(world.boot)
    store.add_boot(boot, b"{}", world.boot)
    signer = NoteSigner("log.bench", KeyKind.LOG, PrivateKey.generate())
    spent = []
    try:
        for number in range(rounds):
            spent.append(await _fill(store, boot, base, number * each, each))
            rate = each / spent[-1][0]
            print(f"round {number + 1}: {rate:,.0f}/s", file=sys.stderr, flush=True)
        size = rounds * each + 1  # the boot record is a leaf, too
        sizes = list(range(size - 20, size + 1))
        head_ms = 1e3 * medians(lambda n: _head(store, signer, n), sizes)[0]
        root = _head(store, signer, size)
        chosen = list(range(0, size - 1, max(1, size // 200)))
        proofs = {}

        def prove(number: int) -> None:
            with store.reading() as reader:
                proofs[number] = log_proof(reader, f"att_{number}")

        proof_ms = 1e3 * medians(prove, chosen)[0]

        def check(number: int) -> None:
            leaf = parse_digest(signing_digest(_token(base, number).partition("~")[0]))
            proof = proofs[number]
            verify_inclusion(
                leaf_hash(leaf),
                index=proof.index,
                size=size,
                proof=proof.proof,
                root=root,
            )

        check_ms = 1e3 * medians(check, chosen)[0]
    finally:
        store.close()
    rate = statistics.median(each / wall for wall, _ in spent)
    cpu = statistics.median(1e6 * cpu / each for _, cpu in spent)
    results = [
        Result(
            f"log, appends/s, {_CLIENTS} at a time, full sync", rate, "/s", 5000, False
        ),
        Result("log, CPU of an append", cpu, "µs"),
        Result(f"log of {size:,} leaves: a head, signed and kept", head_ms, "ms"),
        Result("a proof from it", proof_ms, "ms"),
        Result("checking that proof", check_ms, "ms"),
    ]
    return results, {"now": NOW, "rounds": spent, "each": each, "leaves": size}


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")


def main() -> None:
    options = arguments(__doc__, _options)
    begun = started()
    rounds, each = (2, 2_000) if options.quick else (5, 10_000)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        results, detail = asyncio.run(_measure(Path(folder), rounds, each))
    finish(results, detail, options, begun)


if __name__ == "__main__":
    main()
