"""The vLLM child: started, watched, asked for evidence, and ended with all its own."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attest.canonical import read_object
from attest.errors import ConfigurationError, FormatError
from gateway.engine import keeper
from gateway.engine.address import Address
from gateway.engine.client import MAX_EVIDENCE_BYTES, EngineClient
from gateway.engine.log import EngineLog
from gateway.engine.peer import Peer, is_descendant
from gateway.engine.probe import probe
from gateway.engine.spec import (
    EngineSpec,
    child_environment,
    command_line,
    reference_path,
)
from gateway.errors import EngineDiedError, EngineStartError, StartupRefusedError
from gateway.http import httpx

__all__ = ["EngineSpec", "ManagedEngine", "read_refusal"]

_MAX_REFUSAL_BYTES = 64 << 10
_POLL_SECONDS = 0.25
# Beyond the grace: what the keeper takes to kill and to let shared memory be removed.
_KEEPER_SECONDS = 15
_DRAIN_SECONDS = 5
# An engine that never served has nothing to finish; it would wait for its workers.
_FAILED_GRACE_SECONDS = 1.0


def _write_private(path: Path, data: bytes) -> None:
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)


def read_refusal(path: Path) -> StartupRefusedError | None:
    """What the loader left; None where it has not refused.

    Not signed: whoever may write beside the reference can forge one, and stop a start.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_REFUSAL_BYTES + 1)
        refusal = read_object(data, max_bytes=_MAX_REFUSAL_BYTES)
    except (FileNotFoundError, FormatError):
        return None
    # Names come from the model's files: no control characters in a terminal.
    reason, tensor, expected, found = (
        "".join(c if c.isprintable() else "?" for c in str(refusal.get(key, "")))[:500]
        for key in ("reason", "tensor", "expected", "found")
    )
    return StartupRefusedError(
        f"engine: weights refused: {reason}{f' {tensor}' if tensor else ''}: "
        f"expected {expected or 'nothing'}, found {found or 'nothing'}",
        hint="restore the model from the copy that the manifest was made for",
        tensor=tensor,
        expected=expected,
        found=found,
    )


