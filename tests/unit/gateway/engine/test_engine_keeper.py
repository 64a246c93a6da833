"""The process in between: nothing of the engine outlives it, however things end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.processes import alive, eventually

from gateway.engine import keeper

KEEPER = [sys.executable, "-I", keeper.__file__]

# Prints its own pid and that of a child which left the group and ignores SIGTERM.
ENGINE = """
import os, signal, subprocess, sys, time
stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
if sys.argv[1] == "deaf":
    signal.signal(15, signal.SIG_IGN)
if sys.argv[1] == "polite":
    signal.signal(15, lambda *_: sys.exit(7))
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def kept():
    """Starts an engine under a keeper; gives the keeper and the engine's pids."""
    started = []

    def start(manner):
        process = subprocess.Popen(
            [*KEEPER, sys.executable, "-c", ENGINE, manner],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        return process, [int(pid) for pid in process.stdout.readline().split()]

    yield start
    for process in started:
        process.stdin.close()
        process.wait()
        process.stdout.close()


def gone(pids):
    return eventually(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize(
    ("manner", "code"), [("plain", 128 + signal.SIGTERM), ("polite", 7)]
)
def test_stop(kept, manner, code):
    process, pids = kept(manner)
    process.stdin.close()
    assert process.wait() == code
    assert gone(pids)


def test_stop_of_one_that_does_not_listen(kept):
    process, pids = kept("deaf")
    process.stdin.write(b"0.1")
    process.stdin.close()
    assert process.wait() == 128 + signal.SIGKILL
    assert gone(pids)


def test_engine_killed(kept):
    process, pids = kept("plain")
    os.kill(pids[0], signal.SIGKILL)
    assert process.wait() == 128 + signal.SIGKILL
    assert gone(pids)


def test_keeper_killed(kept):
    process, (engine, child) = kept("plain")
    process.kill()
    assert gone([engine])
    os.kill(child, signal.SIGKILL)  # left its group and lost its keeper: nobody's


def test_exit_code_is_passed_on():
    command = [*KEEPER, sys.executable, "-c", "raise SystemExit(5)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.wait() == 5


def test_gateway_killed(tmp_path):
    gateway = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(process.stdout.readline().decode().strip(), process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    command = [*KEEPER, sys.executable, "-c", ENGINE, "plain"]
    done = subprocess.run(
        [sys.executable, "-c", gateway, *command],
        stdout=subprocess.PIPE,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == -signal.SIGKILL
    pids = [int(pid) for pid in done.stdout.split()]
    assert len(pids) == 3
    assert gone(pids)


def test_shared_memory_is_removed():
    # Its tracker ends by itself once its clients are gone, and must get the chance.
    engine = """
import time
from multiprocessing.shared_memory import SharedMemory
print(SharedMemory(create=True, size=16).name, flush=True)
time.sleep(600)
"""
    process = subprocess.Popen(
        [*KEEPER, sys.executable, "-c", engine],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    memory = Path("/dev/shm", process.stdout.readline().decode().strip())
    assert memory.exists()
    process.communicate(b"0")
    assert not memory.exists()
