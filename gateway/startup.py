"""From settings to an engine that may be attested, or to a refusal.

    1 settings     refuse what could weaken the proof
    2 manifest     signature of the authorities, validity
    3 files        every listed file, no unlisted one; where there is a directory
    4 engine       start it as a child, or wait for the one at `upstream`
    5 evidence     the engine's own report equals the manifest; the canary's answers

A boot with session key, certificate and record is made by whoever answers
(`gateway.front`). Any failure ends the start with one error that says what was expected
and found.
"""

import asyncio
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from attest.claims import Measured
from attest.dmverity import listed_volume
from attest.envelope import MAX_ENVELOPE
from attest.errors import AttestError, ConfigurationError
from attest.hashing import scan_model, stat_fingerprint
from attest.keys import PublicKey, Signer
from attest.manifest import Manifest, open_manifest
from attest.signers import load_signer
from attest.standing import check_not_revoked
from gateway.baseline import Baseline, take_baseline
from gateway.boot import Verified, WeightsReport, certify, refusal
from gateway.checked import Checked
from gateway.engine.address import Address
from gateway.engine.external import ExternalEngine, ExternalSpec
from gateway.engine.managed import EngineSpec, ManagedEngine
from gateway.engine.reference import reference_bytes, share_reference
from gateway.engine.sealed import SealedModel, seal_model
from gateway.errors import StartupRefusedError
from gateway.examine import Examination, Examined, Finding
from gateway.logs import log
from gateway.recall import read_status_lists
from gateway.serving import check_arguments
from gateway.settings import Settings
from gateway.volume import check_volume
from gateway.weights import CheckedFiles, Protection, check_model_directory

__all__ = ["Engine", "Started", "Startup", "read_authorities"]


class Engine(Examined, Protocol):
    """What start-up needs of an engine."""

    async def start(self, on_progress: Callable[[str], None] | None = None) -> None:
        """Start it, or wait for it; returns once it answers."""

    async def wait(self) -> int:
        """Its exit status once it has ended, 0 where nobody knows."""

    async def stop(self) -> None:
        """End it and every process that it started, or let go of it."""


