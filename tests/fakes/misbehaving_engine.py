"""A stand-in for vLLM that fails on command, for what a real engine does rarely.

`make_engine(folder)` writes an interpreter that answers the probe, and that starts this
file in the place of vLLM. The served model name chooses the behaviour:

    good       serves evidence
    child      the same, with a process that left the group and ignores SIGTERM; the
               evidence has its pid
    member     the same, with a process that stays in the group
    crash      prints 30 lines, exits with 3
    refuse     leaves a refusal like the loader's, then hangs
    hang       never listens
    no-plugin  serves, without the evidence route
    big, twice, other-nonce   evidence that is too large, has a key twice, a wrong nonce
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

__all__ = ["make_engine"]


def make_engine(folder: Path, *, vllm: bool = True, plugin: bool = True) -> str:
    """Write the interpreter; returns its path."""
    answer = json.dumps({"vllm": vllm, "cpu": True, "plugin": plugin})
    path = folder / "python"
    path.write_text(
        "#!/bin/sh\n"
        f"if [ \"$2\" = -c ]; then echo '{answer}'; exit; fi\n"
        f'exec {sys.executable} -I {Path(__file__)} "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


def _option(name: str) -> str:
    prefix = f"--{name}="
    return next(a.removeprefix(prefix) for a in sys.argv if a.startswith(prefix))


def _evidence(behaviour: str, nonce: str, child: int) -> bytes:
    if behaviour == "big":
        return b'{"a":"' + b"x" * (5 << 20) + b'"}'
    if behaviour == "twice":
        return b'{"nonce":"1","nonce":"2"}'
    if behaviour == "other-nonce":
        nonce = "another-nonce"
    return json.dumps({"nonce": nonce, "pid": os.getpid(), "child": child}).encode()


def _serve(behaviour: str, child: int) -> None:
    server = socket.socket(socket.AF_UNIX)
    server.bind(_option("uds"))
    server.listen()
    while True:
        connection, _ = server.accept()
        target = connection.recv(65536).split(b" ")[1].decode()
        nonce = parse_qs(urlsplit(target).query)["nonce"][0]
        status = "404 Not Found" if behaviour == "no-plugin" else "200 OK"
        body = _evidence(behaviour, nonce, child)
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n"
        with contextlib.suppress(OSError):  # the client had read enough
            connection.sendall(f"{head}connection: close\r\n\r\n".encode() + body)
        connection.close()


def _main() -> None:
    behaviour = _option("served-model-name")
    os.write(1, b"Starting to load model\n")
    if behaviour == "crash":
        os.write(2, b"".join(b"line %d\n" % n for n in range(30)))
        sys.exit(3)
    if behaviour == "refuse":
        reference = json.loads(_option("model-loader-extra-config"))["reference"]
        Path(reference).with_name("refusal.json").write_text(
            json.dumps(
                {
                    "reason": "another content",
                    "tensor": "a\x1b.weight",
                    "expected": "sha256:1",
                    "found": "sha256:2",
                }
            )
        )
    if behaviour in {"refuse", "hang"}:
        time.sleep(600)
    if behaviour in {"child", "member"}:
        stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN)"
        child = subprocess.Popen(
            [sys.executable, "-c", f"{stubborn}; time.sleep(600)"],
            start_new_session=behaviour == "child",
        ).pid
    else:
        child = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    os.write(1, b"Loading weights took 0.1 seconds\n")
    _serve(behaviour, child)


if __name__ == "__main__":
    _main()
