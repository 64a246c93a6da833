"""What it costs to load a model that is verified, through vLLM's own loader.

    python bench/library/loading.py [--quick] [--rounds 3] [--gib 2] [--folder DIR]

A Llama in bfloat16 with random bytes, in shards of half a GiB, is loaded into vLLM's
model by vLLM's loader, each time in a process of its own (forked, after vLLM was
imported) and with files that no page cache holds. The ways take turns:

    plain     vLLM's `safetensors`
    tensors   `attested`: each tensor is hashed in the very memory that is loaded
    files     every file is hashed (`check_model_directory`), then loaded plainly
    both      the same, then loaded as `attested`: a start of the gateway
    sealed    every file is copied into sealed memory and hashed there, then loaded

A figure is the median over the rounds of the ratio to `plain` of the same round. What a
process read from the disk is its `read_bytes`, so that nothing warm passes for cold.
"""

import hashlib
import importlib
import json
import mmap
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common import Result, arguments, finish, grid, started

# Before vLLM is imported: it logs a page for each process, and would look for GPUs.
os.environ |= {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_TARGET_DEVICE": "cpu"}
os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
os.environ["VLLM_PLUGINS"] = "attested"

import numpy as np
from fakes.tiny_model import make_tiny_llama
from fakes.world import DAY, NOW

from attest.hashing import hash_files, hash_tensors, scan_model, stat_fingerprint
from attest.keys import PrivateKey
from attest.manifest import Manifest, open_manifest, sign_statement
from attest.statement import Terms, build_predicate
from attest.verity import measure_path
from gateway.engine.reference import reference_bytes
from gateway.engine.sealed import seal_model
from gateway.weights import check_model_directory

WAYS = ("plain", "tensors", "files", "both", "sealed")
_SHARD = 1 << 29
_SOON = 0.1  # seconds
_HIDDEN, _INNER, _HEADS, _KEYS, _WORDS = 2048, 5632, 32, 4, 32000
_LAYER_BYTES = 2 * (_HIDDEN * (2 * _HIDDEN + 2 * 64 * _KEYS + 3 * _INNER + 2))


# --- a model ----------------------------------------------------------------------


def _shapes(layers: int) -> dict[str, tuple[int, ...]]:
    keys = 64 * _KEYS
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (_WORDS, _HIDDEN)
    }
    for layer in range(layers):
        at = f"model.layers.{layer}."
        shapes |= {
            f"{at}input_layernorm.weight": (_HIDDEN,),
            f"{at}self_attn.q_proj.weight": (_HIDDEN, _HIDDEN),
            f"{at}self_attn.k_proj.weight": (keys, _HIDDEN),
            f"{at}self_attn.v_proj.weight": (keys, _HIDDEN),
            f"{at}self_attn.o_proj.weight": (_HIDDEN, _HIDDEN),
            f"{at}post_attention_layernorm.weight": (_HIDDEN,),
            f"{at}mlp.gate_proj.weight": (_INNER, _HIDDEN),
            f"{at}mlp.up_proj.weight": (_INNER, _HIDDEN),
            f"{at}mlp.down_proj.weight": (_HIDDEN, _INNER),
        }
    return shapes | {
        "model.norm.weight": (_HIDDEN,),
        "lm_head.weight": (_WORDS, _HIDDEN),
    }


def _shards(shapes: Mapping[str, tuple[int, ...]]) -> list[dict[str, tuple[int, ...]]]:
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = 0
    for name, shape in shapes.items():
        if size > _SHARD:
            shards.append({})
            size = 0
        shards[-1][name] = shape
        size += 2 * int(np.prod(shape))
    return shards


def _write_shard(path: Path, shapes: Mapping[str, tuple[int, ...]], seed: int) -> None:
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    random = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        while end:
            count = min(end, 64 << 20)
            file.write(random.bytes(count))
            end -= count
        file.flush()
        os.fsync(file.fileno())


def make_model(folder: Path, gib: float) -> Path:
    """A model directory with about so many GiB of weights; every file is on disk."""
    ends = 2 * 2 * _WORDS * _HIDDEN
    layers = max(1, round((gib * (1 << 30) - ends) / _LAYER_BYTES))
    make_tiny_llama(folder)  # configuration and tokenizer
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "head_dim": 64,
        "hidden_size": _HIDDEN,
        "intermediate_size": _INNER,
        "num_attention_heads": _HEADS,
        "num_hidden_layers": layers,
        "num_key_value_heads": _KEYS,
        "torch_dtype": "bfloat16",
        "vocab_size": _WORDS,
    }
    (folder / "config.json").write_text(json.dumps(config))
    shards, places = _shards(_shapes(layers)), {}
    for number, shapes in enumerate(shards):
        name = f"model-{number + 1:05}-of-{len(shards):05}.safetensors"
        _write_shard(folder / name, shapes, number)
        places |= dict.fromkeys(shapes, name)
        print(
            f"model: shard {number + 1} of {len(shards)}", file=sys.stderr, flush=True
        )
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def sign(folder: Path) -> Manifest:
    """The model's manifest, signed and opened again."""
    files = scan_model(folder)
    subjects, authority = hash_files(files), PrivateKey.generate()
    predicate = build_predicate(
        {"model": {"name": "bench", "version": "1"}, "constitution": None},
        subjects=subjects,
        tensors=hash_tensors(files),
        terms=Terms(not_before=NOW - 30 * DAY, dtypes=["bfloat16"]),
    )
    envelope = sign_statement(subjects, predicate, [authority])
    return open_manifest(envelope, [authority.public])


