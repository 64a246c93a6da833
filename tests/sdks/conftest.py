"""A gateway over a loopback port, for libraries that bring an OpenAI SDK of their own.

They want openai 2 where the rest of the tests has openai 3, so `make sdks` runs this
folder in an environment of its own; elsewhere what is not installed is left out.
"""

import importlib.util
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from fakes.attested_gateway import AttestedGateway, serve
from fakes.world import World, make_world

_ROOT = Path(__file__).parents[2]
_PYTHON = Path(os.environ.get("ATTEST_PYTHON", _ROOT / ".venv" / "bin" / "python"))
_NEEDED = {
    "test_langchain.py": "langchain_openai",
    "test_litellm.py": "litellm",
    "test_llamaindex.py": "llama_index",
}
collect_ignore = [
    file for file, name in _NEEDED.items() if importlib.util.find_spec(name) is None
]


@pytest.fixture(scope="session")
def today() -> World:
    """A world of now: these libraries have no clock to set."""
    return make_world(now=int(time.time()))


@pytest.fixture(scope="session")
def _served(today):
    gateway = AttestedGateway(today)
    with serve(gateway) as url:
        yield gateway, f"{url}/v1"


@pytest.fixture
def gateway(_served, today) -> AttestedGateway:
    """The gateway, which behaves until a test tells it otherwise."""
    gateway, _ = _served
    vars(gateway).update(vars(AttestedGateway(today)))
    return gateway


@pytest.fixture
def url(_served) -> str:
    """Where it is, with `/v1` at the end."""
    return _served[1]


@pytest.fixture
def policy(today):
    """What is demanded of every answer."""
    return today.policy


@pytest.fixture
def lying(gateway) -> AttestedGateway:
    """The gateway, behind somebody who changes a word."""
    gateway.mangle = lambda reply: reply.swapped(b"Paris", b"Milan")
    return gateway


class RealGateway:
    """The gateway as it is set up by default; its engine is told what to say.

    It runs in the project's own environment; this one has no web framework.
    """

    def __init__(self):
        paths = f"{_ROOT / 'tests'}{os.pathsep}{_ROOT}"
        self._process = subprocess.Popen(
            [_PYTHON, "-m", "fakes.js.real_gateway"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": paths},
        )
        self.url = json.loads(self._process.stdout.readline())["url"] + "/v1"

    def _ask(self, *command):
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def check(self, way, ask):
        """Let a client ask in one way: it finishes, reads the text, and asks once.

        Some keep one async client for all event loops, which asks again in a new one.
        """
        text = "Paris.\n\ndata: [DONE]\n\n: attestation x\u2028y"
        self._ask("answer", "chat", "stream" in way.__name__, text)
        before = len(self._ask("requests"))
        assert ask(self.url) == text
        if not way.__name__.startswith("a"):
            assert len(self._ask("requests")) == before + 1

    def close(self):
        """End it."""
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@pytest.fixture(scope="session")
def real_gateway():
    """The real gateway; `gateway` above plays one, and can lie."""
    if not _PYTHON.exists():
        pytest.skip("needs .venv")
    gateway = RealGateway()
    yield gateway
    gateway.close()
