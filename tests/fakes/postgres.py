"""A real PostgreSQL of this machine, in a folder of its own, for one test session."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest
from fakes.processes import descendants

__all__ = ["PostgresServer", "needs_postgres"]

_BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))[::-1]), None)
needs_postgres = pytest.mark.skipif(
    _BINARIES is None, reason="Debian's postgresql is not installed"
)


class PostgresServer:
    """Listens on a Unix socket alone; it refuses root, so root lends it a user."""

    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="pg-"))
        self._user = None
        if os.getuid() == 0:
            self._user = pwd.getpwnam("postgres").pw_name
            shutil.chown(self.root, self._user)
        self.root.chmod(0o755)
        self._run("initdb", "-D", self.data, "-U", "attest", "--auth=trust")
        self.start()

    @property
    def data(self):
        return self.root / "data"

    def _run(self, program, *arguments, check=True):
        subprocess.run(
            [_BINARIES / program, *map(str, arguments)],
            check=check,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            cwd=self.root,
        )

    def start(self):
        options = f"-c listen_addresses='' -c unix_socket_directories={self.root}"
        log = self.root / "log"
        self._run("pg_ctl", "start", "-w", "-D", self.data, "-l", log, "-o", options)

    def crash(self):
        """End it without a checkpoint, as a power failure would end its processes."""
        self._run("pg_ctl", "stop", "-m", "immediate", "-D", self.data)

    @contextlib.contextmanager
    def frozen(self):
        """Meanwhile no process of it runs; connections stay as they are."""
        leader = int((self.data / "postmaster.pid").read_text().split()[0])
        pids = [leader, *descendants(leader)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def stop(self):
        self._run("pg_ctl", "stop", "-m", "fast", "-D", self.data, check=False)
        with contextlib.suppress(OSError):
            shutil.rmtree(self.root)

    def dsn(self, name="postgres"):
        return f"host={self.root} user=attest dbname={name}"

    def new_database(self, name):
        with psycopg.connect(self.dsn(), autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name}")
        return self.dsn(name)
