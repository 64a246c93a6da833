"""Every error that the library raises.

    AttestError
    ├── InputError (also ValueError)      the caller gave something unusable
    │   ├── FormatError                   bytes that break the format's rules
    │   ├── UnsupportedVersionError       a newer format: upgrade the verifier
    │   └── ConfigurationError            settings or files on this side are wrong
    ├── VerificationError                 a definite no
    │   ├── SignatureError                no signature by the key that must have signed
    │   ├── AlgorithmError                an algorithm that this key may not use
    │   ├── ExpiredError                  outside its validity period
    │   ├── ManifestMismatchError         weights or files differ from the manifest
    │   ├── RunMismatchError              a training run differs from its statement
    │   ├── ShortfallError                a principle's requirement was not shown
    │   ├── TranscriptMismatchError       request or response differ from the claim
    │   │   └── ContentOnlyError          by their spelling alone: the text is proven
    │   └── PolicyError                   well signed, but the policy says no
    ├── EvidenceUnavailableError          cannot tell: something needed is missing
    ├── SignerError                       the key store cannot sign
    └── TrainingError                     the training run cannot be governed as asked
        ├── ConstitutionError             the constitution or its schedule is unusable
        ├── LedgerError                   the training ledger is cut, edited or locked
        └── ProfileError                  where training was absorbed cannot be measured

A definite no and a cannot-tell never share a class. Messages name what was expected
and what was found; they never carry a prompt, an answer, a key or a token.
"""

from collections.abc import Sequence
from typing import ClassVar

from attest.reasons import Finding

__all__ = [
    "AlgorithmError",
    "AttestError",
    "ConfigurationError",
    "ConstitutionError",
    "ContentOnlyError",
    "EvidenceUnavailableError",
    "ExpiredError",
    "FormatError",
    "InputError",
    "LedgerError",
    "ManifestMismatchError",
    "PolicyError",
    "RunMismatchError",
    "ShortfallError",
    "SignatureError",
    "SignerError",
    "TrainingError",
    "TranscriptMismatchError",
    "UnsupportedVersionError",
    "VerificationError",
]


class AttestError(Exception):
    """Root of the tree.

    Attributes:
        code: stable machine-readable slug of the class.
        hint: what the reader should do next; may be empty.
        findings: reasons of `attest.reasons`, where the class alone says too little.
    """

    code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        reason: str = "",
        findings: Sequence[Finding] = (),
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.findings = tuple(findings)
        if reason:
            self.findings = (Finding(reason, message),)


class InputError(AttestError, ValueError):
    """The caller gave something unusable; nothing was decided about any evidence."""

    code = "input"


class FormatError(InputError):
    """Bytes that break the rules of their format."""

    code = "format"


class UnsupportedVersionError(InputError):
    """A format or profile newer than this verifier; the hint says to upgrade."""

    code = "unsupported_version"


class ConfigurationError(InputError):
    """A setting or a local file is wrong or missing."""

    code = "configuration"


class VerificationError(AttestError):
    """A definite no."""

    code = "false"


class SignatureError(VerificationError):
    """No valid signature by the key that must have signed."""

    code = "signature"


class AlgorithmError(VerificationError):
    """The signature uses an algorithm that the key may not use."""

    code = "algorithm"


class ExpiredError(VerificationError):
    """Judged at a time outside the validity period."""

    code = "expired"


class ManifestMismatchError(VerificationError):
    """Files or tensors differ from the signed manifest.

    Attributes:
        changed: names whose content differs.
        missing: names that the manifest lists and that were not found.
        extra: names that were found and that the manifest does not list.
    """

    code = "manifest_mismatch"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        changed: tuple[str, ...] = (),
        missing: tuple[str, ...] = (),
        extra: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message, hint=hint)
        self.changed, self.missing, self.extra = changed, missing, extra


class RunMismatchError(VerificationError):
    """A training run, or a figure in its statement, is not what the statement says."""

    code = "run_mismatch"


class ShortfallError(VerificationError):
    """A constitution requires of a principle what was not measured, or not reached.

    Attributes:
        principle: its id.
    """

    code = "shortfall"

    def __init__(self, message: str, *, hint: str = "", principle: str = "") -> None:
        super().__init__(message, hint=hint)
        self.principle = principle


class TranscriptMismatchError(VerificationError):
    """The request or response at hand is not the one that was attested."""

    code = "transcript_mismatch"


class ContentOnlyError(TranscriptMismatchError):
    """What the answer says is the attested answer; the bytes at hand are others.

    A definite no about the bytes, a definite yes about the text. The findings say what
    became of the bytes.
    """

    code = "content_only"


class PolicyError(VerificationError):
    """All signatures are good and the relying party's policy says no."""

    code = "policy"


class EvidenceUnavailableError(AttestError):
    """Cannot tell: evidence that is needed was not given or could not be had."""

    code = "evidence_unavailable"


class SignerError(AttestError):
    """The key store cannot sign."""

    code = "signer"


class TrainingError(AttestError):
    """The training run cannot be governed as asked."""

    code = "training"


class ConstitutionError(TrainingError):
    """The constitution, or the schedule compiled from it, is unusable."""

    code = "constitution"


class LedgerError(TrainingError):
    """The training ledger is cut, edited or cannot be written."""

    code = "ledger"


class ProfileError(TrainingError):
    """Where training was absorbed cannot be measured as asked."""

    code = "profile"
