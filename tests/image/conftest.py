"""What the tests of the image share."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def tool():
    """The path of a checker that the extra `helm-dev` installs."""

    def _tool(name):
        found = shutil.which(name, path=str(Path(sys.executable).parent))
        assert found, f'{name} is missing; type: pip install -e ".[helm-dev]"'
        return found

    return _tool
