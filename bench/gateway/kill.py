"""Clients that vanish in the middle of an answer, all at once."""

import asyncio
import re
import socket
import struct
import time
from pathlib import Path

import httpx2
from load import PATH, Load, body_of
from peers import Started

__all__ = ["kill_clients"]

_ID = re.compile(rb"\r\nattestation-id: *([\w-]+)\r\n")
_LINGER = struct.pack("ii", 1, 0)  # closing then resets


def _connections(pid: int, port: int) -> int:
    """Established TCP connections of a process to a port of this machine."""
    own = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            own.add(str(entry.readlink()))
        except OSError:
            continue
    wanted, count = f"0100007F:{port:04X}", 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2] == wanted and fields[3] == "01":
            count += f"socket:[{fields[9]}]" in own
    return count


async def _begun(port: int) -> tuple[socket.socket, str]:
    """A client whose answer has begun, and the id of what will attest it."""
    loop = asyncio.get_running_loop()
    body = body_of("sse 2 60000", stream=True)
    head = (
        f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(client, head.encode() + body)
    came = b""
    while not (found := _ID.search(came)):
        came += await loop.sock_recv(client, 4096)
    return client, found[1].decode()


async def _lost(port: int, ids: list[str]) -> int:
    """How many of these attestations the gateway does not have."""
    lost = 0
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        for name in ids:
            found = await http.get(f"/v1/attestations/{name}")
            lost += found.status_code != 200
    return lost


async def kill_clients(
    gateway: Started, engine: Started, count: int
) -> dict[str, float]:
    """Reset so many streams at once; what is left, and how long the next one takes.

    Returns:
        `clients`, the connections to the engine that were `open` and those that are
        `left` after 10 s at most, `next_ms`, the first request after the reset, and
        how many of the answers have no record and so are `lost`.
    """
    begun = [await _begun(gateway.port) for _ in range(count)]
    opened = _connections(gateway.process.pid, engine.port)
    for client, _ in begun:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
        client.close()
    load = Load()
    began = time.monotonic()
    await load.requests(gateway.port, clients=1, seconds=0)
    next_ms = (time.monotonic() - began) * 1e3
    left = opened
    for _ in range(100):
        await asyncio.sleep(0.1)  # idle ones are closed after 3 s
        left = _connections(gateway.process.pid, engine.port)
        if not left:
            break
    return {
        "clients": count,
        "open": opened,
        "left": left,
        "next_ms": round(next_ms, 1),
        "failures": len(load.failures),
        "lost": await _lost(gateway.port, [name for _, name in begun]),
    }
