"""A pod on this machine: gateway and stock vLLM as separate processes of two users.

`shared` is the volume that both mount, with a group of both as Kubernetes' `fsGroup`
makes it. It is the gateway's, and the sticky bit keeps the engine from replacing what
the gateway wrote there; the gateway may remove the socket of an engine that was killed.
The weights belong to root and are read-only for both. The engine's Python has vLLM and
not this project; the plug-in comes as a folder on a path.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fakes.model import sign_model
from fakes.processes import descendants
from fakes.tiny_model import make_tiny_llama

from attest.delivery import WELL_KNOWN
from gateway.http import httpx

__all__ = ["ENGINE_UID", "GATEWAY_UID", "POD_GID", "Pod", "python_for_all"]

GATEWAY_UID, ENGINE_UID, POD_GID = 45001, 45002, 45000
READY_SECONDS = 500
_PROJECT = Path(__file__).parents[2]


def python_for_all() -> str | None:
    """An interpreter of this version that every user may run; None without one."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    question = "import json, sqlite3, ssl, sys; print(sys.version, sys.base_prefix)"
    for found in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        # One whose library is closed to a user may start all the same, with another's.
        answers = [
            subprocess.run(
                [*who, found, "-c", question], capture_output=True, check=False
            )
            for who in ([], _as(GATEWAY_UID))
            if Path(found).exists()
        ]
        outputs = {answer.stdout for answer in answers}
        if len(answers) == 2 and len(outputs) == 1 and outputs != {b""}:
            return found
    return None


def _as(uid: int) -> list[str]:
    ids = (f"--reuid={uid}", f"--regid={uid}", f"--groups={POD_GID}")
    return ["setpriv", *ids, "--"]


def _site_packages() -> Path:
    return Path(next(p for p in sys.path if p.endswith("site-packages")))


