"""A signed toy model and a real gateway with a real engine, for the soak."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import yaml

from attest.hashing import MANIFEST_NAME, hash_files, hash_tensors, scan_model
from attest.keys import PrivateKey
from attest.log.note import KeyKind, NoteSigner
from attest.manifest import sign_statement
from attest.signers.file import write_private_key
from attest.statement import Terms, build_predicate
from attest.training.demo.tiny import build_model, build_tokenizer, save

ORIGIN = "soak.test/log"


@dataclass
class Site:
    """One running gateway."""

    root: Path
    process: subprocess.Popen
    url: str

    @property
    def authority(self) -> Path:
        return self.root / "authority.pub.pem"

    @property
    def log(self) -> Path:
        return self.root / "gateway.log"

    async def wait_ready(self, http: httpx2.AsyncClient, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.5)
        sys.exit(f"the gateway did not become ready:\n{self.log.read_text()[-2000:]}")

    def engine_pids(self) -> list[int]:
        """The engine's processes: the gateway's descendants."""
        found, wanted = [], {self.process.pid}
        stats = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                stats[int(entry.name)] = int(fields[1])
        while wanted:
            wanted = {pid for pid, parent in stats.items() if parent in wanted}
            found += wanted
        return found

    def engine_connections(self) -> int:
        """Connections that the engine has accepted on its socket and that stand."""
        path = self._engine_socket()
        lines = Path("/proc/net/unix").read_text().splitlines()[1:]
        # State 03: connected. The listening socket itself is in state 01.
        found = [line.split() for line in lines if path and line.endswith(f" {path}")]
        return sum(fields[5] == "03" for fields in found)

    def _engine_socket(self) -> str:
        for pid in self.engine_pids():
            with suppress(OSError, ValueError):
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                return words[words.index("--uds") + 1]
        return ""

    def audit(self) -> dict:
        """`attest log verify` against the live log."""
        command = [sys.executable, "-m", "attest.cli.main", "log", "verify"]
        command += [f"{self.url}/log", "--authority", str(self.authority)]
        done = subprocess.run(
            [*command, "--format", "json"], capture_output=True, text=True, check=False
        )
        try:
            said = json.loads(done.stdout)
        except ValueError:
            said = {"verdict": done.stderr[-300:]}
        return {
            "code": done.returncode,
            "verdict": said.get("verdict"),
            **said.get("log", {}),
        }

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


def open_files(pid: int) -> list[str]:
    """What the open file descriptors of a process point to."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.append(str(entry.readlink()))
    return found


def resident_mebibytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def prepare(root: Path) -> Site:
    """Make keys, a random model and its manifest; start the gateway."""
    tokenizer = build_tokenizer()
    save(build_model(tokenizer, seed=0), tokenizer, root / "model")
    authority, issuer = PrivateKey.generate(), PrivateKey.generate()
    log = PrivateKey.generate()
    write_private_key(root / "issuer.key.pem", issuer)
    write_private_key(root / "log.key.pem", log)
    (root / "authority.pub.pem").write_bytes(authority.public.pem)
    files = scan_model(root / "model")
    subjects = hash_files(files)
    predicate = build_predicate(
        {"model": {"name": "toy-assistant", "version": "0"}},
        subjects=subjects,
        tensors=hash_tensors(files),
        terms=Terms(
            not_before=int(time.time()) - 60,
            valid_days=2,
            dtypes=["float32"],
            delegates=[issuer.public],
            logs=[NoteSigner(ORIGIN, KeyKind.LOG, log).key],
        ),
    )
    manifest = root / "model" / MANIFEST_NAME
    manifest.write_bytes(sign_statement(subjects, predicate, [authority]))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "model": str(root / "model"),
        "authority": [str(root / "authority.pub.pem")],
        "signer": f"file:{root / 'issuer.key.pem'}",
        "gateway_id": "urn:attest-gateway:soak",
        "state_dir": str(root / "state"),
        "port": port,
        "log_key": str(root / "log.key.pem"),
        "log_origin": ORIGIN,
        "log_requests": False,
        "session_key_seconds": 60,
        "recheck_seconds": 10,
        "canary_seconds": 60,
        "engine": {"max_model_len": 512},
    }
    (root / "gateway.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "gateway.cli", "serve"]
    with (root / "gateway.log").open("wb") as output:
        process = subprocess.Popen(
            [*command, "--config", str(root / "gateway.yaml")],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Site(root, process, f"http://127.0.0.1:{port}")
