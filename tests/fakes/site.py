"""The gateway as its own process before a real vLLM, which it starts as its child."""

import socket
import subprocess
import sys
import time

from fakes.model import sign_model

from gateway.http import httpx

__all__ = ["READY_SECONDS", "Site"]

READY_SECONDS = 400


class Site:
    """A model, its authority, and the gateway that serves it.

    Args:
        root: folder of its own.
        make: writes the model into a folder that it makes.
        flags: more of them for the gateway.
    """

    def __init__(self, root, make, *flags):
        self.root, self.model, self.flags = root, make(root / "model"), flags
        signed = sign_model(
            self.model,
            "tiny",
            now=int(time.time()),
            system_prompts={"house": "Be brief."},
        )
        signed.write_keys(root)
        self.policy = signed.policy
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.evidence = []

    def start(self):
        """Start the gateway and wait for it; the phases that `/readyz` told."""
        self.log = (self.root / "gateway.log").open("wb")
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "gateway.cli", "serve"),
                *("--model", self.model, "--authority", self.root / "authority.pem"),
                *("--signer", f"file:{self.root / 'issuer.pem'}"),
                *("--state-dir", self.root / "state", "--port", str(self.port)),
                *self.flags,
            ],
            stdout=self.log,
            stderr=self.log,
        )
        seen = set()
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                answer = httpx.get(f"{self.url}/readyz")
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            seen.add(answer.json()["progress"].partition(",")[0])
            if answer.status_code == 200:
                return seen
            time.sleep(0.1)
        raise AssertionError(self.logged())

    def logged(self):
        """All that the gateway wrote."""
        return (self.root / "gateway.log").read_text()

    def close(self):
        """Kill what still runs."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.close()