class Pod:
    """One pod; leave it by `close`."""

    def __init__(self, python: str):
        # pytest's own folders are closed to other users.
        self.root = Path(tempfile.mkdtemp(prefix="pod-"))
        self.root.chmod(0o755)
        self.python = self._venv(python)
        self.model = make_tiny_llama(self.root / "model")
        self.other = make_tiny_llama(self.root / "other", seed=1)
        for path in (*self.model.iterdir(), *self.other.iterdir()):
            path.chmod(0o644)
        self.shared = self._folder("shared", GATEWAY_UID)
        os.chown(self.shared, GATEWAY_UID, POD_GID)
        self.shared.chmod(0o3775)
        # Other engines of this machine are in one network namespace with this one.
        self.socket = self.shared / f"{self.root.name}.sock"
        self.reference = self.shared / "reference.json"
        self._sign()
        self._processes, self._logs = [], []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def _folder(self, name, uid):
        path = self.root / name
        path.mkdir(mode=0o755, parents=True)
        os.chown(path, uid, uid)
        return path

    def _venv(self, python):
        """All packages of this environment but this project's own."""
        venv = self.root / "stock"
        packages = venv / "lib" / "python{}.{}".format(*sys.version_info[:2])
        packages = packages / "site-packages"
        packages.mkdir(parents=True)
        (venv / "bin").mkdir()
        home = Path(python).resolve().parent
        (venv / "pyvenv.cfg").write_text(f"home = {home}\n")
        (venv / "bin" / "python").symlink_to(python)
        for entry in _site_packages().iterdir():
            ours = "attest_gateway" in entry.name or entry.suffix == ".pth"
            if not ours and entry.name != "__pycache__":
                (packages / entry.name).symlink_to(entry)
        return venv / "bin" / "python"

    def _sign(self):
        signed = sign_model(self.model, "tiny", now=int(time.time()))
        self.policy = signed.policy
        keys = self._folder("keys", GATEWAY_UID)
        signed.write_keys(keys)
        os.chown(keys / "issuer.pem", GATEWAY_UID, GATEWAY_UID)
        self._folder("state", GATEWAY_UID)

    def _spawn(self, uid, command, environment, name, umask=0o022):
        log = (self.root / f"{name}.log").open("wb")
        self._logs.append(log)
        process = subprocess.Popen(
            [*_as(uid), *map(str, command)],
            env=environment,
            cwd="/",
            stdout=log,
            stderr=log,
            start_new_session=True,
            umask=umask,
        )
        self._processes.append(process)
        return process

    def start_gateway(self, *, name="gateway"):
        """The gateway's container."""
        keys = self.root / "keys"
        command = [
            *(self.python, "-m", "gateway.cli", "serve", "--model", self.model),
            *("--authority", keys / "authority.pem"),
            *("--signer", f"file:{keys / 'issuer.pem'}"),
            *("--state-dir", self.root / "state", "--port", str(self.port)),
            *("--upstream", f"unix:{self.socket}"),
            *("--reference-file", self.reference),
            *("--load-report", self.shared / "report.json"),
        ]
        environment = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(_PROJECT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "ATTEST_RECHECK_SECONDS": "5",
        }
        self.gateway = self._spawn(GATEWAY_UID, command, environment, name)
        return self.gateway

    def install_plugin(self):
        """What the init container does; returns environment and flags as it says."""
        done = subprocess.run(
            [
                *(sys.executable, "-m", "gateway.cli", "plugin", "install"),
                *(self.root / "plugin", "--reference", self.reference),
                *("--report", self.shared / "report.json"),
            ],
            capture_output=True,
            text=True,
            check=True,
            cwd=_PROJECT,
        )
        *lines, flags = done.stdout.splitlines()
        return dict(line.split("=", 1) for line in lines), flags

    def start_engine(self, *, model=None, plugin=True, name="engine"):
        """The engine's container: `python -m vllm…`, as its image would start it."""
        environment, flags = self.install_plugin() if plugin else ({}, "")
        home = self._folder(f"home-{name}", ENGINE_UID)
        environment |= {
            "PATH": "/usr/bin:/bin",
            "HOME": str(home),
            "TMPDIR": str(home),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "TORCHDYNAMO_DISABLE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
        }
        command = [
            *(self.python, "-m", "vllm.entrypoints.launchers.api_server.entry"),
            *("--uds", self.socket, "--model", model or self.model),
            *("--served-model-name", "tiny", "--max-model-len", "512"),
            *("--dtype", "float32", "--enforce-eager"),
            *shlex.split(flags),
        ]
        # The plug-in lets the group connect; without it whoever starts the engine must.
        umask = 0o022 if plugin else 0o002
        self.engine = self._spawn(ENGINE_UID, command, environment, name, umask)
        return self.engine

    def get(self, path):
        """Status of a path of the gateway; 0 where it does not listen."""
        try:
            return httpx.get(f"{self.url}{path}", timeout=10).status_code
        except httpx.TransportError:
            return 0

    def wait(self, condition, *processes):
        """Wait; fails with the end of both logs once one of the processes has ended."""
        deadline = time.monotonic() + READY_SECONDS
        while not condition():
            ended = [p for p in processes if p.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise AssertionError(self.logged())
            time.sleep(0.2)

    def logged(self):
        """The end of every log."""
        logs = sorted(self.root.glob("*.log"))
        return "\n".join(f"{p.name}: {p.read_text()[-3000:]}" for p in logs)

    def may_write(self, uid, path):
        """Whether a user could write to a file."""
        code = "import os, sys; sys.exit(not os.access(sys.argv[1], os.W_OK))"
        done = subprocess.run(
            [*_as(uid), self.python, "-c", code, path], check=False, cwd="/"
        )
        return done.returncode == 0

    def boot(self):
        """The endorsements as the gateway publishes them."""
        return json.loads(httpx.get(f"{self.url}{WELL_KNOWN}", timeout=10).content)

    def end(self, process):
        """Kill a container: all its processes."""
        pids = [process.pid, *descendants(process.pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def close(self):
        """End everything and remove it."""
        for process in self._processes:
            if process.poll() is None:
                self.end(process)
        # Workers outlive an engine that ended by itself; the users are ours alone.
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if folder.stat().st_uid in {ENGINE_UID, GATEWAY_UID}:
                    os.kill(int(folder.name), signal.SIGKILL)
        for log in self._logs:
            log.close()
        shutil.rmtree(self.root)
