import pytest
from fakes.profiled import World


@pytest.fixture(scope="session")
def trained():
    return World()


@pytest.fixture
def world(trained):
    """Principle a in layer 1 and b in layer 2, before the governed stage."""
    return trained.reset()
