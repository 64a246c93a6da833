"""One look at a running engine: what it proves about itself, and how strongly.

At start-up the finding goes into the boot record. Later the same look must give an
equal finding, or something changed.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from attest.claims import Measured
from attest.manifest import Manifest
from gateway.engine.address import Address
from gateway.engine.client import EngineClient
from gateway.engine.peer import Peer, inner_pid
from gateway.errors import StartupRefusedError
from gateway.logs import log
from gateway.serving import boot_evidence, check_evidence
from gateway.shown import check_shown, look, shown_evidence

__all__ = ["Examination", "Examined", "Finding"]


class Examined(Protocol):
    """What can be asked of an engine."""

    mode: str

    @property
    def address(self) -> Address:
        """Where it answers."""

    async def evidence(self, nonce: str) -> dict[str, Any] | None:
        """Its plug-in's report with this nonce, None where it has no plug-in."""

    def load_report(self) -> dict[str, Any] | None:
        """The report that its plug-in left in a file, None where there is none."""

    async def peer(self) -> Peer | None:
        """The process that listens, None where the kernel does not say."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one look found.

    Attributes:
        measured: how strongly the weights are known.
        evidence: {engine, serving_state, software} for the boot record.
        peer: the process that listens, None where the kernel does not say.
        process: pid and start of the one that gave evidence, by its own word.
    """

    measured: Measured
    evidence: Mapping[str, Any]
    peer: Peer | None
    process: tuple[int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """How to look at one engine.

    Attributes:
        engine: the engine.
        manifest: what it must serve.
        served_model_name: the name that it must answer to.
        dtype: the format that it must compute in; empty leaves it to the manifest.
        files_checked: whether the gateway hashed the model directory itself.
        reference_sha256: 64 hex digits of the file that its loader must have read, for
            a load report to count; None where none was written.
    """

    engine: Examined
    manifest: Manifest
    served_model_name: str
    dtype: str = ""
    files_checked: bool = True
    reference_sha256: str | None = None

    async def run(self) -> Finding:
        """Look.

        `engine` is found only where the plug-in's evidence about the very process that
        listens equals the manifest. Evidence that differs is a no, never a weaker yes.

        Raises:
            StartupRefusedError: the engine is not what the manifest demands.
            EngineDiedError: it does not answer.
            FormatError: what it answers is not in its form.
        """
        peer = await self.engine.peer()
        nonce = secrets.token_urlsafe(24)
        evidence = await self.engine.evidence(nonce)
        if evidence is None:
            evidence, nonce = self._matching_report(peer), ""
        if evidence is not None:
            return self._reported(evidence, nonce, peer)
        shown = await look(EngineClient(self.engine.address))
        check_shown(self.manifest, shown, served_model_name=self.served_model_name)
        return Finding(
            Measured.FILES if self.files_checked else Measured.ASSERTED,
            self._with_mode(shown_evidence(shown)),
            peer,
            None,
        )

    def _reported(
        self, evidence: dict[str, Any], nonce: str, peer: Peer | None
    ) -> Finding:
        check_evidence(self.manifest, evidence, nonce=nonce, dtype=self.dtype)
        pid, started = evidence.get("pid"), evidence.get("started")
        if type(pid) is not int or type(started) is not int:
            raise StartupRefusedError(
                "engine: the evidence does not say of which process it is",
                hint="install this version's: attest-gateway plugin install DIR",
            )
        process = pid, started
        if peer is not None and peer.pid and not _same(peer, process):
            raise StartupRefusedError(
                f"engine: process {pid} gives the evidence, but process "
                f"{peer.pid} listens on the socket",
                hint="see what listens there, and who can enter its folder",
            )
        found = self._with_mode(boot_evidence(evidence))
        return Finding(Measured.ENGINE, found, peer, process)

    def _with_mode(self, evidence: dict[str, Any]) -> dict[str, Any]:
        return evidence | {"engine": {**evidence["engine"], "mode": self.engine.mode}}

    def _matching_report(self, peer: Peer | None) -> dict[str, Any] | None:
        """A load report that is about the process that listens; else it is no evidence.

        Nothing in a file is fresh by itself. What ties it to now is the kernel's word
        for who listens, and the nonce in the reference that the loader read.
        """
        report = self.engine.load_report()
        if report is None:
            return None
        problem = self._mismatch(report, peer)
        if problem:
            log.warning("load_report_not_used", reason=problem)
            return None
        return report

    def _mismatch(self, report: dict[str, Any], peer: Peer | None) -> str:
        if peer is None or not peer.pid:
            return "the process that listens is not visible from here"
        if not _same(peer, (report.get("pid"), report.get("started"))):
            return "it is about another process than the one that listens"
        loads = _list(report, "workers", "loads")
        if not loads or any(
            load.get("reference_sha256") != self.reference_sha256 for load in loads
        ):
            return "its loader read another reference than the one that was written"
        return ""


def _list(value: Any, *names: str) -> list[dict[str, Any]]:
    """The objects in lists within lists, by the members' names."""
    found = [value]
    for name in names:
        lists = [item.get(name) for item in found if isinstance(item, dict)]
        found = [item for one in lists if isinstance(one, list) for item in one]
    return [item for item in found if isinstance(item, dict)]


def _same(peer: Peer, process: tuple[Any, Any]) -> bool:
    pid, started = process
    return started == peer.started and pid in (peer.pid, inner_pid(peer.pid))
