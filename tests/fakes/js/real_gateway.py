"""A real gateway before a scripted engine, for tests of another language.

Writes {"url", "authority"} in one line; then reads commands, one JSON array a line, and
writes the answer of each in one line:

    ["answer", DIALECT, STREAMED, TEXT]   what the engine says from now on
    ["cut", DIALECT, TEXT]                the same stream without its last two events
    ["raw", STATUS, CONTENT_TYPE, BODY]   something else
    ["requests"]                          {method, path, headers, body} of each so far
    ["bundle", ID]                        the bundle that the store has

With the argument `log` it keeps a log that witnesses of its own cosign, and publishes
its head once a second.

    PYTHONPATH=tests python -m fakes.js.real_gateway [log]
"""

import asyncio
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from fakes.answers import SPOKEN
from fakes.gateway import running_gateway
from fakes.log import SignedLog
from fakes.upstream import json_answer, sse
from fakes.witnesses import witness_servers
from fakes.world import make_world


async def obeyed(gateway, name, *arguments):
    """The answer to one command."""
    if name == "answer":
        dialect, streamed, text = arguments
        spoken = SPOKEN[dialect]
        if streamed:
            gateway.engine.answer(sse(*spoken.events(text)))
        else:
            gateway.engine.answer(json_answer(spoken.body(text)))
        return None
    if name == "cut":
        dialect, text = arguments
        gateway.engine.answer(sse(*SPOKEN[dialect].events(text)[:-2]))
        return None
    if name == "raw":
        status, kind, body = arguments
        gateway.engine.answer(json_answer(body.encode(), status=status, kind=kind))
        return None
    if name == "requests":
        return [
            {
                "method": seen.method,
                "path": seen.path,
                "headers": seen.headers,
                "body": seen.body.decode(),
            }
            for seen in gateway.engine.requests
        ]
    if name == "bundle":
        found = await gateway.attester.bundle(*arguments)
        return found and found.to_json()
    raise ValueError(name)


def say(value):
    """One line to whoever started this."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def main():
    """Serve until the standard input ends."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder, options = Path(name), {}
        if sys.argv[1:] == ["log"]:
            log = SignedLog()
            clock = {"clock": lambda: int(time.time())}
            witnesses = stack.enter_context(witness_servers(log, folder, **clock))
            anchors = {"trustAnchors": log.anchors}
            world = make_world(now=int(time.time()), predicate=anchors)
            options = {"log": log.key, "witnesses": witnesses}
        else:
            world = make_world(now=int(time.time()))
        async with running_gateway(folder, world=world, **options) as gateway:
            publishing = options and asyncio.create_task(gateway.state.log.run())
            gateway.attester._clock = time.time
            say(
                {
                    "url": f"http://127.0.0.1:{gateway.port}",
                    "authority": world.authority.public.jwk,
                }
            )
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                say(await obeyed(gateway, *json.loads(line)))
            if publishing:
                publishing.cancel()


if __name__ == "__main__":
    asyncio.run(main())
