"""A supervisor over an engine at `upstream` that the test starts, changes and stops."""

import asyncio
from contextlib import asynccontextmanager

from fakes.gateway import eventually
from fakes.model import sign_directory
from fakes.routed_engine import RoutedEngine
from fakes.world import NOW

from gateway.front import OwnFront
from gateway.session_keys import SessionKeys
from gateway.settings import load_settings
from gateway.startup import Startup
from gateway.state import AppState
from gateway.store.sqlite import SqliteStore
from gateway.supervise import Supervisor

__all__ = ["SupervisedSite"]


class _Front(OwnFront):
    """The real one, which also tells of its boots."""

    async def serve(self, *found):
        await super().serve(*found)
        self.boots.append(self.boot)


class SupervisedSite:
    """`run` it, change something, see what becomes of it."""

    def __init__(self, root):
        self.root, self.path = root, root / "e.sock"
        self.model = sign_directory(root / "model", now=NOW)
        self.model.write_keys(root)
        self.engine, self.boots, self.pauses = None, [], []
        self.time = NOW

    async def start_engine(self, **changes):
        self.engine = RoutedEngine(self.model.manifest)
        for name, value in changes.items():
            setattr(self.engine, name, value)
        self.path.unlink(missing_ok=True)
        await self.engine.start(self.path)

    async def pause(self, seconds):
        self.pauses.append(seconds)
        await self.on_pause()

    async def on_pause(self):
        await self.start_engine()

    @asynccontextmanager
    async def run(self, **flags):
        settings = load_settings(
            {
                "model": self.model.root,
                "authority": [self.root / "authority.pem"],
                "signer": f"file:{self.root / 'issuer.pem'}",
                "upstream": f"unix:{self.path}",
                "recheck_seconds": 0.02,
                "engine": {"start_timeout_seconds": 1, "restarts": 2},
                **flags,
            }
        )
        self.state = AppState.starting(settings)
        self.store = SqliteStore.open(self.root / "attestations.sqlite")
        startup = Startup(settings, lambda: self.time, lambda _: None)
        startup.prepare()
        self.state.session_keys = SessionKeys(self.store, lambda: self.time)
        front = _Front(
            settings, startup.signer, self.state, self.store, lambda: self.time
        )
        front.boots = self.boots
        supervisor = Supervisor(
            settings=settings,
            startup=startup,
            front=front,
            clock=lambda: self.time,
            sleep=self.pause,
        )
        self.task = asyncio.create_task(supervisor.run())
        try:
            yield
        finally:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            await self.engine.stop()
            self.store.close()

    async def ready(self, boots=1):
        await eventually(lambda: len(self.boots) == boots or self.task.done())
        assert len(self.boots) == boots

    async def failed(self):
        await eventually(self.task.done)
        return self.task.exception()