def drop_caches(folder: Path) -> None:
    """Let the kernel forget what it has of these files (posix_fadvise)."""
    for path in folder.iterdir():
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def touch_memory(size: int) -> None:
    """Have so many bytes in hand before the clock runs.

    A virtual machine may give free memory back to its host after seconds (free page
    reporting). To fetch it again can take longer than all else here, and would be paid
    by whoever comes first.
    """
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(li.split()[1]) for li in lines if li.startswith("MemAvailable"))
    size = min(size, free * 1024 // 2)
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, size, 4096):
        memory[at] = 1
    memory.close()


# --- one load, in a process of its own --------------------------------------------


class _Clock:
    """Wall, CPU and bytes read from the disk, from here to `read`."""

    def __init__(self) -> None:
        self._begun = self._now()

    @staticmethod
    def _now() -> tuple[float, float, int]:
        lines = Path("/proc/self/io").read_text().splitlines()
        read = next(int(li.split()[1]) for li in lines if li.startswith("read_bytes"))
        return time.perf_counter(), time.process_time(), read

    def read(self) -> tuple[float, float, int]:
        wall, cpu, read = (b - a for a, b in zip(self._begun, self._now(), strict=True))
        return wall, cpu, int(read)


def _vllm_model(folder: Path, load_format: str, extra: dict[str, Any]) -> Any:
    """vLLM's empty model, the loader, and the configuration of both."""
    from vllm.config import set_current_vllm_config  # noqa: PLC0415  # seconds
    from vllm.distributed import (  # noqa: PLC0415
        init_distributed_environment,
        initialize_model_parallel,
    )
    from vllm.engine.arg_utils import EngineArgs  # noqa: PLC0415
    from vllm.model_executor.model_loader import get_model_loader  # noqa: PLC0415
    from vllm.model_executor.model_loader.utils import (  # noqa: PLC0415
        initialize_model,
    )
    from vllm.utils.torch_utils import set_default_torch_dtype  # noqa: PLC0415

    config = EngineArgs(
        model=str(folder),
        load_format=load_format,
        model_loader_extra_config=extra,
        dtype="bfloat16",
        enforce_eager=True,
        max_model_len=256,
        use_tqdm_on_load=False,
    ).create_engine_config()
    with tempfile.NamedTemporaryFile() as meeting, set_current_vllm_config(config):
        init_distributed_environment(1, 0, f"file://{meeting.name}", 0, "gloo")
        initialize_model_parallel()
        with set_default_torch_dtype(config.model_config.dtype):
            model = initialize_model(config, model_config=config.model_config)
        return model, get_model_loader(config.load_config), config


def _checked(root: Path, manifest: Manifest) -> None:
    check_model_directory(root, manifest, lambda *_: None)


def _load(way: str, root: Path, manifest: Manifest, run: Path) -> dict[str, Any]:
    from vllm.config import set_current_vllm_config  # noqa: PLC0415  # seconds

    reference = run / "reference.json"
    reference.write_bytes(reference_bytes(manifest))
    attested = way in ("tensors", "both")
    sha256 = hashlib.sha256(reference.read_bytes()).hexdigest()
    extra = {"reference": str(reference), "reference_sha256": sha256}
    # Needs the folder to be there; sealed copies are linked under the same names.
    model, loader, config = _vllm_model(
        root, "attested" if attested else "safetensors", extra if attested else {}
    )
    drop_caches(root)
    # Page cache, model, and copies; a third more than that.
    size = sum(file.size for file in scan_model(root))
    touch_memory(4 * size)
    clock, sealed = _Clock(), None
    if way in ("files", "both"):
        _checked(root, manifest)
    elif way == "sealed":
        sealed = seal_model(
            scan_model(root), manifest.subjects, run / "model", shards=True
        )
        config.model_config.model = str(sealed.folder)
    before = clock.read()
    if before[0] > _SOON:
        touch_memory(2 * size)  # what was touched may be the host's again
    clock = _Clock()
    with set_current_vllm_config(config):
        loader.load_weights(model, config.model_config)
    wall, cpu, read = (a + b for a, b in zip(before, clock.read(), strict=True))
    if sealed is not None:
        sealed.close()
    count = sum(parameter.numel() for parameter in model.parameters())
    return {
        "way": way,
        "wall": wall,
        "cpu": cpu,
        "before": before[0],
        "read": read,
        "parameters": count,
    }