class ManagedEngine:
    """One vLLM child, from `start` to `stop`; start it once.

    The event loop's thread must outlive it. Its environment is built from an
    allow-list, its sockets and temporary files lie in the run folder, and no process
    of it outlives this one, `kill -9` of any of them included.
    """

    mode = "managed"

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None
        self._log: EngineLog | None = None
        self._client = EngineClient(self.address)

    @property
    def address(self) -> Address:
        """Where it answers."""
        return Address.of_socket(self.socket)

    @property
    def socket(self) -> Path:
        """The Unix socket that the engine serves on."""
        return self._spec.socket

    @property
    def pid(self) -> int | None:
        """The head of the engine's process group, None before the start.

        It is the keeper's pid; the API server's own is `pid` in the evidence.
        """
        return self._process.pid if self._process else None

    async def start(self, on_progress: Callable[[str], None] | None = None) -> None:
        """Return once the engine serves and gives evidence; about a minute.

        Args:
            on_progress: gets a few words at each phase.

        Raises:
            ConfigurationError: the run folder is missing, open to others, or its path
                is too long.
            EngineNotInstalledError: within about a second.
            StartupRefusedError: the loader met other weights than the reference's.
            EngineStartError: the engine ended or took too long; all of it is gone.
        """
        report = on_progress or (lambda _: None)
        self._spec.check_paths()
        report("starting engine")
        found = await probe(self._spec.python)
        self._prepare(report)
        command = command_line(self._spec, found.python, cpu=found.cpu)
        environment = child_environment(
            self._spec, found.python, cpu=found.cpu, parent=os.environ
        )
        try:
            await self._spawn(command, environment)
            async with asyncio.timeout(self._spec.start_timeout_seconds):
                await self._until_ready()
        except TimeoutError as error:
            await self.stop(grace_seconds=_FAILED_GRACE_SECONDS)
            raise EngineStartError(
                f"engine: not ready after {self._spec.start_timeout_seconds:.0f} "
                f"seconds{self._last_words()}",
                hint="raise engine.start_timeout_seconds, or look at engine.log",
            ) from error
        except BaseException:
            await self.stop(grace_seconds=_FAILED_GRACE_SECONDS)
            raise

    def _prepare(self, report: Callable[[str], None]) -> None:
        run_dir = self._spec.run_dir.absolute()
        if not run_dir.is_dir() or run_dir.stat().st_mode & 0o077:
            raise ConfigurationError(
                f"engine: {run_dir} must be a folder that only its owner can enter",
                hint=f"mkdir -m 700 {run_dir}",
            )
        for name in ("home", "tmp"):
            (run_dir / name).mkdir(mode=0o700, exist_ok=True)
        for path in (self.socket, self._refusal):
            path.unlink(missing_ok=True)
        _write_private(reference_path(self._spec), self._spec.reference)
        self._log = EngineLog(run_dir / "engine.log", report)

    @property
    def _refusal(self) -> Path:
        return reference_path(self._spec).with_name("refusal.json")

    async def _spawn(self, command: list[str], environment: dict[str, str]) -> None:
        # Not asyncio's own pipe: its wait() returns only once all writers have gone,
        # and workers that outlive a killed keeper are writers.
        source, sink = os.pipe()
        self._pump = asyncio.create_task(self._copy_output(source))
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(Path(keeper.__file__)),
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                cwd=self._spec.run_dir,
                env=environment,
                # Else a Ctrl-C in the gateway's terminal reaches the engine as well,
                # and requests that are being drained are cut.
                start_new_session=True,
            )
        finally:
            os.close(sink)

    async def _copy_output(self, source: int) -> None:
        assert self._log is not None  # noqa: S101 - set by _prepare
        output = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(output), os.fdopen(source, "rb")
        )
        with contextlib.closing(transport):
            while data := await output.read(1 << 16):
                # A full disk must not stop the pipe, which would stop the engine.
                with contextlib.suppress(OSError):
                    self._log.feed(data)

    async def _end_pump(self) -> None:
        # The pipe ends with its last writer, and a process that hangs in a driver is
        # one that can't be killed.
        if self._pump is not None:
            await asyncio.wait([self._pump], timeout=_DRAIN_SECONDS)
            self._pump.cancel()

    async def _until_ready(self) -> None:
        while True:
            # The file comes before the engine has ended; that takes it seconds.
            if refusal := read_refusal(self._refusal):
                raise refusal
            if self._process is None or self._process.returncode is not None:
                raise await self._explain_exit()
            try:
                status, data = await self._client.call(
                    "GET", "/attest/evidence", query=f"nonce={'A' * 16}"
                )
            except httpx.TransportError:
                await asyncio.sleep(_POLL_SECONDS)
                continue
            if status != 200:
                # vLLM only logs a plug-in that does not load, and serves without it.
                raise EngineStartError(
                    "engine: serves, but its plug-in gives no evidence: HTTP status "
                    f"{status}",
                    hint="look for attested_evidence in engine.log",
                )
            read_object(data, max_bytes=MAX_EVIDENCE_BYTES)
            return

    async def _explain_exit(self) -> Exception:
        await self._end_pump()
        if refusal := read_refusal(self._refusal):
            return refusal
        code = None if self._process is None else self._process.returncode
        return EngineStartError(
            f"engine: ended with exit code {code} before it was ready"
            f"{self._last_words()}",
            hint="the whole output is in engine.log in the run folder",
        )

    def _last_words(self) -> str:
        # Nothing was asked yet, so that no prompt can be in here.
        lines = self._log.tail if self._log else ()
        return "; its last lines were:\n" + "\n".join(lines) if lines else ""

    async def evidence(self, nonce: str) -> dict[str, Any]:
        """See `EngineClient.evidence`.

        Raises:
            EngineDiedError: the engine ended, was not started or does not answer.
            FormatError: as there.
        """
        if self._process is None:
            raise EngineDiedError("engine: not started")
        return await self._client.evidence(nonce)

    def load_report(self) -> None:
        """None: a child is asked, so that its answer is fresh."""

    async def peer(self) -> Peer:
        """The process on the socket: the API server, which is below our keeper.

        Raises:
            EngineDiedError: it was not started, or nobody listens.
            StartupRefusedError: somebody else's process listens there.
        """
        found = await self._client.peer()
        if self._process is None or found is None:
            raise EngineDiedError("engine: not started")
        if not is_descendant(found.pid, self._process.pid):
            raise StartupRefusedError(
                f"engine: process {found.pid} listens on the engine's socket; expected "
                f"a child of {self._process.pid}",
                hint="see what it is, and who can enter the run folder",
            )
        return found

    async def wait(self) -> int:
        """Return the exit code once the engine has ended: 128 + n after signal n.

        When the API server has ended, its other processes are gone before this returns.

        Raises:
            EngineDiedError: it was not started.
        """
        if self._process is None:
            raise EngineDiedError("engine: not started")
        code = await self._process.wait()
        self._kill_group(code)
        return code

    def _kill_group(self, code: int) -> None:
        # Only where the keeper was killed is anything left; after an ordinary exit its
        # number might already be another's.
        if code < 0 and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self, *, grace_seconds: float = 6) -> None:
        """End the engine and every process of it, and remove its socket.

        Args:
            grace_seconds: between SIGTERM and SIGKILL.
        """
        if self._process is not None:
            await self._end(self._process, grace_seconds)
        await self._end_pump()
        if self._log is not None:
            self._log.close()
        if self._spec.sealed is not None:
            self._spec.sealed.close()
        self.socket.unlink(missing_ok=True)

    async def _end(
        self, process: asyncio.subprocess.Process, grace_seconds: float
    ) -> None:
        assert process.stdin is not None  # noqa: S101 - asked for in _spawn
        # One that ended by itself has closed it: uvloop says so by a RuntimeError.
        with contextlib.suppress(ConnectionError, RuntimeError):
            process.stdin.write(str(grace_seconds).encode())
            process.stdin.close()
        try:
            async with asyncio.timeout(grace_seconds + _KEEPER_SECONDS):
                await process.wait()
        except TimeoutError:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        self._kill_group(process.returncode or 0)
