"""Clients that vanish in the middle of an answer, all at once."""

import asyncio
import socket
import struct
import time
from pathlib import Path

from load import PATH, Load, body_of
from peers import Started

__all__ = ["kill_clients"]


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


async def kill_clients(
    gateway: Started, engine: Started, count: int
) -> dict[str, float]:
    """Reset so many streams at once; what is left, and how long the next one takes.

    Returns:
        `clients`, the connections to the engine that were `open` and those that are
        `left` after 5 s at most but for idle ones, and `next_ms`, the first request
        after the reset.
    """
    loop = asyncio.get_running_loop()
    body = body_of("sse 2 60000", stream=True)
    request = (
        f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    clients = []
    for _ in range(count):
        client = socket.socket()
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", gateway.port))
        await loop.sock_sendall(client, request)
        clients.append(client)
    for client in clients:
        await loop.sock_recv(client, 1)  # its answer has begun
    opened = _connections(gateway.process.pid, engine.port)
    for client in clients:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
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
    }
