"""Its place puts this folder on the import path, hence `from fakes.world import …`."""

import pytest
from fakes.world import World, make_world


@pytest.fixture(scope="session")
def world() -> World:
    """One signed world; it is a value, so tests may share it."""
    return make_world()
