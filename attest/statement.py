"""The predicate of a new training manifest, put together from what others found.

The training run says what was trained and how it went; the model directory gives the
digests; the authority decides how, by whom and for how long the weights may be served.
Pure: nothing is read, nothing is signed (`attest.manifest.sign_statement` does that).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import prod
from typing import Any

from attest.digests import digest, to_hex
from attest.dmverity import volume_statement
from attest.errors import ConfigurationError
from attest.figures import settle
from attest.keys import PublicKey
from attest.log.note import NoteKey
from attest.manifest import ISSUER_ROLE, TREE_ALG
from attest.recall import Reference
from attest.weights import TensorDigest, tensor_root

__all__ = ["TRAINING_KEYS", "Terms", "build_predicate", "serving_dtype"]

# What a training run may say. Everything else in a predicate is for the signer to say,
# and a misspelt key must not vanish into a signed document.
TRAINING_KEYS = frozenset(
    {
        "constitution",
        "derivation",
        "evaluation",
        "limits",
        "model",
        "principles",
        "training",
    }
)

# 20,000 entries are about 3.5 MB of JSON; base64 must keep them under the 8 MiB of an
# envelope. Larger models are held by the root alone, and then a mismatch can't name
# its tensor.
MAX_LISTED_TENSORS = 20_000
# Nobody can say today which keys and formats are safe in ten years.
MAX_VALID_DAYS = 3650

_RUNTIME_FILES = {
    "chatTemplate": "chat_template.jinja",
    "generationConfig": "generation_config.json",
    "tokenizer": "tokenizer.json",
}
_SERVING_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
_DAY_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How the authority lets the weights be served. Empty allows nothing of its kind.

    Attributes:
        not_before: start of the validity, in seconds since the epoch, UTC.
        valid_days: its length; delegates may certify keys for as long.
        dtypes: number formats to compute in, by the engine's names.
        system_prompts: name to the exact text, as it will stand in a request.
        delegates: keys that may certify the session keys of gateways.
        free_sharding: the same tensors may lie in other safetensors files.
        logs: keys (vkeys) of the transparency logs that gateways may use.
        witnesses: keys (vkeys) of those who cosign these logs.
        status: the manifest's place in the authority's status list.
        supersedes: digest of the manifest that this one replaces.
        fs_verity: file name to fs-verity digest, by which a kernel that has fs-verity
            can tell a file without reading it.
        dm_verity: root hash in hex of the dm-verity volume that holds exactly the
            model directory; empty for none. Nothing here compares it with the files.
        shortfalls: ids of principles that miss a requirement whose miss should stop
            the signing, and that are signed as missing it.
    """

    not_before: int
    valid_days: int = 365
    engines: Sequence[str] = ("vllm",)
    dtypes: Sequence[str] = ()
    quantizations: Sequence[str] = ()
    adapters: Sequence[str] = ()
    system_prompts: Mapping[str, str] = field(default_factory=dict)
    delegates: Sequence[PublicKey] = ()
    free_sharding: bool = False
    logs: Sequence[NoteKey] = ()
    witnesses: Sequence[NoteKey] = ()
    status: Reference | None = None
    supersedes: str | None = None
    fs_verity: Mapping[str, str] = field(default_factory=dict)
    dm_verity: str = ""
    shortfalls: Sequence[str] = ()


def build_predicate(
    training: Mapping[str, Any],
    *,
    subjects: Mapping[str, str],
    tensors: Sequence[TensorDigest],
    terms: Terms,
) -> dict[str, Any]:
    """The predicate for `sign_statement`, which checks its form.

    Args:
        training: the run's own account; the members are `TRAINING_KEYS`.
        subjects: file name to text digest, every file of the model directory.
        tensors: every tensor of these files.
        terms: how the weights may be served.

    Raises:
        ConfigurationError: `training` holds a member that is unknown or the signer's,
            or `terms` last less than a day or more than ten years.
        FormatError: there are no tensors, one name appears twice, or `dm_verity` is
            not 64 lower-case hex digits.
        FormatError, RunMismatchError, ShortfallError: as `attest.figures.settle`.
    """
    if unknown := sorted(training.keys() - TRAINING_KEYS):
        raise ConfigurationError(
            f"training statement: unknown member {unknown[0]!r}",
            hint=f"known are {', '.join(sorted(TRAINING_KEYS))}",
        )
    if not 1 <= terms.valid_days <= MAX_VALID_DAYS:
        raise ConfigurationError(f"validity: expected 1 to {MAX_VALID_DAYS} days")
    not_after = terms.not_before + terms.valid_days * _DAY_SECONDS
    validity = {"notBefore": _time(terms.not_before), "notAfter": _time(not_after)}
    settled = settle(training.get("principles", []), signed=terms.shortfalls)
    principles = {"principles": settled.principles} if "principles" in training else {}
    return {
        **training,
        **principles,
        "weights": _weights(tensors, terms),
        "runtime": _runtime(subjects, terms),
        "delegations": [
            {"jwk": key.jwk, "role": ISSUER_ROLE, "notAfter": _time(not_after)}
            for key in terms.delegates
        ],
        "validity": validity,
        **_trust_anchors(terms),
        **({} if terms.status is None else {"status": terms.status.to_json()}),
        **({} if terms.supersedes is None else {"supersedes": terms.supersedes}),
    }


def serving_dtype(tensors: Sequence[TensorDigest]) -> str | None:
    """The engine's name of the dtype that most elements are stored in.

    None where that is a packed or quantised format, which says nothing about the
    format that an engine computes in.
    """
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.dtype] += prod(tensor.shape)
    most = elements.most_common(1)
    return _SERVING_DTYPES.get(most[0][0]) if most else None


def _weights(tensors: Sequence[TensorDigest], terms: Terms) -> dict[str, Any]:
    tree = {"alg": TREE_ALG, "root": tensor_root(tensors), "count": len(tensors)}
    weights: dict[str, Any] = {"tensorTree": tree}
    if terms.free_sharding:
        weights["sharding"] = "free"
    if terms.fs_verity:
        weights["fsVerity"] = dict(sorted(terms.fs_verity.items()))
    if terms.dm_verity:
        weights["dmVerity"] = volume_statement(terms.dm_verity)
    if len(tensors) <= MAX_LISTED_TENSORS:
        weights["tensors"] = [
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": list(tensor.shape),
                "sha256": to_hex(tensor.sha256),
            }
            for tensor in tensors
        ]
    return weights


def _runtime(subjects: Mapping[str, str], terms: Terms) -> dict[str, Any]:
    # A template that stands inside tokenizer_config.json has no digest of its own; the
    # file is a subject all the same.
    files = {key: subjects[f] for key, f in _RUNTIME_FILES.items() if f in subjects}
    return {
        **files,
        "engines": list(terms.engines),
        "dtypes": list(terms.dtypes),
        "quantizations": list(terms.quantizations),
        "adapters": list(terms.adapters),
        "systemPrompts": [
            {"name": name, "digest": digest(text.encode())}
            for name, text in terms.system_prompts.items()
        ],
    }


def _trust_anchors(terms: Terms) -> dict[str, Any]:
    found = {"logs": terms.logs, "witnesses": terms.witnesses}
    anchors = {name: list(map(str, keys)) for name, keys in found.items() if keys}
    return {"trustAnchors": anchors} if anchors else {}


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
