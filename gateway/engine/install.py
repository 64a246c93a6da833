"""Putting the plug-in beside a stock vLLM: a folder for its PYTHONPATH.

The folder holds the plug-in under its own name and a `.dist-info` with entry points,
which is all that `importlib.metadata` needs to find it: no pip, nothing of vLLM's own
environment is touched, and nothing else of this project comes along.
"""

import base64
import hashlib
import json
import shutil
from pathlib import Path

from attest._version import __version__
from attest.errors import ConfigurationError

__all__ = ["engine_settings", "install_plugin"]

_PACKAGE = Path("gateway/engine/vllm_plugin")
_MODULE = ".".join(_PACKAGE.parts)
_DIST_INFO = Path(f"attest_gateway-{__version__}.dist-info")
_METADATA = f"""\
Metadata-Version: 2.1
Name: attest-gateway
Version: {__version__}
Summary: The plug-in for vLLM alone; it depends on nothing but vLLM.
"""
# A test holds them equal to those of the whole distribution.
_ENTRY_POINTS = f"""\
[vllm.general_plugins]
attested = {_MODULE}:register

[vllm.endpoint_plugins]
attested_evidence = {_MODULE}.endpoint:EvidencePlugin
"""


def _files() -> dict[Path, bytes]:
    source = Path(__file__).parent / _PACKAGE.name
    found = {_PACKAGE / path.name: path.read_bytes() for path in source.glob("*.py")}
    # Namespaces alone would do for Python, not for whoever looks at the folder.
    for folder in (_PACKAGE.parent, _PACKAGE.parent.parent):
        found[folder / "__init__.py"] = b""
    found[_DIST_INFO / "METADATA"] = _METADATA.encode()
    found[_DIST_INFO / "entry_points.txt"] = _ENTRY_POINTS.encode()
    lines = [f"{path},{_record(data)},{len(data)}" for path, data in found.items()]
    lines = [*sorted(lines), f"{_DIST_INFO / 'RECORD'},,"]
    found[_DIST_INFO / "RECORD"] = ("\n".join(lines) + "\n").encode()
    return found


def _record(data: bytes) -> str:
    encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return f"sha256={encoded.rstrip(b'=').decode()}"


def install_plugin(directory: Path) -> None:
    """Write it; what an earlier version left there is removed.

    Everybody may read it: the engine runs as another user than this command.

    Raises:
        ConfigurationError: the directory can't be written, or holds something else.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        strange = [
            path.name
            for path in directory.iterdir()
            if not path.name.startswith(("gateway", "attest_gateway-"))
        ]
        if strange:
            raise ConfigurationError(
                f"plugin: {directory} holds {strange[0]!a}, which is not the plug-in's",
                hint="choose an empty directory; all in it becomes the engine's code",
            )
        for path in directory.iterdir():
            shutil.rmtree(path)
        for path, data in _files().items():
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        for path in (directory, *directory.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    except OSError as error:
        raise ConfigurationError(
            f"plugin: {directory}: {error.strerror}",
            hint="choose a directory that this user may write",
        ) from error


def engine_settings(
    directory: Path, *, reference: str, report: str = ""
) -> tuple[dict[str, str], list[str]]:
    """What a stock `vllm serve` needs to use it.

    Args:
        directory: where the engine sees the installed folder.
        reference: where the engine sees the gateway's `reference_file`.
        report: where its `load_report` is to be written; empty for none.

    Returns:
        Environment variables and flags.
    """
    extra = {"reference": reference} | ({"report": report} if report else {})
    environment = {
        "PYTHONPATH": str(directory),
        "VLLM_PLUGINS": "attested,attested_evidence",
    }
    flags = [
        "--load-format=attested",
        f"--model-loader-extra-config={json.dumps(extra)}",
        f"--worker-extension-cls={_MODULE}.worker.AttestWorkerExtension",
        # Else the model's generation_config.json sets sampling defaults silently.
        "--generation-config=vllm",
    ]
    return environment, flags
