"""What a gateway and its workers tell each other.

Everything is a JSON object with a `kind`; members that are not in the table here are
refused. No key, prompt, answer or token is ever among them: secrets are named by file.
"""

from typing import Annotated, Any, Literal, Self

from prometheus_client.metrics_core import Metric
from pydantic import BaseModel, ConfigDict, Field

from attest.claims import Measured
from gateway.boot import Verified, WeightsReport
from gateway.engine.address import Address
from gateway.engine.peer import Peer

__all__ = [
    "Ask",
    "Configure",
    "Failed",
    "Family",
    "FromWorker",
    "MayLoad",
    "Refuse",
    "Report",
    "Rest",
    "Sample",
    "Seen",
    "Serve",
    "Serving",
    "Stale",
    "Taken",
    "ToWorker",
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Configure(_Part):
    """The first message: how to answer.

    Attributes:
        number: of the worker, from 0.
        settings: of the gateway, with the worker's share of its limits.
        log_key: vkey of the log's heads, None where no log is kept.
    """

    kind: Literal["configure"] = "configure"
    number: int
    settings: dict[str, Any]
    log_key: str | None


class Report(_Part):
    """What is going on, in one line."""

    kind: Literal["report"] = "report"
    progress: str


class MayLoad(_Part):
    """Manifest and files are checked."""

    kind: Literal["may_load"] = "may_load"


class Stale(_Part):
    """Something changed: answer, and claim no measurement."""

    kind: Literal["stale"] = "stale"
    since: int
    reason: str


class Weights(_Part):
    """A `WeightsReport` of a start."""

    root: str
    count: int
    measured: str
    verified_at: int
    protection: str | None


class Serve(_Part):
    """An engine was verified: answer what it says.

    Attributes:
        envelope: the signed manifest, which a worker verifies for itself.
        weights: what was found out about the weights.
        evidence: for the boot record.
        address: where the engine answers.
        peer: pid, uid and start time of the process there, None for TCP.
        stale: what had become of it by the time a worker was started.
        refused: why every request is refused by then; empty while answers can be had.
    """

    kind: Literal["serve"] = "serve"
    envelope: str
    weights: Weights
    evidence: dict[str, Any]
    address: str
    peer: Annotated[list[int], Field(min_length=3, max_length=3)] | None
    stale: Stale | None = None
    refused: str = ""

    @classmethod
    def of(cls, verified: Verified, address: Address, peer: Peer | None) -> Self:
        """The message about an engine that was verified."""
        weights = verified.weights
        protection = weights.protection
        return cls(
            envelope=verified.envelope.decode(),
            weights=Weights(
                root=weights.root,
                count=weights.count,
                measured=str(weights.measured),
                verified_at=weights.verified_at,
                protection=None if protection is None else str(protection),
            ),
            evidence=dict(verified.evidence),
            address=str(address),
            peer=None if peer is None else [peer.pid, peer.uid, peer.started],
        )

    def seen(self, at: int) -> Self:
        """The same after a look that found all as it was."""
        weights = self.weights.model_copy(update={"verified_at": at})
        return self.model_copy(update={"weights": weights})

    def report(self) -> WeightsReport:
        """What was found out about the weights.

        Raises:
            ValueError: `measured` is none of its values.
        """
        found = self.weights
        return WeightsReport(
            found.root,
            found.count,
            Measured(found.measured),
            found.verified_at,
            found.protection,
        )

    def process(self) -> Peer | None:
        """The process that listens at `address`."""
        return None if self.peer is None else Peer(*self.peer)


class Seen(_Part):
    """A look at this time found all as it was."""

    kind: Literal["seen"] = "seen"
    at: int


class Refuse(_Part):
    """Refuse every request, attested."""

    kind: Literal["refuse"] = "refuse"
    reason: str


class Rest(_Part):
    """The engine is being stopped."""

    kind: Literal["rest"] = "rest"


class Ask(_Part):
    """Tell your numbers."""

    kind: Literal["ask"] = "ask"
    number: int


ToWorker = Annotated[
    Configure | Report | MayLoad | Serve | Seen | Stale | Refuse | Rest | Ask,
    Field(discriminator="kind"),
]


class Serving(_Part):
    """Answers can be had, under this boot."""

    kind: Literal["serving"] = "serving"
    boot: str


class Failed(_Part):
    """There could be no boot; the worker ends."""

    kind: Literal["failed"] = "failed"
    code: str
    reason: str


class Sample(_Part):
    """One number of a metric."""

    name: str
    labels: dict[str, str]
    value: float


class Family(_Part):
    """One metric, as Prometheus' text format has it."""

    name: str
    text: str
    type: str
    samples: list[Sample]

    @classmethod
    def of(cls, metric: Metric) -> Self:
        """From the client library's form; time stamps and exemplars are left out."""
        samples = [
            Sample(name=s.name, labels=dict(s.labels), value=float(s.value))
            for s in metric.samples
        ]
        return cls(
            name=metric.name,
            text=metric.documentation,
            type=metric.type,
            samples=samples,
        )

    def metric(self) -> Metric:
        """In the client library's form."""
        found = Metric(self.name, self.text, self.type)
        for sample in self.samples:
            found.add_sample(sample.name, sample.labels, sample.value)
        return found


class Taken(_Part):
    """The numbers that were asked for."""

    kind: Literal["taken"] = "taken"
    number: int
    families: list[Family]


FromWorker = Annotated[Serving | Failed | Taken, Field(discriminator="kind")]