@dataclass(frozen=True, slots=True)
class Started:
    """What a start that went through leaves.

    Attributes:
        verified: what a boot states.
        engine: it runs.
        examination: how it was looked at, to look again.
        finding: what was found.
        baseline: what it answered and held right after the start.
        files: how the model directory was found, None where there is none.
    """

    verified: Verified
    engine: Engine
    examination: Examination
    finding: Finding
    baseline: Baseline
    files: CheckedFiles | None


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
        checked: called once manifest and files are checked and an engine may load them.
        read_bytes: how much of the model's files the last check read.
    """

    settings: Settings
    clock: Callable[[], float]
    report: Callable[[str], None]
    make_engine: Callable[[EngineSpec], Engine] = ManagedEngine
    make_external: Callable[[ExternalSpec], Engine] = ExternalEngine
    accept: Callable[[Manifest], None] = lambda _: None
    checked: Callable[[], None] = lambda: None
    signer: Signer = field(init=False)
    manifest: Manifest | None = None
    envelope: bytes = b""
    read_bytes: int = 0

    def _now(self) -> int:
        return int(self.clock())

    def prepare(self) -> None:
        """Steps that need no engine and no long read; quick to fail.

        Raises:
            ConfigurationError: a flag, key or file is unusable.
        """
        check_arguments(self.settings.engine.extra_args)
        self.signer = load_signer(self.settings.signer)

    async def run(self, run_dir: Path) -> Started:
        """All steps, in order.

        Args:
            run_dir: private folder of this start, mode 0700.

        Raises:
            AttestError: the start failed; a VerificationError or StartupRefusedError
                is a definite no.
        """
        manifest = self._open_manifest()
        self._check_dtype(manifest)
        files = await self._check_files(manifest)
        files, sealed = await self._seal(manifest, run_dir, files)
        engine, reference_sha256 = self._engine(manifest, run_dir, sealed)
        self.checked()
        try:
            await engine.start(self.report)
            self.report("comparing the engine's report with the manifest")
            examination = Examination(
                engine=engine,
                manifest=manifest,
                served_model_name=self._served_model_name(manifest),
                dtype=self._dtype(manifest),
                files_checked=files is not None,
                reference_sha256=reference_sha256,
            )
            finding = await examination.run()
            self.report("asking the canary's questions")
            baseline = await take_baseline(examination, finding.measured, self.settings)
            self._check_untouched(files, manifest)
            verified = self._verified(manifest, finding, baseline, files)
        except BaseException:
            await engine.stop()
            raise
        return Started(verified, engine, examination, finding, baseline, files)

    def _open_manifest(self) -> Manifest:
        self.report("checking the manifest")
        settings = self.settings
        self.envelope = _read_manifest(settings.manifest_path)
        authorities, now = read_authorities(settings), self._now()
        manifest = open_manifest(
            self.envelope, authorities, threshold=settings.threshold
        )
        manifest.check_validity(now)
        self.manifest = manifest
        lists = read_status_lists(settings.status_lists)
        check_not_revoked(manifest, lists, authorities, at=now)
        self.accept(manifest)
        return manifest

    async def _check_files(self, manifest: Manifest) -> CheckedFiles | None:
        model = self.settings.model
        if model is None:
            return None
        self.read_bytes = 0
        before = stat_fingerprint(scan_model(model))
        settings, max_age = self.settings, self.settings.files_max_age_seconds
        last = Checked.last(settings.state_dir) if max_age else None
        if last is not None and last.covers(
            manifest.digest, before, now=self._now(), max_age=max_age
        ):
            log.warning("files_not_read", read_at=last.at)
            return CheckedFiles(before, Protection.CACHED, last.at)
        protection = await asyncio.to_thread(
            check_model_directory, model, manifest, self._reading
        )
        if max_age and protection is Protection.STAT:
            Checked(manifest.digest, before, self._now()).keep(settings.state_dir)
        return CheckedFiles(before, protection)

    def _reading(self, done: int, total: int) -> None:
        self.read_bytes = done
        # A file may grow while it is read.
        self.report(f"checking the weights, {min(1, done / max(1, total)):.0%}")

    async def _seal(
        self, manifest: Manifest, run_dir: Path, files: CheckedFiles | None
    ) -> tuple[CheckedFiles | None, SealedModel | None]:
        """The model in sealed copies, where the settings want them."""
        model, seal = self.settings.model, self.settings.engine.seal
        if seal == "none" or model is None or files is None:
            return files, None
        if manifest.free_sharding:
            raise ConfigurationError(
                "engine.seal: the manifest leaves open how the weights are sharded, so "
                "that no file has a digest to compare its copy with",
                hint="set engine.seal to none; the loader hashes every tensor anyway",
            )
        self.report("copying the model into sealed memory")
        sealed = await asyncio.to_thread(
            seal_model,
            scan_model(model),
            manifest.subjects,
            run_dir / "model",
            shards=seal == "all",
        )
        kept = Protection.MEMFD if seal == "all" else Protection.MEMFD_SMALL
        return CheckedFiles(files.fingerprint, kept), sealed

    def _check_untouched(self, before: CheckedFiles | None, manifest: Manifest) -> None:
        # The loader covers the weights; tokenizer, template and configuration were
        # read by the engine between our hashing and now.
        model = self.settings.model
        if before is None or model is None:
            return
        found = scan_model(model)
        if stat_fingerprint(found) != before.fingerprint:
            raise StartupRefusedError(
                f"weights: files in {model} were touched during the start",
                hint="stop whatever writes there, then start again",
            )
        signed = listed_volume(manifest.predicate)
        if signed is not None and before.protection is Protection.DM_VERITY:
            try:
                check_volume(model, found, signed)
            except AttestError as error:
                raise StartupRefusedError(
                    f"weights: the volume was changed during the start: {error}",
                    hint="stop whatever changes devices and mounts, then start again",
                ) from error

    def _check_dtype(self, manifest: Manifest) -> None:
        allowed, dtype = manifest.runtime.dtypes, self._dtype(manifest)
        if dtype not in allowed and (dtype or not self.settings.upstream):
            raise ConfigurationError(
                f"engine.dtype: the manifest allows {', '.join(allowed) or 'none'}, "
                f"found {dtype or 'none'}",
                hint="leave engine.dtype empty to take what the manifest allows",
            )

    def _dtype(self, manifest: Manifest) -> str:
        """The one to compute in; empty where an engine at `upstream` may choose."""
        allowed, chosen = manifest.runtime.dtypes, self.settings.engine.dtype
        first = "" if self.settings.upstream or not allowed else allowed[0]
        return chosen or first

    def _served_model_name(self, manifest: Manifest) -> str:
        return self.settings.served_model_name or manifest.model_name

    def _engine(
        self, manifest: Manifest, run_dir: Path, sealed: SealedModel | None
    ) -> tuple[Engine, str | None]:
        """The engine, and the digest of the reference that was shared with it."""
        settings = self.settings
        if not settings.upstream:
            return self.make_engine(self._spec(manifest, run_dir, sealed)), None
        shared = settings.reference_file
        sha256 = None if shared is None else share_reference(shared, manifest)
        spec = ExternalSpec(
            address=Address.parse(settings.upstream),
            reference=shared,
            load_report=settings.load_report,
            start_timeout_seconds=settings.engine.start_timeout_seconds,
        )
        return self.make_external(spec), sha256

    def _spec(
        self, manifest: Manifest, run_dir: Path, sealed: SealedModel | None
    ) -> EngineSpec:
        settings = self.settings
        assert settings.model is not None  # noqa: S101 - without upstream there is one
        return EngineSpec(
            python=settings.engine.python,
            model_dir=settings.model if sealed is None else sealed.folder,
            sealed=sealed,
            served_model_name=self._served_model_name(manifest),
            run_dir=run_dir,
            reference=reference_bytes(manifest),
            dtype=self._dtype(manifest),
            max_model_len=settings.engine.max_model_len,
            extra_args=settings.engine.extra_args,
            start_timeout_seconds=settings.engine.start_timeout_seconds,
        )

    def _verified(
        self,
        manifest: Manifest,
        finding: Finding,
        baseline: Baseline,
        files: CheckedFiles | None,
    ) -> Verified:
        verified_at = self._now()
        if finding.measured is Measured.ASSERTED:
            verified_at = 0  # nothing was measured, at no time
        elif finding.measured is Measured.FILES and files is not None:
            verified_at = files.read_at or verified_at
        weights = WeightsReport(
            root=manifest.tensor_root,
            count=manifest.tensor_count,
            measured=finding.measured,
            verified_at=verified_at,
            protection=None if files is None else files.protection,
        )
        evidence = {**finding.evidence, **baseline.claims()}
        return Verified(manifest, self.envelope, weights, evidence)

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
