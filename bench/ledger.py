"""What the training ledger costs: to write, to verify, and within a training step.

    python bench/ledger.py                   # the tables of docs/ledger.md
    python bench/ledger.py --records 5000 --steps 20

Records have the members that a governed step logs, with 32 sample ids, and are about as
long. The step is one of the demo's governed training. Prints Markdown tables.
"""

import argparse
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from attest.canonical import canonical
from attest.training import demo, stages
from attest.training.batches import Sampler, encode
from attest.training.constitution import parse_constitution
from attest.training.demo.tiny import build_model, build_tokenizer
from attest.training.layout import read_layout
from attest.training.ledger import Ledger, Rank, float_hex, verify_ledger
from attest.training.ledger.proof import prove_record
from attest.training.ledger.ranks import merge_ledgers
from attest.training.loop import Plan, Trainer
from attest.training.routing import compile_schedule

IDS, LAYERS = 32, 10


def record(step: int) -> dict[str, Any]:
    digest = f"sha256:{step:064x}"
    return {
        "kind": "step",
        "stage": "governed",
        "step": step,
        "sampler": digest,
        "samples": [f"refuse-{(step * 7 + i) % 9973:04d}-{i}" for i in range(IDS)],
        "principles": ["refuse"] * 12 + ["unsure", "tone"] * 4 + ["keep"] * 12,
        "batch": digest,
        "lr": float_hex(1e-3 / (step + 1)),
        "loss": float_hex(1 / (step + 1)),
        "clip": float_hex(1.0),
        "principle": "refuse",
        "route": digest,
        "energy": {f"L{i:02d}": float_hex(i / (step + 1)) for i in range(LAYERS)},
        "frozen": digest,
        "mechanism": "toggle",
    }


class Clock:
    """Wall and processor seconds of a block."""

    def __init__(self, wall: float = 0.0, cpu: float = 0.0) -> None:
        self.wall, self.cpu = wall, cpu

    def __enter__(self) -> Self:
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self.wall
        self.cpu = time.process_time() - self.cpu


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(map(str, row))} |")
    print()


def per_record(name: str, clock: Clock, count: int) -> tuple[str, str, str]:
    return name, f"{clock.wall / count * 1e6:.1f}", f"{clock.cpu / count * 1e6:.1f}"


def writing(folder: Path, count: int) -> None:
    path = folder / "ledger.jsonl"
    records = [record(step) for step in range(count)]
    part = max(1, count // 10)
    with Ledger.create(path) as ledger:
        with Clock() as first:
            for item in records[:part]:
                ledger.append(item)
        with Clock() as middle:
            for item in records[part:-part]:
                ledger.append(item)
        with Clock() as last:
            for item in records[-part:]:
                ledger.append(item)
        with Clock() as sync:
            ledger.sync()
        head = ledger.summary()
    with Clock() as plain:
        for item in records[:part]:
            canonical(item)
    with Clock() as verify:
        verify_ledger(path, head)
    with Clock() as resume:
        Ledger.resume(path, head).close()
    with Clock() as prove:
        prove_record(path, count // 2, head)
    whole = Clock(
        first.wall + middle.wall + last.wall, first.cpu + middle.cpu + last.cpu
    )
    table(
        ["per record", "wall, us", "CPU, us"],
        [
            per_record(f"append, all {count}", whole, count),
            per_record(f"append, the first {part}", first, part),
            per_record(f"append, the last {part}", last, part),
            per_record("RFC 8785 by rfc8785 alone", plain, part),
            per_record("verify against a root", verify, count),
        ],
    )
    size = path.stat().st_size
    print(f"{size / count:.0f} bytes a record, {size / 1e6:.1f} MB in all.")
    print(
        f"sync {sync.wall:.2f} s, resume {resume.wall:.1f} s, "
        f"prove one record {prove.wall:.1f} s.\n"
    )


def merging(folder: Path, count: int, world: int = 4) -> None:
    paths = [folder / f"rank-{rank}.jsonl" for rank in range(world)]
    for rank, path in enumerate(paths):
        with Ledger.create(path, rank=Rank(rank, world)) as ledger:
            for step in range(count):
                ledger.append(record(step))
    with Clock() as clock:
        merge_ledgers(paths, folder / "merged.jsonl")
    print(f"Merging {world} ranks of {count} records: {clock.wall:.1f} s.\n")


class Timed:
    """Adds up the time spent in functions that it stands in for."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - start

        return timed


def training(folder: Path, steps: int) -> None:
    """The share of the ledger in the demo's governed training."""
    tokenizer = build_tokenizer()
    constitution = parse_constitution(demo.constitution_bytes())
    model = build_model(tokenizer, seed=0)
    rows = [encode(tokenizer, row) for row in demo.corpus("governed", "train")]
    schedule = compile_schedule(constitution, read_layout(model))
    append, making = Timed(), Timed()
    plan = demo.RECIPE.governed
    plan = Plan(plan.name, steps, plan.rows, plan.lr)
    sampler = Sampler(rows, seed=0)
    sampler.state_digest = making.of(sampler.state_digest)
    stages.step_record = making.of(stages.step_record)
    with Ledger.create(folder / "demo.jsonl") as ledger:
        ledger.append = append.of(ledger.append)
        trainer = Trainer(model, ledger, progress=lambda *_: None)
        with Clock() as clock:
            trainer.governed(
                plan, sampler, constitution=constitution, schedule=schedule
            )
    step = clock.wall / steps
    table(
        ["in a step of the demo", "us", "share"],
        [
            ("the whole step", f"{step * 1e6:.0f}", "100 %"),
            *(
                (name, f"{s / steps * 1e6:.0f}", f"{s / clock.wall:.3%}")
                for name, s in (
                    ("append the record", append.seconds),
                    ("make the record, sampler's digest included", making.seconds),
                )
            ),
        ],
    )
    cost = (append.seconds + making.seconds) / steps
    print(f"2 % of a step that takes {cost / 0.02 * 1e3:.1f} ms or longer.\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, "
        f"{os.cpu_count()} cores, load {load:.1f} at the start, 1 thread.\n"
    )
    folder = Path(tempfile.mkdtemp(prefix="ledger-bench-"))
    try:
        writing(folder, options.records)
        merging(folder, options.records // 20)
        training(folder, options.steps)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
