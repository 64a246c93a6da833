"""Fixtures of all tests; `pythonpath` in pyproject.toml lets them import `fakes`."""

import pytest
from fakes.attested_gateway import AttestedGateway
from fakes.clients import FLAVOURS, Flavour
from fakes.world import World, make_world
from hypothesis import HealthCheck, settings

# How fast the machine is says nothing about the code.
settings.register_profile(
    "steady", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")


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
