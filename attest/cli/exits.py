"""Exit codes: what a script can tell from a command without reading its words.

A definite no (1) and a cannot-tell (3) never share a code, so that a pipeline can raise
an alarm on the one and try again on the other. Nor does a copy whose text is proven and
whose bytes are not (6): whoever needs the text alone may go on.
"""

from collections.abc import Mapping
from enum import IntEnum

from attest.errors import (
    AttestError,
    ConfigurationError,
    ContentOnlyError,
    EvidenceUnavailableError,
    FormatError,
    SignerError,
    TrainingError,
    UnsupportedVersionError,
    VerificationError,
)

__all__ = ["ExitCode", "exit_code"]


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    FALSE = 1
    USAGE = 2
    UNKNOWN = 3
    CONFIGURATION = 4
    INTERNAL = 5
    CONTENT_ONLY = 6
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """One line for the documentation."""
        return _MEANINGS[self]


_MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.OK: "done, and what was to be proven is proven",
    ExitCode.FALSE: "proven false: a signature, digest, policy or form is wrong",
    ExitCode.USAGE: "the command line is wrong",
    ExitCode.UNKNOWN: "cannot tell: evidence is missing, unreadable or too new",
    ExitCode.CONFIGURATION: "a local file, key or setting is wrong or missing",
    ExitCode.INTERNAL: "a fault of this program, or its output could not be written",
    ExitCode.CONTENT_ONLY: "what the answer says is proven, the bytes at hand are not "
    "those that were sent",
    ExitCode.INTERRUPTED: "interrupted from the keyboard",
}

# FormatError counts as a no: evidence that breaks its form proves nothing and never
# will. Where a local file is at fault, its reader raises ConfigurationError instead.
_CODES: Mapping[type[AttestError], ExitCode] = {
    VerificationError: ExitCode.FALSE,
    ContentOnlyError: ExitCode.CONTENT_ONLY,
    FormatError: ExitCode.FALSE,
    EvidenceUnavailableError: ExitCode.UNKNOWN,
    UnsupportedVersionError: ExitCode.UNKNOWN,
    ConfigurationError: ExitCode.CONFIGURATION,
    SignerError: ExitCode.CONFIGURATION,
    TrainingError: ExitCode.CONFIGURATION,
}


def exit_code(error: BaseException) -> ExitCode:
    """The code for an error that ended a command, by its nearest listed class."""
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return ExitCode.INTERNAL
