"""Who is measured, and how each is started: one worker, on the core that is given."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["DIRECT", "OURS", "Peer", "Started", "peers"]

HERE = Path(__file__).parent
DIRECT, OURS = "direct", "gateway"
_START_SECONDS = 90
# What is aimed at of these; LiteLLM alone would take as long as all others.
_ROUTERS = ("json 1", "json 32")

_NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 20000; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 512; }}
  server {{
    listen 127.0.0.1:{port} backlog=8192; keepalive_requests 100000000;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""

_LITELLM = """
model_list:
  - model_name: tiny
    litellm_params:
      model: openai/tiny
      api_base: http://127.0.0.1:{engine}/v1
      api_key: none
litellm_settings: {{num_retries: 0, telemetry: false}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}
"""


@dataclass
class Started:
    """A peer that takes connections."""

    name: str
    port: int
    process: subprocess.Popen | None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@dataclass(frozen=True)
class Peer:
    """One row of the table.

    Attributes:
        command: what to start, given port, the engine's port and a folder of its own.
        phases: what it is measured in; empty for everything.
        wide: whether it may use all cores, beside engine and load.
        note: what a reader of its row should know.
    """

    name: str
    command: Callable[[int, int, Path], list[str]] = field(repr=False)
    phases: tuple[str, ...] = ()
    note: str = ""
    wide: bool = False

    def start(self, engine: int, folder: Path, core: int | None) -> Started:
        """Start it; returns when it listens."""
        port = free_port()
        own = folder / self.name.replace(" ", "-")
        own.mkdir(exist_ok=True)
        command = self.command(port, engine, own)
        if core is not None and shutil.which("taskset"):
            # The bench itself, from which it would inherit, keeps to one core.
            wanted = f"0-{(os.cpu_count() or 1) - 1}" if self.wide else str(core)
            command = ["taskset", "-c", wanted, *command]
        with (own / "output").open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        wait_for(port, process, own / "output")
        return Started(self.name, port, process)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def wait_for(port: int, process: subprocess.Popen, output: Path) -> None:
    """Return when somebody listens; exits where the process ended before."""
    until = time.monotonic() + _START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    process.kill()
    sys.exit(f"{process.args} does not listen:\n{output.read_text()[-2000:]}")


def _ours(mode: str) -> Callable[[int, int, Path], list[str]]:
    def command(port: int, engine: int, folder: Path) -> list[str]:
        script = str(HERE / "ours.py")
        return [sys.executable, script, mode, str(port), str(engine), str(folder)]

    return command


def _recipe(port: int, engine: int, _: Path) -> list[str]:
    return [sys.executable, str(HERE / "recipe.py"), str(port), str(engine)]


def _nginx(port: int, engine: int, folder: Path) -> list[str]:
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(port=port, engine=engine, folder=folder))
    return [shutil.which("nginx") or "", "-c", str(config), "-p", str(folder)]


def _litellm(program: Path) -> Callable[[int, int, Path], list[str]]:
    def command(port: int, engine: int, folder: Path) -> list[str]:
        config = folder / "litellm.yaml"
        config.write_text(_LITELLM.format(engine=engine))
        return [str(program), "--config", str(config), "--port", str(port)]

    return command


def _router(program: Path) -> Callable[[int, int, Path], list[str]]:
    def command(port: int, engine: int, _: Path) -> list[str]:
        worker = f"http://127.0.0.1:{engine}"
        return [str(program), "--worker-urls", worker, "--port", str(port)]

    return command


def peers(installed: Path) -> list[Peer]:
    """All that can be started here; others are left out.

    Args:
        installed: a virtual environment with LiteLLM and vllm-router, if there is one.
    """
    found = [
        Peer(OURS, _ours("attested"), note="attested, kept and logged"),
        Peer("not logged", _ours("no-log"), ("json 32",), "attested and kept"),
        Peer("not kept", _ours("no-store"), ("json 32",), "attested only"),
        Peer("1 worker", _ours("attested"), ("json 32",), "on both cores", wide=True),
        Peer("2 workers", _ours("workers"), ("json 32",), "on both cores", wide=True),
        Peer("not attested", _ours("off"), note="the same gateway, only passing on"),
        Peer("recipe", _recipe, note="FastAPI, StreamingResponse, httpx; no hashing"),
    ]
    if shutil.which("nginx"):
        found.insert(0, Peer("nginx", _nginx, note="moves bytes"))
    for name, make in (("vllm-router", _router), ("litellm", _litellm)):
        program = installed / "bin" / name
        if program.exists():
            found.append(Peer(name, make(program), _ROUTERS, note="signs nothing"))
    return found
