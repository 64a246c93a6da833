"""How fast the gateway is, beside others, in one command.

    python bench/gateway/run.py [--quick] [--rounds N] [--out DIRECTORY]

Peers are measured in turn, phase by phase, in rounds of alternating order; what counts
are ratios between rows of one round, and their medians over the rounds. The peer has
one core, engine and load another one. CPU is that of the whole tree of processes.

A sample of the very answers that were timed is verified at the end, each with the
bytes that the client received, and held against what the engine sends. Exits 1 where
one does not verify, or any answer was not what it had to be.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import httpx2
import uvloop
from engine import BODY, EMBEDDINGS, EVENT, FIRST, LAST
from kill import kill_clients
from load import Kept, Load
from peers import DIRECT, HERE, OURS, Peer, Started, free_port, peers, wait_for
from phases import PHASES, Row, Site, cores, measure
from report import noise, text, write

from attest.bundle import Bundle
from attest.delivery import split_stream
from attest.keys import PublicKey
from attest.policy import Policy
from attest.verify import verify

_STAMP = re.compile(rb'"content":"\d{16} "')
_AT = 1_800_000_000  # the time at which the bench's gateway says that it lives


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="names of peers, with commas")
    parser.add_argument("--phases", default="", help="names of phases, with commas")
    parser.add_argument("--clients-killed", type=int, default=5000)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--peers", type=Path, default=Path(".venv-bench"))
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.clients_killed = 2, 500
    options.scale = 0.25 if options.quick else 1.0
    return options


def _start_engine(core: int | None, folder: Path) -> Started:
    port = free_port()
    command = [sys.executable, str(HERE / "engine.py"), str(port)]
    if core is not None:
        command = ["taskset", "-c", str(core), *command]
    output = folder / "engine"
    with output.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    wait_for(port, process, output)
    return Started("engine", port, process)


def _check_bytes(kept: Kept, covered: bytes) -> bool:
    """Whether the client got what the engine sent."""
    if b"bench embed" in kept.request:
        return covered == EMBEDDINGS
    if b'"stream": true' not in kept.request:
        return covered == BODY
    tokens = covered.count(b'"content":"') - 1
    expected = FIRST + EVENT % b"0" * tokens + LAST
    return _STAMP.sub(b'"content":"0 "', covered) == expected


async def _verify(port: int, sample: list[Kept]) -> int:
    """How many of the sample are proven.

    Raises:
        SystemExit: one is not, or is not what the engine sent.
    """
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        authority = PublicKey.from_bytes((await http.get("/bench/authority")).content)
        policy = Policy(authorities=(authority,))
        for kept in sample:
            covered, token = split_stream(kept.body)
            name = kept.headers["attestation-id"]
            found = await http.get(f"/v1/attestations/{name}")
            bundle = Bundle.loads(found.content)
            delivered = kept.headers.get("attestation", token)
            if delivered != bundle.token or not _check_bytes(kept, covered):
                raise SystemExit(f"{name}: not what was sent")
            whole = replace(bundle, request=kept.request, response=covered)
            verify(whole, policy, at=_AT).raise_unless_proven()
    return len(sample)


async def _run(options: argparse.Namespace, folder: Path) -> int:
    peer_core, load_core = cores()
    if load_core is not None:
        os.sched_setaffinity(0, {load_core})
    engine = _start_engine(load_core, folder)
    chosen = [
        peer
        for peer in peers(options.peers)
        if not options.only or peer.name in options.only.split(",")
    ]
    phases = [
        phase
        for phase in PHASES
        if not options.phases or phase.name in options.phases.split(",")
    ]
    started: dict[str, Started] = {DIRECT: Started(DIRECT, engine.port, None)}
    try:
        for peer in chosen:  # one by one: starts disturb each other
            started[peer.name] = peer.start(engine.port, folder, peer_core)
            await Load().requests(started[peer.name].port, clients=4, seconds=0.5)
        site = Site(engine.process.pid, options.scale)
        rows, sample = await _rounds(options, started, chosen, phases, site)
        proven = await _verify(started[OURS].port, sample) if OURS in started else 0
        killed = {}
        if OURS in started and options.clients_killed:
            killed = await kill_clients(started[OURS], engine, options.clients_killed)
    finally:
        for one in (*started.values(), engine):
            one.stop()
    names = list(started)
    about = {
        "command": " ".join(sys.argv),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": f"{os.cpu_count()} x {platform.machine()}, Python "
        f"{platform.python_version()}",
        "noise": noise(rows),
        "verified": proven,
        "killed": killed,
    }
    write(options.out, rows, names, about)
    print(text(rows, names, killed))
    print(f"\n{noise(rows)}\nproven: {proven} of {len(sample)} answers of the run")
    print(f"clients killed in mid-flight: {json.dumps(killed)}")
    return 0 if not (killed.get("left") or killed.get("lost")) else 1


async def _rounds(
    options: argparse.Namespace,
    started: dict[str, Started],
    chosen: list[Peer],
    phases: list,
    site: Site,
) -> tuple[list[Row], list[Kept]]:
    rows, sample = [], []
    limits = {peer.name: peer.phases for peer in chosen}
    for number in range(options.rounds):
        for phase in phases:
            if phase.once and number:
                continue
            order = list(started.values())
            if number % 2:
                order.reverse()
            for one in order:
                allowed = limits.get(one.name)
                if allowed and phase.name not in allowed:
                    continue
                keep = 97 if one.name == OURS else 0
                row, kept = await measure(phase, one, number, site, keep_each=keep)
                if row is not None:
                    rows.append(row)
                sample += kept[:10]
            print(f"round {number + 1}: {phase.name}", file=sys.stderr, flush=True)
    return rows, sample


def main() -> int:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        return uvloop.run(_run(options, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
