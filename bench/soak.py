"""A soak of the real gateway in front of the real engine: does anything leak or lie?

    python bench/soak.py --minutes 10 --clients 64

Clients ask in four ways and a third of them leave at random: before the answer, in the
middle of a stream, after it. The session key is rotated every minute, and the engine is
killed once. Every attestation id that a client saw is judged at the end, and the log is
audited. Prints a table, writes JSON with `--out`, and exits 1 where a row is not as it
must be.
"""

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from soak_site import Site, open_files, prepare, resident_mebibytes

from attest.bundle import Bundle
from attest.claims import Measured, Outcome
from attest.delivery import split_stream
from attest.keys import PublicKey
from attest.policy import Policy
from attest.verify import verify

QUESTIONS = ("how do i bake bread?", "what is two plus two?", "hello, i am bob.")
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


@dataclass
class Seen:
    """What one client got to see of one answer."""

    id: str
    request: bytes
    body: bytes | None
    left: bool


@dataclass
class Soak:
    """The load and what came of it."""

    site: Site
    policy: Policy
    http: httpx2.AsyncClient
    until: float
    random: random.Random
    seen: list[Seen] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float, int]] = field(default_factory=list)

    async def client(self) -> None:
        while time.monotonic() < self.until:
            try:
                await self._ask()
            except httpx2.TransportError as error:
                self.counts[f"transport {type(error).__name__}"] += 1
                await asyncio.sleep(0.2)

    async def _ask(self) -> None:
        path = self.random.choice((CHAT, COMPLETIONS))
        stream, leave = self.random.random() < 0.6, self.random.random() < 0.33
        body = {"model": "toy-assistant", "max_tokens": self.random.randint(1, 40)}
        question = self.random.choice(QUESTIONS)
        if path == CHAT:
            body["messages"] = [{"role": "user", "content": question}]
        else:
            body["prompt"] = f"<|user|>{question}<|end|><|assistant|>"
        content = json.dumps({**body, "stream": stream}).encode()
        patience = self.random.uniform(0, 1.5) if leave else None
        await self._send(path, content, patience)

    async def _send(self, path: str, content: bytes, patience: float | None) -> None:
        request = self.http.build_request(
            "POST", path, content=content, headers={"content-type": "application/json"}
        )
        received, known, left = bytearray(), "", False
        status = 0
        try:
            async with asyncio.timeout(patience):
                response = await self.http.send(request, stream=True)
                try:
                    status, known = (
                        response.status_code,
                        response.headers.get("attestation-id", ""),
                    )
                    async for chunk in response.aiter_raw():
                        received += chunk
                finally:
                    await response.aclose()
        except TimeoutError:
            left = True
        self.counts["left" if left else str(status)] += 1
        if known:
            whole = None if left else split_stream(bytes(received))[0]
            self.seen.append(Seen(known, content, whole, left))
        if status == 503:
            await asyncio.sleep(0.5)

    async def watch(self) -> None:
        """Memory and open files of the gateway, every five seconds."""
        pid, began = self.site.process.pid, time.monotonic()
        while time.monotonic() < self.until:
            await asyncio.sleep(5)
            files = len(open_files(pid))
            self.memory.append(
                (time.monotonic() - began, resident_mebibytes(pid), files)
            )

    async def kill_engine(self, after: float) -> None:
        await asyncio.sleep(after)
        for pid in self.site.engine_pids():
            os.kill(pid, signal.SIGKILL)
        self.counts["engine killed"] += 1

    async def judge(self) -> Counter[str]:
        """Every id that a client saw: proven, with the bytes where it has them all."""
        found: Counter[str] = Counter()
        for one in self.seen:
            answer = await self.http.get(f"/v1/attestations/{one.id}")
            if answer.status_code != 200:
                found[f"no record ({answer.status_code})"] += 1
                continue
            bundle = Bundle.loads(answer.content)
            whole = Bundle(
                token=bundle.token,
                key_certificates=bundle.key_certificates,
                boot_record=bundle.boot_record,
                manifest=bundle.manifest,
                log=bundle.log,
                request=one.request,
                response=one.body,
            )
            verdict = verify(whole, self.policy, at=int(time.time()))
            outcome = verdict.claims.get("res", {}).get("outcome", "none")
            if verdict.problem is not None:
                found[f"{verdict.problem.name}: {verdict.problem.detail[:60]}"] += 1
            elif one.body is None and not one.left:
                found["without its bytes"] += 1
            else:
                found[f"proven, {outcome}"] += 1
        return found


