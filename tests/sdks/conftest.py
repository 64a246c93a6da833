"""A gateway over a loopback port, for libraries that bring an OpenAI SDK of their own.

They want openai 2 where the rest of the tests has openai 3, so `make sdks` runs this
folder in an environment of its own; elsewhere what is not installed is left out.
"""

import importlib.util
import time

import pytest
from fakes.attested_gateway import AttestedGateway, serve
from fakes.world import World, make_world

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
