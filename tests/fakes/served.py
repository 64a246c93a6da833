"""A whole gateway in processes of its own, in front of a fake engine of this one.

async with served(folder, workers=2) as site:
    answer = await site.ask()
    claims = await site.verified(answer)
"""

import asyncio
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import yaml
from fakes.model import sign_directory
from fakes.processes import descendants
from fakes.routed_engine import RoutedEngine

from attest import disclosures, tokens
from attest.bundle import Bundle
from attest.keys import PrivateKey
from attest.log.note import KeyKind, NoteSigner
from attest.signers.file import write_private_key
from attest.verify import verify
from gateway.workers import child

__all__ = ["Gateway", "Site", "served", "until"]

READY_SECONDS = 60
ORIGIN = "log.test/workers"
BODY = {"model": "toy", "messages": [{"role": "user", "content": "hello"}]}


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


async def until(condition, seconds=READY_SECONDS):
    """Wait for something that other processes do."""
    async with asyncio.timeout(seconds):
        while not (found := condition()):  # noqa: ASYNC110  # it is elsewhere
            await asyncio.sleep(0.05)
    return found


class Site:
    """A signed model, the keys of a gateway and its log, and the engine."""

    def __init__(self, folder):
        self.folder = folder
        key = PrivateKey.generate()
        self.log = NoteSigner(ORIGIN, KeyKind.LOG, key)
        write_private_key(folder / "log.pem", key)
        self.model = sign_directory(
            folder / "model", now=int(time.time()), logs=[self.log.key]
        )
        self.model.write_keys(folder)
        self.authority = folder / "authority.pem"
        self.policy = self.model.policy
        self.engine = RoutedEngine(self.model.manifest)
        self.socket = folder / "e.sock"

    def settings(self, name):
        """What every gateway here is set to."""
        return {
            "model": str(self.model.root),
            "authority": [str(self.authority)],
            "signer": f"file:{self.folder / 'issuer.pem'}",
            "upstream": f"unix:{self.socket}",
            "log_key": str(self.folder / "log.pem"),
            "log_origin": ORIGIN,
            "state_dir": str(self.folder / name),
            "recheck_seconds": 0.5,
            "log_requests": False,
        }


class Gateway:
    """One gateway: its process, and a client that connects anew for each request."""

    def __init__(self, site, name, **changes):
        self.site, self.name = site, name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics = free_port()
        self.config = site.folder / f"{name}.yaml"
        settings = {"port": self.port, "metrics_port": self.metrics, **changes}
        self.config.write_text(yaml.safe_dump({**site.settings(name), **settings}))
        self.output = site.folder / f"{name}.log"
        self.client = httpx2.AsyncClient(
            trust_env=False,
            timeout=30,
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            limits=httpx2.Limits(max_keepalive_connections=0),
        )

    def spawn(self):
        """Start its process and wait for nothing."""
        command = (sys.executable, "-m", "gateway.cli", "serve", "--config")
        with self.output.open("ab") as output:
            self.process = subprocess.Popen(
                [*command, self.config], stdout=output, stderr=output
            )

    async def start(self):
        """Return once every worker is ready."""
        before = len(self.events("ready"))
        self.spawn()
        await until(self._is_up(before))

    def _is_up(self, before):
        workers = yaml.safe_load(self.config.read_text()).get("workers", 1)

        def up():
            assert self.process.poll() is None, self.output.read_text()
            return len(self.events("ready")) - before >= workers

        return up

    def events(self, name):
        """The lines of the log with this event."""
        if not self.output.exists():
            return []
        lines = self.output.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] == name]

    def workers(self):
        """The pids of its workers."""
        name = child.__name__.encode()
        return [
            pid
            for pid in descendants(self.process.pid)
            if name in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]

    async def ask(self, body=BODY):
        """An answer, on a connection of its own."""
        content = json.dumps(body).encode()
        fields = {"content-type": "application/json"}
        path = f"{self.url}/v1/chat/completions"
        return await self.client.post(path, content=content, headers=fields)

    async def get(self, path):
        return await self.client.get(self.url + path)

    async def bundle(self, answer, where=None):
        """The evidence about an answer, as this gateway or another one gives it."""
        found = await (where or self).get(
            f"/v1/attestations/{answer.headers['attestation-id']}"
        )
        assert found.status_code == 200, found.text
        return Bundle.loads(found.content)

    def claims(self, answer):
        """What the token says, whoever signed it."""
        compact, _ = disclosures.split(answer.headers["attestation"])
        return tokens.parse(compact, typ="inference-attestation+jwt").claims

    async def verified(self, answer, where=None):
        """The claims about an answer, which is proven offline."""
        kept = await self.bundle(answer, where)
        bundle = Bundle(
            token=answer.headers["attestation"],
            key_certificates=kept.key_certificates,
            boot_record=kept.boot_record,
            manifest=kept.manifest,
            request=answer.request.content,
            response=answer.content,
        )
        verdict = verify(bundle, self.site.policy, at=int(time.time()))
        verdict.raise_unless_proven()
        return verdict.claims

    async def numbers(self):
        """The page of metrics: value by name and labels."""
        page = await self.client.get(f"http://127.0.0.1:{self.metrics}/metrics")
        rows = (r.rpartition(" ") for r in page.text.splitlines() if r[0] != "#")
        return {n.removeprefix("attest_gateway_"): float(v) for n, _, v in rows}

    async def stop(self, number=signal.SIGTERM):
        """Send a signal; returns its exit status."""
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, 60)

    async def close(self):
        if self.process.poll() is None:
            pids = [self.process.pid, *descendants(self.process.pid)]
            self.process.kill()
            await asyncio.to_thread(self.process.wait, 60)
            await until(lambda: not descendants(pids[0]))
        await self.client.aclose()


@asynccontextmanager
async def served(folder, *, replicas=1, **changes):
    """Gateways that are ready, of one site."""
    site = Site(folder)
    await site.engine.start(site.socket)
    gateways = [Gateway(site, f"state{n}", **changes) for n in range(replicas)]
    try:
        await asyncio.gather(*(gateway.start() for gateway in gateways))
        yield gateways
    finally:
        await asyncio.gather(*(gateway.close() for gateway in gateways))
        await site.engine.stop()