async def run(arguments: argparse.Namespace, site: Site) -> int:
    seconds = arguments.minutes * 60
    policy = Policy(
        authorities=(PublicKey.from_bytes(site.authority.read_bytes()),),
        outcomes=frozenset(Outcome),
        min_measured=Measured.ENGINE,
    )
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx2.AsyncClient(
        base_url=site.url, trust_env=False, timeout=120, limits=limits
    ) as http:
        await site.wait_ready(http)
        started = resident_mebibytes(site.process.pid)
        soak = Soak(
            site,
            policy,
            http,
            time.monotonic() + seconds,
            random.Random(arguments.seed),
        )
        await asyncio.gather(
            soak.watch(),
            soak.kill_engine(seconds * 0.4),
            *(soak.client() for _ in range(arguments.clients)),
        )
        await asyncio.sleep(10)
        health = (await http.get("/readyz")).json()
        judged = await soak.judge()
    await asyncio.sleep(6)  # idle connections end
    report = summary(soak, judged, started, health, seconds)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    return show(report)


def summary(
    soak: Soak, judged: Counter[str], started: float, health: dict, seconds: float
) -> dict:
    pid = soak.site.process.pid
    half = [m for t, m, _ in soak.memory if t > seconds / 2]
    quarter = [m for t, m, _ in soak.memory if seconds / 4 < t <= seconds / 2]
    return {
        "minutes": seconds / 60,
        "requests": sum(soak.counts.values()),
        "counts": dict(soak.counts),
        "judged": dict(judged),
        "unproven": sum(n for k, n in judged.items() if not k.startswith("proven")),
        "memoryMiB": {
            "start": started,
            "secondQuarter": sum(quarter) / max(1, len(quarter)),
            "secondHalf": sum(half) / max(1, len(half)),
            "end": resident_mebibytes(pid),
        },
        "openFiles": {
            "most": max((f for _, _, f in soak.memory), default=0),
            "end": len(open_files(pid)),
            "engineConnections": soak.site.engine_connections(),
        },
        "ready": health,
        "log": soak.site.audit(),
        "load": os.getloadavg(),
    }


def show(report: dict) -> int:
    memory, files = report["memoryMiB"], report["openFiles"]
    growth = memory["secondHalf"] - memory["secondQuarter"]
    rows = (
        ("requests", str(report["requests"]), report["requests"] > 0),
        (
            "engine killed and back",
            str(report["ready"]),
            "ready" in str(report["ready"]),
        ),
        ("ids that are not proven", str(report["unproven"]), report["unproven"] == 0),
        ("memory, second half less second quarter", f"{growth:.1f} MiB", growth < 16),
        (
            "connections to the engine at the end",
            str(files["engineConnections"]),
            files["engineConnections"] == 0,
        ),
        ("audit of the log", report["log"]["verdict"], report["log"]["code"] == 0),
    )
    for name, seen, good in rows:
        print(f"{'ok  ' if good else 'BAD '} {name:<42} {seen}")
    for name in ("counts", "judged", "memoryMiB", "openFiles"):
        print(f"     {name}: {json.dumps(report[name])}")
    return 0 if all(good for *_, good in rows) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="soak-"))
    site = prepare(root)
    try:
        return asyncio.run(run(arguments, site))
    finally:
        site.stop()
        print(f"log of the gateway: {shutil.copy(site.log, tempfile.gettempdir())}")
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
