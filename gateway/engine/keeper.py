"""A small process between gateway and engine: no engine process outlives either.

The API server starts the engine core, and that the workers, which hold the memory. A
`kill -9` of the gateway or of the API server leaves those running. So the gateway
starts this script, and this script starts the engine:

- standard input ends when the gateway asks for a stop (after writing how many seconds
  the engine may take) or is gone, however it went: then the engine is told to end;
- when the engine has ended, however it went, all its descendants are killed. As a child
  subreaper (prctl(2)) this process becomes their parent, even of those that left the
  process group;
- should this process be killed itself, the kernel kills the API server.

It exits with the engine's exit code, 128 + n for signal n. Standard library only; it
runs as a script, with the engine's command line as its arguments.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

__all__ = ["main"]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# Where the gateway is gone and nobody says.
_GRACE_SECONDS = 6.0
# Python's resource trackers remove shared memory and semaphores once their clients are
# gone; they get this long before they are killed too.
_TRACKER_SECONDS = 2.0
# A process that hangs in a driver can't be killed; it must not hold up the exit.
_SWEEP_SECONDS = 10.0


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    keeper = os.getpid()

    def die_with_keeper() -> None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:  # it died before the line above
            os._exit(1)

    # preexec_fn is safe here: this process has one thread.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        preexec_fn=die_with_keeper,  # noqa: PLW1509
    )


def _wait_for_order(child: subprocess.Popen[bytes]) -> float:
    """Return once the child has ended or must; the seconds it may still take."""
    watch = os.pidfd_open(child.pid)
    order = b""
    while watch not in (ready := select.select([watch, 0], [], [])[0]):
        chunk = os.read(0, 64) if ready else b""
        if not chunk:
            break
        order += chunk
    try:
        return float(order or _GRACE_SECONDS)
    except ValueError:
        return _GRACE_SECONDS


def _children() -> list[tuple[int, bytes]]:
    """The pid and command line of every child of this process."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        # Some end meanwhile.
        with contextlib.suppress(OSError):
            # The command in parentheses may hold anything; the parent's pid is the
            # second field after it, proc(5).
            fields = (folder / "stat").read_bytes().rpartition(b")")[2].split()
            if int(fields[1]) == os.getpid():
                found.append((int(folder.name), (folder / "cmdline").read_bytes()))
    return found


def _sweep() -> None:
    """Kill and reap what is left, generation by generation."""
    started = time.monotonic()
    while (passed := time.monotonic() - started) < _SWEEP_SECONDS:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid:
            continue
        for child, command in _children():
            if b"resource_tracker" not in command or passed > _TRACKER_SECONDS:
                os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def main(command: list[str]) -> int:
    """Run the command and clean up after it; returns the exit code for the gateway."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = _start(command)
    grace = _wait_for_order(child)
    child.terminate()
    try:
        code = child.wait(grace)
    except subprocess.TimeoutExpired:
        child.kill()
        code = child.wait()
    _sweep()
    return 128 - code if code < 0 else code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
