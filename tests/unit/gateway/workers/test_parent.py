"""The workers of a gateway, played by the test: told, counted, and started again."""

import asyncio
import socket
import time

import pytest
from fakes.gateway import eventually
from fakes.world import NOW, make_world
from structlog.testing import capture_logs

from attest.claims import Measured
from gateway.auth import ApiKeys
from gateway.boot import Verified, WeightsReport
from gateway.engine.address import Address
from gateway.errors import WorkerError
from gateway.scrape import StateCollector
from gateway.settings import LimitSettings, load_settings
from gateway.state import AppState
from gateway.workers import messages, parent, process
from gateway.workers.channel import Channel
from gateway.workers.parent import Workers
from gateway.workers.process import WorkerProcess

PREFIX = "attest_gateway_"


class Played:
    """A worker's process and its end of the channel."""

    def __init__(self):
        self.ended = asyncio.get_running_loop().create_future()
        self.heard, self.mute = [], False
        self.counted = 0
        self.deaf = False

    async def wait(self):
        return await self.ended

    def kill(self):
        self.end(-9)

    def end(self, status=0):
        if not self.ended.done():
            self.ended.set_result(status)
        self.channel.close()

    async def play(self):
        while (message := await self.channel.receive()) is not None:
            self.heard.append(message)
            if isinstance(message, messages.Serve) and not self.deaf:
                self.channel.send(self.boots)
            if isinstance(message, messages.Ask) and not self.mute:
                self.channel.send(
                    messages.Taken(number=message.number, families=self.numbers())
                )
        if not self.deaf:
            self.end()

    boots = messages.Serving(boot="sha256:0")

    def numbers(self):
        def family(name, kind, value):
            sample = messages.Sample(name=PREFIX + name, labels={}, value=value)
            return messages.Family(
                name=PREFIX + name, text=".", type=kind, samples=[sample]
            )

        return [family("c", "counter", self.counted), family("ready", "gauge", 1)]

    def kinds(self):
        return [message.kind for message in self.heard if message.kind != "ask"]


class Site:
    """Two workers that are played, and what they are told."""

    def __init__(self, monkeypatch):
        self.played, self.tasks, self.bound = [], [], []
        self.pauses = []
        monkeypatch.setattr(WorkerProcess, "start", self._start)
        monkeypatch.setattr(process, "_TELL_SECONDS", 0.1)
        monkeypatch.setattr(parent, "_MAX_PAUSE_SECONDS", 0.02)
        settings = load_settings(
            {
                "model": "m",
                "authority": ["a.pem"],
                "signer": "file:i.pem",
                "port": 0,
                "workers": 2,
            }
        )
        self.workers = Workers(settings, None)
        self.running = asyncio.create_task(self.workers.run())

    async def _start(self, number, bound):
        assert isinstance(bound, socket.socket)
        ours, theirs = socket.socketpair()
        played = Played()
        played.channel = await Channel.over(theirs, messages.ToWorker)
        self.played.append(played)
        self.tasks.append(asyncio.create_task(played.play()))
        channel = await Channel.over(ours, messages.FromWorker)
        return WorkerProcess(number, played, channel)

    async def up(self, count=2):
        await eventually(lambda: len(self.played) == count)
        await eventually(lambda: len(self.workers._workers) == 2)

    async def serve(self):
        world = make_world()
        manifest = world.manifest
        weights = WeightsReport(
            manifest.tensor_root, manifest.tensor_count, Measured.ENGINE, NOW
        )
        found = Verified(manifest, world.envelope, weights, {})
        await self.workers.serve(found, Address.parse("http://engine:1"), None)

    async def collect(self):
        own = StateCollector(AppState(LimitSettings(), ApiKeys()))
        page = await self.workers.collect(own)
        return {
            s.name.removeprefix(PREFIX): s.value
            for metric in page
            for s in metric.samples
        }

    async def close(self):
        self.workers.stop()
        for played in self.played:
            played.end()
        await asyncio.gather(self.running, *self.tasks, return_exceptions=True)


@pytest.fixture
async def site(monkeypatch):
    site = Site(monkeypatch)
    await site.up()
    yield site
    await site.close()


async def test_all_are_told_the_same_in_order(site):
    site.workers.report("checking")
    site.workers.may_load()
    await site.serve()
    site.workers.verified(NOW + 1)
    site.workers.stale(NOW + 2, "changed")
    site.workers.refuse("ended")
    await site.workers.rest()
    told = [
        *("configure", "report", "report", "may_load"),
        *("serve", "seen", "stale", "refuse", "rest"),
    ]
    await eventually(lambda: all(one.kinds() == told for one in site.played))
    numbers = {one.heard[0].number for one in site.played}
    assert numbers == {0, 1}


async def test_one_that_ends_is_started_again_and_told_all(site):
    site.workers.may_load()
    await site.serve()
    site.workers.verified(NOW + 7)
    site.played[0].end(-9)
    await site.up(3)
    late = site.played[2]
    await eventually(lambda: len(late.heard) == 4)
    assert late.kinds() == ["configure", "report", "may_load", "serve"]
    assert late.heard[3].weights.verified_at == NOW + 7
    assert not site.played[1].ended.done()


