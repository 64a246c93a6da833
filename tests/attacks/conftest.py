import pytest
from fakes.gateway import running_gateway


@pytest.fixture
async def gateway(tmp_path):
    """The whole data path on real sockets, in front of a scripted engine."""
    async with running_gateway(tmp_path) as running:
        yield running
