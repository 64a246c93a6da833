"""One principle's profile: what each layer took up, and the numbers that follow.

Amounts are integers in millionths of a nat per answer token, so that everybody who
reads a profile derives the same numbers from it. With p the share of the blocks,
H = -sum p ln p (Shannon 1948), normalised by ln L, and effective depth exp H.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attest.errors import FormatError, VerificationError

__all__ = [
    "CROSS_CHECK_METHOD",
    "FLAG_VARIATION",
    "MAX_RESIDUAL",
    "METHOD",
    "MILLION",
    "Bars",
    "CrossCheck",
    "Profile",
    "ProfileIncompleteError",
    "ProfileInconsistentError",
    "apportion",
    "require_valid",
    "total_variation",
]

METHOD = "lca-gauss-kronrod/1"
CROSS_CHECK_METHOD = "restore+insert/1"
MILLION = 1_000_000

# Above it a profile accounts for too little of what happened, or for too much.
MAX_RESIDUAL = 0.10
# Beyond it the two methods do not tell the same story.
FLAG_VARIATION = 0.15


class ProfileIncompleteError(VerificationError):
    """The profile doesn't add up to the loss change that was measured."""

    code = "profile_incomplete"


class ProfileInconsistentError(FormatError):
    """A number of the profile does not follow from the others."""

    code = "profile_inconsistent"


def apportion(amounts: Sequence[int]) -> tuple[int, ...]:
    """The positive parts as millionths of their sum, by largest remainder.

    They sum to exactly one million, or are all zero where nothing is positive.
    """
    parts = [max(amount, 0) for amount in amounts]
    total = sum(parts)
    if not total:
        return (0,) * len(parts)
    shares = [part * MILLION // total for part in parts]
    # The lower index first among equals, so that the result has one form.
    order = sorted(range(len(parts)), key=lambda i: (-(parts[i] * MILLION % total), i))
    for index in order[: MILLION - sum(shares)]:
        shares[index] += 1
    return tuple(shares)


def total_variation(left: Sequence[int], right: Sequence[int]) -> float:
    """Half the sum of absolute differences of two distributions in millionths."""
    pairs = zip(left, right, strict=True)
    return sum(abs(a - b) for a, b in pairs) / (2 * MILLION)


@dataclass(frozen=True, slots=True)
class Bars:
    """Standard errors of a profile over the chunks of its probe, by the jackknife.

    They speak to the choice of probe rows, not to another training seed. None stands
    for a number that the profile does not have.
    """

    chunks: int
    layers: tuple[float, ...]
    entropy_normalised: float
    centroid: float
    in_band: float | None


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """Shares of the blocks, in millionths, by exchanging one layer with the parent."""

    layers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """What training changed for one principle, layer by layer.

    Attributes:
        band: blocks that the principle was routed to; empty where it has no band.
        blocks: how many blocks the model has.
        units: names of what `allocated` is about: all blocks in order, then whatever
            else moved of `stem`, `head` and `tied`.
        allocated: loss that each unit took away; negative where it added.
        drop: loss before minus loss after, measured on its own.
        by_source: the part of the sum of `allocated` that steps of each principle made.
            A step counts as its own principle's, anchors in its batch included.
        probe: digest of the held-out rows.
    """

    principle: str
    band: tuple[int, ...]
    blocks: int
    units: tuple[str, ...]
    allocated: tuple[int, ...]
    drop: int
    by_source: Mapping[str, int]
    probe: str
    rows: int
    every: int
    steps: int
    method: str = METHOD
    bars: Bars | None = None
    check: CrossCheck | None = None

    @property
    def layers(self) -> tuple[int, ...]:
        """The blocks' shares of what the blocks took up, in millionths; sums to one."""
        return apportion(self.allocated[: self.blocks])

    @property
    def outside(self) -> float:
        """The share that embeddings, final norm and head took up, of everything."""
        return self._share(self.allocated[self.blocks :])

    @property
    def in_band(self) -> float | None:
        """The share that the band took up, of everything; None without a band."""
        if not self.band:
            return None
        return self._share([self.allocated[layer] for layer in self.band])

    @property
    def entropy(self) -> float:
        """Shannon entropy of `layers`, in nats."""
        shares = [share / MILLION for share in self.layers if share]
        return -sum(share * math.log(share) for share in shares) + 0.0

    @property
    def entropy_normalised(self) -> float:
        """Entropy over its maximum: 0 for one layer, 1 for all alike."""
        return self.entropy / math.log(self.blocks) if self.blocks > 1 else 0.0

    @property
    def effective_depth(self) -> float:
        """How many layers, all alike, would have this entropy."""
        return math.exp(self.entropy)

    @property
    def centroid(self) -> float:
        """Mean depth, from 0 where the first block begins to 1 where the last ends."""
        places = enumerate(self.layers)
        return sum(p * (place + 0.5) for place, p in places) / MILLION / self.blocks

    @property
    def negative_share(self) -> float:
        """How much of all amounts, by size, went against the principle."""
        size = sum(map(abs, self.allocated))
        return -sum(a for a in self.allocated if a < 0) / size if size else 0.0

    @property
    def residual(self) -> float:
        """How far the amounts are from adding up to the drop, as a part of it."""
        return self._missing / max(abs(self.drop), 1)

    @property
    def valid(self) -> bool:
        """Whether there was a drop, and at most a tenth of it is unaccounted for."""
        return self.drop > 0 and 10 * self._missing <= self.drop and any(self.layers)

    @property
    def total_variation(self) -> float | None:
        """Distance to the cross-check, None where there is none."""
        return total_variation(self.layers, self.check.layers) if self.check else None

    @property
    def flagged(self) -> bool:
        """Whether the cross-check tells another story."""
        return (self.total_variation or 0.0) > FLAG_VARIATION

    @property
    def verdict(self) -> str:
        """In words, whether the profile can be relied on."""
        if self.drop <= 0:
            return "not valid: the loss did not fall"
        if not self.valid:
            return f"not valid: {self.residual:.0%} of the drop is unaccounted for"
        if self.flagged:
            return f"valid, but the cross-check is {self.total_variation:.2f} away"
        return "valid"

    @property
    def _missing(self) -> int:
        return abs(sum(self.allocated) - self.drop)

    def _share(self, part: Sequence[int]) -> float:
        total = sum(max(amount, 0) for amount in self.allocated)
        return sum(max(amount, 0) for amount in part) / total if total else 0.0


def require_valid(profile: Profile) -> None:
    """Return when the profile may be stated as valid.

    Raises:
        ProfileIncompleteError: it doesn't add up, or there was nothing to take up.
    """
    if not profile.valid:
        raise ProfileIncompleteError(
            f"profile of {profile.principle!r} doesn't add up: expected the layers to "
            f"explain {profile.drop / MILLION:.4f} nats to within {MAX_RESIDUAL:.0%}, "
            f"found {sum(profile.allocated) / MILLION:.4f}",
            hint="measure again with a smaller `every` or `tolerance`, or state the "
            "profile with valid: false",
        )
