"""A gateway in a process of its own, as an operator would start it."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attest import tokens
from attest.errors import AttestError
from gateway.demo.world import World
from gateway.http import httpx

__all__ = ["ATTEST", "GatewayProcess", "Traced", "attest", "serve_arguments", "trace"]

ATTEST = (sys.executable, "-m", "attest.cli.main")
"""The `attest` command of this environment."""


def attest(*arguments: str) -> str:
    """What an `attest` command prints.

    Raises:
        AttestError: it failed; with what it said.
    """
    done = subprocess.run([*ATTEST, *arguments], capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise AttestError(f"demo: attest {arguments[0]} {arguments[1]}: {said}")
    return done.stdout.decode()


@dataclass(frozen=True, slots=True)
class Traced:
    """An answer that was traced; `value` is what `attest trace --format json` said."""

    value: dict[str, Any]

    def lines(self) -> list[str]:
        """The first steps, one line each."""
        return [
            f"  step {event['seq']}, {event['principle']}: rows most alike "
            + ", ".join(row["id"] for row in event["rows"])
            for event in self.value["events"][:5]
        ]

    def summary(self) -> str:
        """Principle and first step, and whether the signed ledger holds that step."""
        if not self.value["governed"]:
            return "not due to governed training"
        principle = self.value["principles"][0]["principle"]
        first = self.value["events"][0]
        planted = any(name.startswith("planted") for name in first["samples"])
        step = "planted" if planted else "another one"
        held = "in the signed ledger" if first["inclusion"] else "without a proof"
        hits = sum(
            any(name.startswith("planted") for name in event["samples"])
            for event in self.value["events"]
        )
        return (
            f"principle {principle}, first step {step} and {held}; "
            f"{hits} of the first {len(self.value['events'])} are planted"
        )


def trace(world: World, bundle: Path) -> Traced:
    """Trace the answer of a bundle through the demo's run."""
    arguments = ["trace", str(bundle), "--run", str(world.run)]
    arguments += ["--authority", str(world.authority)]
    return Traced(json.loads(attest(*arguments, "--format", "json")))


def serve_arguments(world: World, model: Path, state: Path, port: int) -> list[str]:
    """The command line that serves `model`."""
    return [
        *(sys.executable, "-m", "gateway.cli", "serve"),
        *("--model", str(model)),
        *("--authority", str(world.authority)),
        *("--signer", f"file:{world.issuer}"),
        *("--gateway-id", "urn:attest-gateway:demo"),
        *("--served-model-name", "toy-assistant"),
        *("--state-dir", str(state)),
        *("--port", str(port)),
        *("--max-model-len", "512"),
    ]


@dataclass(slots=True)
class GatewayProcess:
    """One running `attest-gateway serve`."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @classmethod
    def start(
        cls, world: World, model: Path, *, name: str, port: int
    ) -> "GatewayProcess":
        """Start it; its log goes to a file in the demo's directory."""
        state = world.root / "state" / name
        state.mkdir(parents=True)
        log = world.root / f"gateway-{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                serve_arguments(world, model, state, port),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return cls(process, f"http://127.0.0.1:{port}", log)

    def wait_ready(self, report: Callable[[str], None], *, seconds: float) -> None:
        """Return once it serves.

        Raises:
            AttestError: it ended, or was not ready in time; with the end of its log.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                answer = httpx.get(f"{self.url}/readyz", timeout=5)
            except httpx.TransportError:
                time.sleep(0.2)
                continue
            if answer.status_code == 200:
                return
            report(str(answer.json().get("progress", "starting")))
            time.sleep(0.3)
        raise AttestError(
            f"demo: the gateway did not become ready: {self.tail()}",
            hint=f"read {self.log}",
        )

    def tail(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "(no output)"

    def wait_refused(self, *, seconds: float) -> int:
        """Its exit status, once it has ended by itself."""
        return self.process.wait(seconds)

    def refusal(self, world: World, name: str) -> tuple[Path, dict[str, str]]:
        """The signed refusal that it left, and the claims in it, unverified."""
        folder = world.root / "state" / name / "refusals"
        path = next(iter(sorted(folder.glob("refusal-*.json"))))
        record = json.loads(path.read_text())
        return path, dict(
            tokens.parse(record["refusal"], typ="startup-refusal+jwt").claims
        )

    def stop(self) -> None:
        """End it and what it started."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
