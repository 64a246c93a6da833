"""What an operator with the log's keys could do to his log, and an auditor beside him.

async with operated(folder) as gateway:
    await gateway.answer()
    assert (await gateway.monitor())["verdict"] == "proven"
    gateway.rewrite("DELETE …")     # the database, behind the gateway's back
"""

import asyncio
import hashlib
import json
from contextlib import asynccontextmanager

from fakes.gateway import chat_body, running_gateway
from fakes.log import SignedLog
from fakes.upstream import json_answer
from fakes.world import ANSWER, SYSTEM_PROMPT, make_world
from typer.testing import CliRunner

from attest.cli.main import app
from attest.log.checkpoint import Checkpoint
from attest.log.merkle import EMPTY_ROOT
from attest.log.tiles import Edge

__all__ = ["KEY", "Operated", "operated", "run_command"]

KEY = "sk-auditor"
AUTH = {"authorization": f"Bearer {KEY}"}


def run_command(*arguments):
    """Exit code and JSON of a command line."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--format", "json"])
    try:
        return result.exit_code, json.loads(result.stdout)
    except ValueError:
        return result.exit_code, result.output


class Operated:
    """A running gateway with a log, its database and files at hand."""

    def __init__(self, gateway, log, folder):
        self.gateway, self.log, self.folder = gateway, log, folder
        self.url = f"http://127.0.0.1:{gateway.port}"
        self.authority = folder / "authority.pub.pem"
        self.authority.write_bytes(gateway.world.authority.public.pem)
        self.api_key = folder / "api.key"
        self.api_key.write_text(KEY)
        self.state = folder / "monitor.json"

    async def answer(self, prompt=SYSTEM_PROMPT, *, publish=True):
        """One answer; the body of its attestation's bundle."""
        body = chat_body()
        if prompt is not None:
            body["messages"].insert(0, {"role": "system", "content": prompt})
        response = await self.gateway.chat(body, headers=AUTH)
        assert response.status_code == 200
        if publish:
            await self.publish()
        return response

    async def publish(self):
        await self.gateway.state.log.publish()

    async def command(self, *arguments):
        """A command of `attest`, beside the running gateway."""
        return await asyncio.to_thread(run_command, *arguments)

    async def monitor(self, *more):
        """Exit code and findings of `attest log monitor`."""
        return await self.command(
            *("log", "monitor", self.url, "--state", self.state),
            *("--authority", self.authority, "--api-key-file", self.api_key),
            *more,
        )

    async def verify(self, *more, place=None):
        """Exit code and findings of `attest log verify`."""
        return await self.command(
            *("log", "verify", place or self.url),
            *("--authority", self.authority, "--api-key-file", self.api_key),
            *more,
        )

    @property
    def database(self):
        """The gateway's own connection: the operator's hand on the log."""
        return self.gateway.state.log.store._writer

    def rewrite(self, statement, *values):
        with self.database:
            self.database.execute(statement, values)

    async def rebuild_without(self, index):
        """Take one leaf out of the tree, as if it had never been, and sign that."""
        database, publisher = self.database, self.gateway.state.log
        leaves = database.execute("SELECT * FROM log_leaves ORDER BY idx").fetchall()
        del leaves[index]
        edge = Edge()
        with database:
            for table in ("log_leaves", "log_hashes", "log_checkpoints"):
                database.execute(f"DELETE FROM {table}")
            for number, (_, leaf, attestation, record) in enumerate(leaves):
                row = (number, leaf, attestation, record)
                database.execute("INSERT INTO log_leaves VALUES (?, ?, ?, ?)", row)
                edge.append(leaf)
        publisher._tables._edge, publisher._tables.size = edge, edge.size
        # An honest publisher signs no smaller tree; this one forgets the larger.
        publisher.head = Checkpoint(publisher.head.origin, 0, EMPTY_ROOT)
        await publisher.publish()


@asynccontextmanager
async def operated(folder, **gateway):
    """A gateway on a fake engine, with a log that its manifest names."""
    log = SignedLog()
    world = make_world(predicate={"trustAnchors": log.anchors})
    async with running_gateway(
        folder,
        world=world,
        log=log.key,
        api_keys=[hashlib.sha256(KEY.encode()).digest()],
        **gateway,
    ) as running:
        running.engine.answer(json_answer(ANSWER))
        yield Operated(running, log, folder)