def _run(pipe: Any, work: Callable[..., object], *arguments: Any) -> None:
    with tempfile.TemporaryDirectory() as run:
        pipe.send(work(*arguments, Path(run)))


def _apart(*work: Any) -> Any:
    """What a forked process makes of it.

    Raises:
        SystemExit: it failed; its traceback is on stderr.
    """
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(theirs, *work))
    process.start()
    theirs.close()
    try:
        return mine.recv()
    except EOFError:
        raise SystemExit("loading: a process failed, see above") from None
    finally:
        process.join()


# --- all of it --------------------------------------------------------------------


def _again(root: Path) -> dict[str, float | None]:
    """What a restart with unchanged files costs before it loads: milliseconds."""
    began = time.perf_counter()
    first = stat_fingerprint(scan_model(root))
    middle = time.perf_counter()
    digests = [measure_path(file.path) for file in scan_model(root)]
    last = time.perf_counter()
    known = None not in digests
    return {
        "stat": 1e3 * (middle - began),
        "same": float(first == stat_fingerprint(scan_model(root))),
        "fs_verity": 1e3 * (last - middle) if known else None,
        "fs_verity_asked": 1e3 * (last - middle),
    }


def _ratios(rows: list[dict[str, Any]], way: str, what: str) -> list[float]:
    rounds = {row["round"] for row in rows}
    found = {(row["round"], row["way"]): row[what] for row in rows}
    return [found[r, way] / found[r, "plain"] for r in sorted(rounds)]


def results(
    rows: list[dict[str, Any]], again: Mapping[str, Any], size: int
) -> list[Result]:
    """The lines of the table.

    Raises:
        SystemExit: a load did not read the files from the disk.
    """
    warm = [row["way"] for row in rows if row["read"] < 0.9 * size]
    if warm:
        raise SystemExit(f"loading: not cold: {warm}; --folder DIR on another disk")
    texts = {
        "tensors": "load, each tensor hashed in memory (attested)",
        "files": "load, files hashed before",
        "both": "load, files hashed before and tensors while loading",
        "sealed": "load from sealed memory",
    }
    lines = [
        Result(
            f"{text}, cold files: wall, plain load",
            statistics.median(_ratios(rows, way, "wall")),
            "x",
            1.1 if way == "tensors" else None,
        )
        for way, text in texts.items()
        if any(row["way"] == way for row in rows)
    ]
    lines += [
        Result(
            f"{texts[way]}: CPU, plain load",
            statistics.median(_ratios(rows, way, "cpu")),
            "x",
        )
        for way in ("tensors",)
        if any(row["way"] == way for row in rows)
    ]
    why = "this file system or kernel knows no fs-verity (the ioctl was refused)"
    lines += [
        Result("restart, unchanged files: fingerprint", again["stat"], "ms", 100),
        Result(
            "restart, fs-verity: the kernel's digests",
            again["fs_verity"],
            "ms",
            100,
            why_not=why,
        ),
    ]
    return lines


def _shown(rows: list[dict[str, Any]]) -> str:
    lines = [["", "wall s", "of it before loading", "CPU s", "read, GB"]]
    for way in dict.fromkeys(row["way"] for row in rows):
        of_way = [row for row in rows if row["way"] == way]
        cells = [
            statistics.median(row[what] for row in of_way)
            for what in ("wall", "before", "cpu", "read")
        ]
        cells[3] /= 1e9
        lines.append([way, *(f"{cell:.2f}" for cell in cells)])
    return grid(lines)


def _options(parser: ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--gib", type=float)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")


def main() -> None:
    options = arguments(__doc__, _options)
    rounds = options.rounds or (1 if options.quick else 3)
    gib = options.gib or (0.5 if options.quick else 2.0)
    begun = started()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        root = make_model(Path(folder) / "model", gib)
        manifest = sign(root)
        size = sum(file.size for file in scan_model(root))
        importlib.import_module("vllm.model_executor.model_loader")  # for all forks

        rows: list[dict[str, Any]] = []
        for number in range(rounds):
            for way in options.ways[:: -1 if number % 2 else 1]:
                row = _apart(_load, way, root, manifest)
                rows.append({"round": number, **row})
                print(
                    f"round {number + 1}: {way} {row['wall']:.2f} s, CPU "
                    f"{row['cpu']:.2f} s, {row['read'] / 1e9:.2f} GB read",
                    file=sys.stderr,
                    flush=True,
                )
        again = _again(root)
    gib, count = size / (1 << 30), len(manifest.tensors)
    print(f"{gib:.2f} GiB, {count} tensors, {rounds} rounds\n")
    print(_shown(rows) + "\n")
    detail = {"bytes": size, "rows": rows, "restart": again}
    finish(results(rows, again, size), detail, options, begun)


if __name__ == "__main__":
    main()