async def test_what_became_of_the_engine_is_in_the_first_word_to_a_new_one(site):
    await site.serve()
    site.workers.stale(NOW, "files changed")
    site.workers.verified(NOW + 9)  # says nothing any more
    site.workers.refuse("for good")
    site.played[1].end(1)
    await site.up(3)
    late = site.played[2]
    await eventually(lambda: late.kinds()[-1:] == ["serve"])
    message = late.heard[-1]
    assert message.stale == messages.Stale(since=NOW, reason="files changed")
    assert (message.refused, message.weights.verified_at) == ("for good", NOW)


async def test_new_one_has_no_boot_while_the_engine_rests(site):
    await site.serve()
    site.workers.refuse("ended")
    await site.workers.rest()
    site.played[0].end()
    await site.up(3)
    await eventually(lambda: site.played[2].kinds() == ["configure", "report"])


async def test_end_before_the_first_answer_is_an_error(site):
    site.played[0].end(3)
    with pytest.raises(WorkerError, match="worker 0: it ended with status 3"):
        await site.running
    # Nothing is left of the other.
    assert site.played[1].ended.done()


async def test_what_it_said_at_its_end_is_the_error(site):
    failed = messages.Failed(code="configuration", reason="api_keys_file: gone")
    site.played[1].channel.send(failed)
    await asyncio.sleep(0)
    site.played[1].end(1)
    with pytest.raises(WorkerError, match="worker 1: configuration: api_keys_file"):
        await site.running


async def test_first_start_needs_a_boot_of_each(site):
    site.played[1].boots = messages.Failed(code="signer", reason="out of reach")
    with pytest.raises(WorkerError, match="signer: out of reach"):
        await site.serve()


async def test_first_start_waits_for_all_to_be_there(monkeypatch):
    site = Site(monkeypatch)
    serving = asyncio.create_task(site.serve())
    await asyncio.sleep(0)
    assert not site.played
    await serving
    for played in site.played:
        assert played.kinds() == ["configure", "report", "serve"]
    assert len(site.played) == 2
    await site.close()


async def test_later_one_boot_is_enough(site):
    await site.serve()
    site.played[1].boots = messages.Failed(code="signer", reason="out of reach")
    await site.serve()
    site.played[0].boots = site.played[1].boots
    with pytest.raises(WorkerError):
        await site.serve()


async def test_boot_that_does_not_come_is_not_waited_for_for_ever(site, monkeypatch):
    monkeypatch.setattr(process, "_BOOT_SECONDS", 0.05)
    site.played[0].deaf = True
    with pytest.raises(WorkerError, match="no boot within"):
        await site.serve()


async def test_pauses_grow_while_it_keeps_ending(site, monkeypatch):
    monkeypatch.setattr(parent, "_MAX_PAUSE_SECONDS", 60.0)
    monkeypatch.setattr(parent, "_FIRST_PAUSE_SECONDS", 0.01)
    await site.serve()
    with capture_logs() as entries:
        for count in (3, 4, 5):
            site.played[-1 if count > 3 else 0].end(1)
            await site.up(count)
    pauses = [e["seconds"] for e in entries if e["event"] == "worker_restarting"]
    assert pauses == [0.01, 0.02, 0.04]


async def test_one_that_cannot_be_started_is_tried_again(site, monkeypatch):
    await site.serve()
    start, failures = WorkerProcess.start, [OSError(11, "no process")]

    async def fail_once(number, bound):
        if failures:
            raise failures.pop()
        return await start(number, bound)

    monkeypatch.setattr(WorkerProcess, "start", fail_once)
    site.played[0].end()
    await site.up(3)
    assert not failures


async def test_nonsense_is_answered_with_the_end(site):
    await site.serve()
    site.played[0].channel.send(messages.MayLoad())
    await site.up(3)
    assert await site.played[0].wait() == -9


async def test_numbers_are_one_page(site):
    site.played[0].counted, site.played[1].counted = 3, 4
    found = await site.collect()
    assert (found["c"], found["ready"]) == (7, 1)
    assert (found["workers"], found["workers_reporting"]) == (2, 2)
    assert "requests_in_flight" not in found  # theirs, who told of none


async def test_silent_one_is_left_out_visibly_and_its_counts_stay(site):
    site.played[0].counted, site.played[1].counted = 3, 4
    await site.collect()
    site.played[0].mute, site.played[1].counted = True, 5
    found = await site.collect()
    assert (found["c"], found["workers_reporting"]) == (8, 1)


async def test_counts_of_one_that_ended_stay(site):
    await site.serve()
    site.played[0].counted, site.played[1].counted = 3, 4
    await site.collect()
    site.played[0].end()
    await site.up(3)
    site.played[2].counted = 1
    assert (await site.collect())["c"] == 8


async def test_nothing_is_ready_where_nobody_answers(site):
    for played in site.played:
        played.mute = True
    found = await site.collect()
    assert (found["ready"], found["workers_reporting"]) == (0, 0)


async def test_one_that_does_not_end_when_told_is_killed(site, monkeypatch):
    monkeypatch.setattr(parent, "DRAIN_SECONDS", 0.05)
    site.played[0].deaf = True
    began = time.monotonic()
    site.workers.stop()
    await site.running
    assert time.monotonic() - began < 5
    assert await site.played[0].wait() == -9
    assert await site.played[1].wait() == 0
