"""A model of 2 TB over 64 ranks: its tensor tree, its manifest, its reports.

See `scale.py`. The descriptors are synthetic, the tensors are not there; what hashing
them takes follows from a rate that is measured in memory.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from scale_meter import cost

from attest.canonical import read_object
from attest.errors import AttestError
from attest.hashing import ModelFile, hash_files, hash_tensors
from attest.keys import PrivateKey
from attest.manifest import (
    check_tensors,
    open_manifest,
    parse_statement,
    sign_statement,
)
from attest.statement import MAX_LISTED_TENSORS, Terms, build_predicate
from attest.weights import TensorDigest, tensor_root
from gateway.engine.client import MAX_EVIDENCE_BYTES
from gateway.engine.reference import reference_bytes
from gateway.engine.vllm_plugin.check import (
    Reference,
    WeightCheck,
    WeightsRefusedError,
)
from gateway.engine.vllm_plugin.tree import Tensor
from gateway.errors import StartupRefusedError
from gateway.serving import check_arguments, check_evidence

RANKS, LAYERS, EXPERTS = 64, 126, 256
HIDDEN, INNER, VOCABULARY = 7168, 1408, 128_256
SHARDS = 400  # of 5 GB
# What vLLM needs to know where ranks are on several hosts, or hold their experts alone.
_FLAGS = (
    "--nnodes=8",
    "--distributed-executor-backend=ray",
    "--enable-expert-parallel",
    "--enable-ep-weight-filter",
)
_NONCE = "n" * 32


def _digest(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()


def descriptors(experts: int) -> Iterator[TensorDigest]:
    """The tensors of a mixture of experts as Hugging Face names them, in BF16."""

    def tensor(name: str, *shape: int) -> TensorDigest:
        return TensorDigest(name, "BF16", shape, _digest(name))

    yield tensor("model.embed_tokens.weight", VOCABULARY, HIDDEN)
    yield tensor("model.norm.weight", HIDDEN)
    yield tensor("lm_head.weight", VOCABULARY, HIDDEN)
    for layer in range(LAYERS):
        base = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield tensor(f"{base}.{norm}.weight", HIDDEN)
        for part in "qkvo":
            yield tensor(f"{base}.self_attn.{part}_proj.weight", HIDDEN, HIDDEN)
        yield tensor(f"{base}.mlp.gate.weight", experts, HIDDEN)
        for expert in range(experts):
            one = f"{base}.mlp.experts.{expert}"
            yield tensor(f"{one}.gate_proj.weight", INNER, HIDDEN)
            yield tensor(f"{one}.up_proj.weight", INNER, HIDDEN)
            yield tensor(f"{one}.down_proj.weight", HIDDEN, INNER)


def _refused(work: Callable[[], object]) -> str:
    """What the refusal says.

    Raises:
        AssertionError: nothing was refused.
    """
    try:
        work()
    except (AttestError, WeightsRefusedError) as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    raise AssertionError("accepted")


def measure_tree(experts: int) -> dict[str, Any]:
    """Root over all tensors; the check that each rank makes; what the file says."""
    found: dict[str, Any] = {}
    with cost(found, "descriptors"):
        tensors = tuple(descriptors(experts))
    found["tensors"] = len(tensors)
    with cost(found, "root"):
        root = tensor_root(tensors)
    plain = [
        Tensor(t.name, t.dtype, t.shape, t.sha256.removeprefix("sha256:"))
        for t in tensors
    ]
    reference = Reference(root, None, "")
    with cost(found, "rank_check"):
        check = WeightCheck(reference)
        for tensor in plain:
            check.accept(tensor)
        assert check.finish() == root
    return found


def _evidence(manifest: Any, ranks: int) -> dict[str, Any]:
    load = {
        "root": manifest.tensor_root,
        "count": manifest.tensor_count,
        "bytes": 2 * 10**12,
        "seconds": 1500.123,
        "reference_sha256": "0" * 64,
    }
    workers = [
        {"pid": 1000 + rank, "rank": rank, "started": 1, "loads": [load]}
        for rank in range(ranks)
    ]
    shapes: dict[str, Any] = {"serving_state": {}, "entry_points": {}, "versions": {}}
    return {"nonce": _NONCE, "routes": [], "workers": workers, **shapes}


def _until_state(manifest: Any, data: bytes) -> str:
    """Judge a report whose workers alone are filled in: what stopped it."""
    evidence = read_object(data, max_bytes=MAX_EVIDENCE_BYTES)
    try:
        check_evidence(manifest, evidence, nonce=_NONCE, dtype="")
    except StartupRefusedError as error:
        return str(error)
    raise AssertionError("an empty serving state was accepted")


def measure_manifest(experts: int) -> dict[str, Any]:
    """Sign, open and compare; then the 64 reports; then what must be refused."""
    tensors = tuple(descriptors(experts))
    key = PrivateKey.generate()
    names = [f"model-{i:05d}-of-{SHARDS:05d}.safetensors" for i in range(SHARDS)]
    files = {name: _digest(name) for name in ("config.json", "tokenizer.json", *names)}
    found: dict[str, Any] = {"tensors": len(tensors)}

    def sign(listed: tuple[TensorDigest, ...]) -> bytes:
        predicate = build_predicate(
            {"model": {"name": "large", "version": "1"}, "constitution": None},
            subjects=files,
            tensors=listed,
            terms=Terms(not_before=1_800_000_000, dtypes=["bfloat16"]),
        )
        return sign_statement(files, predicate, [key])

    with cost(found, "sign"):
        envelope = sign(tensors)
    parse_statement.cache_clear()  # signing has read it back
    with cost(found, "open"):
        manifest = open_manifest(envelope, [key.public])
    found["envelope_bytes"] = len(envelope)
    found["lists_tensors"] = bool(manifest.tensors)
    found["reference_bytes"] = len(reference_bytes(manifest))
    with cost(found, "compare"):
        check_tensors(manifest, tensors)

    swapped = list(tensors)
    swapped[-1] = TensorDigest(swapped[-1].name, "BF16", (1,), swapped[-2].sha256)
    found["one_tensor_changed"] = _refused(lambda: check_tensors(manifest, swapped))

    listed = tensors[:MAX_LISTED_TENSORS]
    full = sign(listed)
    found["at_cap"] = {"tensors": len(listed), "envelope_bytes": len(full)}
    parse_statement.cache_clear()
    with cost(found["at_cap"], "open"):
        open_manifest(full, [key.public])

    data = json.dumps(_evidence(manifest, RANKS)).encode()
    found["report_bytes"] = len(data)
    started = time.perf_counter()
    beyond = _until_state(manifest, data)
    found["report_judged_ms"] = (time.perf_counter() - started) * 1e3
    assert "weights" not in beyond, beyond
    assert "loads" not in beyond, beyond
    wrong = _evidence(manifest, RANKS)
    last = wrong["workers"][-1]["loads"][0]
    wrong["workers"][-1]["loads"] = [last | {"root": _digest("another")}]
    found["one_rank_differs"] = _until_state(manifest, json.dumps(wrong).encode())
    assert "weights root" in found["one_rank_differs"]
    found["rank_that_skips_experts"] = _refused(
        lambda: _check_share(tensors, manifest.tensor_root, rank=0)
    )
    found["flags_refused"] = [
        flag for flag in _FLAGS if _refused(lambda flag=flag: check_arguments([flag]))
    ]
    return found


def _check_share(tensors: tuple[TensorDigest, ...], root: str, *, rank: int) -> None:
    """What a rank's check says that saw only its own experts (expert parallelism)."""
    own = range(rank * EXPERTS // RANKS, (rank + 1) * EXPERTS // RANKS)
    check = WeightCheck(Reference(root, None, ""))
    for item in tensors:
        parts = item.name.split(".experts.")
        if len(parts) == 1 or int(parts[1].split(".")[0]) in own:
            digest = item.sha256.removeprefix("sha256:")
            check.accept(Tensor(item.name, item.dtype, item.shape, digest))
    check.finish()


def _write_model(path: Path, mebibytes: int) -> int:
    """One safetensors file of tensors as large as those of the experts, 20 MB each."""
    rows = [INNER, HIDDEN]
    size = 2 * INNER * HIDDEN
    count = mebibytes * (1 << 20) // size
    header = {
        f"t{i}": {
            "dtype": "BF16",
            "shape": rows,
            "data_offsets": [i * size, (i + 1) * size],
        }
        for i in range(count)
    }
    encoded = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for _ in range(count):
            file.write(os.urandom(size))
    return path.stat().st_size


def measure_hashing(folder: Path, *, mebibytes: int) -> dict[str, float]:
    """Bytes a second: of SHA-256 alone, then of the project's readers on one thread.

    `folder` should be in memory: the rate of a disk is another question.
    """
    path = folder / "model.safetensors"
    size = _write_model(path, mebibytes)
    files = [ModelFile(path.name, path, size)]
    data = bytes(64 << 20)
    turns = max(1, mebibytes // 64)
    works: Mapping[str, tuple[int, Callable[[], object]]] = {
        "sha256": (
            turns * len(data),
            lambda: [hashlib.sha256(data).digest() for _ in range(turns)],
        ),
        "hash_files": (size, lambda: hash_files(files, threads=1)),
        "hash_tensors": (size, lambda: hash_tensors(files, threads=1)),
    }
    rates = {}
    for name, (count, work) in works.items():
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rates[f"{name}_per_wall_s"] = count / wall
        rates[f"{name}_per_cpu_s"] = count / cpu
    path.unlink()
    return rates


def passes(rate: float) -> list[dict[str, Any]]:
    """Seconds of hashing that a start of the whole model takes; a division, not a run.

    Args:
        rate: bytes a second that one core reads from memory and hashes.

    The `attested` loader lets vLLM read all tensors in every rank, each of which keeps
    its part, and demands the root over all: so each rank hashes the whole model.
    """
    size = 2 * sum(_elements(item) for item in descriptors(EXPERTS))
    rows = (
        ("the gateway's own check, 2 threads", size, 2),
        ("each rank today, 1 core", size, 1),
        ("each rank today, 4 threads", size, 4),
        ("each rank if it hashed only its share, 1 core", size // RANKS, 1),
    )
    return [
        {"pass": name, "bytes": count, "seconds": count / rate / cores}
        for name, count, cores in rows
    ]


def _elements(tensor: TensorDigest) -> int:
    return math.prod(tensor.shape)
