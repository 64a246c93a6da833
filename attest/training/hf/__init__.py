"""Governed training with transformers' Trainer and the trainers of TRL.

    class GovernedSFT(Governed, SFTTrainer): ...

Every optimizer step trains the band of one principle, is checked and logged. See
docs/routing.md.
"""

from attest.training.hf.governance import Governance
from attest.training.hf.mixin import Governed

__all__ = ["Governance", "Governed"]
