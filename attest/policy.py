"""What a relying party demands, as a value with a JSON form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from attest.canonical import canonical, read_object
from attest.claims import Measured, Outcome, SystemPrompt
from attest.digests import digest
from attest.errors import ConfigurationError, FormatError
from attest.keys import PublicKey
from attest.log.note import NoteKey
from attest.rules import ConstitutionRule, PrincipleRule

__all__ = ["Policy", "Tier"]

_MAX_POLICY = 256 * 1024
_MAX_RULES = 256


class Tier(StrEnum):
    """How far a proof reaches, weakest first."""

    T0 = "T0"
    T1 = "T1"
    T2 = "T2"
    T3 = "T3"
    T4 = "T4"

    @property
    def rank(self) -> int:
        """Position in the order of strength, 0 is weakest."""
        return int(self.value[1])

    @property
    def meaning(self) -> str:
        """What is proven at this tier, in one line."""
        return _MEANINGS[self]


_MEANINGS: Mapping[Tier, str] = {
    Tier.T0: "signed by some key; anyone could have made it",
    Tier.T1: "signed by a key that the training authority, or a delegate that it "
    "named, certified for this manifest; the operator's engine could still lie",
    Tier.T2: "as T1, in a log that witnesses co-signed; nothing can be dropped unseen",
    Tier.T3: "as T2, with the key bound to a measured CPU enclave",
    Tier.T4: "as T3, with engine, weights and GPUs inside the same enclave",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Expectations of one relying party. The defaults are strict.

    Attributes:
        authorities: public keys of the training authorities that are trusted.
        threshold: how many of them must have signed the manifest.
        min_tier: the lowest tier that is accepted.
        min_measured: the weakest measurement of the weights that is accepted.
        outcomes: how a response may have ended.
        system_prompts: which of governed, unlisted and absent are accepted.
        overrides: which overrides a request may have been marked with, by name; None
            for any.
        max_age_seconds: oldest `iat` that is accepted, None for any age.
        logs: keys (vkeys) of the only logs that count, None for the manifest's.
        witnesses: keys (vkeys) of the only witnesses that count, None for the
            manifest's.
        witness_threshold: how many of them must have cosigned for tier T2, None for
            more than half.
        max_log_delay_seconds: how long after `iat` they may have seen the token for
            tier T2: by so much it could be back-dated.
        max_status_age_seconds: how old the status lists that manifest and key name
            may be, None where they may also be missing.
        constitutions: which constitutions the manifest may name, in which versions:
            `{"id", "versions": ">=1.2,<2"}`; None for any, and for none at all.
        principles: which principles it must name, and what must have been measured of
            each: `{"id", "min_in_band": "0.6", "min_steps_below_half": 200}`.
    """

    authorities: tuple[PublicKey, ...]
    threshold: int = 1
    min_tier: Tier = Tier.T1
    min_measured: Measured = Measured.ENGINE
    outcomes: frozenset[Outcome] = frozenset({Outcome.COMPLETE})
    system_prompts: frozenset[SystemPrompt] = frozenset(SystemPrompt)
    overrides: frozenset[str] | None = frozenset()
    max_age_seconds: int | None = None
    logs: tuple[NoteKey, ...] | None = None
    witnesses: tuple[NoteKey, ...] | None = None
    witness_threshold: int | None = None
    max_log_delay_seconds: int = 3600
    max_status_age_seconds: int | None = None
    constitutions: tuple[ConstitutionRule, ...] | None = None
    principles: tuple[PrincipleRule, ...] = ()

    def __post_init__(self) -> None:
        distinct = {key.thumbprint for key in self.authorities}
        if not 1 <= self.threshold <= len(distinct):
            raise ConfigurationError(
                f"policy: threshold {self.threshold} with {len(distinct)} authorities",
                hint="name at least one authority: --authority authority.pub.pem",
            )
        if self.witness_threshold is not None and self.witness_threshold < 1:
            raise ConfigurationError("policy: witness_threshold must be at least 1")

    @classmethod
    def from_json(cls, data: bytes) -> "Policy":
        """Read the JSON form; unknown members are refused, since each could matter.

        Raises:
            ConfigurationError: not that form; the message names the member.
        """
        try:
            value = read_object(data, max_bytes=_MAX_POLICY)
            return cls._from_object(value)
        except FormatError as error:
            raise ConfigurationError(f"policy: {error}") from error

    @classmethod
    def _from_object(cls, value: dict[str, Any]) -> "Policy":
        fields: dict[str, Any] = {}
        for name, item in value.items():
            if name not in _READERS:
                raise ConfigurationError(f"policy: unknown member {name!r}")
            try:
                fields[name] = _READERS[name](item)
            except (TypeError, ValueError) as error:
                raise ConfigurationError(
                    f"policy: {name} is not usable: {error}"
                ) from error
        if "authorities" not in fields:
            raise ConfigurationError("policy: authorities is missing")
        return cls(**fields)

    @property
    def digest(self) -> str:
        """Digest of the RFC 8785 form of the JSON form: equal for equal demands."""
        return digest(canonical(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """The JSON form; `from_json` of it gives an equal policy."""
        return {
            "authorities": [key.jwk for key in self.authorities],
            "threshold": self.threshold,
            "min_tier": str(self.min_tier),
            "min_measured": str(self.min_measured),
            "outcomes": sorted(self.outcomes),
            "system_prompts": sorted(self.system_prompts),
            "overrides": None if self.overrides is None else sorted(self.overrides),
            "max_age_seconds": self.max_age_seconds,
            "logs": _texts(self.logs),
            "witnesses": _texts(self.witnesses),
            "witness_threshold": self.witness_threshold,
            "max_log_delay_seconds": self.max_log_delay_seconds,
            "max_status_age_seconds": self.max_status_age_seconds,
            "constitutions": None
            if self.constitutions is None
            else [rule.to_json() for rule in self.constitutions],
            "principles": [rule.to_json() for rule in self.principles],
        }


def _integer(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError("expected a whole number")
    return value


def _integer_or_none(value: Any) -> int | None:
    return None if value is None else _integer(value)


def _names_or_none(value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError("expected a list of names")
    return frozenset(value)


def _list(value: Any) -> list[Any]:
    # A dict and a str can be iterated over too, and mean nothing here.
    if not isinstance(value, list):
        raise TypeError("expected a list")
    return value


def _note_keys(texts: Any) -> tuple[NoteKey, ...] | None:
    return None if texts is None else tuple(map(NoteKey.parse, _list(texts)))


def _rules(items: Any, read: Callable[[object], Any]) -> tuple[Any, ...]:
    if not isinstance(items, list) or len(items) > _MAX_RULES:
        raise TypeError(f"expected a list of at most {_MAX_RULES} rules")
    return tuple(map(read, items))


def _texts(keys: tuple[NoteKey, ...] | None) -> list[str] | None:
    return None if keys is None else list(map(str, keys))


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "authorities": lambda keys: tuple(map(PublicKey.from_jwk, _list(keys))),
    "threshold": _integer,
    "min_tier": Tier,
    "min_measured": Measured,
    "outcomes": lambda names: frozenset(map(Outcome, _list(names))),
    "system_prompts": lambda names: frozenset(map(SystemPrompt, _list(names))),
    "overrides": _names_or_none,
    "max_age_seconds": _integer_or_none,
    "logs": _note_keys,
    "witnesses": _note_keys,
    "witness_threshold": _integer_or_none,
    "max_log_delay_seconds": _integer,
    "max_status_age_seconds": _integer_or_none,
    "constitutions": lambda items: (
        None if items is None else _rules(items, ConstitutionRule.from_json)
    ),
    "principles": lambda items: _rules(items, PrincipleRule.from_json),
}
