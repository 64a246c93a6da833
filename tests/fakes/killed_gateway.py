"""A gateway in a process of its own, to be killed: `python -m fakes.killed_gateway`.

Arguments: a folder with `log.key.pem`, whether it streams (`stream` or `body`), and the
connection string of a PostgreSQL, or nothing for a file. It writes its port in one
line, answers everything with one scripted answer, and signs heads all the while.
"""

import asyncio
import sys
from pathlib import Path

from fakes.answers import SPOKEN
from fakes.gateway import running_gateway
from fakes.upstream import json_answer, sse

from attest.keys import PrivateKey
from attest.log.note import KeyKind, NoteSigner
from gateway.store.postgres import PostgresStore

__all__ = ["main"]


async def main(folder, kind, dsn=""):
    """Serve until it is killed."""
    key = PrivateKey.from_pem((folder / "log.key.pem").read_bytes())
    signer = NoteSigner("log.test", KeyKind.LOG, key)
    store = PostgresStore.open(dsn, log=True) if dsn else None
    async with running_gateway(folder, log=signer, store=store) as gateway:
        await gateway.state.log.restore()
        spoken, text = SPOKEN["chat"], "Hello."
        gateway.engine.answer(
            sse(*spoken.events(text))
            if kind == "stream"
            else json_answer(spoken.body(text))
        )
        sys.stdout.write(f"{gateway.port}\n")
        sys.stdout.flush()
        while True:
            await gateway.state.log.publish()
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
