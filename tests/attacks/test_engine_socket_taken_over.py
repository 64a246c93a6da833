"""Somebody else listens where the engine did: its evidence is not even asked for."""

import socket

import pytest
from fakes.misbehaving_engine import make_engine

from gateway.engine.managed import EngineSpec, ManagedEngine
from gateway.errors import EngineDiedError, StartupRefusedError


@pytest.fixture
async def engine(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir(mode=0o700)
    engine = ManagedEngine(
        EngineSpec(
            python=make_engine(tmp_path),
            model_dir=tmp_path,
            served_model_name="good",
            run_dir=run_dir,
            reference=b"{}",
            dtype="float32",
            start_timeout_seconds=60,
        )
    )
    yield engine
    await engine.stop()


async def test_honest_engine_is_our_descendant(engine):
    with pytest.raises(EngineDiedError):
        await engine.peer()
    await engine.start()
    evidence = await engine.evidence("A" * 16)
    peer = await engine.peer()
    assert peer.pid == evidence["pid"]
    assert peer.started > 0


async def test_process_that_is_not_our_child(engine):
    """The test's own process plays the thief; the engine lives on."""
    await engine.start()
    engine.socket.unlink()
    with socket.socket(socket.AF_UNIX) as thief:
        thief.bind(str(engine.socket))
        thief.listen()
        with pytest.raises(StartupRefusedError, match="listens on the engine's socket"):
            await engine.peer()
