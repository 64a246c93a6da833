"""Sockets that the gateway listens on, and the server on them as it is used here."""

import asyncio
import gc
import socket
import ssl
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import uvicorn
import uvloop
from starlette.types import ASGIApp

from attest.errors import ConfigurationError
from gateway.connection import connection_class
from gateway.settings import Settings

__all__ = ["DRAIN_SECONDS", "Server", "SharedPort", "listen", "run", "server_for"]

T = TypeVar("T")

# Requests in flight get this long to end before their connections are closed.
DRAIN_SECONDS = 30


class Server(uvicorn.Server):
    """uvicorn, but for its handling of signals."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to us: uvicorn raises them again before the engine ends."""
        yield


def server_for(
    app: ASGIApp, settings: Settings, context: ssl.SSLContext | None = None
) -> Server:
    """A server of `app`, with TLS where there is a context; give it its sockets."""
    config = uvicorn.Config(
        app,
        ssl_context_factory=None if context is None else lambda *_: context,
        http=connection_class(settings.limits.head_seconds),
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    return Server(config)


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A socket that listens for this process alone; `setting` is for the message.

    Raises:
        ConfigurationError: the address can't be had.
    """
    try:
        return socket.create_server((host, port), backlog=2048)
    except OSError as error:
        raise _taken(host, port, setting, error) from error


class SharedPort:
    """One port for several processes of this user (SO_REUSEPORT, socket(7)).

    The kernel spreads new connections over the sockets that listen, by a hash of their
    addresses. The port stays ours while none does, too. Another process of the same
    user could still share it.

    Raises:
        ConfigurationError: the address can't be had, or somebody listens there.
    """

    def __init__(self, host: str, port: int, setting: str) -> None:
        # With SO_REUSEPORT alone a second gateway would share the port unnoticed.
        with listen(host, port, setting) as probe:
            self._host, self.port = host, probe.getsockname()[1]
        self._setting = setting
        # It never listens, so no connection goes there.
        self._held = self.bound()

    def bound(self) -> socket.socket:
        """A socket on the port, which does not listen yet.

        Raises:
            ConfigurationError: the address can't be had.
        """
        bound = socket.socket()
        try:
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                bound.setsockopt(socket.SOL_SOCKET, option, 1)
            bound.bind((self._host, self.port))
        except OSError as error:
            bound.close()
            raise _taken(self._host, self.port, self._setting, error) from error
        return bound

    def close(self) -> None:
        """Give the port up; sockets from `bound` stay as they are."""
        self._held.close()


def _taken(host: str, port: int, setting: str, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"{setting}: {host}:{port}: {error.strerror}",
        hint=f"stop what listens there, or set another {setting}",
    )


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on the fast event loop, and return its result.

    What was made until now lives as long as the process, so the garbage collector looks
    at it no more, and less often at all: that is a twentieth of the CPU of a request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
