"""What the engine child is started with: its command line and its environment.

Pure: values in, values out.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attest.errors import ConfigurationError
from gateway.engine.sealed import SealedModel

__all__ = ["EngineSpec", "child_environment", "command_line", "reference_path"]

# sun_path in unix(7) has 108 bytes with the closing NUL. vLLM's own sockets are named
# by a 36-character UUID in the same folder, which makes the tightest name.
_MAX_SOCKET_BYTES = 107
_UUID_LENGTH = 36

# What a GPU build needs to know of its host. None of it names code or files to load.
_INHERITED = (
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "NCCL_IB_DISABLE",
    "NCCL_P2P_DISABLE",
    "NCCL_SOCKET_IFNAME",
)
# Where container tool kits put the driver. LD_LIBRARY_PATH is never inherited, since a
# library placed on it is loaded in the place of the real one.
_DRIVER_FOLDERS = ("/usr/local/nvidia/lib64", "/usr/local/cuda/lib64")
_CUDA_HOME = "/usr/local/cuda"
_WORKER_EXTENSION = "gateway.engine.vllm_plugin.worker.AttestWorkerExtension"


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """One engine to start.

    Attributes:
        python: interpreter that has vLLM and the plug-in, a path or a name on PATH.
        model_dir: the model's folder.
        served_model_name: the name that the engine answers to.
        run_dir: private folder of this start, made by the caller with mode 0700; its
            path has at most 70 bytes.
        reference: JSON object with `root` (text digest) and `tensors` (list of name,
            dtype, shape, sha256 as text digest; or null): what the loader must find.
        dtype: the type to compute in, in vLLM's words, such as `float32`.
        max_model_len: longest context in tokens; None leaves it to the model.
        extra_args: further vLLM flags. They stand before the fixed ones, which win;
            what they may be is the caller's policy.
        start_timeout_seconds: from the start to the first evidence.
        sealed: what keeps the copies in `model_dir` alive; closed when it is stopped.
    """

    python: str
    model_dir: Path
    served_model_name: str
    run_dir: Path
    reference: bytes
    dtype: str
    max_model_len: int | None = None
    extra_args: tuple[str, ...] = ()
    start_timeout_seconds: float = 600
    sealed: SealedModel | None = None

    @property
    def socket(self) -> Path:
        """Where the engine will listen."""
        return self.run_dir.absolute() / "engine.sock"

    def check_paths(self) -> None:
        """Return when every socket in the run folder can have its name.

        Raises:
            ConfigurationError: the folder's path is too long.
        """
        length = len(os.fsencode(self.run_dir.absolute()))
        longest = _MAX_SOCKET_BYTES - 1 - _UUID_LENGTH
        if length > longest:
            raise ConfigurationError(
                f"engine: the path of {self.run_dir} has {length} bytes, at most "
                f"{longest} are possible: a Unix socket's name has at most "
                f"{_MAX_SOCKET_BYTES}",
                hint="choose a folder with a shorter path, such as one in /run or /tmp",
            )


def reference_path(spec: EngineSpec) -> Path:
    """Where the loader reads what it must find."""
    return spec.run_dir.absolute() / "reference.json"


def command_line(spec: EngineSpec, python: str, *, cpu: bool) -> list[str]:
    """The engine's argv.

    Args:
        spec: the engine.
        python: absolute path of the interpreter.
        cpu: whether this is the CPU build of vLLM.
    """
    loader = {
        "reference": str(reference_path(spec)),
        "reference_sha256": hashlib.sha256(spec.reference).hexdigest(),
    }
    # On a CPU there is nothing to capture, and compiling takes a minute; without a
    # size the key-value cache takes most of the memory.
    defaults = ["--enforce-eager", f"--kv-cache-memory-bytes={1 << 30}"] if cpu else []
    length = spec.max_model_len
    return [
        python,
        "-I",  # neither PYTHON* variables nor the user's or the current folder
        "-m",
        "vllm.entrypoints.launchers.api_server.entry",
        *defaults,
        *spec.extra_args,
        f"--uds={spec.socket}",
        f"--model={spec.model_dir.absolute()}",
        f"--served-model-name={spec.served_model_name}",
        f"--dtype={spec.dtype}",
        *([] if length is None else [f"--max-model-len={length}"]),
        "--load-format=attested",
        f"--model-loader-extra-config={json.dumps(loader)}",
        f"--worker-extension-cls={_WORKER_EXTENSION}",
        # Else the model's generation_config.json sets sampling defaults silently.
        "--generation-config=vllm",
        # No prompt in the engine's log, and no line per request.
        "--no-enable-log-requests",
        "--disable-uvicorn-access-log",
        "--disable-fastapi-docs",
    ]


def child_environment(
    spec: EngineSpec, python: str, *, cpu: bool, parent: Mapping[str, str]
) -> dict[str, str]:
    """The engine's whole environment, built from nothing.

    LD_PRELOAD, PYTHONPATH, VLLM_*, SAGEMAKER_*, TORCH* and others make the engine load
    other code or behave otherwise, so that nothing is taken over but the few names of
    `_INHERITED`, and those on GPU builds only.
    """
    run_dir = spec.run_dir.absolute()
    path = [str(Path(python).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    fixed = {
        # Caches of compiled kernels are code: a private, fresh HOME keeps others out.
        "HOME": str(run_dir / "home"),
        "TMPDIR": str(run_dir / "tmp"),
        "PATH": os.pathsep.join(path),
        "LANG": "C.UTF-8",
        # For the interpreters that vLLM starts without -I.
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": "attested,attested_evidence",
        # Else its sockets lie in /tmp, where others can reach them.
        "VLLM_RPC_BASE_PATH": str(run_dir),
        # vLLM runs model.py in this folder, by default one in /opt, if there is one.
        "SAGEMAKER_MODEL_PATH": str(run_dir / "absent"),
    }
    if cpu:
        # Without it the first request for log-probabilities compiles for 36 s.
        return fixed | {"TORCHDYNAMO_DISABLE": "1"}
    libraries = [folder for folder in _DRIVER_FOLDERS if Path(folder).is_dir()]
    if libraries:
        fixed["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
    if Path(_CUDA_HOME).is_dir():  # for kernels that are compiled when first used
        fixed["CUDA_HOME"] = _CUDA_HOME
        fixed["PATH"] += f"{os.pathsep}{_CUDA_HOME}/bin"
    return fixed | {name: parent[name] for name in _INHERITED if name in parent}
