"""The witness as a process: its state on disk, and C2SP add-checkpoint over HTTP."""

import sys
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from attest.cli._state import read_state, write_state
from attest.errors import AttestError, ConfigurationError, FormatError
from attest.log.checkpoint import Checkpoint
from attest.log.witness import MAX_REQUEST, Witness, WitnessAnswer

__all__ = ["Desk", "WitnessServer"]

_TIMEOUT_SECONDS = 10


class Desk:
    """A witness with a memory: one decision at a time, on disk before it is told."""

    def __init__(
        self, witness: Witness, path: Path, clock: Callable[[], float] = time.time
    ) -> None:
        self._witness, self._path, self._clock = witness, path, clock
        self._lock = threading.Lock()
        self._seen = _read(path, str(witness.signer.key))

    @property
    def seen(self) -> Mapping[str, Checkpoint]:
        """The last head that was cosigned, by origin."""
        return self._seen

    def add_checkpoint(self, body: bytes) -> WitnessAnswer:
        """Decide, remember, answer.

        Raises:
            ConfigurationError: the state can't be written; nothing was cosigned then.
            SignerError: the key store can't sign.
        """
        with self._lock:
            at = int(self._clock())
            answer = self._witness.add_checkpoint(body, self._seen, at=at)
            if answer.seen is not None:
                seen = {**self._seen, answer.seen.origin: answer.seen}
                logs = {name: str(head) for name, head in seen.items()}
                vkey = str(self._witness.signer.key)
                write_state(self._path, {"witness": vkey, "logs": logs})
                self._seen = seen
            return answer


def _read(path: Path, vkey: str) -> dict[str, Checkpoint]:
    value = read_state(path)
    if value is None:
        raise ConfigurationError(
            f"state: {path} does not exist",
            hint="a witness that forgot what it saw must be retired; for a new one, "
            "add --new-state",
        )
    try:
        match value:
            case {"witness": str(found), "logs": dict(logs)} if found == vkey:
                return {name: Checkpoint.parse(text) for name, text in logs.items()}
    except (FormatError, AttributeError) as error:
        raise ConfigurationError(f"state: {path}: {error}") from error
    raise ConfigurationError(
        f"state: {path} is not of this witness", hint="check --key and --name"
    )


class WitnessServer(ThreadingHTTPServer):
    """Serves POST /add-checkpoint."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], desk: Desk) -> None:
        self.desk = desk
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT_SECONDS
    server: WitnessServer

    def do_POST(self) -> None:  # the name that http.server calls
        length = self.headers.get("content-length", "")
        if self.path != "/add-checkpoint":
            self.close_connection = True
            self._answer(WitnessAnswer(404, b"not served here\n"))
        elif not (length.isascii() and length.isdigit() and len(length) < 8):
            self.close_connection = True
            self._answer(WitnessAnswer(411, b"a content-length is needed\n"))
        elif int(length) > MAX_REQUEST:
            self.close_connection = True
            self._answer(WitnessAnswer(413, b"too large\n"))
        else:
            self._answer(self._decided(self.rfile.read(int(length))))

    def _decided(self, body: bytes) -> WitnessAnswer:
        try:
            return self.server.desk.add_checkpoint(body)
        except AttestError as error:
            # The state or the key store failed: say so on both sides, cosign nothing.
            print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201
            return WitnessAnswer(500, b"the witness cannot decide now\n")

    def _answer(self, answer: WitnessAnswer) -> None:
        self.send_response(answer.status)
        self.send_header("content-type", answer.content_type)
        self.send_header("content-length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: requests hold nothing that an operator must see."""
