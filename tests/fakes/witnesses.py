"""Real witness servers on loopback, and the gateway's clients of them."""

import threading
from contextlib import contextmanager

from fakes.world import NOW

from attest.cli._state import write_state
from attest.cli._witness import Desk, WitnessServer
from attest.log.witness import Witness
from gateway.tlog.witnesses import WitnessClient

__all__ = ["witness_servers"]


@contextmanager
def witness_servers(log, folder, *, clock=lambda: NOW + 1):
    """A server per witness of a `SignedLog`; gives a client of each."""
    servers, clients = [], []
    for number, signer in enumerate(log.witnesses):
        path = folder / f"witness-{number}.json"
        write_state(path, {"witness": str(signer.key), "logs": {}})
        desk = Desk(Witness(signer, (log.key.key,)), path, clock)
        server = WitnessServer(("127.0.0.1", 0), desk)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        url = f"http://127.0.0.1:{server.server_port}"
        clients.append(WitnessClient(url, signer.key))
    try:
        yield clients
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
