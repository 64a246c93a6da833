"""Its place puts this folder on the import path, hence `from fakes.world import …`."""

import pytest
from fakes.attested_gateway import AttestedGateway
from fakes.clients import FLAVOURS, Flavour
from fakes.world import World, make_world


@pytest.fixture(scope="session")
def world() -> World:
    """One signed world; it is a value, so tests may share it."""
    return make_world()


@pytest.fixture
def attested(world: World) -> AttestedGateway:
    """A fake gateway of this world that behaves, until a test tells it otherwise."""
    return AttestedGateway(world)


@pytest.fixture(params=FLAVOURS, ids=str)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """Each of the verifying transports: httpx and httpx2, sync and async."""
    flavour: Flavour = request.param
    return flavour
