"""From settings to a boot that may attest, or to a refusal.

    1 settings     refuse what could weaken the proof
    2 manifest     signature of the authorities, validity
    3 files        every listed file, no unlisted one
    4 engine       start it as a child; its loader hashes what it loads
    5 evidence     the engine's own report equals the manifest
    6 boot         session key, certificate, boot record

Any failure ends the start with one error that says what was expected and found.
"""

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from attest.claims import Measured
from attest.envelope import MAX_ENVELOPE
from attest.errors import AttestError, ConfigurationError
from attest.hashing import scan_model, stat_fingerprint
from attest.keys import PublicKey, Signer
from attest.manifest import Manifest, open_manifest
from attest.signers import load_signer
from gateway.boot import Boot, WeightsReport, boot_record, certify, refusal
from gateway.engine.managed import EngineSpec, ManagedEngine
from gateway.errors import StartupRefusedError
from gateway.serving import boot_evidence, check_arguments, check_evidence
from gateway.settings import Settings
from gateway.weights import check_model_directory

__all__ = ["Engine", "Startup", "read_authorities"]


class Engine(Protocol):
    """What start-up needs of an engine."""

    @property
    def socket(self) -> Path:
        """Where it answers."""

    async def start(self, on_progress: Callable[[str], None] | None = None) -> None:
        """Start it; returns once it answers."""

    async def evidence(self, nonce: str) -> dict[str, Any]:
        """Its report about itself."""

    async def wait(self) -> int:
        """Its exit status, once it has ended."""

    async def stop(self) -> None:
        """End it, and every process that it started."""


def read_authorities(settings: Settings) -> tuple[PublicKey, ...]:
    """The authorities' public keys.

    Raises:
        ConfigurationError: a file can't be read or is not a public key.
    """
    keys = []
    for path in settings.authority:
        try:
            keys.append(PublicKey.from_bytes(path.read_bytes()))
        except (OSError, AttestError) as error:
            raise ConfigurationError(
                f"authority: {path}: {getattr(error, 'strerror', None) or error}",
                hint="give the public key that the training authority publishes",
            ) from error
    return tuple(keys)


def _read_manifest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_ENVELOPE + 1)
    except OSError as error:
        raise ConfigurationError(
            f"manifest: {path}: {error.strerror}",
            hint="sign one: attest manifest sign MODEL --key authority.key.pem",
        ) from error


@dataclass
class Startup:
    """One start. `run` does it; `refuse` writes down why it failed.

    Attributes:
        report: gets one line on what is going on, for `/readyz` and the log.
        accept: refuses a manifest that goes against other parts of the process.
    """

    settings: Settings
    clock: Callable[[], float]
    report: Callable[[str], None]
    make_engine: Callable[[EngineSpec], Engine] = ManagedEngine
    accept: Callable[[Manifest], None] = lambda _: None
    signer: Signer = field(init=False)
    manifest: Manifest | None = None
    envelope: bytes = b""

    def _now(self) -> int:
        return int(self.clock())

    def prepare(self) -> None:
        """Steps that need no engine and no long read; quick to fail.

        Raises:
            ConfigurationError: a flag, key or file is unusable.
        """
        check_arguments(self.settings.engine.extra_args)
        self.signer = load_signer(self.settings.signer)

    async def run(self, run_dir: Path) -> tuple[Boot, Engine]:
        """All steps, in order.

        Args:
            run_dir: private folder of this start, mode 0700.

        Raises:
            AttestError: the start failed; a VerificationError or StartupRefusedError
                is a definite no.
        """
        settings = self.settings
        self.report("checking the manifest")
        self.envelope = _read_manifest(settings.manifest_path)
        manifest = open_manifest(
            self.envelope, read_authorities(settings), threshold=settings.threshold
        )
        manifest.check_validity(self._now())
        self.manifest = manifest
        self.accept(manifest)
        dtype = self._dtype(manifest)
        before = stat_fingerprint(scan_model(settings.model))
        await asyncio.to_thread(
            check_model_directory,
            settings.model,
            manifest,
            lambda share: self.report(f"checking the weights, {share:.0%}"),
        )
        engine = self.make_engine(self._spec(manifest, run_dir, dtype))
        try:
            await engine.start(self.report)
            self.report("comparing the engine's report with the manifest")
            nonce = secrets.token_urlsafe(24)
            evidence = await engine.evidence(nonce)
            check_evidence(manifest, evidence, nonce=nonce, dtype=dtype)
            self._check_untouched(before)
            return self._boot(manifest, evidence), engine
        except BaseException:
            await engine.stop()
            raise

    def _check_untouched(self, before: str) -> None:
        # The loader covers the weights; tokenizer, template and configuration were
        # read by the engine between our hashing and now.
        model = self.settings.model
        if stat_fingerprint(scan_model(model)) != before:
            raise StartupRefusedError(
                f"weights: files in {model} were touched during the start",
                hint="stop whatever writes there, then start again",
            )

    def _dtype(self, manifest: Manifest) -> str:
        allowed = manifest.runtime.dtypes
        dtype = self.settings.engine.dtype or (allowed[0] if allowed else "")
        if dtype not in allowed:
            raise ConfigurationError(
                f"engine.dtype: the manifest allows {', '.join(allowed) or 'none'}, "
                f"found {dtype or 'none'}",
                hint="leave engine.dtype empty to take the manifest's first",
            )
        return dtype

    def _spec(self, manifest: Manifest, run_dir: Path, dtype: str) -> EngineSpec:
        settings = self.settings
        tensors = [
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "sha256": tensor.sha256,
            }
            for tensor in manifest.tensors
        ]
        reference = {"root": manifest.tensor_root, "tensors": tensors or None}
        return EngineSpec(
            python=settings.engine.python,
            model_dir=settings.model,
            served_model_name=settings.served_model_name or manifest.model_name,
            run_dir=run_dir,
            reference=json.dumps(reference).encode(),
            dtype=dtype,
            max_model_len=settings.engine.max_model_len,
            extra_args=settings.engine.extra_args,
            start_timeout_seconds=settings.engine.start_timeout_seconds,
        )

    def _boot(self, manifest: Manifest, evidence: dict[str, Any]) -> Boot:
        now = self._now()
        session = certify(self.signer, self.settings.gateway_id, manifest, now=now)
        weights = WeightsReport(
            root=manifest.tensor_root,
            count=manifest.tensor_count,
            measured=Measured.ENGINE,
            verified_at=now,
        )
        record = boot_record(
            session,
            manifest=manifest,
            weights=weights,
            evidence=boot_evidence(evidence),
            now=now,
        )
        return Boot(session, manifest, self.envelope, weights, record)

    def refuse(self, error: AttestError, folder: Path) -> Path:
        """Write the signed refusal into `folder`; returns the file.

        Raises:
            OSError: the folder can't be written.
        """
        now, gateway_id = self._now(), self.settings.gateway_id
        session = certify(self.signer, gateway_id, self.manifest, now=now)
        record = refusal(session, manifest=self.manifest, error=error, now=now)
        record["manifest"] = json.loads(self.envelope) if self.manifest else None
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"refusal-{now}-{secrets.token_hex(4)}.json"
        path.write_text(json.dumps(record, indent=1) + "\n")
        return path
