"""The workers of a gateway: started, told what is known of the engine, and kept up.

The kernel spreads connections over their sockets. One that ends is started again, with
a boot of its own, while the others go on; new connections go to those alone meanwhile.
"""

import asyncio
import contextlib
import time

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel

from attest.errors import AttestError
from attest.log.note import NoteKey
from gateway.boot import Verified
from gateway.engine.address import Address
from gateway.engine.peer import Peer
from gateway.errors import WorkerError
from gateway.listen import DRAIN_SECONDS, SharedPort
from gateway.logs import log
from gateway.metrics import PREFIX
from gateway.scrape import StateCollector
from gateway.settings import Settings
from gateway.workers import messages
from gateway.workers.handover import share_of
from gateway.workers.merge import Counted, merge
from gateway.workers.process import WorkerProcess

__all__ = ["Workers"]

_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 1.0, 60.0
# One that ran this long has earned its restarts back.
_PROVEN_SECONDS = 60.0


class Workers:
    """The `Front` of a gateway whose workers answer; `run` keeps them up.

    Raises:
        ConfigurationError: the port can't be had.
    """

    def __init__(self, settings: Settings, log_key: NoteKey | None) -> None:
        self._settings, self._log_key = settings, log_key
        self._port = SharedPort(settings.host, settings.port, "port")
        self._share = share_of(settings)
        self._workers: dict[int, WorkerProcess] = {}
        self._progress = "starting"
        self._may_load = self._served = False
        self._serve: messages.Serve | None = None
        self._up, self._stopping = asyncio.Event(), asyncio.Event()
        self._counted, self._asks = Counted(), 0

    def report(self, progress: str) -> None:
        """As `Front.report`."""
        self._progress = progress
        self._tell(messages.Report(progress=progress))

    def may_load(self) -> None:
        """As `Front.may_load`."""
        self._may_load = True
        self._tell(messages.MayLoad())

    async def serve(
        self, verified: Verified, address: Address, peer: Peer | None
    ) -> None:
        """As `Front.serve`; returns once the workers that are up have their boots.

        Raises:
            WorkerError: one could have none at the first start, or none of them later.
        """
        # An engine that is there already may be quicker than the first of them.
        await self._up.wait()
        message = self._serve = messages.Serve.of(verified, address, peer)
        workers = tuple(self._workers.values())
        found = await asyncio.gather(*(worker.serve(message) for worker in workers))
        failed = [error for error in found if error is not None]
        if failed and (not self._served or len(failed) == len(found)):
            raise failed[0]
        self._served = True

    def verified(self, at: int) -> None:
        """As `Front.verified`."""
        if self._serve is not None and self._serve.stale is None:
            self._serve = self._serve.seen(at)
        self._tell(messages.Seen(at=at))

    def stale(self, since: int, reason: str) -> None:
        """As `Front.stale`."""
        message = messages.Stale(since=since, reason=reason)
        self._remember(stale=message)
        self._tell(message)

    def refuse(self, reason: str) -> None:
        """As `Front.refuse`."""
        self._remember(refused=reason)
        self._tell(messages.Refuse(reason=reason))

    async def rest(self) -> None:
        """As `Front.rest`; a worker that is started meanwhile has no boot."""
        self._serve = None
        self._tell(messages.Rest())

    def _remember(self, **changes: object) -> None:
        if self._serve is not None:
            self._serve = self._serve.model_copy(update=changes)

    def _tell(self, message: BaseModel) -> None:
        for worker in self._workers.values():
            worker.channel.send(message)

    async def run(self) -> None:
        """Keep the workers up; returns when all have ended after `stop`.

        Raises:
            WorkerError: one ended before any answer could be had.
        """
        keeping = [
            asyncio.create_task(self._keep(number))
            for number in range(self._settings.workers)
        ]
        try:
            await asyncio.gather(*keeping)
        finally:
            self.stop()
            await asyncio.gather(*keeping, return_exceptions=True)
            self.close()

    def close(self) -> None:
        """Give up the port; for who never ran."""
        self._port.close()

    def stop(self) -> None:
        """Have them end once their requests in flight have."""
        self._stopping.set()
        for worker in self._workers.values():
            worker.channel.close()

    async def _keep(self, number: int) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            problem = await self._one(number)
            if self._stopping.is_set():
                return
            if not self._served:
                raise problem
            proven = time.monotonic() - began > _PROVEN_SECONDS
            failures = 1 if proven else failures + 1
            doubled = _FIRST_PAUSE_SECONDS * 2 ** (failures - 1)
            pause = min(_MAX_PAUSE_SECONDS, doubled)
            log.warning("worker_restarting", reason=str(problem), seconds=pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()

    async def _one(self, number: int) -> WorkerError:
        """One worker from its start to its end; why it ended."""
        try:
            with self._port.bound() as bound:
                worker = await WorkerProcess.start(number, bound)
        except (OSError, AttestError) as error:
            return WorkerError(f"worker {number}: not started: {error}")
        self._workers[number] = worker
        self._brief(worker)
        if len(self._workers) == self._settings.workers:
            self._up.set()
        status = await self._ended(worker)
        del self._workers[number]
        self._counted.retire(number)
        return worker.failed or WorkerError(
            f"worker {number}: it ended with status {status}",
            hint="its lines in the log say why",
        )

    def _brief(self, worker: WorkerProcess) -> None:
        """Tell a new one all that those before it were told."""
        key, send = self._log_key, worker.channel.send
        send(
            messages.Configure(
                number=worker.number,
                settings=self._share,
                log_key=None if key is None else str(key),
            )
        )
        send(messages.Report(progress=self._progress))
        if self._may_load:
            send(messages.MayLoad())
        if self._serve is not None:
            send(self._serve)
        if self._stopping.is_set():
            worker.channel.close()

    async def _ended(self, worker: WorkerProcess) -> int:
        """Its exit status; one that does not end when it is told to is killed."""
        running = asyncio.create_task(worker.run())
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        done, _ = await asyncio.wait({running}, timeout=2 * DRAIN_SECONDS)
        if not done:
            log.error("worker_killed", worker=worker.number)
            worker.kill()
        return await running

    async def collect(self, own: StateCollector) -> list[Metric]:
        """The numbers of the gateway: its own, and those of workers that answer.

        Of one that does not within a second the counts are those that it told last; its
        gauges are missing, and `workers_reporting` says so.
        """
        self._asks += 1
        workers = tuple(self._workers.values())
        found = await asyncio.gather(*(w.numbers(self._asks) for w in workers))
        told = {
            worker.number: page
            for worker, page in zip(workers, found, strict=True)
            # It may have ended meanwhile.
            if page is not None and self._workers.get(worker.number) is worker
        }
        for number, page in told.items():
            self._counted.note(number, page)
        # Where nobody answers, this process says that nothing is ready.
        mine = own.counted() if told else own.collect()
        pages = [map(messages.Family.of, mine), *told.values()]
        merged = merge([*map(list, pages), *self._counted.besides(told)])
        return [
            *(family.metric() for family in merged),
            _gauge("workers", "Processes that are to answer.", self._settings.workers),
            _gauge(
                "workers_reporting", "Of them, those whose gauges are here.", len(told)
            ),
        ]


def _gauge(name: str, text: str, value: int) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)
