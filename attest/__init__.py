"""Proof of which governed model produced an answer: the library.

The core verifies evidence offline and imports no web framework, no torch and no engine.
Start with `attest.verify` (the numbered verifier), `attest.manifest` (what training
signs) and `attest.client` (the transport that checks answers as they arrive).
"""

from attest._version import __version__

__all__ = ["__version__"]
